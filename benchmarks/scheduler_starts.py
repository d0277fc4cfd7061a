"""When a real cluster starts schedules that were due at known moments, which it missed and which it started twice.

Imported once Django is set up.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.db import connection

from benchmarks import harness, work
from benchmarks.harness import BenchmarkError, percentile

# How long before the first moment all that is planned must be there.
MARGIN = 2.0
# So many are planned in one statement, and in a second even on a slow machine.
ROWS_A_STATEMENT, ROWS_A_SECOND = 500, 400
_INSERT = (
    "INSERT INTO {0.schema}.django_q_schedule"
    " (name, func, kwargs, schedule_type, repeats, next_run, intended_date_kwarg)"
    " VALUES ('{0.name}', 'benchmarks.work.note', 'name=''{0.name}''', 'D', -1, '{1}', 'planned');"
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule that is to start at a moment."""

    schema: str
    name: str
    moment: datetime


@dataclass(frozen=True, slots=True)
class Starts:
    """What came of schedules that were due at known moments, each time from its own.

    `fired_s` is how long after the last moment nothing was due any more.
    """

    tenants: int
    planned: int
    missed: int
    twice: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    fired_s: float


def each_second(names: Sequence[str], start: datetime, seconds: int, a_second: int) -> Iterator[Planned]:
    """So many schedules on the stroke of each second, all tenants by turns."""
    for number in range(seconds * a_second):
        moment = start + timedelta(seconds=number // a_second)
        yield Planned(names[number % len(names)], f"second-{number}", moment)


def at_once(names: Sequence[str], start: datetime, count: int) -> Iterator[Planned]:
    """So many schedules at the same moment, the same number for each tenant."""
    for number in range(count):
        yield Planned(names[number % len(names)], f"burst-{number}", start)


def soon(count: int) -> datetime:
    """A full second by which so many schedules can be there."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=int(MARGIN + 3 + count / ROWS_A_SECOND))


def measure(names: Sequence[str], planned: Sequence[Planned], patience: float) -> Starts:
    """Let the running cluster start them, and look at what it did."""
    work.client().delete(work.NOTES)
    _insert(planned)
    first, last = planned[0].moment, planned[-1].moment
    if _since(first) > -MARGIN:
        raise BenchmarkError("Planning took too long: the first schedules were due before the last ones were there.")
    harness.wait_until(lambda: _since(last) > 0, 1 - _since(last), "the last moment")
    harness.waits(lambda: not _count_due(), patience)
    fired = _since(last)
    harness.waits(lambda: work.client().llen(work.NOTES) >= len(planned), patience)
    # A second start would be there soon: schedulers wake for what is due, and workers for what is queued.
    done = _since(last)
    harness.wait_until(lambda: _since(last) > done + 1, 2, "a further second")
    return judge(names, planned, [json.loads(text) for text in work.client().lrange(work.NOTES, 0, -1)], fired)


def judge(names: Sequence[str], planned: Sequence[Planned], notes: Sequence[Any], fired: float) -> Starts:
    """Compare what was planned with the notes that its tasks left."""
    wanted = {(one.schema, one.name, one.moment) for one in planned}
    seen = Counter((schema, name, datetime.fromisoformat(moment)) for schema, name, moment, _ in notes)
    late = [(started - datetime.fromisoformat(moment).timestamp()) * 1000 for _, _, moment, started in notes]
    if not late or seen.keys() - wanted:
        raise BenchmarkError(f"{len(seen.keys() - wanted)} of {len(late)} tasks that ran were not planned.")
    return Starts(
        tenants=len(names),
        planned=len(planned),
        missed=len(wanted - seen.keys()),
        twice=sum(count > 1 for count in seen.values()),
        p50_ms=percentile(late, 0.5),
        p99_ms=percentile(late, 0.99),
        max_ms=max(late),
        fired_s=fired,
    )


def _insert(planned: Sequence[Planned]) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        for first in range(0, len(planned), ROWS_A_STATEMENT):
            some = planned[first : first + ROWS_A_STATEMENT]
            session.execute("".join(_INSERT.format(one, one.moment.isoformat()) for one in some).encode())


def _count_due() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenant_q_dueschedule WHERE cluster = '' AND due <= now()")
        return int(cursor.fetchone()[0])


def _since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
