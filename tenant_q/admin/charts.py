"""Draw series of periods of equal length as charts: the shapes of an SVG, its labels, and the table behind it.

The functions are pure: numbers go in, and what `chart.html` puts into the page comes out. The shapes are drawn in a
view box that is stretched to the width of the page. Labels and lines keep their size, so that a chart is readable on a
phone. The colours are classes of `charts.css`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from tenant_q.support import moments
from tenant_q.support.durations import duration

UNIT = 10
"""The width of a period in a chart's view box."""
HEIGHT = 1000
"""The height of a chart's view box."""
_GAP = 2
_WIDEST_WITH_GAPS = 50
_COUNTS = (1, 2, 4, 6, 8, 10)
_SECONDS: tuple[float, ...] = (
    *(0.002, 0.004, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1, 2, 4, 10, 20, 40),
    *(60, 120, 240, 600, 1200, 2400, 3600, 7200, 4 * 3600, 8 * 3600, 12 * 3600, 24 * 3600),
)
_DAY = 24 * 3600
_EDGE = 4


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis of a chart: `count` periods of `seconds`, from `start` in seconds since the epoch."""

    start: float
    count: int
    seconds: float

    def at(self, number: int) -> datetime:
        """Return the beginning of a period of a chart, in the current time zone."""
        moment = moments.at(self.start + number * self.seconds)
        return timezone.localtime(moment) if timezone.is_aware(moment) else moment


@dataclass(frozen=True, slots=True)
class Series:
    """The values of a chart, one for each period.

    Attributes:
        label: Its name.
        style: "done", "bad", "main" or "high": the class of its colour.
        values: A number for each period, or None where nothing is known.
        url: A function from a period's number to the page that lists what its value counts; empty without a page.
        total: The sum of the values as the legend shows it, and the page that lists what it counts; empty without one.
    """

    label: Any
    style: str
    values: Sequence[float | None]
    url: Callable[[int], str] = lambda number: ""
    total: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical axis of a chart: its upper end, and a function that shows a value."""

    top: float
    show: Callable[[float | None], str]

    def y(self, value: float) -> int:
        """Return the place of a value in a chart's view box, from the top."""
        return round(HEIGHT * (1 - min(value, self.top) / self.top))


@dataclass(frozen=True, slots=True)
class Mark:
    """A label of an axis: its place in per cent, its text, and where the text is anchored."""

    at: float
    text: str
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """A path in a chart's view box with its class."""

    style: str
    path: str


@dataclass(frozen=True, slots=True)
class Zone:
    """A period of a chart in which something is known: its place in the view box, and its values in words."""

    x: int
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as its template shows it.

    Attributes:
        id: The start of the ids in the page.
        title: What it shows.
        description: Its values in a sentence.
        series: The series, for the legend.
        width: The width of the view box.
        lines: The labels of the horizontal lines, by their place from the top.
        ticks: The labels of the time axis.
        shapes: The paths.
        zones: The periods in which something is known.
        rows: The rows of the table, the latest first: beginning and end of the period, values with their URLs.
    """

    id: str
    title: Any
    description: str
    series: tuple[Series, ...]
    width: int
    lines: tuple[Mark, ...]
    ticks: tuple[Mark, ...]
    shapes: tuple[Shape, ...]
    zones: tuple[Zone, ...]
    rows: tuple[tuple[datetime, datetime, list[tuple[str, str]]], ...]


def bars(id: str, title: Any, axis: Axis, *series: Series) -> Chart:
    """Return a chart of counts in which the values of a period are stacked, the first series at the bottom.

    Args:
        id: The start of the ids in the page.
        title: What the chart shows.
        axis: The periods.
        series: The series, with a value for each period.
    """
    sums = [sum(one.values[number] or 0 for one in series) for number in range(axis.count)]
    scale = count_scale(max(sums, default=0))
    bottoms, shapes = [0.0] * axis.count, []
    for one in series:
        tops = [bottom + (value or 0) for bottom, value in zip(bottoms, one.values, strict=True)]
        shapes.append(Shape(f"tenant-q-area tenant-q-is-{one.style}", _bars_path(scale, bottoms, tops)))
        bottoms = tops
    return _chart(id, title, axis, scale, series, shapes)


def steps(id: str, title: Any, axis: Axis, scale: Scale, *series: Series) -> Chart:
    """Return a chart with a line for each series, flat within a period; the first series is filled.

    Args:
        id: The start of the ids in the page.
        title: What the chart shows.
        axis: The periods.
        scale: The vertical axis.
        series: The series, with a value for each period, or None for a gap.
    """
    first = series[0]
    shapes = [Shape(f"tenant-q-fill tenant-q-is-{first.style}", _area_path(scale, first.values))]
    shapes += [Shape(f"tenant-q-line tenant-q-is-{one.style}", _line_path(scale, one.values)) for one in series]
    return _chart(id, title, axis, scale, series, shapes)


def count_scale(largest: float | None) -> Scale:
    """Return the scale of a chart of counts. Both its lines are whole numbers, unless the largest count is one."""
    power, wanted = 1, max(1, largest or 0)
    while 10 * power < wanted:
        power *= 10
    return Scale(next(step * power for step in _COUNTS if step * power >= wanted), shown_count)


def time_scale(largest: float | None) -> Scale:
    """Return the scale of a chart of durations in seconds."""
    wanted = largest or 0
    days = _DAY * -(-wanted // (2 * _DAY)) * 2
    return Scale(next((top for top in _SECONDS if top >= wanted), days), duration)


def shown_count(value: float | None) -> str:
    """Return a count of a chart as text, in thousands or millions if it is large, "-" for None."""
    if value is None:
        return "-"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size:
            return f"{_number(value / size)}{letter}"
    return _number(value)


def _number(value: float) -> str:
    is_whole = value >= 100 or abs(value - round(value)) < 0.005
    places = 0 if is_whole else 1 if value >= 1 else 2
    return number_format(round(value, places), decimal_pos=places, force_grouping=True)


def _chart(id: str, title: Any, axis: Axis, scale: Scale, series: Sequence[Series], shapes: Sequence[Shape]) -> Chart:
    known = [number for number in range(axis.count) if any(one.values[number] is not None for one in series)]
    return Chart(
        id=id,
        title=title,
        description=_described(scale, series),
        series=tuple(series),
        width=axis.count * UNIT,
        lines=tuple(Mark(100 * (1 - part), scale.show(part * scale.top)) for part in (0.5, 1.0)),
        ticks=tuple(_ticks(axis)),
        shapes=tuple(shape for shape in shapes if shape.path),
        zones=tuple(Zone(number * UNIT, _in_words(axis, scale, series, number)) for number in known),
        rows=tuple((axis.at(n), axis.at(n + 1), _cells(scale, series, n)) for n in reversed(known)),
    )


def _described(scale: Scale, series: Sequence[Series]) -> str:
    """Return a chart in words: the latest and the largest value of each series."""
    parts = []
    for one in series:
        values = [value for value in one.values if value is not None]
        if values:
            words = {"name": one.label, "last": scale.show(values[-1]), "most": scale.show(max(values))}
            parts.append(_("%(name)s: %(last)s in the latest period, %(most)s at most") % words)
    return "; ".join(parts) or _("Nothing is known of these periods.")


def _in_words(axis: Axis, scale: Scale, series: Sequence[Series], number: int) -> str:
    """Return the values of a period of a chart, with its beginning and end."""
    values = [f"{one.label}: {scale.show(one.values[number])}" for one in series]
    return f"{_clock(axis.at(number))}\N{EN DASH}{_clock(axis.at(number + 1))}  {', '.join(values)}"


def _cells(scale: Scale, series: Sequence[Series], number: int) -> list[tuple[str, str]]:
    values = [(one, one.values[number]) for one in series]
    return [(scale.show(value), one.url(number) if value else "") for one, value in values]


def _ticks(axis: Axis) -> Iterator[Mark]:
    """Yield the labels of a chart's time axis: every quarter of an hour, or every six hours if it is longer."""
    minutes = 15 if axis.count * axis.seconds <= 2 * 3600 else 360
    for number in range(axis.count):
        moment, at = axis.at(number), 100 * number / axis.count
        if (60 * moment.hour + moment.minute) % minutes == 0 and moment.second == 0:
            anchor = "start" if at < _EDGE else "end" if at > 100 - _EDGE else "middle"
            yield Mark(round(at, 2), _clock(moment), anchor)


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M")


def _bars_path(scale: Scale, bottoms: Sequence[float], tops: Sequence[float]) -> str:
    """Return the bars of a series in a chart. Those of a long one have no gaps between them."""
    gap = _GAP if len(tops) <= _WIDEST_WITH_GAPS else 0
    parts = []
    for number, (bottom, top) in enumerate(zip(bottoms, tops, strict=True)):
        if top > bottom:
            low, high = scale.y(bottom), scale.y(top)
            x, width = number * UNIT + gap // 2, UNIT - gap
            parts.append(f"M{x} {low}V{high}h{width}V{low}z")
    return "".join(parts)


def _runs(values: Sequence[float | None]) -> Iterator[tuple[int, list[float]]]:
    """Yield the stretches of a chart's series without a gap: the number of the first period, and the values."""
    ends = [-1, *(number for number, value in enumerate(values) if value is None), len(values)]
    for before, after in pairwise(ends):
        run = [value for value in values[before + 1 : after] if value is not None]
        if run:
            yield before + 1, run


def _line_path(scale: Scale, values: Sequence[float | None]) -> str:
    parts = []
    for first, run in _runs(values):
        parts.append(f"M{first * UNIT} {scale.y(run[0])}")
        parts += [f"V{scale.y(value)}H{(first + number) * UNIT}" for number, value in enumerate(run, 1)]
    return "".join(parts)


def _area_path(scale: Scale, values: Sequence[float | None]) -> str:
    parts = []
    for first, run in _runs(values):
        parts.append(f"M{first * UNIT} {HEIGHT}")
        parts += [f"V{scale.y(value)}H{(first + number) * UNIT}" for number, value in enumerate(run, 1)]
        parts.append(f"V{HEIGHT}z")
    return "".join(parts)
