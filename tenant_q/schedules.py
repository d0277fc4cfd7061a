"""Schedules: when each tenant's next one is due, and turning due ones into tasks.

A fire is one occurrence: (schema, schedule, planned time). Its package id is made of these, so a fire that is pushed
and then rolled back, by a crash before the commit, is pushed again under the same id, which the broker knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Q
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import recurrence, results, tenancy
from tenant_q.arguments import parse_arguments
from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule, EnqueueError, ScheduleFailed, TenantQError
from tenant_q.labels import get_logger
from tenant_q.options import take_q_options
from tenant_q.package import Outcome, Package, build, deterministic_id

logger = get_logger("tenant_q.schedules")

# A transaction takes a lock on each table it reads, and the server has room for some thousands.
SCHEMAS_A_QUERY = 100
# At most this many fires of one tenant in one transaction.
FIRES_A_PASS = 100

# The tenants whose schedules are skipped, as the log has told.
_told: set[str] = set()

Push = Callable[[Sequence[Package]], None]


@dataclass(frozen=True, slots=True)
class Due:
    """A tenant and the planned time of its earliest schedule."""

    schema: str
    next_run: datetime


def next_runs(schemas: Sequence[str]) -> list[Due]:
    """The earliest schedule of each schema that has one, in one round trip a hundred schemas.

    A schema without Django-Q2's tables is left out, and told in the log once. Raises `DatabaseAway`.
    """
    found: list[Due] = []
    unready = set()
    names = {tenancy.physical_schema(schema): schema for schema in schemas}
    physical = list(names)
    connection = tenancy.tenant_connection()
    for start in range(0, len(physical), SCHEMAS_A_QUERY):
        some = physical[start : start + SCHEMAS_A_QUERY]
        with tenancy.told_when_away(), tenancy.in_public(), connection.cursor() as cursor:
            cursor.callproc("tenant_q_next_runs", [some, conf().cluster, serves_default()])
            for schema, next_run in cursor.fetchall():
                if next_run is None:
                    unready.add(names[schema])
                else:
                    found.append(Due(names[schema], next_run))
    _warn_once(unready)
    return found


def _warn_once(unready: set[str]) -> None:
    for schema in sorted(unready - _told):
        logger.warning(
            "Schedules of %s are skipped until its table of schedules is there, whole and not locked",
            schema,
            extra={"schema": schema},
        )
    _told.clear()
    _told.update(unready)


def serves_default() -> bool:
    """Whether this cluster serves the schedules that name no cluster."""
    return conf().cluster == conf().site


def fire_due(schema: str, push: Push) -> int:
    """Turn a tenant's due schedules into tasks and move their next runs on, in one transaction.

    Parameters: `push`, what puts the packages on the broker; called before the commit.

    Returns how many fired. Raises `TenantUnavailable`, `DatabaseError`, `DatabaseAway` or `BrokerError`; then nothing
    is changed and all of them stay due.
    """
    with tenancy.told_when_away(), tenancy.in_schema(schema):
        tenancy.verify(schema)
        with tenancy.in_patient_transaction():
            due = list(_claim(timezone.now()))
            fires = [_fire(row, schema) for row in due]
            results.save_or_raise([fire for fire in fires if isinstance(fire, Outcome)])
            push([fire for fire in fires if isinstance(fire, Package)])
            return len(due)


def _claim(now: datetime) -> Any:
    """The due rows of this cluster that no other is working on."""
    own = Q(cluster=conf().cluster) | (Q(cluster__isnull=True) if serves_default() else Q(pk__in=[]))
    # A moment before the year 1, as '-infinity' is, cannot be read.
    first = datetime.min.replace(tzinfo=now.tzinfo) + timedelta(days=1)
    planned = Q(next_run__gte=first, next_run__lte=now)
    rows = Schedule.objects.select_for_update(skip_locked=True).filter(own, planned).exclude(repeats=0)
    return rows.order_by("next_run")[:FIRES_A_PASS]


def _fire(row: Schedule, schema: str) -> Package | Outcome:
    """The package of a row's occurrence, or the failure that takes its place. Moves the row on."""
    planned = row.next_run
    # With the id of the fire before: a row that somebody sets back to a time it had fires again.
    id = deterministic_id("fire", schema, row.pk, planned.isoformat(), row.task)
    try:
        package: Package | Outcome = _package(row, schema, id)
    except (BadSchedule, EnqueueError) as error:
        package = _failed(row, schema, id, error)
    row.task = id
    try:
        _move_on(row)
    except BadSchedule as error:
        # It has no next occurrence, so it stops; its row and its failed task say why.
        package = _failed(row, schema, id, error)
        row.repeats = 0
        row.save(update_fields=["repeats", "task"])
    return package


def _package(row: Schedule, schema: str, id: str) -> Package:
    args, kwargs = parse_arguments(row.args, row.kwargs)
    kwargs.pop("schema_name", None)  # the 2020 package left it in the row
    options = take_q_options(kwargs)
    if row.intended_date_kwarg:
        kwargs[row.intended_date_kwarg] = row.next_run.isoformat()
    if row.hook:
        options["hook"] = row.hook
    if row.cluster:
        options["cluster"] = row.cluster
    options.setdefault("cluster", options.pop("broker_name", None))
    options.setdefault("group", row.name or str(row.pk))
    return build(row.func, args, kwargs | {"q_options": options}, schema=schema, id=id)


def _move_on(row: Schedule) -> None:
    """Store the next occurrence, count down, or end the row, as Django-Q2 does for its kind."""
    if row.schedule_type == Schedule.ONCE:
        if row.repeats < 0:
            row.delete()
        else:
            row.repeats = 0
            row.save(update_fields=["repeats", "task"])
        return
    row.next_run = recurrence.following(
        row.schedule_type,
        row.next_run,
        timezone.now(),
        catch_up=conf().catch_up,
        zone=_zone(),
        minutes=row.minutes,
        cron=row.cron,
    )
    row.repeats = max(-1, row.repeats) - (1 if row.repeats > 0 else 0)
    row.save(update_fields=["next_run", "repeats", "task"])


def _zone() -> ZoneInfo | None:
    name = conf().time_zone
    return ZoneInfo(name) if name else None


def _failed(row: Schedule, schema: str, id: str, error: TenantQError) -> Outcome:
    label = f"{row.name!r} (id {row.pk})" if row.name else f"id {row.pk}"
    logger.error(
        "Schedule %s of %s failed: %s", label, schema, error, extra={"schema": schema, "task_id": id, "func": row.func}
    )
    words = {"task_name": str(row.name or f"schedule {row.pk}")[:100], "group": row.name or str(row.pk)}
    package = build(row.func, (), {"q_options": words}, schema=schema, id=id)
    now = timezone.now()
    return Outcome(
        package=package,
        success=False,
        result=f"{ScheduleFailed.__name__}: schedule {label}, planned for {row.next_run.isoformat()}: {error}",
        started=now,
        stopped=now,
        seconds=0.0,
        death=ScheduleFailed.__name__,
    )
