"""A day of figures: what was done in each period, by each function and by each tenant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from tenant_q.brokers import days, loads
from tenant_q.brokers.days import Day, FunctionFigures, Period, TenantFigures, busiest
from tenant_q.brokers.loads import Figures
from tenant_q.brokers.protocol import MOST_DAY_FUNCTIONS, OTHER_FUNCTIONS
from tenant_q.testing.memory_broker.ring import Ring

# In the place of a queue: all tenants together.
ALL = None


class MemoryDays(Ring):
    """The day of figures, see `protocol.monitoring`."""

    def day(self, schema: str | None = None) -> Day:
        now, queue = self._period(), ALL if schema is None else self._queue(schema)
        periods = (self._day_period(number, queue) for number in range(now + 1 - days.DAY_PERIODS, now + 1))
        functions: dict[str, FunctionFigures] = {}
        for part in self._parts_of_day():
            for func, counts in self.day_functions.get((part, queue), {}).items():
                own = FunctionFigures.of(func, figures_of(counts))
                functions[func] = functions[func] + own if func in functions else own
        since = float(self._parts_of_day()[0] * days.PART_PERIODS * loads.PERIOD_SECONDS)
        return Day(tuple(one for one in periods if one), tuple(functions.values()), since)

    def _day_period(self, number: int, queue: str | None) -> Period | None:
        done = figures_of(self.day_counts.get((number, queue), ()))
        queued = self._queued_now() if number == self._period() else self.day_queued.get(number)
        waiting, busy = _of(queued, queue), _of(self.day_busy.get(number), queue)
        return Period.of(number, done, waiting, busy) if waiting or busy or done != loads.NOTHING else None

    def top_tenants(self, *, day: bool = False, most: int = 10) -> list[TenantFigures]:
        now = self._period()
        first = self._parts_of_day()[0] * days.PART_PERIODS if day else now - loads.PERIODS
        found: dict[str, TenantFigures] = {}
        for (number, queue), counts in self.day_counts.items():
            if number >= first and queue is not ALL:
                schema, done = self._schema(queue), figures_of(counts)
                own = TenantFigures(schema, done.done, done.failed, done.run_seconds)
                found[schema] = found[schema] + own if schema in found else own
        return busiest(found.values(), most)

    def note_busy(self, ids: Sequence[str], seconds: float) -> None:
        busy = self.day_busy.setdefault(self._period(), defaultdict(int))
        for id in ids:
            if id in self.leased:
                busy[self.messages[id].schema] += round(seconds * 1000)

    def record_periods(self) -> int:
        last = self._period() - 1
        if self.day_recorded >= last:
            return 0
        numbers = {*self.day_busy, *(number for number, _ in self.day_counts)}
        done = {number for number in numbers if self.day_recorded < number < last}
        self.day_queued[last] = self._queued_now()
        self.day_recorded = last
        self._drop_old_days()
        return len(done) + 1

    def _queued_now(self) -> dict[str, int]:
        return {queue: count for queue in self._with_queues() if (count := len(self._queued(queue)))}

    # What an acknowledgement adds

    def _count_in_day(self, queue: str, func: str, places: Sequence[int], us: int, waited_ms: int) -> None:
        """Count a task of a tenant, whose places are those of `loads.places_of`, in the day."""
        part = self._period() // days.PART_PERIODS
        own = self.day_functions[part, queue]
        has_room = func in own or len(own) < MOST_DAY_FUNCTIONS
        for counts in (
            self.day_counts[self._period(), queue],
            self.day_counts[self._period(), ALL],
            own[func if has_room else OTHER_FUNCTIONS],
            self.day_functions[part, ALL][func],
        ):
            add_task(counts, places, us, waited_ms)
        self._drop_old_days()

    def _drop_old_days(self) -> None:
        first, first_part = self._period() + 1 - days.DAY_PERIODS, self._parts_of_day()[0]
        self._keep_days(lambda number, _: number >= first, lambda part, _: part >= first_part)
        for counts in (self.day_queued, self.day_busy):
            for number in [number for number in counts if number < first]:
                del counts[number]

    def _release_day(self, queue: str) -> None:
        """Forget the day of a deleted tenant."""
        self._keep_days(lambda _, owner: owner != queue, lambda _, owner: owner != queue)
        for counts in (*self.day_queued.values(), *self.day_busy.values()):
            counts.pop(queue, None)

    def _keep_days(self, is_kept: Callable[[int, str | None], bool], is_part_kept: Callable[..., bool]) -> None:
        for at in [at for at in self.day_counts if not is_kept(*at)]:
            del self.day_counts[at]
        for at in [at for at in self.day_functions if not is_part_kept(*at)]:
            del self.day_functions[at]

    def _period(self) -> int:
        return int(self.clock() // loads.PERIOD_SECONDS)

    def _parts_of_day(self) -> range:
        last = self._period() // days.PART_PERIODS
        return range(last + 1 - days.DAY_PARTS, last + 1)


def _of(counts: Mapping[str, int] | None, queue: str | None) -> int | None:
    """Return the count of a queue in a period of the day, or of all; None if nothing was counted."""
    if counts is None:
        return None
    return sum(counts.values()) if queue is ALL else counts.get(queue, 0)


def add_task(counts: list[int], places: Sequence[int], us: int, waited_ms: int) -> None:
    """Add a task to the counts of a tenant, a function or a period; the last two are the times run and waited."""
    counts[-2] += us
    counts[-1] += waited_ms
    for place in places:
        counts[place] += 1


def figures_of(counts: Sequence[int]) -> Figures:
    """Return the counts of a tenant, a function or a period as figures."""
    return Figures.of(counts[:-2], counts[-2], counts[-1]) if any(counts) else loads.NOTHING
