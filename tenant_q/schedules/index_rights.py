"""Check the rights that the due index needs if tables, functions and cluster belong to several database roles."""

from __future__ import annotations

from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError
from tenant_q.models import DueSchedule
from tenant_q.schedules.catalogue import Table, has_all
from tenant_q.schedules.index_statements import fetch
from tenant_q.sql import statement

# The functions that a cluster and the commands call.
_CALLED = (
    "tenant_q_forget_schema(text)",
    "tenant_q_foreign_code(text)",
    "tenant_q_index_errors(text)",
    "tenant_q_install_index(text)",
    "tenant_q_install_triggers(text)",
    "tenant_q_require_plain(text[], text[])",
    "tenant_q_stale_schemas()",
)
REFUSED = errors.InsufficientPrivilege
"""The error of a query that lacks a right."""
LOCKED = (errors.LockNotAvailable, errors.DeadlockDetected)


def require_index() -> None:
    """Raise `ConfigurationError` if the due index has not been migrated, or this role has no right to use it."""
    public = tenancy.public_schema()
    if not has_all(Table(DueSchedule._meta.db_table)):
        raise ConfigurationError(
            f"The schema {public!r} has no table {DueSchedule._meta.db_table}, the index of all tenants' schedules; "
            "run `python manage.py migrate_schemas --shared`."
        )
    _require_functions()


def _require_functions() -> None:
    """Raise `ConfigurationError` if the due index lacks a function, or this role has no right to execute one."""
    public = tenancy.public_schema()
    paths = {f"{sql.Identifier(public).as_string()}.{function}": function for function in _CALLED}
    missing = fetch(
        sql.SQL(
            "SELECT name FROM pg_catalog.unnest({}::pg_catalog.text[]) AS asked (name) "
            "WHERE pg_catalog.to_regprocedure(asked.name) IS NULL"
        ).format(sql.Literal(list(paths)))
    )
    if missing:
        raise ConfigurationError(
            f"The schema {public!r} has no function {paths[missing[0][0]]}, a part of the index of all tenants' "
            "schedules; run `python manage.py migrate_schemas --shared`. If that changes nothing, run "
            "`python manage.py migrate_schemas --shared tenant_q 0004_admin_pages` and then the first command again."
        )
    names = [function.partition("(")[0] for function in _CALLED]
    query = sql.SQL(statement("unusable_functions")).format(names=sql.Literal(names), public=sql.Literal(public))
    unusable = fetch(query)
    if unusable:
        listed = ", ".join(function for function, _ in unusable)
        raise ConfigurationError(
            f"The role {unusable[0][1]} may not execute functions of the index of all tenants' schedules; run as their "
            f"owner: GRANT EXECUTE ON FUNCTION {listed} TO {unusable[0][1]};"
        )


def why_not(schema: str, error: BaseException) -> str:
    """Return why a schema could not be put into the due index, with the rights that are missing, if any.

    Args:
        schema: The schema as PostgreSQL names it.
        error: The error of the server.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    cause = error.__cause__ or error
    if isinstance(cause, LOCKED):
        return "its table is locked"
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if not isinstance(cause, REFUSED):
        return said
    return said + needed_grants(schema)


def needed_grants(schema: str) -> str:
    """Return the grants that the current role needs to put a schema into the due index, as the end of a sentence.

    It is empty if nothing is missing. This costs one statement.

    Args:
        schema: The schema as PostgreSQL names it.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    table = sql.Identifier(schema, "django_q_schedule").as_string()
    query = sql.SQL(statement("missing_rights")).format(
        name=sql.Literal(schema),
        table=sql.Literal(table),
        public=sql.Literal(sql.Identifier(tenancy.public_schema()).as_string()),
    )
    grants = [grant for (grant,) in fetch(query)]
    return f"; run as the owner of the named objects: {'; '.join(grants)};" if grants else ""
