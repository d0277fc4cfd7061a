"""Compute the runs of a schedule's row, with the time zone and the catch-up of the settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django_q.models import Schedule

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule
from tenant_q.schedules import recurrence
from tenant_q.schedules.row_options import catch_up_of


def recurrence_of(row: Schedule) -> tuple[Any, ...]:
    """Return the values in a schedule's row that determine its next run, without values that its type ignores."""
    if row.schedule_type == Schedule.CRON:
        return row.schedule_type, row.cron
    return row.schedule_type, (row.minutes or 1) if row.schedule_type == Schedule.MINUTES else None


def after_fire(row: Schedule, planned: datetime, now: datetime, *, catch_up: bool) -> datetime:
    """Return the next run to store in a schedule's row once its run `planned` has fired at `now`.

    Args:
        row: The schedule.
        planned: The run that fired.
        now: When it fired.
        catch_up: Whether missed runs are made up for.

    Raises:
        BadSchedule: The schedule has no next run.
    """
    return recurrence.following(
        row.schedule_type, planned, now, catch_up=catch_up, zone=conf().zone, minutes=row.minutes, cron=row.cron
    )


def after_change(row: Schedule, planned: datetime, now: datetime) -> datetime:
    """Return the next run to store in a schedule's row once its recurrence was changed.

    Args:
        row: The schedule.
        planned: Its next run by the previous recurrence.
        now: The result is later than this, unless the schedule runs once.

    Raises:
        BadSchedule: The schedule has no next run.
    """
    if row.schedule_type == Schedule.ONCE:
        return planned
    zone = conf().zone
    return recurrence.replanned(row.schedule_type, planned, now, zone=zone, minutes=row.minutes, cron=row.cron)


def preview(row: Schedule, now: datetime, count: int) -> list[datetime]:
    """Return the next runs of a schedule's row if each one fires on time from `now` on.

    The first is its `next_run`, also if that has passed, unless the catch-up is limited to later ones.

    Args:
        row: The schedule.
        now: The present.
        count: The most runs to return.

    Returns:
        The runs; none while the schedule is paused or after it has ended.

    Raises:
        BadSchedule: Not even the second run can be computed.
    """
    if row.next_run is None or row.repeats == 0:
        return []
    moments, left = [first_to_fire(row, now)], row.repeats
    catch_up = bool(catch_up_of(row.kwargs))
    while len(moments) < count and left != 1 and row.schedule_type != Schedule.ONCE:
        try:
            moments.append(after_fire(row, moments[-1], max(now, moments[-1]), catch_up=catch_up))
        except BadSchedule:
            if len(moments) == 1:
                raise
            break
        left -= left > 0
    return moments


def first_to_fire(row: Schedule, now: datetime) -> datetime:
    """Return the run at which a due schedule's row fires: its `next_run`, or a later one if the catch-up is limited.

    Args:
        row: The schedule.
        now: The moment up to which runs are missed.

    Raises:
        BadSchedule: The schedule has no next run.
    """
    planned: datetime = row.next_run
    limit = catch_up_of(row.kwargs)
    if isinstance(limit, bool) or planned > now or row.schedule_type == Schedule.ONCE:
        return planned
    most = min(limit, row.repeats) if row.repeats > 0 else limit
    if _count_from(row, planned, now, most) <= most:
        return planned
    # Search for a moment after which `most` runs are left. Each run is a moment of its own, so there is one.
    before, after = planned, now
    while True:
        middle = before + (after - before) / 2
        found = after_fire(row, planned, middle, catch_up=False)
        count = _count_from(row, found, now, most)
        if count == most:
            return found
        before, after = (middle, after) if count > most else (before, middle)


def _count_from(row: Schedule, first: datetime, now: datetime, most: int) -> int:
    """Return the number of a schedule's runs from its run `first` up to `now`, for a cron text at most `most` + 1."""
    if first > now:
        return 0
    zone = conf().zone
    return 1 + recurrence.missed(
        row.schedule_type, first, now, most=most, zone=zone, minutes=row.minutes, cron=row.cron
    )


def move_on(row: Schedule) -> None:
    """Give a row that fired at `row.clock` its next run and count its repeats down, or end it. It is not saved.

    Raises:
        BadSchedule: The schedule has no next run.
    """
    if row.schedule_type == Schedule.ONCE:
        row.repeats = min(row.repeats, 0)
        return
    row.next_run = after_fire(row, row.next_run, row.clock, catch_up=bool(catch_up_of(row.kwargs)))
    row.repeats = max(-1, row.repeats) - (1 if row.repeats > 0 else 0)
