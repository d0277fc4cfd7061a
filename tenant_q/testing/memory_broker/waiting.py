"""What a tenant has waiting: count, read and take it, each in one slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tenant_q.brokers.protocol import Chosen, Dead, Live, Waiting
from tenant_q.testing.memory_broker.packages import MemoryPackages


class MemoryWaiting(MemoryPackages):
    """What waits, see `protocol.waiting`."""

    def count_waiting(self, schema: str, *, tenant: str | None = None) -> Waiting:
        queue = self._queue(schema, tenant)
        return Waiting(len(self._queued(queue)), len(self._delayed(queue)))

    def _delayed(self, queue: str) -> list[str]:
        return [id for id in self.delayed if self.messages[id].schema == queue]

    def each_live(self, schema: str) -> Iterator[Sequence[Live]]:
        found = self.live(schema, limit=len(self.messages))
        yield sorted(found, key=lambda live: live.place == "leased")

    def take_waiting(
        self, schema: str, chosen: Chosen, cause: str, *, tenant: str | None = None
    ) -> Iterator[Sequence[Dead]]:
        queue = self._queue(schema, tenant)
        waiting = (self._delayed(queue) if chosen.delayed else []) + (self._in_lanes(queue) if chosen.queued else [])
        taken = [id for id in waiting if chosen.func in ("", self.messages[id].func)]
        for id in taken:
            self._leave_place(queue, id)
        for id in sorted(taken):
            self._bury(id, cause)
        if not self._has_work(queue):
            self.ring.discard(queue)
        messages = [self.messages[id] for id in taken]
        yield [Dead(one.id, schema, one.func, self.clock(), cause, one.payload) for one in messages]

    def _in_lanes(self, queue: str) -> list[str]:
        """Return a tenant's queued packages in the order of a walk: lane by lane, then those of its queue."""
        lanes = sorted(self.lanes[queue], key=lambda lane: f"lane;{lane[0]}" + (f";{lane[1]}" if lane[1] else ""))
        return [id for lane in lanes for id in self.lanes[queue][lane]] + self.queues[queue]

    def _leave_place(self, queue: str, id: str) -> None:
        """Remove a waiting package from its place."""
        if id in self.delayed:
            del self.delayed[id]
            self.unready.discard(id)
        elif id in self.queues[queue]:
            self.queues[queue].remove(id)
        else:
            self._leave_lane(queue, next(lane for lane, ids in self.lanes[queue].items() if id in ids), id)

    def tenants_named(self, schema: str) -> list[str]:
        named = sorted(tenant for tenant, name in self.owners.values() if name == schema)
        return named if schema in self.owners else ["", *named]
