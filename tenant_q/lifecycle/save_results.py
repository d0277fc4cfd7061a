"""Save outcomes as `Task` rows, in bulk.

Rows are written with schema-qualified statements, many tenants in one round trip and one commit, whatever schema the
connection is set to. When that fails, each tenant is saved by itself, so that a broken one costs no other.
"""

from __future__ import annotations

import functools
import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from django.db import DatabaseError
from django.db.models.signals import post_save
from django_q import signals as django_q_signals
from django_q.models import Task
from picklefield.fields import PickledObject
from psycopg import sql

from tenant_q.brokers.protocol import CANCELLED
from tenant_q.exceptions import (
    CancelException,
    CannotSave,
    DatabaseAway,
    ResultRefused,
)
from tenant_q.lifecycle import task_rows
from tenant_q.lifecycle.outcome_rows import COLUMNS, as_pickled, as_task, row_of, signed_values, unique, wants_row
from tenant_q.lifecycle.task_statements import execute, table_of
from tenant_q.package.package import Outcome
from tenant_q.scrubbing import entering
from tenant_q.sql import statement
from tenant_q.support.error_kinds import Kind, kind_of_postgres
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger
from tenant_q.support.receivers import has_receivers
from tenant_q.support.visible import one_line
from tenant_q.tenancy import (
    database_alias,
    in_patient_transaction,
    in_verified_schema,
    plain_tables_query,
    public_schema,
    require_plain_tables,
    tenant_table,
    told_when_away,
)

logger = get_logger("tenant_q.results")

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
    return one_line(error)[:1000]


def _owner(outcome: Outcome) -> Owner:
    return outcome.package.schema, outcome.package.tenant or None


def _save_rows(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> set[Key]:
    """One round trip and, outside a transaction, one commit. All or nothing.

    The rows of a tenant travel as one JSON text: of all forms this costs both sides the least.

    Returns the schema and id of each row of a cancelled task, which was left as it is.
    """
    statements: list[sql.Composable] = [_insert(*owner) for owner in by_tenant]
    with no_return():  # pickling calls methods of the values
        rows = [[row_of(outcome) for outcome in unique(outcomes)] for outcomes in by_tenant.values()]
    texts = [json.dumps(own) for own in rows]
    _refuse_too_large(texts, is_single=sum(map(len, by_tenant.values())) == 1)
    answers = execute([schema for schema, _ in by_tenant], sql.SQL(";\n").join(statements), texts)
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
        query = sql.SQL(statement("cancelled_tasks")).format(table=table_of(schema), cancelled=_CANCELLED)
        *_, answer = execute([schema], query, [list(own)])
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
    columns = ", ".join(sql.Identifier(column).as_string() for column in COLUMNS)
    texts = {
        "table": table_of(schema).as_string(),
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
                task.args, task.kwargs = as_pickled(task.args), as_pickled(task.kwargs)
                task.hook = None  # Django-Q2's receiver would call it now; it is called once, after all is saved
                row = task_rows.rows().filter(id=task.id)
                with _row_before(row) as before:
                    if before is _Row.CANCELLED:
                        cancelled.add((schema, task.id))
                    elif before is not _Row.SUCCESS:
                        with no_return():
                            task.save(using=database_alias(), force_insert=before is None)
                            # Sign the values as the receivers left them, not the row's: others may have changed it.
                            signed = signed_values(outcome.package, task.args, task.kwargs, task.result)
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
