"""Schemas into which a database role that is not trusted can put code: a trigger, a rule, a check, an operator.

PostgreSQL runs such code with the rights of whoever uses the table, which is the cluster. So before tables of a
foreign schema are used, the server is asked whether they are plain, in the transaction that uses them.
`sql/is_foreign.sql` says which schemas are foreign.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg import sql

from tenant_q.exceptions import ForeignCode
from tenant_q.statements import statement
from tenant_q.tenancy.connection import DATABASE_ERRORS, raw_cursor, told_when_away
from tenant_q.tenancy.seam import physical_schema, public_schema

# The SQLSTATE of tenant_q_require_plain().
REFUSED = "TQ001"

# By schema, whether it is foreign, as it was seen when the columns of its task table were looked at.
_foreign: dict[str, bool] = {}


def query(schema: sql.Composable) -> sql.Composed:
    """Return an expression that says whether a schema is foreign. Parameters: `schema`, an expression of type text."""
    return sql.SQL(statement("is_foreign")).format(name=schema, public=sql.Literal(public_schema()))


def note(seen: Mapping[str, bool]) -> None:
    """Remember of some schemas whether they are foreign."""
    _foreign.update(seen)


def forget() -> None:
    """Forget which schemas are foreign. Those that are not known count as foreign."""
    _foreign.clear()


def refuse_code(schema: str) -> None:
    """Raise `ForeignCode` where a schema is known to be foreign and its tables would run code of another role."""
    if not _foreign.get(schema):
        return
    asked = sql.SQL("SELECT {}({}), current_user").format(
        sql.Identifier(public_schema(), "tenant_q_foreign_code"), sql.Literal(schema)
    )
    with told_when_away(), raw_cursor() as cursor:
        ((reason, role),) = cursor.execute(asked).fetchall()
    if reason:
        raise ForeignCode(
            f"The tables of {schema!r} belong to another role, whose code would run with the rights of {role}: "
            f"{reason}; remove that, or give schema and tables to {role}."
        )


def plain_tables_query(schemas: Iterable[str], *tables: str) -> sql.Composed | None:
    """Return the statement that a transaction begins with before it uses `tables` of these schemas, if it needs one.

    It locks those of foreign schemas, and fails if they would run the code of another role.
    """
    wanted = [name for name in map(physical_schema, schemas) if name != public_schema() and _foreign.get(name, True)]
    if not wanted:
        return None
    return sql.SQL("SELECT {}({}::pg_catalog.text[], {}::pg_catalog.text[])").format(
        sql.Identifier(public_schema(), "tenant_q_require_plain"), sql.Literal(wanted), sql.Literal(list(tables))
    )


def require_plain_tables(schemas: Iterable[str], *tables: str) -> None:
    """Carry out `plain_tables_query()`, in the transaction that is open. Raises `ForeignCode`."""
    asked = plain_tables_query(schemas, *tables)
    if asked is None:
        return
    try:
        with told_when_away(), raw_cursor() as cursor:
            cursor.execute(asked)
    except DATABASE_ERRORS as error:
        if getattr(error.__cause__ or error, "sqlstate", None) == REFUSED:
            raise ForeignCode(str(error).splitlines()[0]) from error
        raise
