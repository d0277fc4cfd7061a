"""Look up tenants, and whether they are ready, through a cache of `tenant_cache_seconds`."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models.functions import Lower
from django.utils.module_loading import import_string

from tenant_q.conf import conf
from tenant_q.exceptions import TenantNotReady, UnknownTenant
from tenant_q.support.forks import no_return
from tenant_q.support.visible import error_line
from tenant_q.tenancy.connection import detect_outages, is_lost
from tenant_q.tenancy.names import validate_schema_name
from tenant_q.tenancy.tenancy_package import (
    database_alias,
    in_public,
    lists_app,
    physical_schema,
    public_schema,
    shared_apps,
    tenant_connection,
    tenant_model,
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A tenant as it was looked up at the moment `since` (monotonic). `unready` is the reason not to serve it yet."""

    since: float
    tenant: Any
    unready: str | None


_known: dict[str, _Known] = {}
_folded: dict[str, str] = {}


def get_tenant(schema: str) -> Any:
    """Return the tenant with this schema name, from a cache of `tenant_cache_seconds`.

    Each call returns a new copy, so that a task that changes it does not change the tenant of another task.

    Raises:
        UnknownTenant: No tenant has this schema name.
    """
    tenant = copy.copy(_look_up_cached(schema).tenant)
    for name, value in vars(tenant).items():
        if isinstance(value, dict | list | set):  # the value of a JSON field, for example
            setattr(tenant, name, copy.deepcopy(value))
    return tenant


def known_tenant(schema: str) -> Any:
    """Return the cached tenant itself, which must not be passed on; None if it is not cached."""
    entry = _known.get(schema)
    return entry and entry.tenant


def cached_key(schema: str) -> str:
    """Look up a tenant through the cache, and return its primary key as text. Raises `UnknownTenant`."""
    return str(_look_up_cached(schema).tenant.pk)


def require_known(schema: str) -> None:
    """Raise `UnknownTenant` if no tenant has this schema name."""
    _look_up_cached(schema)


def require_ready(schema: str) -> None:
    """Require that a tenant is ready to be served. The public schema need not have a tenant.

    Raises:
        TenantNotReady: `TENANT_Q["ready_tenants"]` excludes the tenant.
        UnknownTenant: No tenant has this schema name.
    """
    try:
        _look_up_cached(schema)
    except UnknownTenant:
        if schema == public_schema():
            return
        raise
    # Do not rely on a cached refusal: the tenant may be ready by now.
    if _look_up_cached(schema).unready and (unready := _look_up_cached(schema, 0).unready):
        raise TenantNotReady(unready)


def refresh_tenant(schema: str, seconds: float) -> None:
    """Look up a tenant again if its cached row is older than `seconds`. Raises as `get_tenant`."""
    _look_up_cached(schema, seconds)


def look_up_together(schemas: Iterable[str]) -> None:
    """Look up the tenants of several schemas at once, unless they are cached.

    A tenant that is not ready, unknown or folded is skipped: its own look-up raises the reason.
    """
    # Early enough that no entry expires while the batch runs, which would cause one look-up for each tenant.
    now, limit = time.monotonic(), conf().tenant_cache_seconds / 2
    wanted = [
        name
        for name in schemas
        if name == physical_schema(name) and (name not in _known or now - _known[name].since > limit)
    ]
    if not wanted:
        return
    with detect_outages(), in_public():
        try:
            named = _tenants().filter(schema_name__in=wanted)
            ready = set(_ready(named).values_list("schema_name", flat=True)) if conf().ready_tenants else set(wanted)
            found = list(named)
        except Exception:  # if the project's function failed, the look-up of each tenant reports it
            if is_lost(tenant_connection()):
                raise
            return
    for tenant in found:
        if tenant.schema_name in ready:
            _known[tenant.schema_name] = _Known(now, _as_handed_out(tenant), None)
            _folded[tenant.schema_name] = tenant.schema_name


def tenants_to_schedule() -> list[str]:
    """Return the schema names that the scheduler serves: those of all ready tenants that are not excluded.

    Raises:
        TenantNotReady: The project's `ready_tenants` fails.
    """
    return sorted(keys_to_schedule())


def keys_to_schedule() -> dict[str, str]:
    """Return the keys of the tenants that `tenants_to_schedule` names, by schema name. Raises as it."""
    with detect_outages(), in_public():
        try:
            found = dict(_ready(_tenants()).values_list("schema_name", "pk"))
        except Exception as error:
            if is_lost(tenant_connection()):
                raise
            path = conf().ready_tenants
            raise TenantNotReady(
                f"TENANT_Q['ready_tenants'] ({path}) fails: {error_line(error)}; correct it."
            ) from error
        return {schema: str(key) for schema, key in found.items() if schema not in conf().excluded_schemas}


def choose_tenants(function: Any) -> set[str]:
    """Return the schema names of the tenants that a function of the project chooses.

    Args:
        function: Takes a queryset of all tenants; returns a queryset of some, or a list of schema names.
    """
    with detect_outages(), in_public(), no_return():
        found = function(_tenants())
        return {one if isinstance(one, str) else str(one.schema_name) for one in found}


def logical_schema(physical: str) -> str:
    """Look up the tenant of a PostgreSQL schema, whose name may be folded to lower case; return its schema name.

    Raises:
        UnknownTenant: No tenant has this schema.
        DatabaseAway: The database cannot be reached.
    """
    if apps.is_installed("django_tenants"):
        return physical
    if physical not in _folded:
        with detect_outages(), in_public():
            names = list(_tenants().filter(schema_name__iexact=physical).values_list("schema_name", flat=True))
        if not names and physical == physical_schema(public_schema()):
            return public_schema()
        if not names:
            raise UnknownTenant(_why_unknown(physical))
        _folded[physical] = physical if physical in names else names[0]
    return _folded[physical]


def scheduled_among(physical: Collection[str]) -> set[str]:
    """Look up which PostgreSQL schemas belong to a tenant; the public one too if `django_q` is shared.

    This takes one statement.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    shared = {public_schema()} if lists_app(shared_apps(), "django_q") else set()
    wanted = sorted(set(physical) - {public_schema()})
    if not wanted:
        return shared & set(physical)
    return set(keys_of_physical(wanted)) | (shared & set(physical))


def keys_of_physical(physical: Collection[str]) -> dict[str, str]:
    """Return the keys of the tenants that have these PostgreSQL schemas now, by schema, with one statement.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with detect_outages(), in_public():
        rows = _tenants()
        if not apps.is_installed("django_tenants"):
            rows = rows.annotate(folded=Lower("schema_name")).filter(folded__in=physical)
        else:
            rows = rows.filter(schema_name__in=physical)
        return {physical_schema(schema): str(key) for schema, key in rows.values_list("schema_name", "pk")}


def tenant_count() -> int:
    """Return the number of tenants, without the public one."""
    with in_public():
        return int(_tenants().exclude(schema_name=public_schema()).count())


def tenant_names() -> list[str]:
    """Return the schema names of all tenants but the public one, by one statement. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        return list(_tenants().exclude(schema_name=public_schema()).values_list("schema_name", flat=True))


def tenant_exists(key: str) -> bool:
    """Return whether a tenant has this key, under any name, without the cache. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        return bool(_tenants().filter(pk=key).exists())


def is_name_taken(schema: str) -> bool:
    """Return whether a tenant has this schema name, regardless of case, without the cache. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        return bool(_tenants().filter(schema_name__iexact=schema).exists())


def _look_up_cached(schema: str, seconds: float | None = None) -> _Known:
    limit = conf().tenant_cache_seconds if seconds is None else seconds
    entry = _known.get(schema)
    if entry is None or time.monotonic() - entry.since > limit:
        entry = _known[schema] = _look_up(schema)
    return entry


def _look_up(schema: str) -> _Known:
    _known.pop(schema, None)
    with detect_outages(), in_public():
        named = _tenants().filter(schema_name=schema)
        found = named.first()
        if found is None:
            raise UnknownTenant(_why_unknown(schema))
        _refuse_folded(schema)
        return _Known(time.monotonic(), _as_handed_out(found), _why_unready(named, schema))


def _as_handed_out(tenant: Any) -> Any:
    """Return a copy of a tenant for the cache.

    Django marks a copy as such, so the cached tenant must be one to equal the copies passed on.
    """
    return copy.copy(tenant)


def _refuse_folded(schema: str) -> None:
    """Refuse to look up a tenant whose name in lower case is the schema of another in `django-tenant-schemas`."""
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
        if is_lost(tenant_connection()):
            raise
        return f"TENANT_Q['ready_tenants'] ({path}) fails for tenant {schema!r}: {error_line(error)}; correct it."
    return f"Tenant {schema!r} is not among those that {path} lets through yet; it waits until it is."


def _why_unknown(schema: str) -> str:
    try:
        validate_schema_name(schema)
    except ValidationError as error:
        return f"No tenant can have this schema name: {' '.join(error.messages)}"
    return f"No tenant has the schema name {schema!r}; create it, or name one that {tenant_model().__name__} lists."


def _tenants() -> Any:
    return tenant_model()._default_manager.using(database_alias())


def _ready(tenants: Any) -> Any:
    """Return the queryset of those tenants that the project's `TENANT_Q["ready_tenants"]` lets through."""
    path = conf().ready_tenants
    with no_return():
        return import_string(path)(tenants) if path else tenants


def forget() -> None:
    """Forget all tenants, so that the next look-up queries the database."""
    _known.clear()
    _folded.clear()
