"""A day of figures, for operators' charts: what was done in each period of five minutes, and by which functions.

A period keeps little, so that a tenant's day is at most 20 kB however much it does: its times are counted by a few
bounds, each four times the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

from tenant_q.brokers.loads import PERIOD_SECONDS

# The periods of a day.
DAY_PERIODS = 24 * 3600 // PERIOD_SECONDS
# In seconds: 4 ms to 17 minutes. Longer times are counted behind the last one.
BOUNDS: tuple[float, ...] = tuple(4**n / 1000 for n in range(1, 11))

_PLACES = len(BOUNDS) + 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """Times, counted by `BOUNDS`.

    Attributes:
        counts: How many times lie up to each of `BOUNDS`, and, in the last place, beyond. The counts of a period that
            has ended are in proportion to the real ones, which is enough for quantiles.
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
        busy_seconds: How long they ran, all together. Divided by the length of the period it is the number of workers
            that they kept busy.
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


@dataclass(frozen=True, slots=True)
class Day:
    """The figures of the last day, of one tenant or of all.

    Attributes:
        periods: The periods in which something was done or queued, in order. The last one may not have ended.
        functions: The functions of the tasks that ended since `functions_since`, in no order.
        functions_since: From when on functions are counted, in seconds since the epoch: 21 to 24 hours ago.
    """

    periods: tuple[Period, ...] = ()
    functions: tuple[FunctionFigures, ...] = ()
    functions_since: float = 0.0
