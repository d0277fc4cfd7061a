"""Run statements on the task tables of tenants in one round trip, independently of the search path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from django_q.models import Task
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q.tenancy import (
    LOCK_MS,
    detect_outages,
    physical_schema,
    plain_tables_query,
    retry_conflicts,
    tenant_connection,
)

_NOTE_LIMIT = sql.SQL(
    "SELECT pg_catalog.set_config('tenant_q.lock_timeout', pg_catalog.current_setting('lock_timeout'), true)"
)
_FORMER_LIMIT = sql.SQL(
    "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('tenant_q.lock_timeout'), true)"
)


class Answer(NamedTuple):
    """The answer to a statement: the number of rows that it wrote or read, and the rows that it read."""

    written: int
    rows: list[tuple[Any, ...]]


_TASKS = (Task._meta.db_table,)


def execute(
    schemas: Iterable[str], statement: sql.Composed, parameters: Any = None, *, tables: Sequence[str] = _TASKS
) -> list[Answer]:
    """Run one or more statements on the task tables of schemas, in one round trip.

    Tables of other roles are checked first, in the same transaction. A statement waits for a lock for at most `LOCK_MS`
    milliseconds, so that a tenant with locked tables does not block others. In a transaction of the caller, the
    caller's own limit is restored afterwards.

    Args:
        schemas: The schemas whose tables the statements use.
        statement: The statements, in which every name is qualified.
        parameters: Their parameters.
        tables: All tables in each schema that the statements use.

    Returns:
        The answers to all statements that were sent; the answers to `statement` are the last ones.

    Raises:
        DatabaseError: A statement failed.
        DatabaseAway: The database does not answer.
    """
    return retry_conflicts(lambda: _execute_once(schemas, statement, parameters, tables))


def _execute_once(
    schemas: Iterable[str], statement: sql.Composed, parameters: Any, tables: Sequence[str]
) -> list[Answer]:
    connection = tenant_connection()
    with detect_outages():
        connection.ensure_connection()
        with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
            is_callers = connection.connection.info.transaction_status != TransactionStatus.IDLE
            checked = plain_tables_query(schemas, *tables)
            parts = [*_limit_of_locks(is_callers), *([checked] if checked else []), statement]
            ends = [_FORMER_LIMIT] if is_callers else []
            cursor.execute(sql.SQL(";\n").join([*parts, *ends]), parameters)
            answers = [_answer(cursor)]
            while cursor.nextset():
                answers.append(_answer(cursor))
            return answers[: len(answers) - len(ends)]


def _answer(cursor: psycopg.ClientCursor[Any]) -> Answer:
    return Answer(cursor.rowcount, cursor.fetchall() if cursor.description else [])


def _limit_of_locks(is_callers: bool) -> list[sql.Composable]:
    """Return the statements that limit how long those on task tables wait for locks."""
    # In a transaction of the caller, the caller's own limit is stored too.
    limit = sql.SQL("SELECT pg_catalog.set_config('lock_timeout', {}, true)").format(sql.Literal(str(LOCK_MS)))
    return [_NOTE_LIMIT, limit] if is_callers else [limit]


def table_of(schema: str) -> sql.Identifier:
    """Return the qualified name of a schema's task table for a statement."""
    return sql.Identifier(physical_schema(schema), Task._meta.db_table)
