"""Find the next run of a cron text.

A text with every hour (`*`) follows real time: in an hour that comes twice it runs twice, and minutes that do not exist
are left out. A text that names hours runs once for each wall-clock time: the first time where it comes twice, and at
the end of the jump where the clock jumps over it, so 02:00 and 02:30 both run at 03:00.
"""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from croniter import HOUR_FIELD, croniter

from tenant_q.exceptions import BadSchedule
from tenant_q.schedules.wall_clock import end_of_jump, local

MAX_CRON: Final = 1_000
"""The longest cron text that is parsed, in characters (Django-Q2's column holds 100)."""

_YEARS: Final = 130  # a cron text can name the years 1970 to 2099
_PARTS: Final = ("minute", "hour", "day of the month", "month", "day of the week", "second", "year")


def next_run(text: str, after: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the first run of a cron text that is later than `after`.

    Args:
        text: 5 fields, 6 with seconds last, 7 with the year after them, or an alias such as `@daily`.
        after: An aware moment in UTC if there is a `zone`, otherwise naive local time.
        zone: The time zone of the wall-clock times that the text names.

    Returns:
        A moment of the same form as `after`.

    Raises:
        BadSchedule: The text does not parse, or has no run after `after`.
    """
    search = copy(_parsed(text))
    real_time = zone is not None and "*" in search.expanded[HOUR_FIELD]
    try:
        search.set_current(after.astimezone(zone) if real_time else local(after, zone))
        while True:
            found = search.get_next(datetime)
            if zone is not None:
                found = found.astimezone(UTC) if real_time else end_of_jump(found, zone)
            if found > after:
                return found
    except Exception as error:
        raise BadSchedule(f"cron text {text!r} has no moment after {after}: {error}") from error


@lru_cache(maxsize=1024)
def _parsed(text: str) -> croniter[float]:
    """Return a parsed cron text, to be copied before use: parsing costs several times what a search does.

    A field that croniter draws at random (`R`) is therefore drawn once in each process.
    """
    if len(text) > MAX_CRON:
        raise BadSchedule(f"cron text {text[:40]!r}… is longer than {MAX_CRON} characters")
    try:
        return croniter(text, 0.0, max_years_between_matches=_YEARS)
    except Exception as error:  # whatever error the parser raises, its cause is the text
        raise BadSchedule(f"cron text {text!r} does not parse{_place(text)}: {error}") from error


def _place(text: str) -> str:
    """Return the first part of a cron text that does not parse by itself, in words; empty if each one does."""
    parts = text.split()
    for number, (name, part) in enumerate(zip(_PARTS, parts, strict=False)):
        alone = ["*"] * max(len(parts), 5)
        alone[number] = part
        try:
            croniter(" ".join(alone), 0.0)
        except Exception:  # as above
            return f" at {part!r}, the {name}" if 5 <= len(parts) <= len(_PARTS) else ""
    return ""
