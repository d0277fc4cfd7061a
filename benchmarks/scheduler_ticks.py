"""Ticks of the scheduler beside those of a loop over all schemas, with any number of tenants.

Imported once Django is set up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import connection, connections, transaction
from django.utils import timezone
from django_q.models import Schedule

from benchmarks import harness
from benchmarks.harness import median, timed
from tenant_q import tenancy
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.lifecycle import push
from tenant_q.models import DueSchedule
from tenant_q.package.build import build
from tenant_q.schedules import due_index, index_upkeep

T = TypeVar("T")

LATER = datetime(2999, 1, 1, tzinfo=UTC)
# Schedules of each tenant that are never due here; and so many tenants have one that is, in a busy tick.
IDLE_SCHEDULES, BUSY_TENANTS = 3, 100
# A round's idle tick is the median of this many.
TICKS_A_ROUND = 50


@dataclass(frozen=True, slots=True)
class Ticks:
    """Milliseconds and statements of a tick: nothing due, and `BUSY_TENANTS` tenants with one schedule due."""

    idle_ms: float
    idle_statements: int
    busy_ms: float
    busy_statements: int


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured with so many tenants.

    `pages`, `look_ms` and `scans` are what the server says of an idle tick's statement. `longest_ms` is the longest
    busy tick, `slow_ms` the comparison of catalogue and index each 30 s, `verify_s` that of all schedules at the start.
    """

    tenants: int
    schedules: int
    scheduler: Ticks
    loop: Ticks
    pages: int
    look_ms: float
    scans: list[str]
    longest_ms: float
    slow_ms: float
    verify_s: float


# The loop of the package of 2020


class SchemaLoop:
    """A tick of that package: for each tenant its schema, a transaction, and the due rows with their locks.

    It has a session of its own that stays open, and that passes by the triggers, which that package did not have.
    """

    def __init__(self) -> None:
        connections.settings["loop"] = dict(connections.settings["default"])
        self.connection: Any = connections["loop"]
        with self.connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")

    def tick(self) -> None:
        for tenant in tenancy.tenant_model().objects.using("loop").exclude(schema_name__in=["public"]):
            self.connection.set_schema(tenant.schema_name)
            with transaction.atomic(using="loop"):
                rows = Schedule.objects.using("loop").select_for_update().exclude(repeats=0)
                for row in rows.filter(next_run__lt=timezone.now()):
                    self._fire(row, tenant.schema_name)
            self.connection.set_schema_to_public()

    def _fire(self, row: Any, schema: str) -> None:
        fire = build(row.func, (row.name, ""), {"group": row.name}, schema=schema)
        push.push([fire])
        row.next_run, row.repeats, row.task = row.next_run + timedelta(days=1), row.repeats - 1, fire.id
        row.save()


# Ticks


def new_scheduler() -> Scheduler:
    scheduler = Scheduler(Slot())
    scheduler.stopping.restore()  # Ctrl-C is this command's
    return scheduler


def work_off(scheduler: Scheduler) -> list[float]:
    """Tick until nothing is left to do. Returns the milliseconds of each tick."""
    found, pause = [], 0.0

    def tick() -> None:
        nonlocal pause
        pause = scheduler.tick()

    while pause < 1:
        found.append(timed(tick))
    return found


def make_tenants(names: Sequence[str]) -> None:
    """Tenants with some schedules each that are not due."""
    columns = "name, func, kwargs, schedule_type, repeats, next_run, intended_date_kwarg"
    values = "''idle-'' || n, ''benchmarks.work.note'', ''name=1'', ''D'', -1, %L, ''planned''"
    rows = f"SELECT {values} FROM generate_series(1, {IDLE_SCHEDULES}) AS n"
    insert = f"INSERT INTO %I.django_q_schedule ({columns}) {rows}"
    harness.clone_tenants(names, f"EXECUTE format('{insert}', name, '{LATER.isoformat()}');")


def make_due(names: Sequence[str]) -> None:
    set_next_run(names, datetime.now(UTC) - timedelta(minutes=1))


def set_next_run(names: Sequence[str], moment: datetime) -> None:
    """Plan one schedule of each tenant for this moment."""
    update = "UPDATE %I.django_q_schedule SET next_run = %L WHERE name = ''idle-1''"
    harness.for_each(names, f"EXECUTE format('{update}', name, '{moment.isoformat()}');")


def measure(names: Sequence[str], rounds: int) -> Size:
    scheduler, loop = new_scheduler(), SchemaLoop()
    verify_ms = sum(work_off(scheduler))
    harness.analyze()
    due = names[:: max(1, len(names) // BUSY_TENANTS)][:BUSY_TENANTS]

    def busy(act: Callable[[], T]) -> T:
        make_due(due)
        try:
            return act()
        finally:
            set_next_run(due, LATER)
            work_off(scheduler)

    idle, busy_rounds, loop_idle, loop_busy = [], [], [], []
    # It is its first pass too, so that both have seen every table before.
    loop_statements = harness.count_statements(loop.tick, loop.connection)
    for _ in range(rounds):
        idle.append(median([timed(scheduler.tick) for _ in range(TICKS_A_ROUND)]))
        loop_idle.append(timed(loop.tick))
        busy_rounds.append(busy(lambda: work_off(scheduler)))
        loop_busy.append(busy(lambda: timed(loop.tick)))
    look = harness.pages(due_index.look_query())
    return Size(
        tenants=len(names),
        schedules=DueSchedule.objects.count(),
        scheduler=Ticks(
            median(idle),
            harness.count_statements(scheduler.tick, connection),
            median([sum(ticks) for ticks in busy_rounds]),
            busy(lambda: harness.count_statements(lambda: work_off(scheduler), connection)),
        ),
        loop=Ticks(
            median(loop_idle),
            loop_statements,
            median(loop_busy),
            busy(lambda: harness.count_statements(loop.tick, loop.connection)),
        ),
        pages=look["pages"],
        look_ms=look["ms"],
        scans=look["scans"],
        longest_ms=max(max(ticks) for ticks in busy_rounds),
        slow_ms=timed(index_upkeep.stale_schemas),
        verify_s=verify_ms / 1000,
    )
