"""Look up schemas, tables and functions in PostgreSQL's catalogue."""

from __future__ import annotations

from typing import NamedTuple

from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError
from tenant_q.schedules.index_statements import fetch


class Table(NamedTuple):
    """A table. `schema` is as PostgreSQL names it; None is the public schema."""

    name: str
    schema: str | None = None


class Function(NamedTuple):
    """A function of the public schema, whatever its arguments are."""

    name: str
    schema: None = None


def has_schema(schema: str) -> bool:
    """Return whether PostgreSQL's catalogue has a schema of this name. Raises `DatabaseAway`."""
    name = sql.Literal(sql.Identifier(schema).as_string())
    ((found,),) = fetch(sql.SQL("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL").format(name))
    return bool(found)


def require_shared(table: str, what: str) -> None:
    """Require a table in the public schema.

    Args:
        table: Its name.
        what: What it records; the message names it.

    Raises:
        ConfigurationError: The table is missing.
        DatabaseAway: The database cannot be reached.
    """
    if not has_all(Table(table)):
        raise ConfigurationError(
            f"The schema {tenancy.public_schema()!r} has no table {table}, which records the {what}; "
            "run `python manage.py migrate_schemas --shared`."
        )


def has_all(*wanted: Table | Function) -> bool:
    """Return whether PostgreSQL's catalogue has these tables and functions, by one statement. Raises `DatabaseAway`."""
    tests = [
        sql.SQL("pg_catalog.{}({}) IS NOT NULL").format(
            sql.SQL("to_regclass" if isinstance(one, Table) else "to_regproc"),
            sql.Literal(sql.Identifier(one.schema or tenancy.public_schema(), one.name).as_string()),
        )
        for one in wanted
    ]
    ((found,),) = fetch(sql.SQL("SELECT {}").format(sql.SQL(" AND ").join(tests)))
    return bool(found)
