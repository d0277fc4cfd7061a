"""Turn the figures of a day into the charts of the overview."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenant_q.admin.chart_scales import count_scale, shown_count, time_scale
from tenant_q.admin.charts import Axis, Chart, Series, bars, steps
from tenant_q.admin.overview_links import SiteLinks, TenantLinks
from tenant_q.brokers.days import DAY_PERIODS, SAMPLE_SECONDS, Day, Histogram, Period
from tenant_q.brokers.loads import PERIOD_SECONDS, PERIODS

HOUR, DAY = 1, 24
"""The hours that the charts may show."""
_LEAST_SECONDS = 3 * SAMPLE_SECONDS
"""The part of the present period, in seconds, below which samples say little of how many workers were busy."""
RANGES = {HOUR: gettext_lazy("Last hour"), DAY: gettext_lazy("Last day")}


def axis_of(now: float, hours: int) -> Axis:
    """Return the time axis of the overview's charts: the last hour or day, up to the period that has not ended.

    Args:
        now: The present, in seconds since the epoch.
        hours: `HOUR` or `DAY`.
    """
    count = DAY_PERIODS if hours == DAY else PERIODS
    latest = now // PERIOD_SECONDS * PERIOD_SECONDS
    return Axis.of(latest - (count - 1) * PERIOD_SECONDS, count, PERIOD_SECONDS)


def charts_of(day: Day, axis: Axis, now: float, queued: int | None, links: TenantLinks | SiteLinks) -> list[Chart]:
    """Return the charts of the overview.

    Args:
        day: The figures.
        axis: The time axis, from `axis_of`.
        now: The present, in seconds since the epoch.
        queued: How many packages are queued now; None if that is not known.
        links: The lists that the counts lead to.
    """
    periods = _periods(day, axis)
    return [
        _tasks(periods, axis, links),
        _queue(periods, axis, queued),
        _times("tenant-q-waits", _("Wait time"), axis, [one.waits if one else None for one in periods]),
        _times("tenant-q-runs", _("Run time"), axis, [one.runs if one else None for one in periods]),
        _workers(periods, axis, now),
    ]


def _periods(day: Day, axis: Axis) -> list[Period | None]:
    """Return the period of each place of the overview's time axis, None where nothing happened."""
    found = {one.start: one for one in day.periods}
    return [found.get(axis.start + number * axis.seconds) for number in range(axis.count)]


def _tasks(periods: Sequence[Period | None], axis: Axis, links: TenantLinks | SiteLinks) -> Chart:
    def times(number: int) -> tuple[float, float]:
        start = axis.start + number * axis.seconds
        return start, start + axis.seconds

    known = [one for one in periods if one is not None]
    done, failed = sum(one.done for one in known), sum(one.failed for one in known)
    return bars(
        "tenant-q-tasks",
        _("Tasks per five minutes"),
        axis,
        Series(
            _("done"),
            "done",
            [one.done if one else None for one in periods],
            lambda number: links.done(*times(number)),
            (shown_count(done), links.all_done(axis.start, of_hour=axis.count == PERIODS) if done else ""),
        ),
        Series(
            _("failed"),
            "bad",
            [one.failed if one else None for one in periods],
            lambda number: links.failed(*times(number)),
            (shown_count(failed), links.failed(axis.start) if failed else ""),
        ),
    )


def _queue(periods: Sequence[Period | None], axis: Axis, queued: int | None) -> Chart:
    values = [one.queued if one else None for one in periods]
    values[-1] = values[-1] if queued is None else queued
    largest = max((value for value in values if value is not None), default=None)
    return steps("tenant-q-queue", _("Queue depth"), axis, count_scale(largest), Series(_("queued"), "main", values))


def _times(id: str, title: str, axis: Axis, times: Sequence[Histogram | None]) -> Chart:
    medians = [one.quantile(0.5) if one else None for one in times]
    highs = [one.quantile(0.95) if one else None for one in times]
    largest = max((value for value in highs if value is not None), default=None)
    return steps(
        id, title, axis, time_scale(largest), Series(_("p50"), "main", medians), Series(_("p95"), "high", highs)
    )


def _workers(periods: Sequence[Period | None], axis: Axis, now: float) -> Chart:
    """Return the chart of busy workers. In the present period they were busy in the part of it that has passed."""
    passed = max(_LEAST_SECONDS, min(axis.seconds, now - axis.start - (axis.count - 1) * axis.seconds))
    lengths = [axis.seconds] * (axis.count - 1) + [passed]
    values = [0.0 if one is None else one.busy_seconds / length for one, length in zip(periods, lengths, strict=True)]
    return steps(
        "tenant-q-workers",
        _("Busy workers"),
        axis,
        count_scale(max(values)),
        Series(_("busy"), "main", values),
    )
