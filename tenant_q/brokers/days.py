"""A day of figures, for operators' charts: what was done in each period of five minutes, and by which functions.

A period keeps little, so that a tenant's day is at most 20 kB however much it does: its times are counted by a few
bounds, each four times the one before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import add

from tenant_q.brokers.loads import PERIOD_SECONDS, Figures

# The periods of a day.
DAY_PERIODS = 24 * 3600 // PERIOD_SECONDS
# Functions and tenants are counted in parts of a day, of so many periods each; also in `lua/common.lua`.
PART_PERIODS = 48
DAY_PARTS = DAY_PERIODS // PART_PERIODS
# The time between two samples of what runs, in seconds.
SAMPLE_SECONDS = 10.0
# In seconds: 4 ms to 17 minutes. Longer times are counted behind the last one.
BOUNDS: tuple[float, ...] = tuple(4**n / 1000 for n in range(1, 11))

_PLACES = len(BOUNDS) + 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """Times, counted by `BOUNDS`.

    Attributes:
        counts: How many times lie up to each of `BOUNDS`, and, in the last place, beyond. Those of a period that has
            ended may be off by a few thousandths, which is enough for quantiles.
    """

    counts: tuple[int, ...] = (0,) * _PLACES

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(tuple(map(add, self.counts, other.counts)))

    def quantile(self, part: float) -> float | None:
        """Return a quantile of the times in the histogram.

        Between two bounds all times are taken as equally likely; longer ones than the last bound count as that bound.

        Args:
            part: The quantile, from 0 to 1.

        Returns:
            The time in seconds; None if nothing was counted.
        """
        wanted, below, lower = part * sum(self.counts), 0, 0.0
        if not wanted:
            return None
        for upper, count in zip(BOUNDS, self.counts, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below, lower = below + count, upper
        return BOUNDS[-1]

    @classmethod
    def of(cls, counts: Sequence[int]) -> Histogram:
        """Return the histogram of times that are counted by the finer bounds of `loads`."""
        coarse = [0] * _PLACES
        for place, count in enumerate(counts):
            coarse[min(_PLACES - 1, max(0, (place - 1) // 2))] += count
        return cls(tuple(coarse))


NO_TIMES = Histogram()


@dataclass(frozen=True, slots=True)
class Period:
    """What was done in a period of five minutes. A task counts in the period in which it ended.

    Attributes:
        start: When the period began, in seconds since the epoch; a multiple of `loads.PERIOD_SECONDS`.
        done: How many tasks succeeded.
        failed: How many failed for good.
        waits: How long they had waited since they were due.
        runs: How long they ran.
        busy_seconds: For how long workers were busy with tasks in the period, all together, also with those that have
            not ended; divided by the length of the period it is the number of busy workers. It comes from samples; if
            there are none, it is the run time of the tasks that ended.
        queued: How many packages were queued at the end of the period, or are queued now if it has not ended; None if
            nobody counted.
    """

    start: float
    done: int = 0
    failed: int = 0
    waits: Histogram = NO_TIMES
    runs: Histogram = NO_TIMES
    busy_seconds: float = 0.0
    queued: int | None = None

    @classmethod
    def of(cls, number: int, figures: Figures, queued: int | None, busy_ms: int | None = None) -> Period:
        """Return a period of the day.

        Args:
            number: Its number since the epoch.
            figures: What was done in it.
            queued: How many packages were queued at its end; None if that is not known.
            busy_ms: The milliseconds for which workers were busy, from samples; None without samples. What ran between
                two samples counts with up to the time between them.
        """
        ran = figures.run_seconds
        busy = ran if busy_ms is None else max(busy_ms / 1000, min(ran, SAMPLE_SECONDS))
        waits, runs = Histogram.of(figures.waits), Histogram.of(figures.runs)
        return cls(float(number * PERIOD_SECONDS), figures.done, figures.failed, waits, runs, busy, queued)

    def __add__(self, other: Period) -> Period:
        """Return what was done in the same period of the day in two clusters."""
        known = [one.queued for one in (self, other) if one.queued is not None]
        return Period(
            self.start,
            self.done + other.done,
            self.failed + other.failed,
            self.waits + other.waits,
            self.runs + other.runs,
            self.busy_seconds + other.busy_seconds,
            sum(known) if known else None,
        )


@dataclass(frozen=True, slots=True)
class FunctionFigures:
    """What the tasks of one function did in the last day.

    Attributes:
        func: The name of the function; `OTHER_FUNCTIONS` for all that have no figures of their own.
        done: How many tasks succeeded.
        failed: How many failed for good.
        runs: How long they ran.
        run_seconds: How long they ran, all together.
    """

    func: str
    done: int = 0
    failed: int = 0
    runs: Histogram = NO_TIMES
    run_seconds: float = 0.0

    @classmethod
    def of(cls, func: str, figures: Figures) -> FunctionFigures:
        """Return the day's figures of a function from those by finer bounds."""
        return cls(func, figures.done, figures.failed, Histogram.of(figures.runs), figures.run_seconds)

    def __add__(self, other: FunctionFigures) -> FunctionFigures:
        return FunctionFigures(
            self.func,
            self.done + other.done,
            self.failed + other.failed,
            self.runs + other.runs,
            self.run_seconds + other.run_seconds,
        )


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """What one tenant did in the last hour or day.

    Attributes:
        schema: The name of its schema.
        done: How many tasks succeeded.
        failed: How many failed for good.
        busy_seconds: How long they ran, all together.
    """

    schema: str
    done: int = 0
    failed: int = 0
    busy_seconds: float = 0.0

    def __add__(self, other: TenantFigures) -> TenantFigures:
        busy = self.busy_seconds + other.busy_seconds
        return TenantFigures(self.schema, self.done + other.done, self.failed + other.failed, busy)


@dataclass(frozen=True, slots=True)
class Day:
    """The figures of the last day, of one tenant or of all.

    Attributes:
        periods: The periods in which something was done or queued, in order. The last one may not have ended.
        functions: The functions of the tasks that ended since `functions_since`, in no order.
        functions_since: From when on functions are counted, in seconds since the epoch: 20 to 24 hours ago.
    """

    periods: tuple[Period, ...] = ()
    functions: tuple[FunctionFigures, ...] = ()
    functions_since: float = 0.0

    def __add__(self, other: Day) -> Day:
        """Return the day of several clusters together, as of all that a site has."""
        periods: dict[float, Period] = {}
        for period in (*self.periods, *other.periods):
            periods[period.start] = periods[period.start] + period if period.start in periods else period
        functions: dict[str, FunctionFigures] = {}
        for one in (*self.functions, *other.functions):
            functions[one.func] = functions[one.func] + one if one.func in functions else one
        in_order = tuple(periods[start] for start in sorted(periods))
        return Day(in_order, tuple(functions.values()), max(self.functions_since, other.functions_since))


_MEASURES: tuple[Callable[[TenantFigures], float], ...] = (
    lambda one: one.done,
    lambda one: one.failed,
    lambda one: one.busy_seconds,
)


def busiest(tenants: Iterable[TenantFigures], most: int) -> list[TenantFigures]:
    """Return the busiest tenants of a day: up to `most` by each measure, without those that have nothing of it."""
    every = list(tenants)
    found = {
        one.schema: one for measure in _MEASURES for one in heapq.nlargest(most, every, key=measure) if measure(one) > 0
    }
    return list(found.values())
