"""The vertical axes of charts: their upper ends, and how they show counts and durations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.utils.formats import number_format

from tenant_q.support.durations import duration

HEIGHT = 1000
"""The height of a chart's view box."""
_COUNTS = (1, 2, 4, 6, 8, 10)
_TENS = (10, 12, 16, 20, 30, 40, 60, 80, 100)
_SECONDS: tuple[float, ...] = (
    *(0.002, 0.004, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1, 2, 4, 10, 20, 40),
    *(60, 120, 240, 600, 1200, 2400, 3600, 7200, 4 * 3600, 8 * 3600, 12 * 3600, 24 * 3600),
)
_DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical axis of a chart: its upper end, and functions that show a value and the label of a line."""

    top: float
    show: Callable[[float | None], str]
    mark: Callable[[float], str]

    def y(self, value: float) -> int:
        """Return the place of a value in a chart's view box, from the top."""
        return round(HEIGHT * (1 - min(value, self.top) / self.top))


def count_scale(largest: float | None) -> Scale:
    """Return the scale of a chart of counts. Both its lines are whole numbers, unless the largest count is one."""
    power, wanted = 1, max(1, largest or 0)
    while 100 * power < wanted:
        power *= 10
    parts = _COUNTS if wanted <= _COUNTS[-1] else _TENS
    return Scale(next(step * power for step in parts if step * power >= wanted), shown_count, _shown_mark)


def time_scale(largest: float | None) -> Scale:
    """Return the scale of a chart of durations in seconds."""
    wanted = largest or 0
    days = _DAY * -(-wanted // (2 * _DAY)) * 2
    return Scale(next((top for top in _SECONDS if top >= wanted), days), duration, duration)


def shown_count(value: float | None) -> str:
    """Return a count, or a mean of counts, as text with at most two significant decimals; "-" for None."""
    if value is None:
        return "-"
    if value == int(value) or value >= 100:
        return str(int(value)) if value < 1000 else number_format(round(value), force_grouping=True)
    return number_format(float(f"{value:.2g}"))


def _shown_mark(value: float) -> str:
    """Return a label of a chart's vertical axis, which has room for a few characters only."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size:
            return f"{shown_count(value / size)}{letter}"
    return shown_count(value)
