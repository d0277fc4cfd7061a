"""Claim the due schedules of one tenant or of several, and write them back once they have fired.

A claim locks its rows until the transaction ends, and skips rows that another scheduler has locked. Several tenants are
served by qualified names of their tables in a few statements for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.db.models.signals import post_save, pre_save
from django_q.models import Schedule
from psycopg import sql

from tenant_q import tenancy
from tenant_q.schedules import due_index
from tenant_q.schedules.schedule_rows import rows
from tenant_q.sql import statement

FIRES_A_PASS = 100
"""The most fires of one tenant in one transaction."""
FIRES_TOGETHER = 1000
"""The most fires of several tenants in one transaction."""


# One tenant, which is current


def claim() -> Any:
    """Claim the current tenant's due schedules of this cluster; each row's `clock` is the database's present."""
    served = due_index.served_clusters()
    own = Q(cluster__in=served) | (Q(cluster__isnull=True) if "" in served else Q(pk__in=[]))
    # Python cannot read a moment before the year 1, such as '-infinity'.
    first = datetime.min.replace(tzinfo=UTC if settings.USE_TZ else None) + timedelta(days=1)
    due = rows().select_for_update(skip_locked=True).filter(own, next_run__gte=first, next_run__lte=Now())
    return due.exclude(repeats=0).annotate(clock=Now()).order_by("next_run")[:FIRES_A_PASS]


def store(fired: Sequence[Schedule]) -> None:
    """Write claimed schedules back that have fired, and delete those that are done.

    It costs two statements, unless the project has receivers for saved schedules.
    """
    kept, done = _kept_and_done(fired)
    fields = ["next_run", "repeats", "task"]
    if pre_save.has_listeners(Schedule) or post_save.has_listeners(Schedule):
        for row in kept:
            row.save(using=tenancy.database_alias(), update_fields=fields)
    elif kept:
        rows().bulk_update(kept, fields)
    if done:
        rows().filter(pk__in=done).delete()


def _kept_and_done(fired: Sequence[Schedule]) -> tuple[list[Schedule], list[int]]:
    """Return the claimed schedules that stay, and the keys of those that ran once and are to be deleted."""
    done = {row.pk for row in fired if row.repeats < 0 and row.schedule_type == Schedule.ONCE}
    return [row for row in fired if row.pk not in done], sorted(done)


# Several tenants


def claim_together(schemas: Sequence[str]) -> Iterator[tuple[str, Schedule]]:
    """Claim the due schedules of several tenants, each with its schema, as `claim` does for one tenant."""
    clusters, limit = tuple(due_index.served_clusters()), max(1, FIRES_TOGETHER // len(schemas))
    claims = b" UNION ALL ".join(_claim_text(schema, clusters, limit) for schema in schemas)
    names = [field.attname for field in Schedule._meta.concrete_fields]
    with tenancy.raw_cursor() as cursor:
        found = cursor.execute(claims).fetchall()
    for schema, clock, *values in found:
        row = Schedule.from_db(tenancy.database_alias(), names, values)
        row.clock = clock
        yield schema, row


@lru_cache(maxsize=4096)
def _claim_text(schema: str, clusters: tuple[str, ...], limit: int) -> bytes:
    columns = [sql.Identifier(field.column) for field in Schedule._meta.concrete_fields]
    return (
        sql.SQL(statement("claim_due"))
        .format(
            schema=sql.Literal(schema),
            table=_table(schema),
            columns=sql.SQL(", ").join(columns),
            clusters=sql.Literal(list(clusters)),
            limit=sql.Literal(limit),
        )
        .as_bytes()
    )


def store_together(fired: Sequence[tuple[str, Schedule]]) -> None:
    """Write claimed schedules of several tenants back, each with its schema, as `store` does for one tenant."""
    statements = []
    for schema in dict.fromkeys(schema for schema, _ in fired):
        kept, done = _kept_and_done([row for name, row in fired if name == schema])
        if kept:
            values = [sql.SQL("({}, {}, {}, {})").format(row.pk, row.next_run, row.repeats, row.task) for row in kept]
            moved = sql.SQL(statement("move_schedules"))
            statements.append(moved.format(table=_table(schema), rows=sql.SQL(", ").join(values)))
        if done:
            statements.append(
                sql.SQL("DELETE FROM {} WHERE id OPERATOR(pg_catalog.=) ANY ({})").format(_table(schema), done)
            )
    if statements:
        with tenancy.raw_cursor() as cursor:
            cursor.execute(sql.SQL(";\n").join(statements))


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(tenancy.physical_schema(schema), Schedule._meta.db_table)
