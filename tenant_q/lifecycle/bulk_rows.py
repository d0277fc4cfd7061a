"""Write the rows of many tenants in one round trip, with schema-qualified statements.

They do not depend on the schema that the connection is set to.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from tenant_q.exceptions import ResultRefused
from tenant_q.lifecycle import failure_entries
from tenant_q.lifecycle.outcome_rows import CANCELLED_MARK, COLUMNS, Key, Owner, row_of, unique
from tenant_q.lifecycle.task_statements import execute, table_of
from tenant_q.package.outcome import Outcome
from tenant_q.sql import statement
from tenant_q.support.forks import no_return
from tenant_q.tenancy import is_as_tenant, public_schema, tenant_table

# The largest rows in one statement, and the largest single row in a statement of its own that PostgreSQL still takes,
# in bytes.
LARGEST_BATCH = 64 * 1024 * 1024
LARGEST_ROW = 900 * 1024 * 1024

_CANCELLED = sql.Literal(CANCELLED_MARK)


def save(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> set[Key]:
    """Write the rows of tenants in bulk: all or none, in one round trip and, outside a transaction, one commit.

    The rows of a tenant travel as one JSON text, which of all forms costs both sides the least.

    Args:
        by_tenant: The outcomes of each tenant.

    Returns:
        The keys of cancelled tasks, whose rows were left as they are.

    Raises:
        ResultRefused: The rows are too large for one statement.
        DatabaseAway: The database does not answer.
    """
    rows = _rows_of(by_tenant)
    statements, texts = _insertions(by_tenant, rows)
    answers = execute([schema for schema, _ in by_tenant], sql.SQL(";\n").join(statements), texts)
    written = answers[len(answers) - len(statements) :][: len(rows)]
    left: dict[str, list[str]] = {}  # packages of one schema may name its tenant or, from an earlier version, none
    for (schema, _), own, answer in zip(by_tenant, rows, written, strict=True):
        if answer.written < len(own):
            left.setdefault(schema, []).extend(str(row["id"]) for row in own)
    return _cancelled_among(left) if left else set()


def insertions(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> list[tuple[sql.SQL, str]]:
    """Return the statements that write the rows of tenants in bulk, each with its parameter, for another transaction.

    If there are failures, the last one adds their causes to the index of failures.

    Args:
        by_tenant: The outcomes of each tenant.

    Raises:
        ResultRefused: The rows are too large for one statement.
    """
    return list(zip(*_insertions(by_tenant, _rows_of(by_tenant)), strict=True))


def _rows_of(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> list[list[dict[str, Any]]]:
    with no_return():  # pickling calls methods of the values
        return [[row_of(outcome) for outcome in unique(outcomes)] for outcomes in by_tenant.values()]


def _insertions(
    by_tenant: Mapping[Owner, Sequence[Outcome]], rows: Sequence[Sequence[dict[str, Any]]]
) -> tuple[list[sql.SQL], list[str]]:
    texts = [json.dumps(own) for own in rows]
    _refuse_too_large(texts, is_single=sum(map(len, by_tenant.values())) == 1)
    if is_as_tenant():  # the rights of its role to its schema say that the tenant still has it
        return [_insert(schema, None) for schema, _ in by_tenant], texts
    statements = [_insert(*owner) for owner in by_tenant]
    if causes := failure_entries.statement_for(outcome for own in by_tenant.values() for outcome in own):
        return [*statements, causes[0]], [*texts, causes[1]]
    return statements, texts


def _cancelled_among(ids: Mapping[str, Sequence[str]]) -> set[Key]:
    """Return the keys of the cancelled tasks among the rows of a bulk with these ids, which are given by schema."""
    found: set[Key] = set()
    for schema, own in ids.items():
        query = sql.SQL(statement("cancelled_tasks")).format(table=table_of(schema), cancelled=_CANCELLED)
        *_, answer = execute([schema], query, [list(own)])
        found |= {(schema, id) for (id,) in answer.rows}
    return found


def _refuse_too_large(rows: Sequence[str], *, is_single: bool) -> None:
    """Raise `ResultRefused` if a bulk of rows is too large for one statement. A single row may be larger.

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
    """Return the SQL condition on which a bulk writes the rows of a tenant: that it still has the schema.

    Its row must not become its successor's.
    """
    if tenant is None:
        return "true"
    table, key = tenant_table()
    condition = sql.SQL(
        "EXISTS (SELECT FROM {} WHERE schema_name OPERATOR(pg_catalog.=) {} "
        "AND {}::pg_catalog.text OPERATOR(pg_catalog.=) {})"
    ).format(sql.Identifier(public_schema(), table), sql.Literal(schema), sql.Identifier(key), sql.Literal(tenant))
    return condition.as_string()
