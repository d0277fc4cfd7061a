"""When a real cluster starts schedules that were due at known moments, which it missed and which it started twice.

Imported once Django is set up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benchmarks import harness, work
from benchmarks.harness import BenchmarkError, percentile

# How long before the first moment all that is planned must be there.
MARGIN = 2.0
# So many are planned in one statement, and in a second even on a slow machine.
ROWS_A_STATEMENT, ROWS_A_SECOND = 500, 400
_INSERT = (
    "INSERT INTO {0.schema}.django_q_schedule"
    " (name, func, kwargs, schedule_type, repeats, next_run, intended_date_kwarg) VALUES"
    " ('{0.name}', 'benchmarks.work.note', 'name=''{0.name}'', q_options={{''delay'': {0.wait}}}', 'D', -1, '{1}',"
    " 'planned');"
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule that is due at a moment; its task starts `wait` seconds later."""

    schema: str
    name: str
    moment: datetime
    wait: int = 0


@dataclass(frozen=True, slots=True)
class Late:
    """Milliseconds after the planned moments."""

    p50: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Starts:
    """What came of schedules: when the broker had their tasks, and when these started."""

    tenants: int
    planned: int
    missed: int
    twice: int
    enqueued: Late
    started: Late


def each_second(names: Sequence[str], start: datetime, seconds: int, a_second: int, *, busy: bool) -> Iterator[Planned]:
    """So many schedules on the stroke of each second, all tenants by turns.

    Parameters: `busy`, whether workers run their tasks at once, or all of them when the last second is over.
    """
    for number in range(seconds * a_second):
        second = number // a_second
        wait = 0 if busy else seconds - second + 1
        yield Planned(names[number % len(names)], f"second-{number}", start + timedelta(seconds=second), wait)


def at_once(names: Sequence[str], start: datetime, count: int) -> Iterator[Planned]:
    """So many schedules at the same moment, the same number for each tenant."""
    for number in range(count):
        yield Planned(names[number % len(names)], f"burst-{number}", start)


def soon(count: int) -> datetime:
    """A full second by which so many schedules can be there."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=int(MARGIN + 3 + count / ROWS_A_SECOND))


def measure(names: Sequence[str], planned: Sequence[Planned], patience: float) -> Starts:
    """Let the running cluster start them, and look at what it did."""
    work.forget()
    _insert(planned)
    first, last = planned[0].moment, planned[-1].moment
    if _since(first) > -MARGIN:
        raise BenchmarkError("Planning took too long: the first schedules were due before the last ones were there.")
    harness.wait_until(lambda: _since(last) > 0, 1 - _since(last), "the last moment")
    harness.waits(lambda: work.count(work.STARTED) >= len(planned), patience)
    # A second start would be there soon: schedulers wake for what is due, and workers for what is queued.
    done = _since(last)
    harness.wait_until(lambda: _since(last) > done + 1, 2, "a further second")
    return judge(names, planned, work.read(work.ENQUEUED), work.read(work.STARTED))


def judge(names: Sequence[str], planned: Sequence[Planned], enqueued: Sequence[Any], started: Sequence[Any]) -> Starts:
    """Compare what was planned with the notes that were left."""
    wanted = {(one.schema, one.name, one.moment) for one in planned}
    seen = Counter(tuple(note[:3]) for note in started)
    if not started or seen.keys() - wanted:
        raise BenchmarkError(f"{len(seen.keys() - wanted)} of {len(started)} tasks that ran were not planned.")
    return Starts(
        tenants=len(names),
        planned=len(planned),
        missed=len(wanted - seen.keys()),
        twice=sum(count > 1 for count in seen.values()),
        enqueued=_late(enqueued),
        started=_late(started),
    )


def _late(notes: Sequence[Any]) -> Late:
    late = [(at - planned.timestamp()) * 1000 for _, _, planned, at in notes]
    return Late(percentile(late, 0.5), percentile(late, 0.99), max(late))


def _insert(planned: Sequence[Planned]) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        for first in range(0, len(planned), ROWS_A_STATEMENT):
            some = planned[first : first + ROWS_A_STATEMENT]
            session.execute("".join(_INSERT.format(one, one.moment.isoformat()) for one in some).encode())


def _since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
