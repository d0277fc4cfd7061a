"""Refuse the code of untrusted database roles in tenants' schemas: triggers, rules, checks, operators.

PostgreSQL runs such code with the rights of the role that uses the table, which is the cluster's. A schema into which
an untrusted role can put code is foreign; `sql/is_foreign.sql` defines it. Before a transaction uses tables of a
foreign schema, it has the server check that they are plain.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from psycopg import errors, sql

from tenant_q.conf import conf
from tenant_q.exceptions import ForeignCode
from tenant_q.sql import statement
from tenant_q.tenancy.connection import DATABASE_ERRORS, detect_outages, raw_cursor
from tenant_q.tenancy.tenancy_package import physical_schema, public_schema

# The SQLSTATE of tenant_q_require_plain().
REFUSED = "TQ001"

# Whether a schema is foreign, by schema. It is found out together with the columns of the task table.
_foreign: dict[str, bool] = {}
# Whether schemas with these rights are foreign, and when that was found out (monotonic). Most have the same rights.
_by_rights: dict[str, tuple[bool, float]] = {}


def is_foreign_query(schema: sql.Composable) -> sql.Composed:
    """Return a Boolean expression: whether a schema, an expression of type text, is foreign."""
    return sql.SQL(statement("is_foreign")).format(name=schema, public=sql.Literal(public_schema()))


def rights_query(schema: sql.Composable) -> sql.Composed:
    """Return an expression of type text: the rights that make a schema, also a text expression, foreign or not."""
    return sql.SQL(statement("rights")).format(name=schema)


def note(schema: str, rights: str, is_foreign: bool) -> None:
    """Note whether a schema, and so all schemas with the same rights, are foreign."""
    _by_rights[rights] = is_foreign, time.monotonic()
    _foreign[schema] = is_foreign


def find_out(schema: str, rights: str) -> None:
    """Find out whether a schema is foreign. One statement per `tenant_cache_seconds` for all with the same rights."""
    known = _by_rights.get(rights)
    if known is None or time.monotonic() - known[1] > conf().tenant_cache_seconds:
        with detect_outages(), raw_cursor() as cursor:
            ((is_foreign,),) = cursor.execute(
                sql.SQL("SELECT {}").format(is_foreign_query(sql.Literal(schema)))
            ).fetchall()
        note(schema, rights, bool(is_foreign))
    else:
        _foreign[schema] = known[0]


def forget() -> None:
    """Forget which schemas are foreign. Unknown schemas count as foreign."""
    _foreign.clear()
    _by_rights.clear()


def refuse_code(schema: str) -> None:
    """Raise `ForeignCode` if the tables of a foreign schema would run code of another role."""
    if not _foreign.get(schema):
        return
    asked = sql.SQL("SELECT {}({}), current_user").format(
        sql.Identifier(public_schema(), "tenant_q_foreign_code"), sql.Literal(schema)
    )
    try:
        with detect_outages(), raw_cursor() as cursor:
            ((reason, role),) = cursor.execute(asked).fetchall()
    except DATABASE_ERRORS as error:
        if not isinstance(error.__cause__ or error, errors.InsufficientPrivilege | errors.UndefinedFunction):
            raise
        raise ForeignCode(
            f"The tables of {schema!r} belong to another role, and which code they run cannot be found out: "
            f"{str(error).splitlines()[0]}; run `python manage.py migrate_schemas --shared`, and grant this role "
            "EXECUTE on the functions tenant_q_foreign_code(text) and tenant_q_require_plain(text[], text[])."
        ) from error
    if reason:
        raise ForeignCode(
            f"The tables of {schema!r} belong to another role, whose code would run with the rights of {role}: "
            f"{reason}; remove that, or give schema and tables to {role}."
        )


def is_foreign(schema: str) -> bool:
    """Return whether a schema may be foreign, without a query. An unknown schema may be."""
    name = physical_schema(schema)
    return name != public_schema() and _foreign.get(name, True)


def plain_tables_query(schemas: Iterable[str], *tables: str) -> sql.Composed | None:
    """Return the statement that requires foreign schemas to have plain tables; None if no schema is foreign.

    It is the first statement of a transaction that uses `tables`.

    The statement locks the tables of foreign schemas, and fails if they would run the code of another role.
    """
    wanted = [physical_schema(schema) for schema in schemas if is_foreign(schema)]
    if not wanted:
        return None
    return sql.SQL("SELECT {}({}::pg_catalog.text[], {}::pg_catalog.text[])").format(
        sql.Identifier(public_schema(), "tenant_q_require_plain"), sql.Literal(wanted), sql.Literal(list(tables))
    )


def require_plain_tables(schemas: Iterable[str], *tables: str) -> None:
    """Require in the open transaction that foreign schemas have plain tables.

    Raises:
        ForeignCode: A table would run the code of another role.
    """
    asked = plain_tables_query(schemas, *tables)
    if asked is None:
        return
    try:
        with detect_outages(), raw_cursor() as cursor:
            cursor.execute(asked)
    except DATABASE_ERRORS as error:
        if getattr(error.__cause__ or error, "sqlstate", None) == REFUSED:
            raise ForeignCode(str(error).splitlines()[0]) from error
        raise
