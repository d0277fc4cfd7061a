"""Run some failed tasks of one tenant again, or delete their rows, in one transaction with an audit record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any

from psycopg import sql

from tenant_q import audit, tenancy
from tenant_q.exceptions import BrokerError, DatabaseAway, EnqueueError, TenantQError
from tenant_q.lifecycle import failure_entries, submit, task_rows
from tenant_q.lifecycle import run_again as again
from tenant_q.lifecycle.task_statements import execute, table_of
from tenant_q.models import Failure
from tenant_q.package.build import deterministic_id
from tenant_q.package.package import Package
from tenant_q.sql import statement
from tenant_q.support.visible import one_line

RUN_AGAIN = "run failures again"
DELETE = "delete failures"
"""The acts in the audit records."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What came of acting on some failures of one tenant.

    Attributes:
        done: The number of failures that were run again or deleted.
        errors: Why others could not be, by the ids of their tasks.
    """

    done: int = 0
    errors: dict[str, str] = field(default_factory=dict)


_Act = Callable[[str, Sequence[str], str], Slice]


def _with_errors(act: _Act) -> _Act:
    """Return the act with an error of the tenant as the error of all its failures, so that it keeps no other tenant."""

    @wraps(act)
    def acted(schema: str, ids: Sequence[str], actor: str) -> Slice:
        try:
            return act(schema, ids, actor)
        except (BrokerError, DatabaseAway):
            raise
        except (TenantQError, *tenancy.DATABASE_ERRORS) as error:
            return Slice(errors=dict.fromkeys(ids, one_line(error)))

    return acted


@_with_errors
def run_again(schema: str, ids: Sequence[str], actor: str) -> Slice:
    """Run open failures of a tenant again, each as a new task.

    Their entries are locked until the commit. Those that another one has locked are left.

    Args:
        schema: The schema as PostgreSQL names it.
        ids: The ids of the failed tasks.
        actor: Who runs them again.

    Raises:
        BrokerError: The broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    name = tenancy.logical_schema(schema)
    calls, made = _Calls(), {}
    with tenancy.in_patient_transaction():
        entries = _locked(schema, ids)
        if entries:
            with tenancy.in_verified_schema(name):
                calls = _calls(name, entries)
                made = _enqueue(calls)
        if made:
            failure_entries.note_again(name, made)
            audit.record(actor, RUN_AGAIN, schema=name, target=" ".join(made), after={"count": len(made)})
    _run_here(calls)
    return Slice(len(made), calls.errors)


@_with_errors
def delete(schema: str, ids: Sequence[str], actor: str) -> Slice:
    """Delete the rows of failed tasks of a tenant. Triggers remove their entries.

    Args:
        schema: The schema as PostgreSQL names it.
        ids: The ids of the failed tasks.
        actor: Who deletes them.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    name = tenancy.logical_schema(schema)
    query = sql.SQL(statement("delete_failures")).format(table=table_of(schema))
    with tenancy.in_patient_transaction():
        *_, answer = execute([schema], query, [list(ids)])
        deleted = [id for (id,) in answer.rows]
        if left := set(ids).difference(deleted):  # the scheduler finds out what became of their rows
            with tenancy.as_owner_in_public():
                Failure.rows().filter(schema_name=schema, task_id__in=left).update(is_pending=True)
        if deleted:
            audit.record(actor, DELETE, schema=name, target=" ".join(deleted), after={"count": len(deleted)})
    return Slice(len(deleted))


# Steps of running again


@dataclass(frozen=True, slots=True)
class _Entry:
    """An open failure: when its task ended, and its schedule."""

    stopped: datetime
    schedule: str


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls of failed tasks: the packages of each, by its id, and why others have none or are refused."""

    packages: dict[str, list[Package]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def _locked(schema: str, ids: Sequence[str]) -> dict[str, _Entry]:
    """Lock open failures of a schema that nobody else has locked. Return them by the ids of their tasks."""
    with tenancy.as_owner_in_public():
        rows = Failure.rows().select_for_update(skip_locked=True).filter(schema_name=schema, task_id__in=ids, again="")
        return {id: _Entry(*values) for id, *values in rows.values_list("task_id", "stopped", "schedule")}


def _calls(schema: str, entries: dict[str, _Entry]) -> _Calls:
    """Read the calls of failed tasks from their rows, in the current schema. Rows that are gone are left out."""
    tenancy.require_plain_tables([schema], tenancy.TASK_TABLE)
    key, _ = tenancy.find_key(schema)
    found = _Calls()
    for task in task_rows.as_texts(task_rows.rows().filter(pk__in=entries, success=False)):
        entry = entries[task.id]
        try:
            packages = _packages(task, deterministic_id("again", key, task.id, entry.stopped.isoformat()))
        except EnqueueError as error:
            found.errors[task.id] = one_line(error)
            continue
        for package in packages if entry.schedule else ():
            package.task["schedule"] = entry.schedule
        found.packages[task.id] = packages
    return found


def _packages(task: Any, id: str) -> list[Package]:
    """Return the packages that run a failed task again. Raises `EnqueueError` if its row is not signed."""
    args, kwargs = again.signed(task, "args").value, again.signed(task, "kwargs").value
    result = again.signed(task, "result").value if again.may_be_parts(args) else None
    return again.packages_of(task, args, kwargs, result, id=id)


def _enqueue(calls: _Calls) -> dict[str, str]:
    """Enqueue calls of one tenant together; one by one if one of them is refused, of which the error is kept.

    Returns:
        The ids of the failed tasks, each with the id of the new one.
    """
    try:
        return _enqueue_these(calls.packages)
    except EnqueueError:
        made: dict[str, str] = {}
        for id, packages in calls.packages.items():
            try:
                made |= _enqueue_these({id: packages})
            except EnqueueError as error:
                calls.errors[id] = one_line(error)
        return made


def _enqueue_these(calls: Mapping[str, list[Package]]) -> dict[str, str]:
    queued = [package for packages in calls.values() for package in packages if not package.option("sync")]
    joined = again.enqueue_again(queued) if queued else {}
    ids = {id: str(first.group) if first.is_iter_part else first.id for id, (first, *_) in calls.items()}
    return {id: joined.get(new, new) for id, new in ids.items()}


def _run_here(calls: _Calls) -> None:
    """Run the calls of a project with `sync`, one by one, in this process. Those that fail again have new rows."""
    for package in (package for packages in calls.packages.values() for package in packages):
        if package.option("sync"):
            try:
                submit.run_here(package)
            except (BrokerError, DatabaseAway):
                raise
            except Exception:  # logged, and the row of a new failure is saved
                continue
