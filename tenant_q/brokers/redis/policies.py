"""Policies: what each tenant's weight, limits and pause are in the fair ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenant_q.brokers.protocol.policies import Policy
from tenant_q.brokers.redis.part import Part, chunks


class RedisPolicies(Part):
    """The policies, see `protocol.policies`."""

    def set_policies(self, policies: Mapping[str, Policy], *, complete: bool = False) -> None:
        keys, gone = self._keys_of(policies), self._queues_with_policies() if complete else set()
        for chunk in chunks(list(policies.items())):
            arguments: list[Any] = [0]
            for schema, one in chunk:
                limits = one.max_running or 0, one.max_queued or 0
                arguments += [schema, keys.get(schema, ""), one.weight, *limits, int(one.paused)]
            gone -= {*self._run("set_policies", *arguments)}
        for names in chunks(sorted(gone)):
            self._run("set_policies", len(names), *names)

    def _queues_with_policies(self) -> set[bytes]:
        with self._errors:
            found: Any = self.client.hkeys(f"{self.tag}:policy")
        return set(found)

    def policies(self) -> Mapping[str, Policy]:
        return {
            schema.decode(): Policy(float(weight), cap or None, limit or None, bool(paused))
            for schema, weight, cap, limit, paused in self._run("policies")
        }
