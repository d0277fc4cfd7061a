"""Look up tenants, and whether they are ready, through a cache of `tenant_cache_seconds`."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError

from tenant_q.conf import conf
from tenant_q.exceptions import TenantNotReady, UnknownTenant
from tenant_q.support.visible import error_line
from tenant_q.tenancy.connection import detect_outages, is_lost
from tenant_q.tenancy.names import validate_schema_name
from tenant_q.tenancy.role_records import RoleRecord, pop_role, with_role
from tenant_q.tenancy.tenancy_package import (
    as_owner_in_public,
    database_alias,
    physical_schema,
    public_schema,
    tenant_connection,
    tenant_model,
)
from tenant_q.tenancy.tenant_config import EMPTY, TenantConfig, is_change_open, note_change, read_with_config
from tenant_q.tenancy.tenant_config import forget as forget_config_table
from tenant_q.tenancy.tenant_queries import all_tenants, among_ready

_OUTDATED = -math.inf


@dataclass(frozen=True, slots=True)
class _Known:
    """A tenant as it was looked up at the moment `since` (monotonic). `unready` is the reason not to serve it yet.

    While `since` is `_OUTDATED`, the next look-up reads it anew. `config` is None once this process has changed it.
    `role` is the tenant's role; None if it has none, or needs none.
    """

    since: float
    tenant: Any
    unready: str | None
    config: TenantConfig | None
    role: RoleRecord | None = None


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


def look_up_config(schema: str) -> TenantConfig:
    """Return a copy of a tenant's configuration, through the cache of tenants. Raises as `get_tenant`."""
    return replace(_look_up_cached(schema).config or EMPTY)


def known_config(schema: str) -> TenantConfig | None:
    """Return a copy of a tenant's cached configuration, however old; None if it is not cached, or was changed here."""
    entry = _known.get(schema)
    return None if entry is None or entry.config is None else replace(entry.config)


def config_saved(*, instance: Any, using: str, **_: Any) -> None:
    """Receive `post_save` and `post_delete` of tenants' configurations: forget the one that was cached."""
    schema = instance.schema_name

    def forget_it() -> None:
        if (entry := _known.get(schema)) is not None:
            _known[schema] = replace(entry, since=_OUTDATED, config=None)

    if using == database_alias():
        note_change(forget_it)


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


def require_role(schema: str) -> RoleRecord:
    """Return the role of a tenant, as which it may be served. Do not rely on a cached refusal.

    Raises:
        TenantNotReady: The tenant has no active role.
        UnknownTenant: No tenant has this schema name.
    """
    role = _look_up_cached(schema).role
    if role is None or not role.is_active:
        role = _look_up_cached(schema, 0).role
    if role is not None and role.is_active:
        return role
    if role is None:
        why = f"has no database role; run `python manage.py mstenant provision {schema} --adopt`"
    elif role.state == "repair":
        why = f"waits for the repair of its role {role.role}; a scheduler does that, and its log says why if it cannot"
    else:
        why = f"has the role {role.role}, which is {role.state}; see `python manage.py mstenant show {schema}`"
    raise TenantNotReady(f"Tenant {schema!r} {why}.")


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
    with detect_outages(), as_owner_in_public():
        try:
            named = all_tenants().filter(schema_name__in=wanted)
            ready = (
                set(among_ready(named).values_list("schema_name", flat=True)) if conf().ready_tenants else set(wanted)
            )
            found = read_with_config(with_role(named))
        except Exception:  # if the project's function failed, the look-up of each tenant reports it
            if is_lost(tenant_connection()):
                raise
            return
    for tenant, config in found:
        if tenant.schema_name in ready:
            role = pop_role(tenant)
            _known[tenant.schema_name] = _to_cache(_Known(now, _as_handed_out(tenant), None, config, role))
            _folded[tenant.schema_name] = tenant.schema_name


def logical_schema(physical: str) -> str:
    """Look up the tenant of a PostgreSQL schema, whose name may be folded to lower case; return its schema name.

    Raises:
        UnknownTenant: No tenant has this schema.
        DatabaseAway: The database cannot be reached.
    """
    if apps.is_installed("django_tenants"):
        return physical
    if physical not in _folded:
        with detect_outages(), as_owner_in_public():
            names = list(all_tenants().filter(schema_name__iexact=physical).values_list("schema_name", flat=True))
        if not names and physical == physical_schema(public_schema()):
            return public_schema()
        if not names:
            raise UnknownTenant(_why_unknown(physical))
        _folded[physical] = physical if physical in names else names[0]
    return _folded[physical]


def _look_up_cached(schema: str, seconds: float | None = None) -> _Known:
    limit = conf().tenant_cache_seconds if seconds is None else seconds
    entry = _known.get(schema)
    if entry is None or time.monotonic() - entry.since > limit:
        entry = _look_up(schema)
        _known[schema] = _to_cache(entry)
    return entry


def _to_cache(entry: _Known) -> _Known:
    """Return the entry to cache. One whose configuration may yet be rolled back is outdated at once."""
    return replace(entry, since=_OUTDATED) if is_change_open() else entry


def _look_up(schema: str) -> _Known:
    _known.pop(schema, None)
    with detect_outages(), as_owner_in_public():
        named = all_tenants().filter(schema_name=schema)
        found = read_with_config(with_role(named))
        if not found:
            raise UnknownTenant(_why_unknown(schema))
        _refuse_folded(schema)
        ((tenant, config),) = found
        role = pop_role(tenant)
        return _Known(time.monotonic(), _as_handed_out(tenant), _why_unready(named, schema), config, role)


def _as_handed_out(tenant: Any) -> Any:
    """Return a copy of a tenant for the cache.

    Django marks a copy as such, so the cached tenant must be one to equal the copies passed on.
    """
    return copy.copy(tenant)


def _refuse_folded(schema: str) -> None:
    """Refuse to look up a tenant whose name in lower case is the schema of another in `django-tenant-schemas`."""
    folded = physical_schema(schema)
    others = all_tenants().filter(schema_name__iexact=schema).exclude(schema_name=schema)
    if folded != schema and others.exists():
        raise UnknownTenant(f"Tenant {schema!r} shares the schema {folded!r} with another; rename one of them.")


def _why_unready(named: Any, schema: str) -> str | None:
    path = conf().ready_tenants
    if not path:
        return None
    try:
        if among_ready(named).exists():
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


def forget_one(schema: str) -> None:
    """Forget a tenant, so that the next look-up of it queries the database."""
    _known.pop(schema, None)


def forget() -> None:
    """Forget all tenants, so that the next look-up queries the database."""
    _known.clear()
    _folded.clear()
    forget_config_table()
