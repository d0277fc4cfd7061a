"""The load of a tenant, for operators: its packages by place, and how its tasks went in the last hour.

Times are counted by fixed bounds, each twice the one before. So a tenant costs the broker a few bytes however much it
does, and two counts can be added and subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add

# In seconds: 1 ms to 2.3 hours. Longer times are counted behind the last one.
BOUNDS: tuple[float, ...] = tuple(2**n / 1000 for n in range(24))
# The length of a period in seconds. The last hour begins at the end of a period, an hour to an hour and one period ago.
PERIOD_SECONDS = 300
PERIODS = 12

_PLACES = len(BOUNDS) + 1
# The counts of a tenant: done, failed, runs by their time, waits by their time.
COUNTS = 2 + 2 * _PLACES


@dataclass(frozen=True, slots=True)
class Figures:
    """How many tasks ended, and how long they ran and had waited.

    Attributes:
        done: How many succeeded.
        failed: How many failed for good.
        run_seconds: How long they ran, all together.
        wait_seconds: How long they waited since they were due, all together.
        runs: How many ran up to each of `BOUNDS`, and, in the last place, longer.
        waits: How many waited up to each of `BOUNDS`, and, in the last place, longer.
    """

    done: int = 0
    failed: int = 0
    run_seconds: float = 0.0
    wait_seconds: float = 0.0
    runs: tuple[int, ...] = (0,) * _PLACES
    waits: tuple[int, ...] = (0,) * _PLACES

    @classmethod
    def of(cls, counts: Sequence[int], run_us: int, wait_ms: int) -> Figures:
        """Return a load's figures from a broker's counts, the microseconds run and the milliseconds waited."""
        runs, waits = tuple(counts[2 : 2 + _PLACES]), tuple(counts[2 + _PLACES :])
        return cls(counts[0], counts[1], run_us / 1e6, wait_ms / 1e3, runs, waits)

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.done + other.done,
            self.failed + other.failed,
            self.run_seconds + other.run_seconds,
            self.wait_seconds + other.wait_seconds,
            tuple(map(add, self.runs, other.runs)),
            tuple(map(add, self.waits, other.waits)),
        )


NOTHING = Figures()


@dataclass(frozen=True, slots=True)
class Load:
    """The packages of one tenant by place, and the figures of its last hour."""

    queued: int = 0
    leased: int = 0
    delayed: int = 0
    dead: int = 0
    hour: Figures = NOTHING

    def __add__(self, other: Load) -> Load:
        places = (self.queued + other.queued, self.leased + other.leased, self.delayed + other.delayed)
        hour = self.hour + other.hour if other.hour is not NOTHING else self.hour
        return Load(*places, self.dead + other.dead, hour)

    @property
    def done(self) -> int:
        """The number of a tenant's tasks that succeeded in the last hour."""
        return self.hour.done

    @property
    def failed(self) -> int:
        """The number of a tenant's tasks that failed for good in the last hour."""
        return self.hour.failed

    @property
    def wait_p95(self) -> float | None:
        """The 95th percentile of the seconds that a tenant's tasks waited since they were due; None without tasks."""
        return quantile(self.hour.waits, 0.95)

    @property
    def run_p95(self) -> float | None:
        """The 95th percentile of the seconds that a tenant's tasks ran; None without tasks."""
        return quantile(self.hour.runs, 0.95)


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of all acknowledged tasks since the broker's server was new, by tenant and by function."""

    tenants: Mapping[str, Figures]
    functions: Mapping[str, Figures]


def quantile(counts: Sequence[int], part: float) -> float | None:
    """Return a quantile of a load's run times or waits, which are counted by `BOUNDS`.

    Between two bounds all times are taken as equally likely; longer ones than the last bound count as that bound.

    Args:
        counts: The counts, one for each bound and one for longer times.
        part: The quantile, from 0 to 1.

    Returns:
        The time in seconds; None if nothing was counted.
    """
    wanted, below, lower = part * sum(counts), 0, 0.0
    if not wanted:
        return None
    for upper, count in zip(BOUNDS, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (upper - lower) * (wanted - below) / count
        below, lower = below + count, upper
    return BOUNDS[-1]


def places_of(ms: float, waited_ms: float | None, *, failed: bool) -> tuple[int, ...]:
    """Return the places of a load's counts to which a task adds: for its outcome, run time, and wait if known."""
    places = (1 if failed else 0, 2 + _place_of_time(ms))
    return places if waited_ms is None else (*places, 2 + _PLACES + _place_of_time(waited_ms))


def _place_of_time(ms: float) -> int:
    fraction, exponent = math.frexp(ms)
    return max(0, min(_PLACES - 1, exponent - (fraction == 0.5)))
