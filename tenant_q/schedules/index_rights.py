"""Check the rights that the due index needs if tables, functions and cluster belong to several database roles."""

from __future__ import annotations

from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError
from tenant_q.schedules.catalogue import Table, has_all
from tenant_q.schedules.index_statements import fetch
from tenant_q.schedules.schema_indexes import FAILURES, SCHEDULES, SchemaIndex, all_indexes
from tenant_q.sql import statement

# The functions that a cluster and the commands call for any index.
_CHECKS = ("tenant_q_foreign_code(text)", "tenant_q_require_plain(text[], text[])")
REFUSED = errors.InsufficientPrivilege
"""The error of a query that lacks a right."""
LOCKED = (errors.LockNotAvailable, errors.DeadlockDetected)


def called() -> tuple[str, ...]:
    """Return the functions of all indexes that a cluster and the commands call, with the types of their arguments."""
    return (*_CHECKS, *(function for index in all_indexes() for function in index.called))


def require_index() -> None:
    """Raise `ConfigurationError` if an index has not been migrated, or this role has no right to use it."""
    public = tenancy.public_schema()
    for index in all_indexes():
        if not has_all(*map(Table, index.tables)):
            missing = next(table for table in index.tables if not has_all(Table(table)))
            raise ConfigurationError(
                f"The schema {public!r} has no table {missing}, a part of the index of all tenants' {index.what}; "
                "run `python manage.py migrate_schemas --shared`."
            )
    _require_tables()
    _require_functions()


def _require_tables() -> None:
    """Raise `ConfigurationError` if this role may not read and write the tables of an index."""
    public = tenancy.public_schema()
    paths = [sql.Identifier(public, table).as_string() for index in all_indexes() for table in index.tables]
    unusable = fetch(sql.SQL(statement("unusable_tables")).format(paths=sql.Literal(paths)))
    if unusable:
        listed = ", ".join(path for path, _ in unusable)
        raise ConfigurationError(
            f"The role {unusable[0][1]} may not read and write tables of the indexes of all tenants; run as their "
            f"owner: GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {listed} TO {unusable[0][1]};"
        )


def _require_functions() -> None:
    """Raise `ConfigurationError` if an index lacks a function, or this role has no right to execute one."""
    public = tenancy.public_schema()
    paths = {f"{sql.Identifier(public).as_string()}.{function}": function for function in called()}
    missing = fetch(
        sql.SQL(
            "SELECT name FROM pg_catalog.unnest({}::pg_catalog.text[]) AS asked (name) "
            "WHERE pg_catalog.to_regprocedure(asked.name) IS NULL"
        ).format(sql.Literal(list(paths)))
    )
    if missing:
        function = paths[missing[0][0]]
        what = next((index.what for index in all_indexes() if function in index.called), SCHEDULES.what)
        before = {SCHEDULES.what: "0004_admin_pages", FAILURES.what: "0011_tenant_roles"}.get(what, "0009_workflows")
        raise ConfigurationError(
            f"The schema {public!r} has no function {function}, a part of the index of all tenants' "
            f"{what}; run `python manage.py migrate_schemas --shared`. If that changes nothing, run "
            f"`python manage.py migrate_schemas --shared tenant_q {before}` and then the first command again."
        )
    names = [function.partition("(")[0] for function in called()]
    query = sql.SQL(statement("unusable_functions")).format(names=sql.Literal(names), public=sql.Literal(public))
    unusable = fetch(query)
    if unusable:
        listed = ", ".join(function for function, _ in unusable)
        raise ConfigurationError(
            f"The role {unusable[0][1]} may not execute functions of the index of all tenants' schedules; run as their "
            f"owner: GRANT EXECUTE ON FUNCTION {listed} TO {unusable[0][1]};"
        )


def why_not(schema: str, error: BaseException, index: SchemaIndex = SCHEDULES) -> str:
    """Return why a schema could not be put into the due index, with the rights that are missing, if any.

    Args:
        schema: The schema as PostgreSQL names it.
        error: The error of the server.
        index: The index.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    cause = error.__cause__ or error
    if isinstance(cause, LOCKED):
        return "its table is locked"
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if not isinstance(cause, REFUSED):
        return said
    return said + needed_grants(schema, index)


def needed_grants(schema: str, index: SchemaIndex = SCHEDULES) -> str:
    """Return the grants that the current role needs to put a schema into the due index, as the end of a sentence.

    It is empty if nothing is missing. This costs one statement.

    Args:
        schema: The schema as PostgreSQL names it.
        index: The index.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    public = sql.Identifier(tenancy.public_schema()).as_string()
    table = sql.Identifier(schema, index.table).as_string()
    query = sql.SQL(statement("missing_rights")).format(
        name=sql.Literal(schema),
        table=sql.Literal(table),
        trigger=sql.Literal(f"{public}.{index.trigger}()"),
        install=sql.Literal(f"{public}.{index.install_triggers}(text)"),
    )
    grants = [grant for (grant,) in fetch(query)]
    return f"; run as the owner of the named objects: {'; '.join(grants)};" if grants else ""
