"""Read and write the rows of schedules from code in the schemas of several tenants, with one statement for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django_q.models import Schedule
from psycopg import sql

from tenant_q import tenancy
from tenant_q.sql import statement


@dataclass(slots=True)
class Changes:
    """What is to be written in the schema of one tenant.

    Attributes:
        added: New rows.
        changed: The columns to change, by the id of the row.
        deleted: The ids of rows to delete.
    """

    added: list[Schedule] = field(default_factory=list)
    changed: dict[int, dict[str, Any]] = field(default_factory=dict)
    deleted: list[int] = field(default_factory=list)


def read(wanted: Mapping[str, tuple[Iterable[str], Iterable[int]]]) -> dict[str, list[Schedule]]:
    """Lock and return rows of several tenants, by schema: those with one of the names or ids of the tenant.

    Args:
        wanted: For each schema, names and ids of schedules.
    """
    fields = Schedule._meta.concrete_fields
    columns = sql.SQL(", ").join(sql.Identifier(one.column) for one in fields)
    parts = [
        sql.SQL(statement("code_schedules")).format(
            schema=sql.Literal(schema),
            table=_table(schema),
            columns=columns,
            names=sql.Literal(sorted(names)),
            ids=sql.Literal(sorted(ids)),
        )
        for schema, (names, ids) in sorted(wanted.items())
    ]
    with tenancy.raw_cursor() as cursor:
        found = cursor.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()
    rows: dict[str, list[Schedule]] = {schema: [] for schema in wanted}
    names = [one.attname for one in fields]
    for schema, *values in found:
        rows[schema].append(Schedule.from_db(tenancy.database_alias(), names, values))
    return rows


def write(changes: Mapping[str, Changes]) -> dict[tuple[str, str], int]:
    """Write the changes of several tenants, by schema.

    Returns:
        The ids of the new rows, by schema and name.
    """
    statements = [one for schema, some in sorted(changes.items()) for one in _statements(schema, some)]
    made: dict[tuple[str, str], int] = {}
    if not statements:
        return made
    with tenancy.raw_cursor() as cursor:
        cursor.execute(sql.SQL(";\n").join(statements))
        while True:
            if cursor.description:
                made |= {(schema, name): id for schema, name, id in cursor.fetchall()}
            if not cursor.nextset():
                return made


def _statements(schema: str, changes: Changes) -> Iterable[sql.Composed]:
    table = _table(schema)
    fields = [one for one in Schedule._meta.concrete_fields if not one.primary_key]
    for row in changes.added:
        yield sql.SQL(statement("add_code_schedule")).format(
            schema=sql.Literal(schema),
            table=table,
            columns=_list([sql.Identifier(one.column) for one in fields]),
            values=_list([sql.Literal(getattr(row, one.attname)) for one in fields]),
        )
    for id, values in sorted(changes.changed.items()):
        pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(one)) for name, one in values.items()]
        yield sql.SQL(statement("change_code_schedule")).format(table=table, changes=_list(pairs), id=sql.Literal(id))
    if changes.deleted:
        yield sql.SQL("DELETE FROM {} WHERE id OPERATOR(pg_catalog.=) ANY ({})").format(
            table, sql.Literal(sorted(changes.deleted))
        )


def _list(parts: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(tenancy.physical_schema(schema), Schedule._meta.db_table)
