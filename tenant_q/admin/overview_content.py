"""What the overview shows: its numbers as tiles, its charts, and the rows of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext as _

from tenant_q.admin.overview_charts import HOUR, RANGES, axis_of, charts_of
from tenant_q.admin.overview_links import SiteLinks, TenantLinks
from tenant_q.admin.tenants import HELD
from tenant_q.brokers.days import FunctionFigures, TenantFigures
from tenant_q.brokers.protocol import OTHER_FUNCTIONS
from tenant_q.operations.overview import Numbers, Overview
from tenant_q.schedules.planned_runs import PlannedRun
from tenant_q.support import moments
from tenant_q.support.durations import duration
from tenant_q.support.visible import visible

MOST_FUNCTIONS = 10
"""The most functions in a table."""
ALERT = "tenant-q-alert"
"""The CSS class of a number that should be zero."""


Link = tuple[str, str]
"""A text of a table, and the URL that it leads to, or an empty text."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the overview.

    Attributes:
        label: Its name.
        value: The number as text.
        url: The page that lists what it counts, or empty.
        style: Its CSS class.
        note: What is to be known about it, or empty.
        moment: The moment in the place of a number, or None.
    """

    label: Any
    value: Any
    url: str = ""
    style: str = ""
    note: Any = ""
    moment: datetime | None = None


def content(found: Overview, hours: int, links: TenantLinks | SiteLinks) -> dict[str, Any]:
    """Return an overview as its template shows it.

    Args:
        found: The overview.
        hours: The hours that the charts show.
        links: The lists to which the counts lead.
    """
    axis = axis_of(found.numbers.at, hours)
    day, places = found.day, found.numbers.places
    functions, since = day.functions, day.functions_since
    tables = [_busiest(functions, since, links), _slowest(functions, since, links)]
    context = {
        "tiles": tiles(found.numbers, links),
        "at": moments.at(found.numbers.at),
        "has_figures": found.has_figures,
        "charts": charts_of(day, axis, found.numbers.at, places.queued if places else None, links),
        "tables": tables,
        "is_served": True,
    }
    if isinstance(links, SiteLinks):
        context |= {"is_served": found.numbers.is_served, "clusters_url": links.clusters()}
        tables.insert(0, _tenants(found.tenants, axis.start, hours, links))
    return context


def tiles(numbers: Numbers, links: TenantLinks | SiteLinks) -> list[Tile]:
    """Return the numbers of an overview as its template shows them."""
    found = [
        _place(_("Queued"), numbers, "queued", links),
        _place(_("Running"), numbers, "leased", links),
        _place(_("Delayed"), numbers, "delayed", links),
        _tile(_("Failed"), numbers.failed, links.failures(), ALERT),
    ]
    if isinstance(links, SiteLinks):
        found.append(_place(_("Dead"), numbers, "dead", links, ALERT))
        found.append(_tile(_("Workers"), numbers.workers, links.clusters()))
    return [*found, _next_run(numbers.next_run, links)]


def _place(label: Any, numbers: Numbers, place: str, links: TenantLinks | SiteLinks, style: str = "") -> Tile:
    count: int | None = getattr(numbers.places, place) if numbers.places else None
    return _tile(label, count, links.place(place), style)


def _tile(label: Any, count: int | None, url: str, style: str = "") -> Tile:
    if not count:
        return Tile(label, "-" if count is None else "0", style="tenant-q-zero")
    return Tile(label, number_format(count, force_grouping=True), url, style)


def _next_run(run: PlannedRun | None, links: TenantLinks | SiteLinks) -> Tile:
    """Return the next run as a tile of the overview: when, of which schedule, and why it is held."""
    label = _("Next run")
    if run is None:
        return Tile(label, "-", style="tenant-q-zero")
    notes = [run.schema] if isinstance(links, SiteLinks) else []
    notes += [visible(text) for text in [run.name or run.func] if text]
    notes += [str(HELD.get(run.held, run.held))] if run.held else []
    return Tile(label, "", links.next_run(run), note=" · ".join(notes), moment=run.next_run)


# Tables


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table of the overview: its name with a URL, its cells with theirs, and its share in per cent."""

    name: Link
    cells: Sequence[Link]
    share: float


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the overview: its title, which time it is about, the heads of its columns, and its rows."""

    title: Any
    time: Any
    heads: Sequence[Any]
    rows: Sequence[Row]


def _tenants(found: Sequence[TenantFigures], start: float, hours: int, links: SiteLinks) -> Table:
    most = max((one.busy_seconds for one in found), default=0)
    rows = [
        Row(
            (visible(one.schema), links.tenant(one.schema)),
            [
                _count(one.done, links.done_by(one.schema) if hours == HOUR else ""),
                _count(one.failed, links.failed(start, schema=one.schema)),
                (duration(one.busy_seconds), ""),
            ],
            _share(one.busy_seconds, most),
        )
        for one in found
    ]
    return Table(_("Top tenants"), RANGES[hours], (_("Tenant"), _("Done"), _("Failed"), _("Worker time")), rows)


def _busiest(functions: Sequence[FunctionFigures], since: float, links: TenantLinks | SiteLinks) -> Table:
    """Return the table of the functions that kept workers busy for the longest time."""
    found = sorted(functions, key=lambda one: (-one.run_seconds, one.func))[:MOST_FUNCTIONS]
    most = max((one.run_seconds for one in found), default=0)
    rows = [
        Row(
            _name(one),
            [*_counts(one, since, links), (duration(one.run_seconds), "")],
            _share(one.run_seconds, most),
        )
        for one in found
    ]
    return Table(_("Top functions"), _since(since), (_("Function"), _("Done"), _("Failed"), _("Worker time")), rows)


def _slowest(functions: Sequence[FunctionFigures], since: float, links: TenantLinks | SiteLinks) -> Table:
    """Return the table of the functions whose runs take the longest time."""
    times = {one: (one.runs.quantile(0.5), one.runs.quantile(0.95) or 0.0) for one in functions if _is_named(one)}
    found = sorted(times, key=lambda one: (-times[one][1], one.func))[:MOST_FUNCTIONS]
    most = max((times[one][1] for one in found), default=0)
    rows = [
        Row(
            _name(one),
            [*_counts(one, since, links), *((duration(time), "") for time in times[one])],
            _share(times[one][1], most),
        )
        for one in found
    ]
    return Table(
        _("Slowest functions"), _since(since), (_("Function"), _("Done"), _("Failed"), _("p50"), _("p95")), rows
    )


def _since(epoch: float) -> str:
    """Return since when the overview's functions are counted, in words; empty if none is."""
    return _("since %(time)s") % {"time": moments.text(moments.at(epoch))} if epoch else ""


def _is_named(one: FunctionFigures) -> bool:
    return one.func != OTHER_FUNCTIONS


def _name(one: FunctionFigures) -> Link:
    return visible(one.func) if _is_named(one) else _("other functions"), ""


def _counts(one: FunctionFigures, since: float, links: TenantLinks | SiteLinks) -> list[Link]:
    if not _is_named(one):
        return [_count(one.done, ""), _count(one.failed, "")]
    return [
        _count(one.done, links.done(since, func=one.func)),
        _count(one.failed, links.failed(since, func=one.func)),
    ]


def _count(count: int, url: str) -> Link:
    return number_format(count, force_grouping=True), url if count else ""


def _share(value: float, most: float) -> float:
    return round(100 * value / most, 1) if most else 0.0
