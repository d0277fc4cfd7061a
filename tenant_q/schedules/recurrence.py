"""The moments a schedule asks for.

Pure functions: no database, no settings, no clock. What cannot be understood is `BadSchedule`, never another error, so
that a bad row is reported to its tenant and stops nothing else.

Where the local clock jumps:

- Minutes and hourly are durations. They do not look at the local clock.
- Daily to yearly keep the wall-clock time. One that comes twice (clock set back) runs the first time only. One that
  does not exist (clock set forward) runs later by as much as the clock jumped: 02:30 runs at 03:30, which is 24 hours
  after the run before. Only the next run is stored, and 03:30 alone would be 03:30 for ever after; so a run moved that
  way carries `MOVED` microseconds in place of its own, by which its wall-clock time is found again: the day after, it
  is 02:30.
- A cron text with every hour (`*`) follows the real time: in the hour that comes twice it runs twice, minutes that do
  not exist are left out. A cron text that names hours runs each wall-clock time once: the first time where it comes
  twice; and what falls where the clock jumps forward runs once, at the end of the jump: 02:00 and 02:30 at 03:00.
"""

from __future__ import annotations

import calendar
from copy import copy
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from croniter import HOUR_FIELD, croniter

from tenant_q.exceptions import BadSchedule

MAX_CRON: Final = 1_000
"""Longest cron text that is parsed, in characters (Django-Q2's column holds 100)."""

MOVED: Final = 1
"""The microsecond of a daily to yearly run whose wall-clock time did not exist."""

_CRON_YEARS: Final = 130  # as far as a cron text can name a year: 1970 to 2099
_CRON_PARTS: Final = ("minute", "hour", "day of the month", "month", "day of the week", "second", "year")
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


# Moments


def next_run(
    kind: str,
    planned: datetime,
    *,
    zone: ZoneInfo | None,
    minutes: int | None = None,
    cron: str | None = None,
) -> datetime:
    """The occurrence after `planned`.

    A day the month does not have is its last one (31 January, then 28 or 29 February; 29 February, then 28 February a
    year later). As in Django-Q2 only the next run is stored, so what follows 28 February is 28 March.

    `kind` is a type code of `Kind`. `planned` is aware when there is a `zone`, naive local time when there is none
    (`USE_TZ = False`). `minutes` is the interval of MINUTES, None or 0 being one minute. `cron` is the text of CRON:
    5 fields, or 6 with seconds last, or 7 with the year after them, or an alias such as `@daily`.

    Returns a moment later than `planned`: aware in UTC when there is a `zone`, else naive.

    Raises `BadSchedule` when there is no such moment: a type unknown or without a next run (ONCE), minutes or cron
    text that make no sense, a year beyond 9999; `ValueError` when `planned` and `zone` do not fit each other.
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
    """The next run to store once the occurrence `planned` has been fired at `now`.

    With `catch_up` it is the very next occurrence, so that missed ones are made up for one by one; without, the first
    that is later than `now`, which keeps the phase (`planned` + n intervals) and costs the same however many were
    missed. It is later than `planned` also when `now` is not (clocks differ).

    `now` is aware or naive as `planned` is; the other parameters, what is returned and what is raised are those of
    `next_run`.
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
    """Return the number of occurrences after `planned` and up to `now`.

    Parameters: `most`, the most occurrences of a cron text to count, because each is searched for; the other parameters
    and the errors are those of `following`.
    """
    if now <= planned or kind == Kind.ONCE:
        return 0
    if kind == Kind.CRON:
        count, moment = -1, planned
        while moment <= now and count < most:
            count, moment = count + 1, _cron(cron or "", moment, zone)
        return count
    # The first later occurrence determines how many came before it.
    later = _first_after(kind, planned, now, zone, minutes, cron)
    if kind in (Kind.MINUTES, Kind.HOURLY):
        step = timedelta(hours=1) if kind == Kind.HOURLY else _interval(minutes)
        return (later - planned) // step - 1
    start, end = _wall(planned, zone), _wall(later, zone)
    if kind in _DAYS:
        return round((end - start) / (_DAYS[Kind(kind)] * _DAY)) - 1
    return (12 * (end.year - start.year) + end.month - start.month) // _MONTHS[Kind(kind)] - 1


def planned_anew(
    kind: str,
    planned: datetime,
    now: datetime,
    *,
    zone: ZoneInfo | None,
    minutes: int | None = None,
    cron: str | None = None,
) -> datetime:
    """Return the first run later than `now` of a recurrence that replaces another one, whose next run was `planned`.

    It keeps the phase of `planned`: a weekly schedule of Mondays at 06:00 that becomes a daily one runs at the next
    06:00, one that becomes hourly on the next full hour. A cron text has a phase of its own.

    The parameters and the errors are those of `following`.
    """
    if kind != Kind.CRON and planned > now and kind in [*Kind]:
        try:
            return _first_before(Kind(kind), planned, now, zone, minutes)
        except (OverflowError, ValueError) as error:
            raise BadSchedule(f"a schedule of type {kind} has no next run that a date can hold: {error}") from error
    return _first_after(kind, now if kind == Kind.CRON else planned, now, zone, minutes, cron)


def _first_before(kind: Kind, planned: datetime, now: datetime, zone: ZoneInfo | None, minutes: int | None) -> datetime:
    """Return the first occurrence after `now`, counted back from `planned`."""
    if kind is Kind.ONCE:
        return planned
    if zone is not None:
        planned, now = planned.astimezone(UTC), now.astimezone(UTC)
    if kind in (Kind.MINUTES, Kind.HOURLY):
        step = timedelta(hours=1) if kind is Kind.HOURLY else _interval(minutes)
        return planned - (planned - now - timedelta.resolution) // step * step
    wall, reach = _wall(planned, zone), _local(now, zone)
    if kind in _DAYS:
        back = (wall - reach) // (_DAYS[kind] * _DAY) + 1
    else:
        back = (12 * (wall.year - reach.year) + wall.month - reach.month) // _MONTHS[kind] + 1
    while (moment := _moment(_earlier(kind, wall, back), zone)) <= now:
        back -= 1
    return moment


def _earlier(kind: Kind, wall: datetime, count: int) -> datetime:
    """Return the wall-clock time `count` intervals before `wall`."""
    if kind in _DAYS:
        return wall - count * _DAYS[kind] * _DAY
    year, month = divmod(12 * wall.year + wall.month - 1 - count * _MONTHS[kind], 12)
    return wall.replace(year=year, month=month + 1, day=min(wall.day, calendar.monthrange(year, month + 1)[1]))


def _first_after(
    code: str, planned: datetime, after: datetime, zone: ZoneInfo | None, minutes: int | None, cron: str | None
) -> datetime:
    """The first occurrence that is later than both `planned`, which is one, and `after`."""
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
            return _cron(cron or "", after, zone)
        if kind in (Kind.MINUTES, Kind.HOURLY):
            step = timedelta(hours=1) if kind is Kind.HOURLY else _interval(minutes)
            return planned + ((after - planned) // step + 1) * step
        return _calendar(kind, planned, after, zone)
    except (OverflowError, ValueError) as error:
        raise BadSchedule(f"a schedule of type {kind} has no next run that a date can hold: {error}") from error


def _interval(minutes: int | None) -> timedelta:
    if minutes is not None and (not isinstance(minutes, int) or minutes < 0):
        raise BadSchedule(f"the minutes of a schedule must be a whole number from 1 on, not {minutes!r}")
    return timedelta(minutes=minutes or 1)


def _calendar(kind: Kind, planned: datetime, after: datetime, zone: ZoneInfo | None) -> datetime:
    """Daily to yearly: count intervals on the wall clock, from just below `after` upwards."""
    start, reach = _wall(planned, zone), _local(after, zone)
    if kind in _DAYS:
        passed = (reach - start) // (_DAYS[kind] * _DAY)
    else:
        passed = (12 * (reach.year - start.year) + reach.month - start.month) // _MONTHS[kind]
    count = max(1, passed - 1)  # a wall-clock time is never moved by more than a day
    while (moment := _moment(_nth(kind, start, count), zone)) <= after:
        count += 1
    return moment


def _nth(kind: Kind, start: datetime, count: int) -> datetime:
    """The wall-clock time `count` intervals after `start`, as if each were counted from the one before it."""
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


def _cron(text: str, after: datetime, zone: ZoneInfo | None) -> datetime:
    search = copy(_parsed_cron(text))
    real_time = zone is not None and "*" in search.expanded[HOUR_FIELD]
    try:
        search.set_current(after.astimezone(zone) if real_time else _local(after, zone))
        while True:
            found = search.get_next(datetime)
            if zone is not None:
                found = found.astimezone(UTC) if real_time else _after_gap(found, zone)
            if found > after:
                return found
    except Exception as error:
        raise BadSchedule(f"cron text {text!r} has no moment after {after}: {error}") from error


@lru_cache(maxsize=1024)
def _parsed_cron(text: str) -> croniter[float]:
    """The parsed text, to be copied before use: parsing costs several times what a search does.

    So what a text leaves to chance (`R`) is drawn once in a process.
    """
    if len(text) > MAX_CRON:
        raise BadSchedule(f"cron text {text[:40]!r}… is longer than {MAX_CRON} characters")
    try:
        return croniter(text, 0.0, max_years_between_matches=_CRON_YEARS)
    except Exception as error:  # a foreign parser; whatever it trips over, the text is at fault
        raise BadSchedule(f"cron text {text!r} does not parse{_place(text)}: {error}") from error


def _place(text: str) -> str:
    """Which part of a cron text is wrong by itself, in words; empty where it is none."""
    parts = text.split()
    for number, (name, part) in enumerate(zip(_CRON_PARTS, parts, strict=False)):
        alone = ["*"] * max(len(parts), 5)
        alone[number] = part
        try:
            croniter(" ".join(alone), 0.0)
        except Exception:  # as above
            return f" at {part!r}, the {name}" if 5 <= len(parts) <= len(_CRON_PARTS) else ""
    return ""


# Wall-clock times: naive, as a clock in the zone shows them


def _local(moment: datetime, zone: ZoneInfo | None) -> datetime:
    return moment if zone is None else moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _utc(wall: datetime, zone: ZoneInfo, fold: int = 0) -> datetime:
    """The first (`fold` 0) moment that shows `wall`; in a jump forward, by the offset before it (0) or after (1)."""
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _moment(wall: datetime, zone: ZoneInfo | None) -> datetime:
    """When a daily to yearly schedule runs for `wall`: see the module's head."""
    if zone is None:
        return wall
    moment = _utc(wall, zone)
    return moment if _local(moment, zone) == wall else moment.replace(microsecond=MOVED)


def _wall(planned: datetime, zone: ZoneInfo | None) -> datetime:
    """The wall-clock time that `_moment` made `planned` from."""
    shown = _local(planned, zone)
    if zone is not None and planned.microsecond == MOVED:
        moved = planned.replace(microsecond=0)
        meant = _local(moved - _DAY, zone) + _DAY  # by the offset before the jump
        if meant != _local(moved, zone) and _utc(meant, zone) == moved:
            return meant
    return shown


def _after_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment that shows `wall`, or, when none does, the first whose clock is past it. Whole seconds."""
    high, low = _utc(wall, zone, fold=0), _utc(wall, zone, fold=1)
    if low >= high:
        return high
    while (half := (high - low) // timedelta(seconds=2)) > 0:
        middle = low + timedelta(seconds=half)
        low, high = (low, middle) if _local(middle, zone) > wall else (middle, high)
    return high
