"""What people do by hand, in the admin or from code: run a schedule now, pause and resume it, run a task again.

All of it is for the current tenant, and leaves an audit record. What is enqueued goes the way of every other task.

A paused schedule has no next run, in its own row, so no scheduler, index or repair of an index can start it. The moment
it was to run at is in the audit record of the pause.
"""

from __future__ import annotations

from copy import copy
from datetime import datetime
from typing import Any, TypeGuard

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django_q.humanhash import uuid
from django_q.models import Schedule, Task

from tenant_q import audit, tenancy
from tenant_q.exceptions import EnqueueError
from tenant_q.lifecycle import submit
from tenant_q.models import AuditRecord
from tenant_q.package.build import build
from tenant_q.package.functions import is_path
from tenant_q.package.package import ADMIN, Package
from tenant_q.schedules import fired_packages, occurrences, schedule_rows
from tenant_q.schedules.planning import recurrence_of

PAUSE, RESUME, RUN_NOW, RUN_AGAIN = "pause schedule", "resume schedule", "run schedule now", "run task again"
ADD, EDIT, DELETE = "add schedule", "edit schedule", "delete schedule"


# Schedules


def run_now(row: Schedule, *, actor: str) -> str:
    """Enqueue a schedule's task once, at once. Its next run stays as it is.

    Parameters: `actor`, who does it, for the audit trail. Returns the task's id. Raises `BadSchedule`, `EnqueueError`,
    `QueueFull` or `BrokerError`.
    """
    due = copy(row)
    due.next_run = timezone.now()
    package = fired_packages.package_of(due, tenancy.task_schema(), uuid()[1])
    package.task["origin"] = ADMIN
    package.task.pop("delay", None)  # its place in `schedule_spread`, or what its row says: now is now
    id = submit.submit_package(package)
    note(RUN_NOW, row, actor=actor, task_id=id)
    return id


def note(act: str, row: Schedule, *, actor: str, **more: Any) -> None:
    """Leave an audit record of what was done to a schedule. It tells no arguments, for operators see no tenant's data.

    Parameters: `act`, one of the names above; `more`, what else it tells. Raises `DatabaseAway`.
    """
    told = {"name": row.name, "func": row.func} | more
    audit.record(actor, act, schema=tenancy.current_schema(), target=str(row.pk), after=told)


def is_paused(row: Schedule) -> bool:
    """Whether a schedule waits for `resume`. One that has run as often as it should is not paused, it has ended."""
    return row.next_run is None and row.repeats != 0


def pause(pk: int, *, actor: str) -> bool:
    """Take a schedule's next run away until `resume`. Returns False when it has none, or is gone.

    Parameters: `pk`, the schedule; `actor`, who does it, for the audit trail. Raises `DatabaseAway`.
    """
    with tenancy.told_when_away(), transaction.atomic(using=tenancy.database_alias()):
        row = _locked(pk)
        if row is None or row.next_run is None or row.repeats == 0:
            return False
        _move(row, None, actor=actor, act=PAUSE)
    return True


def resume(pk: int, *, actor: str) -> bool:
    """Give a paused schedule its next run. Returns False when it has one, or is gone.

    That is the moment it had when it was paused. If that has passed meanwhile, one that runs once runs at once, and all
    others go on with their next occurrence: what was missed is not made up for. One that was given another recurrence
    meanwhile goes on with the first moment of that.

    Parameters: as of `pause`. Raises `BadSchedule` when it has no next occurrence, `DatabaseAway`.
    """
    with tenancy.told_when_away(), transaction.atomic(using=tenancy.database_alias()):
        row = _locked(pk)
        if row is None or not is_paused(row):
            return False
        _move(row, _next_run(row, *_remembered(row)), actor=actor, act=RESUME)
    return True


def _locked(pk: int) -> Schedule | None:
    """The row, which no scheduler moves until the transaction ends."""
    return schedule_rows.rows().select_for_update().filter(pk=pk).first()


def _move(row: Schedule, next_run: datetime | None, *, actor: str, act: str) -> None:
    before, row.next_run = row.next_run, next_run
    row.save(using=tenancy.database_alias(), update_fields=["next_run"])
    key = tenancy.current_key(tenancy.current_schema())
    words = {"before": _as_json(row, before) | {"tenant": key}, "after": _as_json(row, next_run)}
    audit.record(actor, act, schema=tenancy.current_schema(), target=str(row.pk), **words)


def _as_json(row: Schedule, next_run: datetime | None) -> dict[str, Any]:
    told = {"name": row.name, "next_run": None if next_run is None else next_run.isoformat()}
    told |= {"cron": row.cron} if row.schedule_type == Schedule.CRON else {}
    return told | {"recurrence": list(recurrence_of(row))}


def _remembered(row: Schedule) -> tuple[datetime | None, bool]:
    """Return the next run of a schedule before its last pause, and whether its recurrence was changed since then.

    The next run is None if `pause` did not pause it.
    """
    schema = tenancy.current_schema()
    key = tenancy.current_key(schema)
    with tenancy.in_public():
        records = AuditRecord.objects.using(tenancy.database_alias()).filter(act=PAUSE, target=str(row.pk))
        own = Q(before__tenant=key) | Q(schema_name=schema, before__tenant__isnull=True)
        record = records.filter(own).order_by("-id").first()
    if record is None or ("tenant" not in record.before and tenancy.predates(record.at, schema, key)):
        return None, False  # or that schedule was an earlier tenant's
    return parse_datetime(record.before["next_run"]), _is_changed(row, record.before)


def _is_changed(row: Schedule, before: dict[str, Any]) -> bool:
    if "recurrence" in before:
        return bool(before["recurrence"] != list(recurrence_of(row)))
    return bool(row.schedule_type == Schedule.CRON and before.get("cron") != row.cron)  # an earlier version's record


def _next_run(row: Schedule, planned: datetime | None, is_changed: bool) -> datetime:
    now = timezone.now()
    if row.schedule_type == Schedule.ONCE:
        return planned or now
    if is_changed:
        return occurrences.replan(row, planned or now, now)
    if planned is not None and planned > now:
        return planned
    return occurrences.after_fire(row, planned or now, now, catch_up=False)


# Tasks


def may_be_parts(args: Any) -> TypeGuard[tuple[tuple[Any, ...], ...]]:
    """Whether a row's arguments may be those of an iter's parts, one tuple for each."""
    return isinstance(args, tuple) and bool(args) and all(isinstance(one, tuple) for one in args)


def run_again(task: Task, args: Any, kwargs: Any, result: Any, *, actor: str) -> str:
    """Enqueue a finished task's call once more, as a new task with the options that its row keeps.

    Those are name, hook, group and cluster. What a row does not keep, such as a timeout or a chain's next links, is not
    repeated. A failed iter is run again as an iter, with all of its parts.

    Parameters: `task`, its row; `args`, `kwargs` and `result`, what the row's pickles hold; `result` is looked at only
    where `may_be_parts(args)`; `actor`, who does it. Returns the new task's id. Raises `EnqueueError`, also for a
    success that may be an iter's or that of one call, which its row does not tell; `QueueFull` or `BrokerError`.
    """
    id = _submit_again(task, args, kwargs, result)
    told = {"name": task.name, "func": task.func, "task_id": id}
    audit.record(actor, RUN_AGAIN, schema=tenancy.current_schema(), target=task.id, after=told)
    return id


def _submit_again(task: Task, args: Any, kwargs: Any, result: Any) -> str:
    for path in (task.func, task.hook):
        if path and not is_path(path):
            raise EnqueueError(
                f"{task.name} cannot be run again: {path!r} is not the path of a function but a partial, a method or "
                "an object, and its row does not hold its data; enqueue it from code."
            )
    if not isinstance(args, tuple | list | None) or not isinstance(kwargs, dict | None):
        raise EnqueueError(f"{task.name} cannot be run again: its row does not hold the arguments it was called with.")
    options = {"hook": task.hook, "group": task.group, "cluster": task.cluster, "task_name": task.name}
    kept = {name: value for name, value in options.items() if value}
    if may_be_parts(args) and isinstance(result, list) and len(result) == len(args):
        if task.success:  # the failure of one call is a text
            raise EnqueueError(
                f"{task.name} cannot be run again: its row may be that of an iter of {len(args)} parts or of one call "
                "with as many tuples; enqueue it from code."
            )
        return submit.submit_iter(task.func, args, {**(kwargs or {}), "q_options": kept}, origin=ADMIN)
    schema = tenancy.task_schema()
    package = build(task.func, tuple(args or ()), {"q_options": kept}, schema=schema, origin=ADMIN)
    # Past `build`, which would take a function's own keyword for an option of the same name.
    return submit.submit_package(Package(package.task | {"kwargs": dict(kwargs or {})}))
