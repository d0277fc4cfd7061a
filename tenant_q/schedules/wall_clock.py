"""Convert between moments and wall-clock times, also where the local clock jumps.

A wall-clock time is a naive `datetime`: what a clock in the zone shows. Without a zone (`USE_TZ = False`) both are the
same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

MOVED: Final = 1
"""The microsecond of a daily to yearly run whose wall-clock time did not exist."""

_DAY: Final = timedelta(days=1)


def local(moment: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the wall-clock time of a moment: what a clock in the zone shows."""
    return moment if zone is None else moment.astimezone(zone).replace(tzinfo=None, fold=0)


def first_moment(wall: datetime, zone: ZoneInfo, fold: int = 0) -> datetime:
    """Return the first moment at which a wall clock shows `wall`, in UTC.

    Where the clock jumps over `wall`, the offset before the jump (`fold` 0) or after it (`fold` 1) applies.
    """
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def run_at(wall: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the moment at which a schedule with the wall-clock time `wall` runs; `recurrence` describes the rules."""
    if zone is None:
        return wall
    moment = first_moment(wall, zone)
    return moment if local(moment, zone) == wall else moment.replace(microsecond=MOVED)


def wall_of_run(planned: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the wall-clock time from which `run_at` made `planned`."""
    shown = local(planned, zone)
    if zone is not None and planned.microsecond == MOVED:
        moved = planned.replace(microsecond=0)
        meant = local(moved - _DAY, zone) + _DAY  # by the offset before the jump
        if meant != local(moved, zone) and first_moment(meant, zone) == moved:
            return meant
    return shown


def end_of_jump(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment at which a wall clock shows `wall` or, if it jumps over `wall`, a later time.

    The result is precise to the second.
    """
    high, low = first_moment(wall, zone, fold=0), first_moment(wall, zone, fold=1)
    if low >= high:
        return high
    while (half := (high - low) // timedelta(seconds=2)) > 0:
        middle = low + timedelta(seconds=half)
        low, high = (low, middle) if local(middle, zone) > wall else (middle, high)
    return high
