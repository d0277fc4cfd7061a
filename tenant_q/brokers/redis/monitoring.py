"""What operators see: counts, the loads of tenants, and totals for the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenant_q.brokers import loads
from tenant_q.brokers.loads import Figures, Load, Totals
from tenant_q.brokers.protocol.monitoring import Counts
from tenant_q.brokers.redis.decoding import schemas
from tenant_q.brokers.redis.ledger import FREE, OF_ALL, Ledger
from tenant_q.brokers.redis.part import Part

# Queued, leased, delayed, dead.
NOWHERE = (0, 0, 0, 0)


class RedisMonitoring(Part):
    """The counts and figures, see `protocol.monitoring`."""

    def counts(self) -> Counts:
        queued, leased, delayed, dead, paused, unready = self._run("counts")
        return Counts(queued=queued, leased=leased, delayed=delayed, dead=dead, paused=paused, unready=unready)

    def queue_size(self, schema: str | None = None) -> int:
        if schema is None:
            return self.counts().queued
        return int(self._run("queue_size", *self._owner(schema))[0])

    def tenant_counts(self, schema: str) -> Counts:
        return Counts(*self._run("tenant_counts", *self._owner(schema)))

    def loads(self) -> Mapping[str, Load]:
        found, places, now, before, owners = self._run("loads", loads.PERIODS)
        figures = Ledger(places, now)
        hour = figures.since(before) if before is not None else {}
        own: dict[str, Sequence[int]] = {queue.decode(): counts for queue, *counts in found}
        tenants = {name for name in figures.places if not name.startswith((OF_ALL, FREE))}
        by_queue = schemas(owners)
        by_schema: dict[str, Load] = {}
        for queue in {*own, *tenants}:
            queued, leased, delayed, dead = own.get(queue, NOWHERE)
            load = Load(queued, leased, delayed, dead, hour.get(queue, loads.NOTHING))
            schema = by_queue.get(queue, queue)
            by_schema[schema] = by_schema[schema] + load if schema in by_schema else load
        return by_schema

    def totals(self) -> Totals:
        places, now, owners = self._run("totals")
        found, by_queue = Ledger(places, now).since(b""), schemas(owners)
        functions = {name.removeprefix(OF_ALL): one for name, one in found.items() if name.startswith(OF_ALL)}
        tenants: dict[str, Figures] = {}
        for queue in found.keys() - {OF_ALL + name for name in functions}:
            schema = by_queue.get(queue, queue)
            tenants[schema] = tenants[schema] + found[queue] if schema in tenants else found[queue]
        return Totals(tenants, functions)

    def name_labels(self, kind: str, names: Sequence[str], *, most: int) -> set[str]:
        return {name.decode() for name in self._run("name_labels", kind, most, *names)}

    def statistics(self) -> Mapping[str, int]:
        with self._errors:
            found: Any = self.client.hgetall(f"{self.tag}:statistics")
        return {name: int(found.get(name.encode(), 0)) for name in ("stale_acks", "expired", "broken")}
