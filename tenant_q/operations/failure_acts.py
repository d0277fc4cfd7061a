"""Run failed tasks again, or delete their rows: some of them, in one transaction with an audit record for each tenant.

Tenants are served together, with a few statements for all of them. If one of them fails, they are served one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any

from django_q.models import Task
from psycopg import sql

from tenant_q import audit, tenancy
from tenant_q.brokers import site_brokers
from tenant_q.exceptions import BrokerError, DatabaseAway, EnqueueError, TenantQError
from tenant_q.lifecycle import failure_entries, submit
from tenant_q.lifecycle import run_again as again
from tenant_q.lifecycle.failure_entries import Key
from tenant_q.lifecycle.task_statements import Answer, execute, table_of
from tenant_q.models import Failure
from tenant_q.package.build import deterministic_id
from tenant_q.package.package import Package
from tenant_q.sql import statement
from tenant_q.support.visible import one_line

RUN_AGAIN = "run failures again"
DELETE = "delete failures"
"""The acts in the audit records."""
_COLUMNS = ("id", "name", "func", "hook", "group", "cluster")


@dataclass(frozen=True, slots=True)
class Slice:
    """What came of acting on some failures.

    Attributes:
        done: The number of failures that were run again or deleted.
        errors: Why others could not be, by their keys.
    """

    done: int = 0
    errors: dict[Key, str] = field(default_factory=dict)


_Act = Callable[[Sequence[Key], str], Slice]


def _together_or_apart(act: _Act) -> _Act:
    """Return an act on tenants together that acts on them one by one if one of them fails."""

    @wraps(act)
    def acted(keys: Sequence[Key], actor: str) -> Slice:
        try:
            return act(keys, actor)
        except (BrokerError, DatabaseAway):
            raise
        except (TenantQError, *tenancy.DATABASE_ERRORS) as error:
            by_schema = _by_schema(keys)
            if len(by_schema) == 1:
                return Slice(errors=dict.fromkeys(keys, one_line(error)))
        apart = [acted([(schema, id) for id in ids], actor) for schema, ids in by_schema.items()]
        return Slice(sum(one.done for one in apart), {key: text for one in apart for key, text in one.errors.items()})

    return acted


@_together_or_apart
def run_again(keys: Sequence[Key], actor: str) -> Slice:
    """Run open failures again, each as a new task.

    Their entries are locked until the commit. Those that another one has locked are left.

    Args:
        keys: The failures.
        actor: Who runs them again.

    Raises:
        BrokerError: The broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    calls, made = _Calls(), {}
    with tenancy.in_patient_transaction():
        # Workers lock a foreign table, too, before they wait for an entry.
        tenancy.require_plain_tables(_by_schema(keys), tenancy.TASK_TABLE)
        if entries := _locked(keys):
            calls = _read_calls(entries)
            _doubt(entries.keys() - calls.packages.keys() - calls.errors.keys())
            _leave_live(calls)
            made = _enqueue(calls)
        if made:
            failure_entries.note_again(made)
            _record(made, RUN_AGAIN, actor, calls.tenants)
    _run_here(calls)
    return Slice(len(made), calls.errors)


@_together_or_apart
def delete(keys: Sequence[Key], actor: str) -> Slice:
    """Delete the rows of failed tasks. Triggers remove their entries.

    Args:
        keys: The failures.
        actor: Who deletes them.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.in_patient_transaction():
        answers = _for_each_schema("delete_failures", _by_schema(keys))
        deleted = [(schema, id) for schema, answer in answers.items() for (id,) in answer.rows]
        _doubt(set(keys).difference(deleted))
        if deleted:
            _record(deleted, DELETE, actor, _tenants(answers))
    return Slice(len(deleted))


# Steps


@dataclass(frozen=True, slots=True)
class _Entry:
    """An open failure: when its task ended, and its schedule."""

    stopped: datetime
    schedule: str


# The schema name and the key of a tenant.
_Tenant = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls of failed tasks: the packages of each, and why others have none or are refused; and their tenants."""

    packages: dict[Key, list[Package]] = field(default_factory=dict)
    errors: dict[Key, str] = field(default_factory=dict)
    tenants: Mapping[str, _Tenant] = field(default_factory=dict)


def _locked(keys: Sequence[Key]) -> dict[Key, _Entry]:
    """Lock those of some failures that are open, and that nobody else has locked."""
    rows = Failure.rows().select_for_update(skip_locked=True).filter(pk__in=keys, again="")
    with tenancy.as_owner_in_public():
        found = list(rows.values_list("schema_name", "task_id", "stopped", "schedule"))
    return {(schema, id): _Entry(stopped, schedule) for schema, id, stopped, schedule in found}


def _read_calls(entries: Mapping[Key, _Entry]) -> _Calls:
    """Read the calls of failed tasks from their rows. Rows that are gone are left out."""
    by_schema = _by_schema(entries)
    calls = _Calls(tenants=_tenants(by_schema))
    for schema in by_schema.keys() - calls.tenants.keys():
        calls.errors.update(dict.fromkeys([(schema, id) for id in by_schema.pop(schema)], "its tenant is gone"))
    for schema, answer in _for_each_schema("failed_calls", by_schema).items():
        for row in answer.rows:
            task = _as_task(row)
            key = schema, str(task.id)
            try:
                calls.packages[key] = _packages(task, entries[key], calls.tenants[schema])
            except EnqueueError as error:
                calls.errors[key] = one_line(error)
    return calls


def _doubt(keys: Collection[Key]) -> None:
    """Have the scheduler find out what became of the rows of failures."""
    if keys:
        with tenancy.as_owner_in_public():
            Failure.rows().filter(pk__in=sorted(keys)).update(is_pending=True)


def _as_task(row: tuple[Any, ...]) -> Task:
    """Return a task as `task_rows.as_texts` has it: with the texts of its pickled columns."""
    task = Task(success=False, **dict(zip(_COLUMNS, row, strict=False)))
    task.stored_args, task.stored_kwargs, task.stored_result = row[len(_COLUMNS) :]
    return task


def _packages(task: Task, entry: _Entry, tenant: _Tenant) -> list[Package]:
    """Return the packages that run a failed task again. Raises `EnqueueError` if its row is not signed."""
    schema, key = tenant

    def signed(name: str) -> Any:
        return again.signed(task, name, schema=schema, tenant=key).value

    args, kwargs = signed("args"), signed("kwargs")
    result = signed("result") if again.may_be_parts(args) else None
    id = deterministic_id("again", key, task.id, entry.stopped.isoformat())
    packages = again.packages_of(task, args, kwargs, result, schema=schema, id=id)
    for package in packages:
        package.task["tenant"] = key
        if entry.schedule:
            package.task["schedule"] = entry.schedule
    return packages


def _leave_live(calls: _Calls) -> None:
    """Leave failed tasks whose own packages a broker has and that are not dead, such as those retried from there."""
    ids = {key[1]: key for key, (first, *_) in calls.packages.items() if not first.option("sync")}
    for broker in site_brokers() if ids else ():
        for id in broker.may_come(list(ids)):
            schema, _ = key = ids[id]
            place = broker.place(calls.tenants[schema][0], id)
            if place not in (None, "dead") and key in calls.packages:
                del calls.packages[key]
                calls.errors[key] = f"it is {place} in the broker of {broker.cluster} and will run; wait for its end."


def _enqueue(calls: _Calls) -> dict[Key, str]:
    """Enqueue calls of each tenant together; one by one if one of them is refused, of which the error is kept.

    Returns:
        The failed tasks, each with the id of the new one.
    """
    made: dict[Key, str] = {}
    for schema, ids in _by_schema(calls.packages).items():
        own = {(schema, id): calls.packages[schema, id] for id in ids}
        try:
            made |= _enqueue_these(own)
        except EnqueueError:
            for key, packages in own.items():
                try:
                    made |= _enqueue_these({key: packages})
                except EnqueueError as error:
                    calls.errors[key] = one_line(error)
    return made


def _enqueue_these(calls: Mapping[Key, list[Package]]) -> dict[Key, str]:
    queued = [package for packages in calls.values() for package in packages if not package.option("sync")]
    joined = again.enqueue_again(queued) if queued else {}
    ids = {key: str(first.group) if first.is_iter_part else first.id for key, (first, *_) in calls.items()}
    return {key: joined.get(id, id) for key, id in ids.items()}


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


def _record(keys: Iterable[Key], act: str, actor: str, tenants: Mapping[str, _Tenant]) -> None:
    """Add an audit record for each tenant, with the ids of the failed tasks and their number."""
    by_schema = _by_schema(keys)
    names = {schema: tenants[schema][0] if schema in tenants else schema for schema in by_schema}
    audit.record_each(
        actor, act, {names[schema]: (" ".join(ids), {"count": len(ids)}) for schema, ids in by_schema.items()}
    )


def _by_schema(keys: Iterable[Key]) -> dict[str, list[str]]:
    """Return the ids of failed tasks by their schemas."""
    found: dict[str, list[str]] = {}
    for schema, id in keys:
        found.setdefault(schema, []).append(id)
    return found


def _tenants(schemas: Iterable[str]) -> dict[str, _Tenant]:
    """Return the schema names and keys of the tenants of some schemas, with one statement; `public` has no key."""
    public = tenancy.public_schema()
    wanted = sorted(set(schemas))
    found = tenancy.tenants_of_physical(wanted)
    return found | {public: (public, "")} if public in wanted else found


def _for_each_schema(name: str, by_schema: Mapping[str, Sequence[str]]) -> dict[str, Answer]:
    """Run a statement about some tasks of each schema, in one round trip. Return the answers by schema."""
    if not by_schema:
        return {}
    statements = [sql.SQL(statement(name)).format(table=table_of(schema)) for schema in by_schema]
    answers = execute(by_schema, sql.SQL(";\n").join(statements), [list(ids) for ids in by_schema.values()])
    return dict(zip(by_schema, answers[-len(statements) :], strict=True))
