"""Read and write the tables of the due index, and call its functions."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from tenant_q import tenancy
from tenant_q.models import DueSchedule
from tenant_q.sql import statement


def entries() -> Any:
    """Return a queryset of the entries of the due index, on the tenants' connection."""
    return DueSchedule.objects.using(tenancy.database_alias())


def in_public(name: str) -> sql.Identifier:
    """Return the qualified name of a table or function of the due index, in the public schema."""
    return sql.Identifier(tenancy.public_schema(), name)


def call(form: Any, function: str, *arguments: Any) -> sql.Composed:
    """Return a statement that calls a function of the due index.

    Args:
        form: The statement, with two places: for the function and for its arguments.
        function: The name of the function.
        arguments: The values of its arguments.
    """
    return sql.SQL(form).format(in_public(function), sql.SQL(", ").join(map(sql.Literal, arguments)))


def index_functions() -> sql.Composed:
    """Return the statements that create or replace the functions of the due index of schedules."""
    return functions_of("due_index")


def functions_of(file: str) -> sql.Composed:
    """Return the statements that create or replace the functions of an index.

    Args:
        file: The name of the file of SQL statements, without its ending.
    """
    return sql.SQL(statement(file)).format(
        public=sql.Identifier(tenancy.public_schema()), foreign=tenancy.is_foreign_query(sql.SQL("name"))
    )


def fetch(query: sql.Composed) -> list[Any]:
    """Execute a statement of the due index, and return its rows. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        return list(cursor.execute(query).fetchall())


def execute(query: sql.Composed) -> None:
    """Execute a statement of the due index that returns no rows. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        cursor.execute(query)
