"""Compute the runs of a schedule's row, with the time zone and the catch-up of the settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django_q.models import Schedule

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule
from tenant_q.schedules import recurrence


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

    The first is its `next_run`, also if that has passed.

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
    moments, left = [row.next_run], row.repeats
    while len(moments) < count and left != 1 and row.schedule_type != Schedule.ONCE:
        try:
            moments.append(after_fire(row, moments[-1], max(now, moments[-1]), catch_up=conf().catch_up))
        except BadSchedule:
            if len(moments) == 1:
                raise
            break
        left -= left > 0
    return moments


def move_on(row: Schedule) -> None:
    """Give a row that fired at `row.clock` its next run and count its repeats down, or end it. It is not saved.

    Raises:
        BadSchedule: The schedule has no next run.
    """
    if row.schedule_type == Schedule.ONCE:
        row.repeats = min(row.repeats, 0)
        return
    row.next_run = after_fire(row, row.next_run, row.clock, catch_up=conf().catch_up)
    row.repeats = max(-1, row.repeats) - (1 if row.repeats > 0 else 0)
