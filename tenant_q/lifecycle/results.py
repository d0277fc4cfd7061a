"""Outcomes to `Task` rows, in bulk; reading them back; pruning.

Rows are written with schema-qualified statements, many tenants in one round trip and one commit, whatever schema the
connection is set to. When that fails, each tenant is saved by itself, so that a broken one costs no other.
"""

from __future__ import annotations

import functools
import json
import time
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, NamedTuple, TypeVar

import psycopg
from django.db import DatabaseError, OperationalError
from django.db.models.signals import post_save
from django.utils import timezone
from django_q import signals as django_q_signals
from django_q.models import Task
from picklefield.fields import PickledObject
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q.brokers.protocol import CANCELLED
from tenant_q.conf import conf
from tenant_q.exceptions import (
    CancelException,
    CannotSave,
    DatabaseAway,
    ResultRefused,
    TaskCancelled,
    TenantBroken,
    TenantBusy,
)
from tenant_q.lifecycle import task_rows
from tenant_q.lifecycle.row_signing import RowSigner, tenant_of
from tenant_q.models import TenantPolicy
from tenant_q.package.options import LONGEST
from tenant_q.package.package import Outcome, Package, pickled
from tenant_q.scrubbing import entering
from tenant_q.sql import statement
from tenant_q.support.error_kinds import Kind, kind_of_postgres
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger
from tenant_q.support.receivers import has_receivers
from tenant_q.tenancy import (
    LOCK_MS,
    current_schema,
    database_alias,
    in_patient_transaction,
    in_public,
    in_verified_schema,
    insist,
    physical_schema,
    plain_tables_query,
    public_schema,
    require_plain_tables,
    tenant_connection,
    tenant_table,
    told_when_away,
)

logger = get_logger("tenant_q.results")

# A statement that deletes this many rows takes a fraction of the time limit for an answer.
PRUNED_AT_ONCE = 10_000

T = TypeVar("T")
# The beginning of a cancelled task's result, as base64 of its pickle. The text starts at byte 7, 13 or 16, by its
# length, so its first two bytes share a group of base64 with other bytes.
_CANCELLED_MARK = b64encode(f"{CANCELLED}:"[2:].encode()).decode()
_CANCELLED_REACH = 40
_CANCELLED = sql.Literal(_CANCELLED_MARK)
# A schema, and the key of the tenant that has it; None where no key is known.
Owner = tuple[str, str | None]
# Identifies a package among those of all tenants: its schema and id.
Key = tuple[str, str]
# The most bytes of rows in one statement, and of a single row in a statement of its own, which PostgreSQL still takes.
LARGEST_BATCH = 64 * 1024 * 1024
LARGEST_ROW = 900 * 1024 * 1024

_COLUMNS = (
    "id", "name", "func", "hook", "args", "kwargs", "result", "group",
    "cluster", "started", "stopped", "success", "attempt_count",
)  # fmt: skip


def wants_row(outcome: Outcome) -> bool:
    """Whether an outcome leaves a row: every failure does, and a success unless it is cached or not to be saved."""
    if outcome.is_saved:
        return False
    if not outcome.success or outcome.package.is_transactional:
        return True
    if outcome.package.is_iter_part or outcome.package.cached:
        return False
    return bool(outcome.package.option("save", conf().save_limit >= 0))


def as_task(outcome: Outcome) -> Task:
    """The outcome as Django-Q2's model instance, not saved: what hooks and `post_save` receivers get."""
    package = outcome.package
    return Task(
        id=package.id,
        name=package.name,
        func=package.stored_func,
        hook=package.option("hook"),
        args=package.args,
        kwargs=package.kwargs,
        result=outcome.result,
        group=package.group,
        cluster=package.option("cluster") or conf().cluster,
        started=outcome.started,
        stopped=outcome.stopped,
        success=outcome.success,
        attempt_count=outcome.attempt,
    )


# Writing


@dataclass(frozen=True, slots=True)
class Saved:
    """The outcome of writing rows.

    `errors` maps the keys of packages whose rows could not be written to the errors. `cancelled` are the keys of
    packages that already have the row of a cancelled task, which stays.
    """

    errors: dict[Key, Exception]
    cancelled: frozenset[Key] = frozenset()


def save(outcomes: Sequence[Outcome]) -> dict[Key, Exception]:
    """Write the rows of these outcomes as `write` does. Returns the errors."""
    return write(outcomes).errors


def write(outcomes: Sequence[Outcome], *, between: Callable[[], Any] = lambda: None) -> Saved:
    """Write the rows of these outcomes. An existing row of a success or of a cancelled task stays.

    Parameters: `between`, what is called between two tenants when receivers of the project were called.

    Raises `DatabaseAway` when the database itself cannot be reached, and then nothing is saved.
    """
    by_tenant: dict[Owner, list[Outcome]] = {}
    for outcome in outcomes:
        if wants_row(outcome):
            by_tenant.setdefault(_owner(outcome), []).append(outcome)
    if not by_tenant:
        return Saved({})
    write = _save_rows_one_by_one if has_own_receivers() else _save_rows
    if write is _save_rows and len(by_tenant) > 1:
        try:
            return Saved({}, frozenset(_save_rows(by_tenant)))
        except DatabaseAway:
            raise
        except Exception as error:
            logger.warning("A batch of %s tenants could not be saved at once: %s", len(by_tenant), error)
    unsaved: dict[Key, Exception] = {}
    cancelled: set[Key] = set()
    for owner, own in by_tenant.items():
        saved = _save_tenant(write, owner, own)
        unsaved |= saved.errors
        cancelled |= saved.cancelled
        if write is _save_rows_one_by_one:
            between()
    return Saved(unsaved, frozenset(cancelled))


def _save_tenant(
    write: Callable[[Mapping[Owner, Sequence[Outcome]]], set[Key]], owner: Owner, own: Sequence[Outcome]
) -> Saved:
    """Write one tenant's rows; one by one if PostgreSQL refuses one of them."""
    try:
        return Saved({}, frozenset(write({owner: own})))
    except DatabaseAway:
        raise
    except Exception as error:  # also an error of a project's receiver, which concerns this tenant alone
        if len(own) == 1 or kind_of_postgres(error) is Kind.OUTAGE:
            return Saved({outcome.package.key: error for outcome in own})
    each = [_save_tenant(write, owner, [outcome]) for outcome in own]
    errors = {key: error for saved in each for key, error in saved.errors.items()}
    return Saved(errors, frozenset(key for saved in each for key in saved.cancelled))


def save_or_raise(outcomes: Sequence[Outcome]) -> None:
    """Write the rows of these outcomes, all of them, or raise the first error."""
    for error in save(outcomes).values():
        raise error


def save_in_transaction(outcome: Outcome) -> None:
    """Write one row in the transaction that is open.

    Raises `CannotSave` when the tenant's table cannot be written to, and `CancelException` when the task was cancelled
    in the meantime and has a row.
    """
    write = _save_rows_one_by_one if has_own_receivers() else _save_rows
    try:
        cancelled = write({_owner(outcome): [outcome]})
    except (DatabaseError, psycopg.Error, ResultRefused) as error:
        if is_refused(error):
            raise ResultRefused(refusal_text(error)) from error
        raise CannotSave(
            f"The result of {outcome.package.id} cannot be saved: {' '.join(str(error).split())}"
        ) from error
    if cancelled:
        raise CancelException("cancelled while another delivery of it ran")


def is_refused(error: Exception) -> bool:
    """Return whether a row cannot be saved because the server refuses a value in it."""
    return isinstance(error, ResultRefused) or kind_of_postgres(error) is Kind.REFUSAL


def refusal_text(error: Exception) -> str:
    """Return the text of a failed row for a refused result."""
    return f"the server that was to keep the result refuses it ({_one_line(error)}); return something smaller."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:1000]


def _owner(outcome: Outcome) -> Owner:
    return outcome.package.schema, outcome.package.tenant or None


def _save_rows(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> set[Key]:
    """One round trip and, outside a transaction, one commit. All or nothing.

    The rows of a tenant travel as one JSON text: of all forms this costs both sides the least.

    Returns the schema and id of each row of a cancelled task, which was left as it is.
    """
    statements: list[sql.Composable] = [_insert(*owner) for owner in by_tenant]
    with no_return():  # pickling calls methods of the values
        rows = [[_row(outcome) for outcome in _unique(outcomes)] for outcomes in by_tenant.values()]
    texts = [json.dumps(own) for own in rows]
    _refuse_too_large(texts, is_single=sum(map(len, by_tenant.values())) == 1)
    answers = _execute([schema for schema, _ in by_tenant], sql.SQL(";\n").join(statements), texts)
    left: dict[str, list[str]] = {}  # packages of one schema may name its tenant or, from an earlier version, none
    for (schema, _), own, answer in zip(by_tenant, rows, answers[-len(rows) :], strict=True):
        if answer.written < len(own):
            left.setdefault(schema, []).extend(str(row["id"]) for row in own)
    return _cancelled_among(left) if left else set()


def _cancelled_among(ids: Mapping[str, Sequence[str]]) -> set[Key]:
    """Return the schema and id of the rows of cancelled tasks.

    Parameters: `ids`, the ids of the rows to look at, by schema.
    """
    found: set[Key] = set()
    for schema, own in ids.items():
        query = sql.SQL(statement("cancelled_tasks")).format(table=_table(schema), cancelled=_CANCELLED)
        *_, answer = _execute([schema], query, [list(own)])
        found |= {(schema, id) for (id,) in answer.rows}
    return found


def _refuse_too_large(rows: Sequence[str], *, is_single: bool) -> None:
    """Raise `ResultRefused` if the rows are too large for one statement. A single row may be larger than several.

    PostgreSQL closes the connection on a larger message, which would look like an outage.
    """
    size = sum(map(len, rows))
    if size > (LARGEST_ROW if is_single else LARGEST_BATCH):
        raise ResultRefused(f"it takes {size} bytes in a statement, and the limit is {LARGEST_ROW}")


@functools.lru_cache(maxsize=4096)
def _insert(schema: str, tenant: str | None) -> sql.SQL:
    columns = ", ".join(sql.Identifier(column).as_string() for column in _COLUMNS)
    texts = {
        "table": _table(schema).as_string(),
        "is_there": _is_there(schema, tenant),
        "cancelled": _CANCELLED.as_string(),
    }
    parts = {name: text.replace("%", "%%") for name, text in texts.items()}
    return sql.SQL(statement("save_outcomes").format(columns=columns, **parts))


def _is_there(schema: str, tenant: str | None) -> str:
    """The condition that the tenant still has the schema; else its row would be its successor's."""
    if tenant is None:
        return "true"
    table, key = tenant_table()
    condition = sql.SQL(
        "EXISTS (SELECT FROM {} WHERE schema_name OPERATOR(pg_catalog.=) {} "
        "AND {}::pg_catalog.text OPERATOR(pg_catalog.=) {})"
    ).format(sql.Identifier(public_schema(), table), sql.Literal(schema), sql.Identifier(key), sql.Literal(tenant))
    return condition.as_string()


def _unique(outcomes: Iterable[Outcome]) -> Iterable[Outcome]:
    """Return one outcome for each id: its first success or cancel, else its last failure."""
    unique: dict[str, Outcome] = {}
    for outcome in outcomes:
        before = unique.get(outcome.package.id)
        if before is None or not (before.success or before.death == TaskCancelled.__name__):
            unique[outcome.package.id] = outcome
    return unique.values()


def _row(outcome: Outcome) -> dict[str, Any]:
    """What is written of an outcome, by column."""
    package = outcome.package
    return {
        "id": package.id,
        "name": _storable("name", package.name),
        "group": _storable("group", package.group),
        "started": outcome.started.isoformat(),
        "stopped": outcome.stopped.isoformat(),
        "success": outcome.success,
        "attempt_count": outcome.attempt,
        **_signed(package, package.args, package.kwargs, outcome.result),
    }


def _signed(package: Package, args: Any, kwargs: Any, result: Any) -> dict[str, str | None]:
    """The pickled columns with their signatures, and the columns that these bind."""
    func, hook = _storable("func", package.stored_func), _storable("hook", package.stored_hook)
    cluster = _storable("cluster", package.option("cluster") or conf().cluster)
    signer = RowSigner(tenant_of(package), package.id, func, hook, cluster, package.origin)
    return {
        "func": func,
        "hook": hook,
        "cluster": cluster,
        "args": signer.sign("args", _pickled(args)),
        "kwargs": signer.sign("kwargs", _pickled(kwargs)),
        "result": None if result is None else signer.sign("result", _pickled(result)),
    }


def _storable(column: str, text: str | None) -> str | None:
    """Text as the column can hold it: not too long, no zero bytes, and no halves of characters.

    Plain `async_task` checks nothing, and one row that is refused holds up its tenant's others.
    """
    if text is None:
        return None
    return str(text)[: LONGEST[column]].replace("\0", "?").encode("utf-8", "replace").decode()


def _pickled(value: Any) -> bytes:
    """A column's pickle. What the task has made unpicklable by now is kept as it shows itself."""
    try:
        return pickled(value)
    except Exception:
        return pickled(repr(value))


def _as_pickled(value: Any) -> Any:
    """The value, or how it shows itself when the task has made it unpicklable by now."""
    try:
        pickled(value)
    except Exception:
        return repr(value)
    return value


def _save_rows_one_by_one(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> set[Key]:
    """Save through the ORM in the tenant's schema, so that the project's `post_save` receivers run.

    Returns the schema and id of each row that is that of a cancelled task, and was left.
    """
    cancelled: set[Key] = set()
    for (schema, tenant), outcomes in by_tenant.items():
        with told_when_away(), in_verified_schema(schema, tenant=tenant), plain_tables(schema):
            entering.forget_other_tenants()
            for outcome in outcomes:
                task = as_task(outcome)
                task.args, task.kwargs = _as_pickled(task.args), _as_pickled(task.kwargs)
                task.hook = None  # Django-Q2's receiver would call it now; it is called once, after all is saved
                row = task_rows.rows().filter(id=task.id)
                with _row_before(row) as before:
                    if before is _Row.CANCELLED:
                        cancelled.add((schema, task.id))
                    elif before is not _Row.SUCCESS:
                        with no_return():
                            task.save(using=database_alias(), force_insert=before is None)
                            # Sign the values as the receivers left them, not the row's: others may have changed it.
                            signed = _signed(outcome.package, task.args, task.kwargs, task.result)
                        texts = {name: PickledObject(signed[name]) for name in task_rows.PICKLED if signed[name]}
                        row.update(**signed | texts)
    return cancelled


class _Row(Enum):
    """The kind of a task's row."""

    SUCCESS = "success"
    CANCELLED = "cancelled"
    FAILURE = "failure"


@contextmanager
def _row_before(row: Any) -> Iterator[_Row | None]:
    """Keep the row of an earlier delivery as it is in the block, if there is one. Yields its kind."""
    kind = _kind(row)
    if kind is not _Row.FAILURE:  # such a row never changes; if there is none, a second insert fails
        yield kind
        return
    with in_patient_transaction():
        yield _kind(row.select_for_update())


def _kind(row: Any) -> _Row | None:
    stored = task_rows.as_texts(row, ["result"]).values_list("success", "stored_result").first()
    if stored is None:
        return None
    success, result = stored
    if success:
        return _Row.SUCCESS
    return _Row.CANCELLED if _CANCELLED_MARK in (result or "")[:_CANCELLED_REACH] else _Row.FAILURE


def has_own_receivers() -> bool:
    """Whether the project listens to the saving of tasks."""
    return has_receivers(post_save, sender=Task, besides=django_q_signals.call_hook)


@contextmanager
def plain_tables(schema: str) -> Iterator[None]:
    """A block in which the task table of a schema runs no code of another role. Raises `ForeignCode`.

    It costs a transaction where another role owns the tables, and nothing elsewhere.
    """
    if plain_tables_query([schema]) is None:
        yield
        return
    with in_patient_transaction():
        require_plain_tables([schema], Task._meta.db_table)
        yield


class _Answer(NamedTuple):
    """The answer to a statement: the number of rows that it wrote or read, and the rows that it read."""

    written: int
    rows: list[tuple[Any, ...]]


def _execute(schemas: Iterable[str], statement: sql.Composed, parameters: Any = None) -> list[_Answer]:
    """Run one or more statements on the tasks of these schemas in one round trip, past the search path.

    Every name in them is qualified. Tables of other roles are looked at first, in the same transaction.

    Waits for a lock for at most `LOCK_MS`, so that a tenant with locked tables does not block others. In a transaction
    of the caller, the caller's own limit is restored afterwards.

    Returns the answers to all statements sent; those to `statement` come last.
    """
    return insist(lambda: _execute_once(schemas, statement, parameters))


def _execute_once(schemas: Iterable[str], statement: sql.Composed, parameters: Any) -> list[_Answer]:
    connection = tenant_connection()
    with told_when_away():
        connection.ensure_connection()
        with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
            is_callers = connection.connection.info.transaction_status != TransactionStatus.IDLE
            checked = plain_tables_query(schemas, Task._meta.db_table)
            parts = [*_limit_of_locks(is_callers), *([checked] if checked else []), statement]
            ends = [_FORMER_LIMIT] if is_callers else []
            cursor.execute(sql.SQL(";\n").join([*parts, *ends]), parameters)
            answers = [_answer(cursor)]
            while cursor.nextset():
                answers.append(_answer(cursor))
            return answers[: len(answers) - len(ends)]


def _answer(cursor: psycopg.ClientCursor[Any]) -> _Answer:
    return _Answer(cursor.rowcount, cursor.fetchall() if cursor.description else [])


def _limit_of_locks(is_callers: bool) -> list[sql.Composable]:
    """Return the statements that limit waits for locks. In a transaction of the caller, they also store its limit."""
    limit = sql.SQL("SELECT pg_catalog.set_config('lock_timeout', {}, true)").format(sql.Literal(str(LOCK_MS)))
    return [_NOTE_LIMIT, limit] if is_callers else [limit]


_NOTE_LIMIT = sql.SQL(
    "SELECT pg_catalog.set_config('tenant_q.lock_timeout', pg_catalog.current_setting('lock_timeout'), true)"
)
_FORMER_LIMIT = sql.SQL(
    "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('tenant_q.lock_timeout'), true)"
)


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(physical_schema(schema), Task._meta.db_table)


# Pruning


def prune(schema: str, may_come: Callable[[list[str]], Collection[str]] = lambda ids: ()) -> bool:
    """Delete the tenant's oldest successes beyond its policy's `max_results`, else `save_limit` (per `save_limit_per`).

    The row of a success stays as long as its package can be delivered, because it tells a later delivery that the task
    is done. So rows of the last four leases stay, and rows whose packages the brokers still have. One call deletes at
    most `PRUNED_AT_ONCE` rows, so that the statement ends within the time limit.

    Parameters: `may_come`, a function that returns the ids, among those given, whose packages may be delivered again.

    Returns whether more rows may be left. Raises `DatabaseError`, `DatabaseAway` or an error of `may_come`.
    """
    settings = conf()
    limit = _most_results(schema) or settings.save_limit
    if limit <= 0:
        return False
    partition = sql.Identifier(settings.save_limit_per) if settings.save_limit_per else sql.SQL("true")
    *_, found = _execute(
        [schema],
        sql.SQL(statement("prunable_tasks")).format(table=_table(schema), partition=partition),
        {"limit": limit, "spared": timezone.now() - spared(), "portion": PRUNED_AT_ONCE},
    )
    ids = [id for (id,) in found.rows]
    spared_ids = set(may_come(ids)) if ids else set()
    if over := [id for id in ids if id not in spared_ids]:
        _execute([schema], sql.SQL(statement("prune_tasks")).format(table=_table(schema)), [over])
    return len(ids) == PRUNED_AT_ONCE and bool(over)


def _most_results(schema: str) -> int | None:
    with told_when_away(), in_public():
        policies = TenantPolicy.objects.using(database_alias()).filter(schema_name=schema)
        return policies.values_list("max_results", flat=True).first()


def spared() -> timedelta:
    """How long a row is safe from pruning."""
    return timedelta(seconds=4 * conf().lease)


# Reading, in the current schema


def successes(ids: Iterable[str]) -> dict[str, Task]:
    """Those of `ids` that have succeeded already, as rows.

    Raises `TenantBusy` when the tenant's table stays locked, `TenantBroken` when it cannot be read.
    """
    try:
        with in_patient_transaction():
            require_plain_tables([current_schema()], Task._meta.db_table)
            rows = task_rows.rows().filter(id__in=list(ids), success=True)
            return {task.id: task for task in task_rows.load_success(rows)}
    except DatabaseError as error:
        why = f"The tasks of {current_schema()!r} cannot be read: {' '.join(str(error).split())}; it is tried again."
        raise (TenantBusy if isinstance(error, OperationalError) else TenantBroken)(why) from error


def find(task_id: str) -> Task | None:
    """A task's row by its id, else the latest one by its name. Raises `UnsignedResult`."""
    by_id = task_rows.load(task_rows.rows().filter(id=task_id)) if len(str(task_id)) == 32 else []
    found = by_id or task_rows.load(task_rows.rows().filter(name=task_id).order_by("-stopped"), limit=1)
    return found[0] if found else None


def group(group_id: str, *, failures: bool) -> list[Task]:
    """The rows of a group in the order in which they started. Raises `UnsignedResult`."""
    rows = task_rows.rows().filter(group=group_id).order_by("started")
    return task_rows.load(rows if failures else rows.filter(success=True))


def count(group_id: str, *, failures: bool) -> int:
    """How many rows a group has, or how many of them failed."""
    rows = task_rows.rows().filter(group=group_id)
    return int((rows.filter(success=False) if failures else rows).count())


def delete(group_id: str, *, tasks: bool) -> Any:
    """Take the group's label off its rows, or delete the rows with it. Returns what the ORM returns."""
    rows = task_rows.rows().filter(group=group_id)
    return task_rows.without_values(rows).delete() if tasks else rows.update(group=None)


def poll(look: Callable[[], T | None], *, wait: int) -> T | None:
    """Call `look` until it returns something other than None, for `wait` milliseconds; for ever when negative."""
    deadline = time.monotonic() + wait / 1000
    pause = 0.005
    while (found := look()) is None and (wait < 0 or time.monotonic() < deadline):
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return found
