"""Leases: renew them, give back the packages of dead workers, and report cancels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenant_q.brokers.protocol.leases import Cancelled, Lease, outage_seconds
from tenant_q.brokers.redis.decoding import pairs, shown
from tenant_q.brokers.redis.part import Part, chunks
from tenant_q.brokers.redis.scripts import REFUSALS
from tenant_q.conf import conf
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import visible

logger = get_logger("tenant_q.brokers")

# Log messages for the broken entries that `expire` returns.
_BROKEN = {
    "package": "A package without a message, or with a broken one, is dropped",
    "lease": "A package whose lease is missing or broken is returned to its queue",
    "key": "A key of the wrong type is moved aside",
}


class RedisLeases(Part):
    """The leases, see `protocol.leases`."""

    supports_leases = True

    def renew(self, workers: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, str]]:
        if not workers:
            return {}
        held = self._run("renew", round(seconds * 1000), *workers)
        return {worker: pairs(found) for worker, found in zip(workers, held, strict=True)}

    def reclaim(
        self,
        worker: str,
        *,
        running: str | None,
        give_up_reason: str | None = None,
        charged: bool = True,
        death: str | None = None,
    ) -> int:
        try:
            return int(self._run("reclaim", worker, running or "", give_up_reason or "", int(charged), death or ""))
        except REFUSALS:
            if not running:
                raise
            logger.exception(
                "The package that worker %s was running is not charged for its death",
                worker,
                event="package.death_not_charged",
            )
            return int(self._run("reclaim", worker, "", "", int(charged), death or ""))

    def expire(self) -> int:
        lease = conf().lease
        expired, *broken = self._run("expire", round(outage_seconds(lease) * 1000), round(lease * 1000))
        for one in broken:
            what, _, name = shown(one).partition(";")
            logger.error(
                "%s in the queue of cluster %r: %s",
                _BROKEN.get(what, what),
                self.cluster,
                visible(name),
                event="package.entry_broken",
            )
        return int(expired)

    def cancelled(self) -> list[Cancelled]:
        return [Cancelled(*map(shown, found)) for found in self._run("cancelled")]

    def release_unique(self, worker: str, lease: Lease) -> None:
        self._run("release_unique", worker, lease.id, lease.token)

    def note_late(self, ids: Sequence[str], *, seconds: float) -> None:
        if ids:
            self._run("note_late", round(seconds * 1000), *ids)

    def may_come(self, ids: Sequence[str]) -> set[str]:
        return {id.decode() for part in chunks(ids) for id in self._run("may_come", *part)}
