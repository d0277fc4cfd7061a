"""Leases: renew them, and give back the packages of dead workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenant_q.brokers.protocol import Cancelled, Lease, outage_seconds
from tenant_q.conf import conf
from tenant_q.testing.memory_broker.ring import Ring


class MemoryLeases(Ring):
    """The leases, see `protocol.leases`."""

    supports_leases = True

    def renew(self, workers: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, str]]:
        found: dict[str, dict[str, str]] = {worker: {} for worker in workers}
        for id, held in self.leased.items():
            if held.worker in found:
                held.deadline = self.clock() + seconds
                found[held.worker][id] = held.lease.token
        return found

    def reclaim(
        self,
        worker: str,
        *,
        running: str | None,
        give_up_reason: str | None = None,
        charged: bool = True,
        death: str | None = None,
    ) -> int:
        lost = self._held_by(worker)
        for history, is_it in [(self.histories[id], id == running) for id in lost]:
            # A worker that ran nothing may have died of a package that it had finished. Its packages come one at a time
            # from now on, and one that came alone already is charged.
            may_be_cause = (is_it and not give_up_reason) if running else history.alone
            is_charged = charged and may_be_cause
            history.alone = history.alone or (charged and not running)
            history.starts = (history.starts or 0) + is_charged
            history.death = death if is_charged and death else history.death
            if is_it and give_up_reason and not history.is_cancelled:
                history.give_up_reason = give_up_reason
        return self._return_unrun(lost)

    def expire(self) -> int:
        now, lease = self.clock(), conf().lease
        gap = 0.0 if self.last_scan is None else now - self.last_scan
        self.last_scan = now
        if gap > outage_seconds(lease):
            # Nobody could renew meanwhile: each lease has the time left that it had then, at most that of a new one.
            for held in self.leased.values():
                held.deadline = max(held.deadline, min(held.deadline + gap, now + lease))
            return 0
        late = [id for id, held in self.leased.items() if held.deadline <= now]
        for id in late:
            # In a larger batch any one may be the cause: none is charged, and each comes alone the next time.
            history = self.histories[id]
            history.starts = (history.starts or 0) + self.leased[id].alone
            history.death = None if self.leased[id].alone else history.death
            history.alone = True
        self.happened["expired"] += len(late)
        return self._return_unrun(late)

    def cancelled(self) -> list[Cancelled]:
        leased = [(id, held) for id, held in self.leased.items() if held.is_cancelled]
        return [Cancelled(id, held.worker, self.histories[id].give_up_reason or "") for id, held in leased]

    def release_unique(self, worker: str, lease: Lease) -> None:
        unique = self.unique_of.get(lease.id)
        if unique and unique.until_start and self._is_in_force(worker, lease):
            self._release_key(lease.id)

    def note_late(self, ids: Sequence[str], *, seconds: float) -> None:
        self.late |= dict.fromkeys(ids, self.clock() + seconds)

    def may_come(self, ids: Sequence[str]) -> set[str]:
        return {id for id in ids if id in self.messages or self.late.get(id, 0.0) > self.clock()}
