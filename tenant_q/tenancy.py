"""The only importer of `tenant_schemas` and `django_tenants`: which tenant is current, which exist, which are ready.

Both packages switch tenants by `connection.set_tenant()`, which sets the `search_path` of the next cursor. PostgreSQL
skips a schema of that path that is missing and falls through to `public`; so before a tenant's tasks run, `verify()`
asks the server where it really is.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import Error as DatabaseFailure
from django.db import connections, transaction
from django.utils.module_loading import import_string
from psycopg import sql

from tenant_q.conf import conf
from tenant_q.exceptions import (
    ConfigurationError,
    DatabaseAway,
    NoTenant,
    ReplicaAway,
    SchemaMissing,
    SchemaNotMigrated,
    TenantNotReady,
    UnknownTenant,
)
from tenant_q.names import validate_schema_name as validate_schema_name
from tenant_q.statements import statement

Databases = Sequence[str] | None

TASK_TABLE = "django_q_task"
# A lock on one tenant's table (of a migration, say) is waited for this long, so that it holds up nobody else.
LOCK_MS = 1000
# The tenancy packages let the driver's own errors through when they set the search path.
DATABASE_ERRORS = (DatabaseFailure, psycopg.Error)


@functools.cache
def _package() -> Any:
    """The `utils` module of the tenancy package that INSTALLED_APPS names."""
    if apps.is_installed("django_tenants"):
        from django_tenants import utils
    elif apps.is_installed("tenant_schemas"):
        from tenant_schemas import utils
    else:
        raise ConfigurationError(
            "INSTALLED_APPS names no tenancy package; add 'django_tenants' or 'tenant_schemas' in front."
        )
    return utils


def database_alias() -> str:
    """The alias of the database that holds the tenants' schemas."""
    ask = getattr(_package(), "get_tenant_database_alias", None)
    return str(ask()) if ask else "default"


def tenant_connection() -> Any:
    """Django's connection to the tenants' database, in this thread."""
    return connections[database_alias()]


def public_schema() -> str:
    """The name of the schema that all tenants share."""
    return str(_package().get_public_schema_name())


def tenant_model() -> Any:
    """The project's tenant model."""
    return _package().get_tenant_model()


def current_schema() -> str:
    """The schema the tenants' connection is set to in this thread."""
    return str(tenant_connection().schema_name)


def physical_schema(schema: str) -> str:
    """The schema's name as PostgreSQL stores it: `django-tenant-schemas` never quotes, so names are folded."""
    return schema if apps.is_installed("django_tenants") else schema.lower()


def shared_apps() -> list[str]:
    """The apps whose tables are in the public schema."""
    if getattr(settings, "HAS_MULTI_TYPE_TENANTS", False):
        return list(settings.TENANT_TYPES[public_schema()]["APPS"])
    return list(getattr(settings, "SHARED_APPS", []))


def tenant_apps() -> list[str]:
    """The apps whose tables are in each tenant's schema (of any tenant type)."""
    if getattr(settings, "HAS_MULTI_TYPE_TENANTS", False):
        kinds = (kind for name, kind in settings.TENANT_TYPES.items() if name != public_schema())
        return [app for kind in kinds for app in kind["APPS"]]
    return list(getattr(settings, "TENANT_APPS", []))


def lists_app(listed: list[str], name: str) -> bool:
    """Whether the app `name` stands in `listed`, by its module or by its AppConfig's path."""
    return any(entry == name or entry.startswith(f"{name}.apps.") for entry in listed)


def task_schema(schema: str | None = None) -> str:
    """The schema a task or result call is for: `schema`, or the current one.

    Raises `NoTenant` when that is the public schema and `django_q` has no tables there, and `UnknownTenant` when no
    tenant has that schema name.
    """
    chosen = schema or current_schema()
    if chosen == public_schema():
        if not lists_app(shared_apps(), "django_q"):
            raise NoTenant(
                f"Schema {chosen!r} is current and has no django_q tables: choose a tenant with "
                "tenant_q.tenancy.in_schema('<schema>'), the tenancy package's middleware, or schema_name='<schema>'."
            )
    elif schema or not isinstance(tenant_connection().tenant, tenant_model()):
        _look_up_cached(chosen)
    return chosen


# Look-up


@dataclass(frozen=True, slots=True)
class _Known:
    """A tenant as it was looked up at the moment `since` (monotonic). `unready` is why it is not to be served yet."""

    since: float
    tenant: Any
    unready: str | None


_known: dict[str, _Known] = {}
_folded: dict[str, str] = {}
# By schema, the OID of the task table that was seen to have all its columns, and when (monotonic).
_whole_tables: dict[str, tuple[int, float]] = {}


def get_tenant(schema: str) -> Any:
    """The tenant with this schema name, from a cache of `tenant_cache_seconds`.

    Returns a copy of its own, so that a task that changes it changes nobody else's. Raises `UnknownTenant`.
    """
    tenant = copy.copy(_look_up_cached(schema).tenant)
    for name, value in vars(tenant).items():
        if isinstance(value, dict | list | set):  # of a JSON field, say
            setattr(tenant, name, copy.deepcopy(value))
    return tenant


def require_ready(schema: str) -> None:
    """Raise `TenantNotReady` when `TENANT_Q["ready_tenants"]` does not let the tenant through, else `UnknownTenant`."""
    # That it is not ready is not remembered: it may be by now.
    if _look_up_cached(schema).unready and (unready := _look_up_cached(schema, 0).unready):
        raise TenantNotReady(unready)


def refresh_tenant(schema: str, seconds: float) -> None:
    """Look a tenant up anew if what the cache holds is older than `seconds`. Raises as `get_tenant`."""
    _look_up_cached(schema, seconds)


def look_up_together(schemas: Iterable[str]) -> None:
    """Look up the tenants of several schemas at once, if their time in the cache is over.

    Those that are not ready, not found or folded are left to a look-up of their own, which tells why.
    """
    now, limit = time.monotonic(), conf().tenant_cache_seconds
    wanted = [
        name
        for name in schemas
        if name == physical_schema(name) and (name not in _known or now - _known[name].since > limit)
    ]
    if not wanted:
        return
    with told_when_away(), in_public():
        try:
            named = _tenants().filter(schema_name__in=wanted)
            ready = set(_ready(named).values_list("schema_name", flat=True)) if conf().ready_tenants else set(wanted)
            found = list(named)
        except Exception:  # the project's function fails, say: that is told of each tenant
            if _is_lost(tenant_connection()):
                raise
            return
    for tenant in found:
        if tenant.schema_name in ready:
            _known[tenant.schema_name] = _Known(now, _as_handed_out(tenant), None)
            _folded[tenant.schema_name] = tenant.schema_name


def _look_up_cached(schema: str, seconds: float | None = None) -> _Known:
    limit = conf().tenant_cache_seconds if seconds is None else seconds
    entry = _known.get(schema)
    if entry is None or time.monotonic() - entry.since > limit:
        entry = _known[schema] = _look_up(schema)
    return entry


def _look_up(schema: str) -> _Known:
    _known.pop(schema, None)
    with told_when_away(), in_public():
        named = _tenants().filter(schema_name=schema)
        found = named.first()
        if found is None:
            raise UnknownTenant(_why_unknown(schema))
        _refuse_folded(schema)
        return _Known(time.monotonic(), _as_handed_out(found), _why_unready(named, schema))


def _as_handed_out(tenant: Any) -> Any:
    """A copy, for Django notes in one that it is: so that those that are handed out equal this."""
    return copy.copy(tenant)


def _refuse_folded(schema: str) -> None:
    """`django-tenant-schemas` folds names, so one with capitals may be where another tenant's tables are."""
    folded = physical_schema(schema)
    others = _tenants().filter(schema_name__iexact=schema).exclude(schema_name=schema)
    if folded != schema and others.exists():
        raise UnknownTenant(f"Tenant {schema!r} shares the schema {folded!r} with another; rename one of them.")


def _why_unready(named: Any, schema: str) -> str | None:
    path = conf().ready_tenants
    if not path:
        return None
    try:
        if _ready(named).exists():
            return None
    except Exception as error:
        if _is_lost(tenant_connection()):
            raise
        return f"TENANT_Q['ready_tenants'] ({path}) fails for tenant {schema!r}: {_words(error)}; mend it."
    return f"Tenant {schema!r} is not among those that {path} lets through yet; it waits until it is."


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _why_unknown(schema: str) -> str:
    try:
        validate_schema_name(schema)
    except ValidationError as error:
        return f"No tenant can have this schema name: {' '.join(error.messages)}"
    return f"No tenant has the schema name {schema!r}; create it, or name one that {tenant_model().__name__} lists."


def _tenants() -> Any:
    return tenant_model()._default_manager.using(database_alias())


def _ready(tenants: Any) -> Any:
    """Those of a queryset of tenants that the project's `TENANT_Q["ready_tenants"]` lets through."""
    path = conf().ready_tenants
    return import_string(path)(tenants) if path else tenants


def forget_tenants() -> None:
    """Drop the tenant cache: the next look-up asks the database."""
    _known.clear()
    _folded.clear()
    _whole_tables.clear()


def tenants_to_schedule() -> list[str]:
    """The schema names the scheduler serves: all tenants' but the excluded ones.

    Raises `TenantNotReady` when the project's `ready_tenants` fails.
    """
    with told_when_away(), in_public():
        try:
            names = set(_ready(_tenants()).values_list("schema_name", flat=True))
        except Exception as error:
            if _is_lost(tenant_connection()):
                raise
            path = conf().ready_tenants
            raise TenantNotReady(f"TENANT_Q['ready_tenants'] ({path}) fails: {_words(error)}; mend it.") from error
        return sorted(names - conf().excluded_schemas)


def logical_schema(physical: str) -> str:
    """The tenant's own name of a PostgreSQL schema, which may be folded. Raises `UnknownTenant`, `DatabaseAway`."""
    if apps.is_installed("django_tenants"):
        return physical
    if physical not in _folded:
        with told_when_away(), in_public():
            names = list(_tenants().filter(schema_name__iexact=physical).values_list("schema_name", flat=True))
        if not names:
            raise UnknownTenant(_why_unknown(physical))
        _folded[physical] = physical if physical in names else names[0]
    return _folded[physical]


def tenant_count() -> int:
    """How many tenants there are, the public one not counted."""
    with in_public():
        return int(_tenants().exclude(schema_name=public_schema()).count())


# Switching


def switched_connections(databases: Databases = None) -> list[Any]:
    """The connections whose schema is the task's.

    Parameters: `databases`, their aliases, of a task's own option; else those of `TENANT_Q["databases"]`, else the
    tenants' own. The tenants' own is always among them.
    """
    aliases = [database_alias(), *(databases or conf().databases or ())]
    return [connections[alias] for alias in dict.fromkeys(aliases)]


def enter(schema: str, databases: Databases = None) -> None:
    """Set every switched connection to `schema`, with its real tenant.

    Raises `UnknownTenant`, and leaves the connections as they were.
    """
    tenant = None if schema == public_schema() else get_tenant(schema)
    for connection in switched_connections(databases):
        if tenant is None:
            connection.set_schema_to_public()
        else:
            connection.set_tenant(tenant)


def enter_again(schema: str) -> None:
    """As `enter(schema)`, for connections that are in it: those that are as they were entered are left so."""
    if not all(_is_as_entered(connection, schema) for connection in switched_connections()):
        enter(schema)


def _is_as_entered(connection: Any, schema: str) -> bool:
    if getattr(settings, "EXTRA_SET_TENANT_METHOD_PATH", None):  # it may undo what nobody else knows of
        return False
    is_there = connection.schema_name == connection.settings_dict.get("SCHEMA") == schema
    known = _known.get(schema)
    if not is_there or not connection.include_public_schema or known is None:
        return False
    has, had = dict(vars(connection.tenant)), dict(vars(known.tenant))
    state = has.pop("_state", None)
    had.pop("_state")
    return type(connection.tenant) is type(known.tenant) and has == had and not getattr(state, "fields_cache", None)


def leave() -> None:
    """Set every connection that knows tenants to the public schema."""
    for connection in connections.all(initialized_only=True):
        if hasattr(connection, "set_schema_to_public"):
            connection.set_schema_to_public()


@contextmanager
def in_schema(schema: str, databases: Databases = None) -> Iterator[None]:
    """Run a block in `schema`, with `connection.tenant` its real tenant, and go back afterwards.

    Raises `UnknownTenant` when no tenant has that schema name.
    """
    previous = [(connection, connection.tenant) for connection in switched_connections(databases)]
    try:
        enter(schema, databases)
        yield
    finally:
        _restore(previous)


@contextmanager
def in_verified_schema(schema: str, databases: Databases = None) -> Iterator[None]:
    """As `in_schema`, sure that the schema is there and has task tables. Raises besides as `verify`."""
    with in_schema(schema, databases):
        if schema != public_schema():
            verify(schema, databases)
        yield


@contextmanager
def in_public() -> Iterator[None]:
    """Run a block in the public schema and go back afterwards."""
    connection = tenant_connection()
    previous = [(connection, connection.tenant)]
    try:
        connection.set_schema_to_public()
        yield
    finally:
        _restore(previous)


def _restore(previous: list[tuple[Any, Any]]) -> None:
    for connection, tenant in previous:
        if tenant is None:
            connection.set_schema_to_public()
        else:
            connection.set_tenant(tenant)


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


@contextmanager
def raw_cursor() -> Iterator[psycopg.ClientCursor[Any]]:
    """A cursor of the driver on the tenants' connection, past the search path: every name has to be qualified."""
    connection = tenant_connection()
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
        yield cursor


def _ask(connection: Any, schema: str) -> tuple[str | None, int | None]:
    """Where a session is, and the OID of the schema's task table.

    A session of another database than the tenants' own holds up its tasks, and nobody else.
    """
    if connection.alias == database_alias():
        return _where_is(connection, schema)
    try:
        return _where_is(connection, schema)
    except DATABASE_ERRORS as error:
        if not connection.in_atomic_block and _is_lost(connection):
            connection.close()
        raise ReplicaAway(
            f"Database {connection.alias!r} cannot be asked: {_words(error)}; it is waited for."
        ) from error


def _where_is(connection: Any, schema: str) -> tuple[str | None, int | None]:
    current, table = _fetch_raw(connection, _verification(schema, _search_path(schema)))
    return current, table


def _has_columns(connection: Any, schema: str, table: int) -> bool:
    """Whether a task table has all its columns; remembered, for asking the catalogue costs more than all else."""
    seen, since = _whole_tables.get(schema, (None, 0.0))
    if seen != table or time.monotonic() - since > conf().tenant_cache_seconds:
        columns = sql.Literal(_task_columns())
        query = sql.SQL(statement("has_columns")).format(table=sql.Literal(table), columns=columns)
        if not _fetch_raw(connection, query.as_bytes())[0]:
            return False
        _whole_tables[schema] = table, time.monotonic()
    return True


def _fetch_raw(connection: Any, query: bytes) -> Any:
    """The last row of a query, past Django's cursor, of which a tenancy package makes a round trip of its own."""
    with told_when_away(), connection.wrap_database_errors:
        connection.ensure_connection()
        with psycopg.ClientCursor(connection.connection) as cursor:
            cursor.execute(query)
            while cursor.nextset():
                pass
            return cursor.fetchone()


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


@contextmanager
def told_when_away() -> Iterator[None]:
    """Turn an error of the block into `DatabaseAway` where the server is what failed, not the statement.

    The connection is closed then; the next use opens a new one.
    """
    try:
        yield
    except DATABASE_ERRORS as error:
        for connection in switched_connections():
            if not connection.in_atomic_block and _is_lost(connection):
                connection.close()
                reason = " ".join(str(error).split())
                raise DatabaseAway(
                    f"Database {connection.alias!r} cannot be reached: {reason}; it is tried again until it can."
                ) from error
        raise


@contextmanager
def in_patient_transaction(lock_ms: int = LOCK_MS) -> Iterator[None]:
    """A transaction on the tenants' connection that waits for no lock longer than `lock_ms` milliseconds."""
    connection = tenant_connection()
    with told_when_away(), transaction.atomic(using=connection.alias):
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(lock_ms)])
        yield


def _is_lost(connection: Any) -> bool:
    raw = connection.connection
    return raw is None or bool(raw.closed) or not connection.is_usable()


# Connections of a process


def drop_inherited_connections() -> None:
    """In a child just forked: forget the parent's connections without a word to their servers."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None
        connection.in_atomic_block = False
        connection.savepoint_ids = []
        connection.needs_rollback = False
        connection.run_on_commit = []
        connection.close()


def keep_connections_open() -> None:
    """In a cluster process: connections stay open between tasks and are checked after an error.

    Not in a pool: it would hand what a task left in a session on to the next.
    """
    for connection in connections.all():
        connection.settings_dict["CONN_MAX_AGE"] = None
        connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
        connection.close_at = None


def close_connections() -> None:
    """Before a fork: close what no transaction needs, so that no connection crosses it."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
