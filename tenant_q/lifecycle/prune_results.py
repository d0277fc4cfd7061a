"""Delete a tenant's old outcomes beyond the limits of its retention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from django.utils import timezone
from django_q.models import Schedule, Task
from psycopg import sql

from tenant_q.brokers import site_brokers
from tenant_q.conf import conf
from tenant_q.lifecycle.retention import Retention, retention_of
from tenant_q.lifecycle.task_statements import execute, table_of
from tenant_q.sql import statement
from tenant_q.tenancy import physical_schema

# A statement that deletes this many rows takes a fraction of the time limit for an answer.
PRUNED_AT_ONCE = 10_000
# The longest count of one tenant's outcomes, in milliseconds. A session that is silent for longer would be dropped.
COUNT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many successes, or failures, a tenant has, and when the oldest of those that may be deleted ended."""

    success: bool
    count: int
    oldest: datetime | None


def prune(schema: str, retention: Retention | None = None, *, by_age: bool = True) -> bool:
    """Prune the outcomes of a tenant: delete its oldest ones beyond the limits of its retention.

    The row of an outcome stays as long as its package may be delivered again, because a later delivery finds there that
    the task is done. So rows of the last four leases stay, and rows whose packages the brokers still have. One call
    deletes at most `PRUNED_AT_ONCE` rows, so that the statement ends within the time limit.

    Args:
        schema: The tenant's schema.
        retention: How long its outcomes are kept; None to read that.
        by_age: Whether to delete what is too old, for which the whole table is read, or only what is too much.

    Returns:
        Whether more rows may be left.

    Raises:
        DatabaseError: The tenant's table cannot be written to.
        DatabaseAway: The database does not answer.
        BrokerError: A broker does not answer, so nobody knows which packages it has.
    """
    retention = retention or retention_of(schema)
    queries = list(_queries(schema, retention, by_age=by_age))
    if not queries:
        return False
    found = _run([schema], queries, with_schedules=retention.spares_schedules)
    ids = list(dict.fromkeys(id for (id,) in chain.from_iterable(found)))[:PRUNED_AT_ONCE]
    kept = _may_be_delivered(ids) if ids else set()
    over = [id for id in ids if id not in kept]
    if over:
        delete = sql.SQL(statement("prune_tasks")).format(table=table_of(schema))
        execute([schema], delete, {"ids": over, "spared": timezone.now() - spared()})
    return bool(over) and len(ids) == PRUNED_AT_ONCE


def _queries(schema: str, retention: Retention, *, by_age: bool) -> Iterator[sql.Composed]:
    """Yield the queries for the ids of the rows that exceed a limit of a tenant's retention."""
    now, settings = timezone.now(), conf()
    partition = sql.Identifier(settings.save_limit_per) if settings.save_limit_per else sql.SQL("true")
    parts = {
        "table": table_of(schema),
        "spared": sql.Literal(now - spared()),
        "portion": sql.Literal(PRUNED_AT_ONCE),
        "may_go": _may_go(schema, retention),
    }
    for success in (True, False):
        limits, kind = retention.of(success=success), sql.SQL("success" if success else "NOT success")
        if limits.rows is not None:
            query = sql.SQL(statement("prunable_tasks"))
            yield query.format(kind=kind, partition=partition, rows=sql.Literal(limits.rows), **parts)
        if limits.age is not None and by_age:
            query = sql.SQL(statement("outdated_tasks"))
            yield query.format(kind=kind, outdated=sql.Literal(now - limits.age), **parts)


def count_outcomes(retentions: Mapping[str, Retention]) -> dict[str, list[Outcomes]]:
    """Count the successes and failures of several tenants in one round trip, and find their oldest ones.

    Args:
        retentions: How long the outcomes are kept, by schema. The oldest is the oldest of those that may be deleted.

    Raises:
        DatabaseError: The table of a tenant cannot be read, or not in `COUNT_MS`.
        DatabaseAway: The database does not answer.
    """
    schemas = sorted(retentions)
    counts = [
        sql.SQL(statement("count_outcomes")).format(table=table_of(schema), may_go=_may_go(schema, retentions[schema]))
        for schema in schemas
    ]
    limit = sql.SQL("SELECT pg_catalog.set_config('statement_timeout', {}, true)").format(sql.Literal(str(COUNT_MS)))
    with_schedules = any(one.spares_schedules for one in retentions.values())
    _, *found = _run(schemas, [limit, *counts], with_schedules=with_schedules)
    return {schema: [Outcomes(*row) for row in rows] for schema, rows in zip(schemas, found, strict=True)}


def spared() -> timedelta:
    """Return how long after the end of a task its result is spared from pruning."""
    return timedelta(seconds=4 * conf().lease)


def _run(schemas: Sequence[str], queries: Sequence[sql.Composable], *, with_schedules: bool) -> list[list[Any]]:
    """Run queries on the outcomes of schemas in one round trip, and return the rows that each one found."""
    tables = [Task._meta.db_table, *([Schedule._meta.db_table] if with_schedules else [])]
    answers = execute(schemas, sql.SQL(";\n").join(queries), tables=tables)
    return [answer.rows for answer in answers[-len(queries) :]]


def _may_go(schema: str, retention: Retention) -> sql.Composable:
    """Return the SQL condition on which an outcome may be deleted once it exceeds a limit of its retention."""
    if not retention.spares_schedules:
        return sql.SQL("true")
    schedules = sql.Identifier(physical_schema(schema), Schedule._meta.db_table)
    return sql.SQL(statement("is_no_last_run")).format(schedules=schedules)


def _may_be_delivered(ids: list[str]) -> set[str]:
    """Return the ids of outcomes that must stay, because a cluster of the site may still deliver their packages."""
    return {id for broker in site_brokers() for id in broker.may_come(ids)}
