"""The end of a tenant and its new name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tenant_q.brokers.protocol import Drained
from tenant_q.testing.memory_broker.days import MemoryDays


class MemoryTenants(MemoryDays):
    """What is kept of tenants besides their packages, see `protocol.tenants`."""

    def note_cached(self, schema: str, id: str, *, seconds: int | None, tenant: str | None = None) -> None:
        if not self._is_deleted(tenant):
            self.cached[self._claim(schema, tenant)].add(id)

    def cached_ids(self, schema: str, tenant: str) -> list[str]:
        return sorted(self.cached[self._queue(schema, tenant)])

    def forget_cached(self, schema: str, tenant: str, ids: Sequence[str]) -> None:
        self.cached[self._queue(schema, tenant)].difference_update(ids)

    def drain_tenant(self, schema: str, tenant: str) -> Drained:
        self.leaving.add(tenant)
        queue = self._queue(schema, tenant)
        waiting = [*self._queued(queue), *(id for id in self.delayed if self.messages[id].schema == queue)]
        self._forget_waiting(queue, waiting)
        self.ring.discard(queue)
        return Drained(len(waiting), sum(self.messages[id].schema == queue for id in self.leased))

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        is_released = self._is_deleted(tenant) and tenant not in self.queue_of_tenant
        self.deleted[tenant] = self.clock() + seconds
        self.leaving.discard(tenant)
        if is_released:
            return 0
        queue = self._claim(schema, tenant)
        self.in_force.pop(queue, None)
        self.ring.discard(queue)
        held = self._forget_packages(queue, reason)
        self.costs = {key: cost for key, cost in self.costs.items() if key[0] != queue}
        if not held:
            self.rates = {rate: kept for rate, kept in self.rates.items() if not rate.startswith(f"{queue};")}
            self.aliases = {key: kept for key, kept in self.aliases.items() if key[0] != queue}
        for key in [key for key in self.kept if key[:2] == ("group", queue)]:
            del self.kept[key]
        if not held and not self.cached[queue]:
            self._release(queue, tenant)
        return held

    def _forget_packages(self, queue: str, reason: str) -> int:
        """Forget a tenant's packages, cancel the leased ones, and return how many these are."""
        own = [id for id, message in self.messages.items() if message.schema == queue]
        leased = [id for id in own if id in self.leased]
        for id in leased:
            self._cancel_leased(id, reason)
        self._forget_waiting(queue, set(own) - set(leased))
        return len(leased)

    def _forget_waiting(self, queue: str, ids: Iterable[str]) -> None:
        """Forget packages of a tenant, among which are all that wait."""
        for id in ids:
            self._forget(id)
            self.delayed.pop(id, None)
            self.died.pop(id, None)
            self.unready.discard(id)
        self.queues.pop(queue, None)
        for rate in [rate for rate, waiting in self.turns.items() if queue in waiting]:
            self._unpark(queue, rate)
        self.lanes.pop(queue, None)
        self.open.pop(queue, None)

    def _release(self, queue: str, tenant: str) -> None:
        """Forget the figures, the virtual time and the name of an empty queue."""
        for kept in (self.figures, self.virtual, self.cached):
            kept.pop(queue, None)
        for then in self.figures_then.values():
            then.pop(queue, None)
        self._release_day(queue)
        self.queue_of_tenant.pop(tenant, None)
        _, name = self.owners.pop(queue)
        if name not in {name for _, name in self.owners.values()}:
            self.labelled["tenants"].pop(name, None)

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        self.owners[self._claim(old, tenant)] = (tenant, new)
