"""Identify the tenant behind a schema name by its key.

A package, a cached result and a fire carry the key of their tenant. Keys are primary keys, so they survive a dump and a
restore.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from tenant_q.exceptions import UnknownTenant
from tenant_q.tenancy.connection import detect_outages
from tenant_q.tenancy.event_loops import is_in_event_loop, key_of_coroutine
from tenant_q.tenancy.tenancy_package import (
    as_owner_in_public,
    database_alias,
    public_schema,
    tenant_connection,
    tenant_model,
)
from tenant_q.tenancy.tenants import cached_key, known_tenant, look_up_together


def key_of(tenant: Any) -> str:
    """Return the key of a tenant: its primary key, as text."""
    return str(tenant.pk)


def current_key(schema: str) -> str:
    """Return the key of the tenant that has this schema, or an empty text for the public schema.

    No query is needed if that tenant is current on the connection.

    Raises:
        UnknownTenant: No tenant has this schema name.
        DatabaseAway: The database cannot be reached.
    """
    return find_key(schema)[0]


def find_key(schema: str) -> tuple[str, bool]:
    """Return the key of the tenant that has this schema, and whether it comes from the cache, so may be outdated.

    Raises as `current_key`.
    """
    if schema == public_schema():
        return "", False
    key = _connected_key(schema)
    return (cached_key(schema), True) if key is None else (key, False)


def _connected_key(schema: str) -> str | None:
    if is_in_event_loop():  # a coroutine of a task, whose connection is in another thread
        return key_of_coroutine(schema)
    tenant = tenant_connection().tenant
    is_current = isinstance(tenant, tenant_model()) and tenant.schema_name == schema and tenant.pk is not None
    return key_of(tenant) if is_current else None


def keys_of(schemas: Iterable[str]) -> dict[str, str]:
    """Return the keys of the tenants that have these schemas, by schema, with at most one statement.

    Schemas without a tenant are left out.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    wanted = list(schemas)
    found = {schema: key for schema in wanted if (key := _connected_key(schema)) is not None}
    missing = [schema for schema in wanted if schema not in found and schema != public_schema()]
    look_up_together(missing)
    for schema in missing:
        if (tenant := known_tenant(schema)) is not None:
            found[schema] = key_of(tenant)
    unknown = [schema for schema in missing if schema not in found]
    if unknown:
        with detect_outages(), as_owner_in_public():
            rows = tenant_model()._default_manager.using(database_alias()).filter(schema_name__in=unknown)
            found |= {schema: str(key) for schema, key in rows.values_list("schema_name", "pk")}
    return found


def keys_now(schemas: Collection[str]) -> dict[str, str]:
    """Return the keys of the tenants that have these schemas now, by schema, without the cache.

    Raises:
        UnknownTenant: No tenant has one of the schemas.
        DatabaseAway: The database cannot be reached.
    """
    tenants = tenant_model()._default_manager.using(database_alias()).filter(schema_name__in=schemas)
    with detect_outages(), as_owner_in_public():
        found = {schema: str(key) for schema, key in tenants.values_list("schema_name", "pk")}
    found |= {schema: "" for schema in schemas if schema == public_schema()}
    if missing := [schema for schema in schemas if schema not in found]:
        raise UnknownTenant(f"No tenant has the schema name {missing[0]!r} any more.")
    return found
