"""Draw series of periods of equal length as charts: the shapes of an SVG, its labels, and the table behind it.

The functions are pure: numbers go in, and what `chart.html` puts into the page comes out. The shapes are drawn in a
view box that is stretched to the width of the page. Labels and lines keep their size, so that a chart is readable on a
phone. The colours are classes of `charts.css`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import Any

from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from tenant_q.admin.chart_scales import HEIGHT, Scale, count_scale
from tenant_q.support import moments

UNIT = 10
"""The width of a period in a chart's view box."""
_GAP = 2
_WIDEST_WITH_GAPS = 50
_EDGE = 4


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis of a chart: periods of equal length.

    Attributes:
        start: When the first period begins, in seconds since the epoch.
        seconds: The length of a period.
        moments: When each period begins and, in the last place, when the last one ends, in the current time zone.
    """

    start: float
    seconds: float
    moments: tuple[datetime, ...]

    @classmethod
    def of(cls, start: float, count: int, seconds: float) -> Axis:
        """Return the axis of a chart with `count` periods."""
        found = (moments.at(start + number * seconds) for number in range(count + 1))
        return cls(start, seconds, tuple(timezone.localtime(one) if timezone.is_aware(one) else one for one in found))

    @property
    def count(self) -> int:
        """The number of a chart's periods."""
        return len(self.moments) - 1

    def between(self, number: int) -> str:
        """Return the beginning and the end of a period of a chart as text."""
        return f"{_clock(self.moments[number])}\N{EN DASH}{_clock(self.moments[number + 1])}"


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
class Chart:
    """A chart as its template shows it.

    Attributes:
        id: The start of the ids in the page.
        title: What it shows.
        description: Its values in a sentence.
        series: The series that the legend names.
        width: The width of the view box.
        lines: The labels of the horizontal lines, by their place from the top.
        ticks: The labels of the time axis.
        shapes: The paths.
        zones: The periods in which something is known as parts of the SVG, which show their values when pointed at.
        rows: The rows of the table in HTML, the latest first. It has hundreds, which a template would render slowly.
    """

    id: str
    title: Any
    description: str
    series: tuple[Series, ...]
    width: int
    lines: tuple[Mark, ...]
    ticks: tuple[Mark, ...]
    shapes: tuple[Shape, ...]
    zones: SafeString
    rows: SafeString


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


def _chart(id: str, title: Any, axis: Axis, scale: Scale, series: Sequence[Series], shapes: Sequence[Shape]) -> Chart:
    texts = [[scale.show(value) for value in one.values] for one in series]
    known = [number for number in range(axis.count) if any(one.values[number] is not None for one in series)]
    return Chart(
        id=id,
        title=title,
        description=_described(scale, series),
        series=tuple(series),
        width=axis.count * UNIT,
        lines=tuple(Mark(100 * (1 - part), scale.mark(part * scale.top)) for part in (0.5, 1.0)),
        ticks=tuple(_ticks(axis)),
        shapes=tuple(shape for shape in shapes if shape.path),
        zones=mark_safe("".join(_zones(axis, series, texts, known))),
        rows=mark_safe("".join(_rows(axis, series, texts, known))),
    )


def _zones(axis: Axis, series: Sequence[Series], texts: Sequence[Sequence[str]], known: Sequence[int]) -> Iterator[str]:
    labels = [str(one.label) for one in series]
    for number in known:
        values = [f"{label}: {own[number]}" for label, own in zip(labels, texts, strict=True)]
        words = f"{axis.between(number)}  {', '.join(values)}"
        yield f'<rect x="{number * UNIT}" width="{UNIT}" height="{HEIGHT}"><title>{escape(words)}</title></rect>'


def _rows(axis: Axis, series: Sequence[Series], texts: Sequence[Sequence[str]], known: Sequence[int]) -> Iterator[str]:
    for number in reversed(known):
        cells = [
            _cell(own[number], one.url(number) if one.values[number] else "")
            for one, own in zip(series, texts, strict=True)
        ]
        yield f'<tr><th scope="row">{axis.between(number)}</th>{"".join(cells)}</tr>\n'


def _cell(text: str, url: str) -> str:
    shown = f'<a href="{escape(url)}">{escape(text)}</a>' if url else escape(text)
    return f'<td class="num">{shown}</td>'


def _described(scale: Scale, series: Sequence[Series]) -> str:
    """Return a chart in words: the latest and the largest value of each series."""
    parts = []
    for one in series:
        values = [value for value in one.values if value is not None]
        if values:
            words = {"name": one.label, "last": scale.show(values[-1]), "most": scale.show(max(values))}
            parts.append(_("%(name)s: %(last)s in the latest period, %(most)s at most") % words)
    return "; ".join(parts) or _("Nothing is known of these periods.")


def _ticks(axis: Axis) -> Iterator[Mark]:
    """Yield the labels of a chart's time axis: every quarter of an hour, or every six hours if it is longer."""
    minutes = 15 if axis.count * axis.seconds <= 2 * 3600 else 360
    for number in range(axis.count):
        moment, at = axis.moments[number], 100 * number / axis.count
        if (60 * moment.hour + moment.minute) % minutes == 0 and moment.second == 0:
            anchor = "start" if at < _EDGE else "end" if at > 100 - _EDGE else "middle"
            yield Mark(round(at, 2), _clock(moment), anchor)


def _clock(moment: datetime) -> str:
    return f"{moment.hour:02}:{moment.minute:02}"


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
