"""Run several statements on the workflow tables of tenants in one transaction, with few round trips.

Each call of `run` is one round trip, and the last one commits. Statements find objects in `pg_catalog` only, so every
table is qualified with its schema, and nothing that a tenant's role has made is found instead of PostgreSQL's own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q import tenancy
from tenant_q.sql import statement
from tenant_q.workflows.models import WorkflowRun, WorkflowSignal, WorkflowStep

TABLES = tuple(str(model._meta.db_table) for model in (WorkflowRun, WorkflowStep, WorkflowSignal))
RUNS, STEPS, SIGNALS = TABLES

_SAVEPOINT = sql.SQL("SAVEPOINT tenant_q_workflows")
_RELEASE = sql.SQL("RELEASE SAVEPOINT tenant_q_workflows")
_UNDO = sql.SQL("ROLLBACK TO SAVEPOINT tenant_q_workflows; RELEASE SAVEPOINT tenant_q_workflows")
_BEGIN = sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
# The settings of a transaction; the lock timeout is filled in. While a tenant has few rows, PostgreSQL would
# read all of them for a join, and so all items of a step each time that one of them ends.
_SETTINGS = {
    "lock_timeout": "{}",
    "search_path": "'pg_catalog, pg_temp'",
    "enable_seqscan": "'off'",
    "enable_hashjoin": "'off'",
    "enable_mergejoin": "'off'",
}


def _set(form: str) -> str:
    """Return a query that sets something for each of the settings: the name and the value as in `form`."""
    parts = (form.format(name=name, value=value) for name, value in _SETTINGS.items())
    return "SELECT " + ", ".join(f"pg_catalog.set_config({part}, true)" for part in parts)


_LIMITS = _set("'{name}', {value}")
# Names of their own: statements on task tables run in the same transaction, and note the limit too.
_NOTE = sql.SQL(_set("'tenant_q.step_{name}', pg_catalog.current_setting('{name}')"))
_RESTORE = sql.SQL(_set("'{name}', pg_catalog.current_setting('tenant_q.step_{name}')"))


class Answer(NamedTuple):
    """The answer to a statement: the number of rows that it wrote or read, and the rows that it read."""

    written: int
    rows: list[tuple[Any, ...]]


class Statement(NamedTuple):
    """A statement on one tenant's tables, with its parameters."""

    text: sql.SQL
    parameters: tuple[Any, ...] = ()


def on(schema: str, name: str, *parameters: Any) -> Statement:
    """Return the statement of `sql/<name>.sql` on the workflow tables of a schema.

    Args:
        schema: The schema name of the tenant.
        name: The name of the file.
        *parameters: The values of its placeholders, in order.
    """
    return Statement(_text(tenancy.physical_schema(schema), name), parameters)


@functools.lru_cache(maxsize=4096)
def _text(physical: str, name: str) -> sql.SQL:
    """Return the text of a statement on the tables of a schema. A worker needs the same ones again and again."""
    runs, steps, signals = (sql.Identifier(physical, table).as_string().replace("%", "%%") for table in TABLES)
    return sql.SQL(statement(name).format(runs=runs, steps=steps, signals=signals))


class Transaction:
    """An open transaction on the workflow tables of tenants."""

    def __init__(self, schemas: Iterable[str], tables: Sequence[str], lock_ms: int) -> None:
        self._schemas = sorted(set(schemas))
        self._tables = tables
        self._lock_ms = lock_ms
        self._is_begun = self._is_over = False
        self._connection = tenancy.tenant_connection()
        self._connection.ensure_connection()
        status = self._connection.connection.info.transaction_status
        self._is_callers = self._connection.in_atomic_block or status != TransactionStatus.IDLE

    def run(self, statements: Sequence[Statement], *, last: bool = False) -> list[Answer]:
        """Run statements in the transaction, in one round trip.

        Args:
            statements: The statements.
            last: Whether the transaction is committed after them.

        Returns:
            The answer to each.

        Raises:
            DatabaseError: A statement failed. The transaction is over.
            DatabaseAway: The database does not answer.
        """
        before = [] if self._is_begun else self._begin()
        after = self._end() if last else []
        self._is_begun, self._is_over = True, last
        texts = [*before, *(one.text for one in statements), *after]
        if not texts:
            return []
        answers = self._send(texts, [value for one in statements for value in one.parameters])
        return answers[len(before) : len(before) + len(statements)]

    def _begin(self) -> list[sql.Composable]:
        limits = sql.SQL(_LIMITS).format(sql.Literal(str(self._lock_ms)))
        checked = tenancy.plain_tables_query(self._schemas, *TABLES, *self._tables)
        return [
            *([_SAVEPOINT, _NOTE] if self._is_callers else [_BEGIN]),
            limits,
            *([_without_placeholders(checked)] if checked else []),
        ]

    def _end(self) -> list[sql.Composable]:
        return [_RESTORE, _RELEASE] if self._is_callers else [sql.SQL("COMMIT")]

    def _send(self, texts: Sequence[sql.Composable], parameters: Sequence[Any]) -> list[Answer]:
        connection = self._connection
        with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
            cursor.execute(sql.SQL(";\n").join(texts), parameters)
            answers = [_answer(cursor)]
            while cursor.nextset():
                answers.append(_answer(cursor))
        return answers

    def commit(self) -> None:
        """Commit the transaction, unless it is over or has not begun."""
        if self._is_begun and not self._is_over:
            self.run([], last=True)

    def undo(self) -> None:
        """Roll the transaction back. An outage did so already."""
        raw = self._connection.connection
        if not self._is_begun or raw is None or raw.closed:
            return
        status = raw.info.transaction_status
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            raw.execute(_UNDO if self._is_callers else sql.SQL("ROLLBACK"))


@contextmanager
def transaction(schemas: Iterable[str], *tables: str, lock_ms: int = tenancy.LOCK_MS) -> Iterator[Transaction]:
    """Run a block in one transaction on the workflow tables of tenants, at READ COMMITTED.

    In a transaction of the caller it is a savepoint, and the caller's search path and limits are restored.

    Args:
        schemas: The schema names of the tenants.
        *tables: Other tables of the tenants that the block uses.
        lock_ms: The longest wait for a lock, in milliseconds.

    Raises:
        DatabaseError: A statement failed, such as one that waited too long for a lock.
        DatabaseAway: The database does not answer.
    """
    with tenancy.detect_outages():
        found = Transaction(schemas, tables, lock_ms)
        try:
            yield found
            found.commit()
        except BaseException:
            found.undo()
            raise


def is_lock_timeout(error: Exception) -> bool:
    """Return whether a statement failed because it waited too long for a lock."""
    return getattr(error.__cause__ or error, "sqlstate", None) == "55P03"


def _without_placeholders(text: sql.Composable) -> sql.SQL:
    return sql.SQL(text.as_string().replace("%", "%%"))


def _answer(cursor: psycopg.ClientCursor[Any]) -> Answer:
    return Answer(cursor.rowcount, cursor.fetchall() if cursor.description else [])
