"""Compute the runs of a schedule from its type.

Pure functions: no database, no settings, no clock. A schedule that cannot be understood raises `BadSchedule`, never
another error, so that a bad row is reported to its tenant and stops nothing else.

Where the local clock jumps:

- Minutes and hourly are durations and do not depend on the local clock.
- Daily to yearly keep the wall-clock time. A time that comes twice (the clock is set back) runs the first time only. A
  time that does not exist (the clock is set forward) runs later by the length of the jump: 02:30 runs at 03:30, which
  is 24 hours after the run before. Only the next run is stored, and from 03:30 alone all later runs would be at 03:30.
  A moved run therefore has `MOVED` in place of its own microseconds, and the day after it is 02:30 again.
- For a cron text see `cron`.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from tenant_q.exceptions import BadSchedule
from tenant_q.schedules import cron as crons
from tenant_q.schedules.wall_clock import local, run_at, wall_of_run

_DAY: Final = timedelta(days=1)


class Kind(StrEnum):
    """The values of Django-Q2's `Schedule.schedule_type`."""

    ONCE = "O"
    MINUTES = "I"
    HOURLY = "H"
    DAILY = "D"
    WEEKLY = "W"
    BIWEEKLY = "BW"
    MONTHLY = "M"
    BIMONTHLY = "BM"
    QUARTERLY = "Q"
    YEARLY = "Y"
    CRON = "C"


_DAYS: Final = {Kind.DAILY: 1, Kind.WEEKLY: 7, Kind.BIWEEKLY: 14}
_MONTHS: Final = {Kind.MONTHLY: 1, Kind.BIMONTHLY: 2, Kind.QUARTERLY: 3, Kind.YEARLY: 12}


def next_run(
    kind: str,
    planned: datetime,
    *,
    zone: ZoneInfo | None,
    minutes: int | None = None,
    cron: str | None = None,
) -> datetime:
    """Return the run of a recurrence after `planned`.

    A day that a month does not have becomes its last day: 31 January, then 28 or 29 February; 29 February, then 28
    February a year later. As in Django-Q2 only the next run is stored, so 28 February is followed by 28 March.

    Args:
        kind: A value of `Kind`.
        planned: A run: aware if there is a `zone`, otherwise naive local time (`USE_TZ = False`).
        zone: The time zone of wall-clock times.
        minutes: The interval of MINUTES; None and 0 mean one minute.
        cron: The text of CRON: 5 fields, 6 with seconds last, 7 with the year after them, or an alias such as `@daily`.

    Returns:
        A moment later than `planned`: aware in UTC if there is a `zone`, otherwise naive.

    Raises:
        BadSchedule: There is no such moment: the type is unknown or runs once, minutes or cron text make no sense, or
            the year is beyond 9999.
        ValueError: `planned` and `zone` do not fit each other.
    """
    return _first_after(kind, planned, planned, zone, minutes, cron)


def following(
    kind: str,
    planned: datetime,
    now: datetime,
    *,
    catch_up: bool,
    zone: ZoneInfo | None,
    minutes: int | None = None,
    cron: str | None = None,
) -> datetime:
    """Return the next run of a recurrence, to store once the run `planned` has fired at `now`.

    It is later than `planned` even if `now` is not, since clocks differ.

    Args:
        kind: As for `next_run`.
        planned: As for `next_run`.
        now: Aware or naive as `planned` is.
        catch_up: Whether missed runs are made up for one by one: True for the very next run, False for the first run
            later than `now`, which keeps the phase (`planned` + n intervals) and costs the same however many were
            missed.
        zone: As for `next_run`.
        minutes: As for `next_run`.
        cron: As for `next_run`.

    Returns:
        A moment as from `next_run`.

    Raises:
        BadSchedule: As for `next_run`.
        ValueError: As for `next_run`, or `now` and `planned` do not fit each other.
    """
    if (now.tzinfo is None) != (planned.tzinfo is None):
        raise ValueError("now and planned must be both aware or both naive")
    return _first_after(kind, planned, planned if catch_up else now, zone, minutes, cron)


def missed(
    kind: str,
    planned: datetime,
    now: datetime,
    *,
    most: int,
    zone: ZoneInfo | None,
    minutes: int | None = None,
    cron: str | None = None,
) -> int:
    """Return the number of runs of a recurrence after `planned` and up to `now`.

    Args:
        kind: As for `following`.
        planned: As for `following`.
        now: As for `following`.
        most: The most runs of a cron text to count, because each one is searched for.
        zone: As for `following`.
        minutes: As for `following`.
        cron: As for `following`.

    Raises:
        BadSchedule: As for `following`.
    """
    if now <= planned or kind == Kind.ONCE:
        return 0
    if kind == Kind.CRON:
        count, moment = -1, planned
        while moment <= now and count < most:
            count, moment = count + 1, crons.next_run(cron or "", moment, zone)
        return count
    # The first later run determines how many came before it.
    later = _first_after(kind, planned, now, zone, minutes, cron)
    if kind in (Kind.MINUTES, Kind.HOURLY):
        return (later - planned) // _interval(kind, minutes) - 1
    start, end = wall_of_run(planned, zone), wall_of_run(later, zone)
    if kind in _DAYS:
        return round((end - start) / (_DAYS[Kind(kind)] * _DAY)) - 1
    return (12 * (end.year - start.year) + end.month - start.month) // _MONTHS[Kind(kind)] - 1


def replanned(
    kind: str,
    planned: datetime,
    now: datetime,
    *,
    zone: ZoneInfo | None,
    minutes: int | None = None,
    cron: str | None = None,
) -> datetime:
    """Return the first run later than `now` of a recurrence that replaces another one.

    It keeps the phase of `planned`: a weekly schedule of Mondays at 06:00 that becomes daily runs at the next 06:00,
    and one that becomes hourly on the next full hour. A cron text has a phase of its own.

    Args:
        kind: As for `following`.
        planned: The next run by the previous recurrence.
        now: As for `following`.
        zone: As for `following`.
        minutes: As for `following`.
        cron: As for `following`.

    Raises:
        BadSchedule: As for `following`.
        ValueError: As for `following`.
    """
    if kind != Kind.CRON and planned > now and kind in [*Kind]:
        try:
            return _first_before(Kind(kind), planned, now, zone, minutes)
        except (OverflowError, ValueError) as error:
            raise _beyond_dates(kind, error) from error
    return _first_after(kind, now if kind == Kind.CRON else planned, now, zone, minutes, cron)


def _first_before(kind: Kind, planned: datetime, now: datetime, zone: ZoneInfo | None, minutes: int | None) -> datetime:
    """Return the first run of a recurrence after `now`, counted back from `planned`."""
    if kind is Kind.ONCE:
        return planned
    if zone is not None:
        planned, now = planned.astimezone(UTC), now.astimezone(UTC)
    if kind in (Kind.MINUTES, Kind.HOURLY):
        step = _interval(kind, minutes)
        return planned - (planned - now - timedelta.resolution) // step * step
    wall, reach = wall_of_run(planned, zone), local(now, zone)
    if kind in _DAYS:
        back = (wall - reach) // (_DAYS[kind] * _DAY) + 1
    else:
        back = (12 * (wall.year - reach.year) + wall.month - reach.month) // _MONTHS[kind] + 1
    while (moment := run_at(_earlier(kind, wall, back), zone)) <= now:
        back -= 1
    return moment


def _earlier(kind: Kind, wall: datetime, count: int) -> datetime:
    """Return the wall-clock time `count` intervals of a recurrence before `wall`."""
    if kind in _DAYS:
        return wall - count * _DAYS[kind] * _DAY
    year, month = divmod(12 * wall.year + wall.month - 1 - count * _MONTHS[kind], 12)
    return wall.replace(year=year, month=month + 1, day=min(wall.day, calendar.monthrange(year, month + 1)[1]))


def _first_after(
    code: str, planned: datetime, after: datetime, zone: ZoneInfo | None, minutes: int | None, cron: str | None
) -> datetime:
    """Return the first run of a recurrence that is later than both `after` and the run `planned`."""
    if (planned.tzinfo is None) != (zone is None):
        raise ValueError("planned must be aware with a time zone, and naive without one")
    try:
        kind = Kind(code)
    except ValueError:
        raise BadSchedule(f"schedule type {code!r} is not one of {', '.join(Kind)}") from None
    if kind is Kind.ONCE:
        raise BadSchedule("a schedule of type O (once) has no next run")
    try:
        if zone is not None:
            planned, after = planned.astimezone(UTC), after.astimezone(UTC)
        after = max(planned, after)
        if kind is Kind.CRON:
            return crons.next_run(cron or "", after, zone)
        if kind in (Kind.MINUTES, Kind.HOURLY):
            step = _interval(kind, minutes)
            return planned + ((after - planned) // step + 1) * step
        return _first_by_calendar(kind, planned, after, zone)
    except (OverflowError, ValueError) as error:
        raise _beyond_dates(kind, error) from error


def _beyond_dates(kind: str, error: Exception) -> BadSchedule:
    return BadSchedule(f"a schedule of type {kind} has no next run that a date can hold: {error}")


def _interval(kind: str, minutes: int | None) -> timedelta:
    """Return the interval of a recurrence of type MINUTES or HOURLY."""
    if kind == Kind.HOURLY:
        return timedelta(hours=1)
    if minutes is not None and (not isinstance(minutes, int) or minutes < 0):
        raise BadSchedule(f"the minutes of a schedule must be a whole number from 1 on, not {minutes!r}")
    return timedelta(minutes=minutes or 1)


def _first_by_calendar(kind: Kind, planned: datetime, after: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the first run of a daily to yearly recurrence: count intervals on the wall clock, upwards to `after`."""
    start, reach = wall_of_run(planned, zone), local(after, zone)
    if kind in _DAYS:
        passed = (reach - start) // (_DAYS[kind] * _DAY)
    else:
        passed = (12 * (reach.year - start.year) + reach.month - start.month) // _MONTHS[kind]
    count = max(1, passed - 1)  # a wall-clock time is never moved by more than a day
    while (moment := run_at(_later(kind, start, count), zone)) <= after:
        count += 1
    return moment


def _later(kind: Kind, start: datetime, count: int) -> datetime:
    """Return the wall-clock time `count` intervals of a recurrence after `start`, as if counted one by one."""
    if kind in _DAYS:
        return start + count * _DAYS[kind] * _DAY
    step = _MONTHS[kind]
    first = 12 * start.year + start.month - 1
    day = start.day
    if day > 28:  # each month on the way shortens it; two years hold every month, and a February of 28 days
        passed = (divmod(first + i * step, 12) for i in range(1, min(count, 24) + 1))
        day = min(day, *(calendar.monthrange(year, month + 1)[1] for year, month in passed))
    year, month = divmod(first + count * step, 12)
    return start.replace(year=year, month=month + 1, day=day)
