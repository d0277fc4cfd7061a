"""Policies: what each tenant's weight, limits and pause are in the fair ring."""

from __future__ import annotations

from collections.abc import Mapping

from tenant_q.brokers.protocol import Policy
from tenant_q.testing.memory_broker.ring import Ring


class MemoryPolicies(Ring):
    """The policies, see `protocol.policies`."""

    def set_policies(self, policies: Mapping[str, Policy], *, complete: bool = False) -> None:
        changed = {self._claim(schema): policy for schema, policy in policies.items()}
        before = dict(self.in_force)
        self.in_force = changed if complete else {**self.in_force, **changed}
        for schema in {*before, *changed} & self.virtual.keys():
            self._weigh_debt(schema, before.get(schema, Policy()).weight)
        self.ring = {schema for schema in self.ring if not self._is_kept_out(schema)}
        for schema in [*self.queues, *(self.lanes.keys() - self.queues.keys())]:
            self._enter_ring(schema)

    def _weigh_debt(self, schema: str, before: float) -> None:
        """Keep a tenant's debt in worker-seconds when its weight changes from `before`."""
        start = self.ring_time + self._ahead(schema)
        debt = max(0.0, self.virtual[schema] - start)
        weight = self._policy(schema).weight
        if debt and weight != before:
            self.virtual[schema] = start + debt * before / weight

    def policies(self) -> Mapping[str, Policy]:
        return {self._schema(queue): policy for queue, policy in self.in_force.items()}
