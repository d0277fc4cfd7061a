"""Find schedules that are behind and have to catch up.

With `catch_up` True a schedule makes up for each missed run, one after another. If its first run was years ago, it has
missed thousands. The log, the admin and `msschedules --check` report it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from django_q.models import Schedule

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule
from tenant_q.schedules import recurrence
from tenant_q.schedules.row_options import catch_up_of
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.schedules")

MANY = 100
"""A schedule with this number of missed runs or more is reported. An outage leaves fewer."""
MOST_OF_CRON = 1000
"""The most runs of a cron text that are counted, because each one is searched for."""

# The schedules that are behind, by schema and id, so that each is logged once.
_behind: set[tuple[str, int]] = set()
_MOST_KEPT = 10_000


def runs_behind(
    kind: str | None,
    planned: datetime | None,
    now: datetime,
    *,
    minutes: int | None = None,
    cron: str | None = None,
    repeats: int = -1,
    kwargs: str | None = None,
) -> int:
    """Return the number of missed runs that a schedule is to catch up on.

    Args:
        kind: The type of the schedule; None if unknown.
        planned: Its next run, the first to count; None while it is paused.
        now: The moment up to which runs are counted.
        minutes: The interval of a type in minutes.
        cron: The text of the cron type.
        repeats: The remaining repeats; negative without limit.
        kwargs: The text of its keyword arguments, whose `q_options` may have a `catch_up` of its own.

    Returns:
        The number, for a cron text at most one more than `MOST_OF_CRON`. It is 0 if the schedule does not catch up, is
        paused, has ended, runs once, or has a recurrence that cannot be understood.
    """
    limit = catch_up_of(kwargs)
    if planned is None or planned > now or kind in (None, Schedule.ONCE) or repeats == 0 or not limit:
        return 0
    count = 0
    with suppress(BadSchedule):
        count = 1 + recurrence.missed(
            str(kind), planned, now, most=MOST_OF_CRON, zone=conf().zone, minutes=minutes, cron=cron
        )
    count = min(count, repeats) if repeats > 0 else count
    return count if limit is True else min(count, limit)


def runs_of(row: Schedule, now: datetime) -> int:
    """Return the number of missed runs that a row's schedule is to catch up on, as `runs_behind` does."""
    return runs_behind(
        row.schedule_type,
        row.next_run,
        now,
        minutes=row.minutes,
        cron=row.cron,
        repeats=row.repeats,
        kwargs=row.kwargs,
    )


def runs_at_once(row: Schedule, now: datetime) -> int:
    """Return the number of runs that a row's schedule starts at once, because their time has passed."""
    if row.next_run is None or row.next_run > now or row.repeats == 0:
        return 0
    return max(1, runs_of(row, now))


def in_words(count: int) -> str:
    """Return a number of runs to catch up on as text for the log or a terminal."""
    return counted(count, "run") + (" or more" if count == 1 + MOST_OF_CRON else "")


def forget() -> None:
    """Forget which schedules are catching up, so that each is logged again."""
    _behind.clear()


def note(schema: str, row: Schedule, planned: datetime, repeats: int) -> None:
    """Log a schedule that begins to catch up on many runs, once until it has caught up.

    Args:
        schema: The tenant.
        row: The schedule, which fired at the moment `row.clock` and has its new next run.
        planned: Its next run before it fired.
        repeats: Its repeats before it fired.
    """
    key = (schema, row.pk)
    if row.schedule_type == Schedule.ONCE or row.repeats == 0 or row.next_run > row.clock:
        _behind.discard(key)
        return
    if key in _behind:
        return
    if len(_behind) >= _MOST_KEPT:  # schedules that were deleted while behind are never removed
        _behind.clear()
    _behind.add(key)
    count = runs_behind(
        row.schedule_type,
        planned,
        row.clock,
        minutes=row.minutes,
        cron=row.cron,
        repeats=repeats,
        kwargs=row.kwargs,
    )
    if count >= MANY:
        logger.warning(
            "Schedule %s of %s began to make up for %s, one by one, the first of %s: to leave them out, set its "
            "next_run to a time in the future, or Q_CLUSTER['catch_up'] to False",
            f"{row.name!r} (id {row.pk})" if row.name else f"id {row.pk}",
            schema,
            in_words(count),
            planned.isoformat(),
            event="schedule.catching_up",
            extra={"schema": schema, "task_id": row.task or "", "func": row.func},
        )
