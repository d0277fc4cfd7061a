"""The fair ring: whose turn it is, what a tenant is charged, and how a package moves between its places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tenant_q.brokers.protocol import MOST_DEBT_SECONDS, Lease, Policy
from tenant_q.testing.memory_broker.lanes import Lanes


class Ring(Lanes):
    """The tenants with work queued that neither a pause nor a cap keeps out, in the order of their virtual times."""

    def _policy(self, schema: str) -> Policy:
        return self.in_force.get(schema, Policy())

    def _is_kept_out(self, schema: str) -> bool:
        """Return whether a tenant is paused, or its cap allows no further worker."""
        policy = self._policy(schema)
        busy = {held.worker for held in self.leased.values() if held.lease.schema == schema}
        return policy.paused or (policy.max_running is not None and len(busy) >= policy.max_running)

    def _enter_ring(self, schema: str) -> None:
        """Let a tenant in that may be served. It gets no credit for its absence, and keeps its debt."""
        if schema not in self.ring and self._has_work(schema) and not self._is_kept_out(schema):
            self._note_wait()
            self.virtual[schema] = max(self.virtual[schema], self.ring_time)
            self.ring.add(schema)

    def _note_wait(self) -> None:
        """Note since when others wait for a tenant that runs, before one more enters the ring."""
        if not self.ring:
            self.waited_since, self.alone_until = self.clock(), {}
        elif len(self.ring) == 1:
            self.alone_until[next(iter(self.ring))] = self.clock()

    def _others_waited(self, schema: str) -> float | None:
        """Return for how many ms other tenants have been in the ring without a break; None if there are none."""
        if self.ring <= {schema}:
            return None
        return (self.clock() - max(self.waited_since, self.alone_until.get(schema, 0.0))) * 1000

    def _ahead(self, schema: str) -> float:
        """Return the ms that a tenant is charged for its leases in force."""
        return sum(held.charged for held in self.leased.values() if held.lease.schema == schema)

    # From place to place

    def _push(self, id: str, *, at_head: bool = False) -> None:
        schema = self.messages[id].schema
        lane = self._lane(id)
        if lane:
            self._push_into_lane(id, lane, at_head=at_head)
        else:
            self.queues[schema].insert(0 if at_head else len(self.queues[schema]), id)
        self._enter_ring(schema)

    def _end_lease(self, id: str, used_ms: float = 0.0) -> None:
        self._end_leases({id: used_ms})

    def _end_leases(self, used: Mapping[str, float]) -> None:
        """Settle accounts and end leases, in this order: a capped tenant enters the ring with its debt.

        Args:
            used: The milliseconds used, by id.
        """
        ended: dict[str, list[str]] = defaultdict(list)
        for id in used:
            ended[self.messages[id].schema].append(id)
        for schema, ids in ended.items():
            self._settle(schema, sum(used[id] for id in ids), [self.leased.pop(id).charged for id in ids])
        for schema in ended:
            if schema not in self.ring and not self._ahead(schema) and self.virtual[schema] <= self.ring_time:
                del self.virtual[schema]  # it has caught up
        for schema in ended:
            self._enter_ring(schema)

    def _settle(self, schema: str, used: float, charged: Sequence[float]) -> None:
        """Replace a tenant's expected charge by the actual cost: it owes the time in which others waited.

        If no other tenant waits, the ring's virtual time follows the tenant's, as if it had taken turns with all
        others.
        """
        waited = self._others_waited(schema)
        owed = used if waited is None else min(used, waited)
        refunded = self.virtual[schema] - sum(charged)
        self.virtual[schema] = refunded + owed / self._policy(schema).weight
        if used and waited is None:
            self.ring_time = max(self.ring_time, self.virtual[schema] - self._ahead(schema))
        elif used:
            furthest = max(self.ring_time + MOST_DEBT_SECONDS * 1000, refunded)
            self.virtual[schema] = min(self.virtual[schema], furthest)

    def _return_unrun(self, ids: Iterable[str]) -> int:
        """Put leased packages at the heads of their queues, so that they run in this order; return how many."""
        found = list(dict.fromkeys(ids))
        for id in reversed(found):
            self._end_lease(id)
            self._push(id, at_head=True)
        return len(found)

    def _is_in_force(self, worker: str, lease: Lease) -> bool:
        """Return whether the worker holds the lease with its token."""
        held = self.leased.get(lease.id)
        return held is not None and held.worker == worker and held.lease.token == lease.token

    def _held_by(self, worker: str) -> list[str]:
        return [id for id, held in self.leased.items() if held.worker == worker]
