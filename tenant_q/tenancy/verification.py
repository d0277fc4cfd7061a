"""Where a session really is, asked of the server.

PostgreSQL skips a schema of the search path that is missing and falls through to `public`; so before a tenant's tasks
run, `verify()` asks.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.conf import settings
from psycopg import sql

from tenant_q.conf import conf
from tenant_q.exceptions import ReplicaAway, SchemaMissing, SchemaNotMigrated
from tenant_q.statements import statement
from tenant_q.tenancy.connection import DATABASE_ERRORS, fetch_raw, is_lost, raw_cursor, told_when_away, words
from tenant_q.tenancy.seam import (
    TASK_TABLE,
    Databases,
    database_alias,
    physical_schema,
    public_schema,
    switched_connections,
)

# By schema, the OID of the task table that was seen to have all its columns, and when (monotonic).
_whole_tables: dict[str, tuple[int, float]] = {}


def verify(schema: str, databases: Databases = None) -> None:
    """Ask the server that `schema`, already entered, is really where the session is and has Django-Q2's tables.

    Raises `SchemaMissing`, `SchemaNotMigrated`, `ReplicaAway` or `DatabaseAway`. One round trip a switched connection,
    and one more where the columns of the schema's table were not looked at within `tenant_cache_seconds`.
    """
    wanted = physical_schema(schema)
    for connection in switched_connections(databases):
        found, table = _ask(connection, wanted)
        if found != wanted:
            raise SchemaMissing(f"The schema {wanted!r} does not exist in database {connection.alias!r}; restore it.")
        if connection.alias == database_alias() and not (table and _has_columns(connection, wanted, table)):
            raise SchemaNotMigrated(
                f"The schema {wanted!r} has no table {TASK_TABLE} with all its columns; "
                "run `python manage.py migrate_schemas` for it."
            )


def require_migrated(schemas: Collection[str]) -> None:
    """Raise `SchemaNotMigrated` if one of these is not there or lacks Django-Q2's task table with all its columns."""
    query = sql.SQL(statement("unmigrated_schemas")).format(
        schemas=sql.Literal([physical_schema(schema) for schema in schemas]),
        table=sql.Literal(TASK_TABLE),
        columns=sql.Literal(_task_columns()),
    )
    with told_when_away(), raw_cursor() as cursor:
        found = [name for (name,) in cursor.execute(query).fetchall()]
    if found:
        raise SchemaNotMigrated(
            f"The schemas {', '.join(found)} have no table {TASK_TABLE} with all its columns; "
            "run `python manage.py migrate_schemas` for them."
        )


def _ask(connection: Any, schema: str) -> tuple[str | None, int | None]:
    """Where a session is, and the OID of the schema's task table.

    A session of another database than the tenants' own holds up its tasks, and nobody else.
    """
    if connection.alias == database_alias():
        return _where_is(connection, schema)
    try:
        return _where_is(connection, schema)
    except DATABASE_ERRORS as error:
        if not connection.in_atomic_block and is_lost(connection):
            connection.close()
        raise ReplicaAway(
            f"Database {connection.alias!r} cannot be asked: {words(error)}; it is waited for."
        ) from error


def _where_is(connection: Any, schema: str) -> tuple[str | None, int | None]:
    current, table = fetch_raw(connection, _verification(schema, _search_path(schema)))
    return current, table


def _has_columns(connection: Any, schema: str, table: int) -> bool:
    """Whether a task table has all its columns; remembered, for asking the catalogue costs more than all else."""
    seen, since = _whole_tables.get(schema, (None, 0.0))
    if seen != table or time.monotonic() - since > conf().tenant_cache_seconds:
        columns = sql.Literal(_task_columns())
        query = sql.SQL(statement("has_columns")).format(table=sql.Literal(table), columns=columns)
        if not fetch_raw(connection, query.as_bytes())[0]:
            return False
        _whole_tables[schema] = table, time.monotonic()
    return True


@functools.lru_cache(maxsize=4096)
def _verification(schema: str, path: tuple[str, ...]) -> bytes:
    quoted = ", ".join(sql.Identifier(name).as_string() for name in path)
    table = sql.Identifier(schema, TASK_TABLE).as_string()
    literals = {"path": sql.Literal(quoted), "table": sql.Literal(table)}
    return sql.SQL(statement("verify_schema")).format(**literals).as_bytes()


def _task_columns() -> list[str]:
    return [field.column for field in apps.get_model("django_q", "Task")._meta.concrete_fields]


def _search_path(schema: str) -> tuple[str, ...]:
    """Where the tenancy package has a session look for tables while `schema` is current."""
    return (schema, public_schema(), *getattr(settings, "PG_EXTRA_SEARCH_PATHS", ()))


def forget() -> None:
    """The next verification looks at the tables' columns again."""
    _whole_tables.clear()
