"""Verify with the server in which schema a session really is.

PostgreSQL skips a missing schema of the search path and falls through to `public`. So `verify()` queries the server
before a tenant's tasks run.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.conf import settings
from psycopg import sql

from tenant_q.conf import conf
from tenant_q.exceptions import (
    LoginRefused,
    ReplicaAway,
    SchemaMissing,
    SchemaNotMigrated,
    TenantReplaced,
    UnknownTenant,
)
from tenant_q.sql import statement
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import error_line
from tenant_q.tenancy import acting, foreign_schemas, owner_blocks, owner_settings, tenants, worker_state
from tenant_q.tenancy.connection import DATABASE_ERRORS, detect_outages, fetch_raw, is_lost, raw_cursor
from tenant_q.tenancy.repair_marks import mark_for_repair
from tenant_q.tenancy.role_records import RoleRecord
from tenant_q.tenancy.tenancy_package import (
    TASK_TABLE,
    Databases,
    database_alias,
    physical_schema,
    public_has_tasks,
    public_schema,
    switched_connections,
    tenant_model,
    tenant_table,
)

logger = get_logger("tenant_q.tenancy")

# By schema: the OID of the task table, which had all its columns when it was checked, and that moment (monotonic).
_whole_tables: dict[str, tuple[int, float]] = {}


def verify(schema: str, databases: Databases = None, *, tenant: str | None = None, role: str | None = None) -> None:
    """Verify with the server that the session is in an entered schema, and that the schema has Django-Q2's tables.

    This takes one round trip for each switched connection, and one more for a foreign schema. The columns of the task
    table are checked once per `tenant_cache_seconds`.

    Args:
        schema: The schema that was entered.
        databases: The aliases of further databases of the task; None for those of the settings.
        tenant: The key of the tenant that must have the schema; None for the current tenant.
        role: The tenant's role, which the sessions take in the same round trip under "role", and which must not have
            given itself settings under "login"; None for the owner's role.

    Raises:
        TenantReplaced: Another tenant, or none, has the schema now.
        SchemaMissing: The schema does not exist.
        SchemaNotMigrated: The schema lacks the task table, or a column of it.
        ForeignCode: The tables would run code of another role.
        ReplicaAway: A further database cannot be reached.
        LoginRefused: The tenant's role has settings of its own, and is to be repaired.
        DatabaseAway: The tenants' database cannot be reached.
    """
    if owner_blocks.is_as_tenant():  # a tenant's role has rights to its own schema only, and may not read the tenants
        return
    wanted = physical_schema(schema)
    for connection in switched_connections(databases):
        found = _query_session(connection, schema, role)
        if connection.alias == database_alias():
            _require_tenant(schema, found.tenant, tenant, connection.tenant)
            if found.own_settings:
                have_repaired(schema, found.own_settings)
        if found.schema != wanted:
            raise SchemaMissing(f"The schema {wanted!r} does not exist in database {connection.alias!r}; restore it.")
        if connection.alias == database_alias() and not found.is_whole:
            raise SchemaNotMigrated(
                f"The schema {wanted!r} has no table {TASK_TABLE} with all its columns; "
                "run `python manage.py migrate_schemas` for it."
            )
    foreign_schemas.refuse_code(wanted)


def require_migrated(schemas: Collection[str]) -> None:
    """Verify that schemas exist, and that their task tables have all columns. Raises `SchemaNotMigrated`."""
    wanted = [physical_schema(schema) for schema in schemas]
    whole = _whole_tables_among(wanted)
    if missing := [name for name in wanted if name not in whole]:
        raise SchemaNotMigrated(
            f"The schemas {', '.join(missing)} have no table {TASK_TABLE} with all its columns; "
            "run `python manage.py migrate_schemas` for them."
        )


def require_public_tasks() -> None:
    """Verify that tasks may run in the public schema, and that it has Django-Q2's tables.

    The table is checked once per `tenant_cache_seconds`.

    Raises:
        UnknownTenant: `django_q` is not a shared app, so the public schema has no tasks.
        SchemaNotMigrated: The public schema lacks the task table, or a column of it.
        DatabaseAway: The tenants' database cannot be reached.
    """
    schema = physical_schema(public_schema())
    if not public_has_tasks():
        raise UnknownTenant(
            f"The schema {schema!r} has no tasks, because django_q is not in SHARED_APPS; add it, or see 'From one "
            "tenant to many' in the documentation if its tables were moved."
        )
    if _checked_recently(schema):
        return
    found = _whole_tables_among([schema])
    if schema not in found:
        raise SchemaNotMigrated(
            f"The schema {schema!r} has no table {TASK_TABLE} with all its columns; run `python manage.py "
            "migrate_schemas --shared`, and if that applies nothing, before it `python manage.py migrate_schemas "
            "--shared --fake django_q zero`."
        )
    _whole_tables[schema] = found[schema], time.monotonic()


def see_tables_together(schemas: Iterable[str]) -> None:
    """Verify the columns of the task tables of several schemas at once, unless they were checked recently.

    The check is most of what a tenant costs a new worker, and takes a fifth of the time if it is done for all at once.
    `verify` checks each table that is not found here, and raises the reason.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    wanted = [name for name in map(physical_schema, schemas) if not _checked_recently(name)]
    if len(wanted) < 2:
        return
    now = time.monotonic()
    try:
        found = _whole_tables_among(wanted)
    except DATABASE_ERRORS:  # the check of each tenant reports it
        return
    for name, table in found.items():
        _whole_tables[name] = table, now


def _whole_tables_among(schemas: list[str]) -> dict[str, int]:
    """Verify with the server which schemas have whole task tables, and return the OID of each table."""
    query = sql.SQL(statement("whole_tables")).format(
        schemas=sql.Literal(schemas),
        table=sql.Literal(TASK_TABLE),
        columns=sql.Literal(_task_columns()),
        rights=foreign_schemas.rights_query(sql.SQL("asked.name")),
        foreign=foreign_schemas.is_foreign_query(sql.SQL("asked.name")),
    )
    with detect_outages(), raw_cursor() as cursor:
        found = cursor.execute(query).fetchall()
    for name, _, rights, is_foreign in found:
        foreign_schemas.note(name, rights, is_foreign)
    return {name: table for name, table, _, _ in found}


def _require_tenant(schema: str, found: str | None, wanted: str | None, current: Any) -> None:
    if isinstance(current, tenant_model()):
        wanted = str(current.pk) if wanted is None else wanted
        if wanted == found == str(current.pk):
            return
    elif wanted is None or wanted == found:
        return
    now = "no tenant has it now" if found is None else "another tenant has it now"
    raise TenantReplaced(
        f"The tenant with key {wanted} has left the schema {schema!r}, and {now}; load the tenant anew, or see "
        "`python manage.py mstenant rename` for one that was renamed."
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What the server says of a session: its schema, whether its task table is whole, and its tenant's key.

    `own_settings` are those that the tenant's role has given itself.
    """

    schema: str | None
    is_whole: bool
    tenant: str | None = None
    own_settings: str | None = None


def _query_session(connection: Any, schema: str, role: str | None) -> _Found:
    """Query a session for its schema, to verify it. A further database that fails delays only the tasks that use it."""
    if connection.alias == database_alias():
        return _query_tenants_session(connection, schema, role)
    try:
        return _Found(_fetch(connection, schema, "verify_schema", role)[0], is_whole=True)
    except DATABASE_ERRORS as error:
        if not connection.in_atomic_block and is_lost(connection):
            connection.close()
        raise ReplicaAway(
            f"Database {connection.alias!r} cannot be queried: {error_line(error)}; its tasks wait for it."
        ) from error


def _query_tenants_session(connection: Any, schema: str, role: str | None) -> _Found:
    """Query the tenants' session for its schema, and for the task table's columns if not checked recently."""
    physical = physical_schema(schema)
    if _checked_recently(physical):
        current, table, tenant, own = _fetch(connection, schema, "verify_schema", role)
        if table is None or int(table) == _whole_tables[physical][0]:
            return _Found(current, table is not None, tenant, _only_under_login(own))
    current, table, has_columns, rights, tenant, own = _fetch(connection, schema, "verify_table", role)
    is_whole = has_columns == "t"
    if is_whole:
        foreign_schemas.find_out(physical, rights or "")
    if table is not None and is_whole:
        _whole_tables[physical] = int(table), time.monotonic()
    return _Found(current, is_whole, tenant, _only_under_login(own))


def _only_under_login(own_settings: str | None) -> str | None:
    return own_settings if worker_state.mode() == "login" else None


def have_repaired(schema: str, settings: str) -> None:
    """Have a scheduler repair the role of a tenant that has given itself settings, and put off its tasks until then."""
    names = ", ".join(one.partition("=")[0] for one in settings.split(", ") if "=" in one)
    role, problem = tenants.require_role(schema), f"it has settings of its own: {names}"
    mark_role(schema, role, problem)
    raise LoginRefused(f"The role {role.role} of tenant {schema!r} is to be repaired: {problem}.")


def mark_role(schema: str, role: RoleRecord, problem: str) -> None:
    """Mark a tenant's role for its repair by a scheduler, and log the first mark."""
    is_first = mark_for_repair(schema, version=role.version, problem=problem)
    tenants.refresh_tenant(schema, 0)
    if is_first:
        logger.warning(
            "The role %s of %s is to be repaired: %s",
            role.role,
            schema,
            problem,
            event="tenant_role.to_repair",
            extra={"schema": schema},
        )


def _checked_recently(schema: str) -> bool:
    return schema in _whole_tables and time.monotonic() - _whole_tables[schema][1] <= conf().tenant_cache_seconds


def _fetch(connection: Any, schema: str, name: str, role: str | None) -> list[str | None]:
    switches = worker_state.mode() == "role"
    base = owner_settings.base_role(connection.alias) if switches else None
    found = fetch_raw(connection, _query(name, schema, _search_path(physical_schema(schema)), base, role))
    if role is not None and switches:
        acting.note_role(connection.alias)
    return found


@functools.lru_cache(maxsize=16384)
def _query(name: str, schema: str, path: tuple[str, ...], base: str | None, role: str | None) -> bytes:
    quoted = ", ".join(sql.Identifier(name).as_string() for name in path)
    physical = physical_schema(schema)
    table = sql.Identifier(physical, TASK_TABLE).as_string()
    literals = {"path": quoted, "table": table, "columns": _task_columns(), "name": schema}
    tenants, key = tenant_table()
    parts: dict[str, sql.Composable] = {name: sql.Literal(value) for name, value in literals.items()}
    parts |= {"reset": _switch(base), "role": _switch(role) if base else _own_settings(role)}
    parts |= {"tenants": sql.Identifier(public_schema(), tenants), "key": sql.Identifier(key)}
    return (
        sql.SQL(statement(name)).format(**parts, rights=foreign_schemas.rights_query(sql.Literal(physical))).as_bytes()
    )


def _switch(role: str | None) -> sql.Composable:
    """Return the expression that switches a session to a role; NULL to leave it."""
    return sql.SQL("pg_catalog.set_config('role', {}, false)").format(sql.Literal(role)) if role else sql.SQL("NULL")


def _own_settings(role: str | None) -> sql.Composable:
    """Return the expression of the settings that a role has given itself; NULL without a role."""
    return sql.SQL(statement("own_settings")).format(role=sql.Literal(role)) if role else sql.SQL("NULL")


def _task_columns() -> list[str]:
    return [field.column for field in apps.get_model("django_q", "Task")._meta.concrete_fields]


def _search_path(schema: str) -> tuple[str, ...]:
    """Return the search path to verify in a session: the one that the tenancy package sets for `schema`."""
    return (schema, public_schema(), *getattr(settings, "PG_EXTRA_SEARCH_PATHS", ()))


def forget() -> None:
    """Forget the checked tables, so that the next verification checks their columns again."""
    _whole_tables.clear()
    foreign_schemas.forget()
