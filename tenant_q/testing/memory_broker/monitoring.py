"""What operators see: counts, the loads of tenants, and totals for the metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tenant_q.brokers import loads
from tenant_q.brokers.loads import Figures, Load, Totals
from tenant_q.brokers.protocol import OTHER_FUNCTIONS, Counts, Settled, limits
from tenant_q.testing.memory_broker.days import MemoryDays, add_task, figures_of


class MemoryMonitoring(MemoryDays):
    """The counts and figures, see `protocol.monitoring`."""

    def counts(self) -> Counts:
        queued = [id for schema in self._with_queues() for id in self._queued(schema)]
        paused = {id for id in [*queued, *self.delayed] if self._policy(self.messages[id].schema).paused}
        places = (len(queued), len(self.leased), len(self.delayed), len(self.died))
        return Counts(*places, paused=len(paused), unready=len(self.unready - paused))

    def queue_size(self, schema: str | None = None) -> int:
        own = None if schema is None else self._queue(schema)
        return sum(len(self._queued(name)) for name in self._with_queues() if own in (None, name))

    def tenant_counts(self, schema: str) -> Counts:
        queue = self._queue(schema)
        places = (
            sum(self.messages[id].schema == queue for id in place) for place in (self.leased, self.delayed, self.died)
        )
        return Counts(len(self._queued(queue)), *places)

    def loads(self) -> Mapping[str, Load]:
        queued = +Counter({schema: len(self._queued(schema)) for schema in self._with_queues()})
        leased, delayed, dead = (
            Counter(self.messages[id].schema for id in place) for place in (self.leased, self.delayed, self.died)
        )
        first = int(self.clock() // loads.PERIOD_SECONDS) - loads.PERIODS
        then = self.figures_then.get(min((n for n in self.figures_then if n >= first), default=0), self.figures)
        found: dict[str, Load] = defaultdict(Load)
        for queue in {*queued, *leased, *delayed, *dead, *self.figures}:
            places = queued[queue], leased[queue], delayed[queue], dead[queue]
            found[self._schema(queue)] += Load(*places, self._since(queue, then.get(queue)))
        return dict(found)

    def _since(self, schema: str, then: Sequence[int] | None) -> Figures:
        now = self.figures.get(schema)
        return figures_of(
            [after - before for after, before in zip(now, then or [0] * len(now), strict=True)] if now else []
        )

    def totals(self) -> Totals:
        tenants: dict[str, Figures] = defaultdict(Figures)
        for queue, counts in self.figures.items():
            tenants[self._schema(queue)] += figures_of(counts)
        return Totals(dict(tenants), {name: figures_of(counts) for name, counts in self.functions.items()})

    def name_labels(self, kind: str, names: Sequence[str], *, most: int) -> set[str]:
        noted = self.labelled[kind]
        is_raised = most > self.most_labels.get(kind, 0)
        kept = [name for name in names if noted.get(name)]
        free = [name for name in names if name not in kept and (is_raised or name not in noted)]
        named = {*[*kept, *free][:most]}
        noted.update({name: name in named for name in (*noted, *names)})
        self.most_labels[kind] = most
        return named

    def statistics(self) -> Mapping[str, int]:
        return dict(self.happened)

    # What an acknowledgement adds

    def _begin_period(self) -> None:
        """Keep the figures as they are when a period begins, for as long as they are needed."""
        now = int(self.clock() // loads.PERIOD_SECONDS)
        self.figures_then.setdefault(now, {schema: list(counts) for schema, counts in self.figures.items()})
        for period in [period for period in self.figures_then if period < now - loads.PERIODS]:
            del self.figures_then[period]

    def _count(self, one: Settled, ms: float) -> None:
        message = self.messages[one.lease.id]
        waited = None if one.waited is None else round(one.waited * 1000)
        func, places = self._counted(message.func), loads.places_of(ms, waited, failed=one.failed)
        for counts in (self.figures[message.schema], self.functions[func]):
            add_task(counts, places, round(ms * 1000), waited or 0)
        self._count_in_day(message.schema, func, places, round(ms * 1000), waited or 0)

    def _counted(self, func: str) -> str:
        """Return the name under which a function is counted: its own, or that of all above the limit."""
        has_room = len(self.functions.keys() - {OTHER_FUNCTIONS}) < limits.MOST_FUNCTIONS
        return func if func in self.functions or has_room else OTHER_FUNCTIONS
