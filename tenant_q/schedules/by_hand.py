"""Run a schedule by hand, pause and resume it, for people who use the admin or code.

All functions serve the current tenant and leave an audit record.

A paused schedule has no next run in its own row, so no scheduler, index or repair of an index can start it. The audit
record of the pause keeps the moment at which it was to run.
"""

from __future__ import annotations

from copy import copy
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django_q.humanhash import uuid
from django_q.models import Schedule

from tenant_q import audit, tenancy
from tenant_q.lifecycle import submit
from tenant_q.models import AuditRecord
from tenant_q.package.package import ADMIN
from tenant_q.schedules import fired_packages, offered_schedules, row_runs, schedule_rows

# The acts in the audit records.
PAUSE, RESUME, RUN_NOW = "pause schedule", "resume schedule", "run schedule now"
ADD, EDIT, DELETE = "add schedule", "edit schedule", "delete schedule"


def run_now(row: Schedule, *, actor: str) -> str:
    """Run a schedule by hand: enqueue its task once, at once. Its next run stays as it is.

    Args:
        row: The schedule.
        actor: Who runs it, for the audit trail.

    Returns:
        The id of the task.

    Raises:
        BadSchedule: The arguments of the schedule do not parse.
        EnqueueError: A value does not pickle, or an option is unknown.
        QueueFull: The tenant's queue is full.
        BrokerError: The broker cannot be reached.
    """
    due = copy(row)
    due.next_run = timezone.now()
    schema = tenancy.task_schema()
    offered_schedules.refuse_foreign(schema, due)
    package = fired_packages.package_of(due, schema, uuid()[1])
    package.task["origin"] = ADMIN
    package.task.pop("delay", None)  # from `schedule_spread` or the row, and it is to run now
    id = submit.submit_package(package)
    record(RUN_NOW, row, actor=actor, task_id=id)
    return id


def record(act: str, row: Schedule, *, actor: str, **more: Any) -> None:
    """Leave an audit record of what was done to a schedule by hand. It holds no arguments, the tenant's own data.

    Args:
        act: `RUN_NOW`, `ADD`, `EDIT` or `DELETE`.
        row: The schedule.
        actor: Who did it.
        more: Further values for the record.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    after = {"name": row.name, "func": row.func} | more
    audit.record(actor, act, schema=tenancy.current_schema(), target=str(row.pk), after=after)


def is_paused(row: Schedule) -> bool:
    """Return whether a schedule is paused until it is resumed by hand. One without repeats left has ended instead."""
    return row.next_run is None and row.repeats != 0


def pause(pk: int, *, actor: str) -> bool:
    """Pause a schedule by hand until `resume`, by removing its next run.

    Args:
        pk: The key of the schedule.
        actor: Who pauses it, for the audit trail.

    Returns:
        False if it has no next run, or is gone.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), transaction.atomic(using=tenancy.database_alias()):
        row = _locked_row(pk)
        if row is None or row.next_run is None or row.repeats == 0:
            return False
        _move(row, None, actor=actor, act=PAUSE)
    return True


def resume(pk: int, *, actor: str) -> bool:
    """Resume a schedule that was paused by hand: give it its next run.

    This is the moment at which it was to run when it was paused. If that has passed, a schedule that runs once runs at
    once, and all others continue with their next run: missed runs are not made up for. A schedule with a new recurrence
    continues with the first run of that.

    Args:
        pk: The key of the schedule.
        actor: Who resumes it, for the audit trail.

    Returns:
        False if it is not paused, or is gone.

    Raises:
        BadSchedule: It has no next run.
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), transaction.atomic(using=tenancy.database_alias()):
        row = _locked_row(pk)
        if row is None or not is_paused(row):
            return False
        _move(row, _next_run(row, *_before_pause(row)), actor=actor, act=RESUME)
    return True


def _locked_row(pk: int) -> Schedule | None:
    """Return a schedule that is changed by hand, locked until the transaction ends, so that no scheduler moves it."""
    return schedule_rows.rows().select_for_update().filter(pk=pk).first()


def _move(row: Schedule, next_run: datetime | None, *, actor: str, act: str) -> None:
    before, row.next_run = row.next_run, next_run
    row.save(using=tenancy.database_alias(), update_fields=["next_run"])
    key = tenancy.current_key(tenancy.current_schema())
    change = {"before": _as_json(row, before) | {"tenant": key}, "after": _as_json(row, next_run)}
    audit.record(actor, act, schema=tenancy.current_schema(), target=str(row.pk), **change)


def _as_json(row: Schedule, next_run: datetime | None) -> dict[str, Any]:
    values = {"name": row.name, "next_run": None if next_run is None else next_run.isoformat()}
    values |= {"cron": row.cron} if row.schedule_type == Schedule.CRON else {}
    return values | {"recurrence": list(row_runs.recurrence_of(row))}


def _before_pause(row: Schedule) -> tuple[datetime | None, bool]:
    """Return a schedule's next run before its last pause by hand, and whether its recurrence was changed since then.

    The next run is None if `pause` did not pause it.
    """
    schema = tenancy.current_schema()
    key = tenancy.current_key(schema)
    with tenancy.as_owner_in_public():
        records = AuditRecord.objects.using(tenancy.database_alias()).filter(act=PAUSE, target=str(row.pk))
        own = Q(before__tenant=key) | Q(schema_name=schema, before__tenant__isnull=True)
        found = records.filter(own).order_by("-id").first()
    if found is None or ("tenant" not in found.before and tenancy.predates(found.at, schema, key)):
        return None, False  # in the latter case an earlier tenant paused a schedule of the same id
    return parse_datetime(found.before["next_run"]), _is_changed(row, found.before)


def _is_changed(row: Schedule, before: dict[str, Any]) -> bool:
    if "recurrence" in before:
        return bool(before["recurrence"] != list(row_runs.recurrence_of(row)))
    return bool(row.schedule_type == Schedule.CRON and before.get("cron") != row.cron)  # an earlier version's record


def _next_run(row: Schedule, planned: datetime | None, is_changed: bool) -> datetime:
    now = timezone.now()
    if row.schedule_type == Schedule.ONCE:
        return planned or now
    if is_changed:
        return row_runs.after_change(row, planned or now, now)
    if planned is not None and planned > now:
        return planned
    return row_runs.after_fire(row, planned or now, now, catch_up=False)
