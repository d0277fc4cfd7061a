"""Identify the tenant behind a schema name by its key, and read the records of deleted and renamed tenants.

A package, a cached result and a fire carry the key of their tenant. Keys are primary keys, so they survive a dump and a
restore.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from django.apps import apps
from django.db.models import Exists, OuterRef, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from tenant_q.exceptions import UnknownTenant
from tenant_q.tenancy.connection import detect_outages
from tenant_q.tenancy.loops import is_in_event_loop, key_of_coroutine
from tenant_q.tenancy.seam import database_alias, in_public, public_schema, tenant_connection, tenant_model
from tenant_q.tenancy.tenants import cached_key, known_tenant, look_up_together

# The moment when a tenant was created, by its key; it never changes.
_since: dict[str, datetime | None] = {}
_MOST_REMEMBERED = 10_000


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
        with detect_outages(), in_public():
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
    with detect_outages(), in_public():
        found = {schema: str(key) for schema, key in tenants.values_list("schema_name", "pk")}
    found |= {schema: "" for schema in schemas if schema == public_schema()}
    if missing := [schema for schema in schemas if schema not in found]:
        raise UnknownTenant(f"No tenant has the schema name {missing[0]!r} any more.")
    return found


# Records. Their model belongs to a higher layer, so it is found by name.


def _records() -> Any:
    return apps.get_model("tenant_q", "TenantRecord")._default_manager.using(database_alias())


def note_existing(model: Any) -> None:
    """Record the tenants without a record.

    If a deleted tenant had the same name, the new tenant is recorded as created now, otherwise as older than every
    package.

    Args:
        model: The model of the records, which a migration has in an earlier form.
    """
    with detect_outages(), in_public():
        records = model._default_manager.using(database_alias())
        recorded = records.filter(key=OuterRef("tenant_q_key"))
        missing = list(_tenants_with_keys().filter(~Exists(recorded)).values_list("schema_name", "tenant_q_key"))
        if not missing:
            return
        left = records.filter(schema_name__in=[schema for schema, _ in missing]).exclude(deleted=None)
        replaced = set(left.values_list("schema_name", flat=True))
        made = [
            model(key=key, schema_name=schema, since=timezone.now() if schema in replaced else None)
            for schema, key in missing
        ]
        records.bulk_create(made, ignore_conflicts=True)


def gone() -> list[tuple[str, str]]:
    """Return the schema and key of each recorded tenant whose row is gone, by one statement. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        rows = _tenants_with_keys().filter(tenant_q_key=OuterRef("key"))
        return list(_records().filter(~Exists(rows), deleted=None).values_list("schema_name", "key"))


def returned() -> list[str]:
    """Return the keys of the tenants that are recorded as deleted and have a row again. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        rows = _tenants_with_keys().filter(tenant_q_key=OuterRef("key"))
        return list(_records().exclude(deleted=None).filter(Exists(rows)).values_list("key", flat=True))


def is_there(key: str) -> bool:
    """Return whether a tenant has this key, under any name. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        return bool(tenant_model()._default_manager.using(database_alias()).filter(pk=key).exists())


def is_taken(schema: str) -> bool:
    """Return whether a tenant has this schema name, regardless of case. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        tenants = tenant_model()._default_manager.using(database_alias())
        return bool(tenants.filter(schema_name__iexact=schema).exists())


def _tenants_with_keys() -> Any:
    tenants = tenant_model()._default_manager.using(database_alias()).exclude(schema_name=public_schema())
    return tenants.annotate(tenant_q_key=Cast("pk", TextField()))


def since(schema: str, key: str) -> datetime | None:
    """Return when a tenant was created; None if it is older than the records. Raises `DatabaseAway`."""
    return since_of({schema: key})[schema]


def since_of(keys: dict[str, str]) -> dict[str, datetime | None]:
    """Return the same as `since` for several tenants, with at most one statement.

    Args:
        keys: The keys of the tenants, by schema.
    """
    missing = {key: schema for schema, key in keys.items() if key not in _since}
    if missing:
        with detect_outages(), in_public():
            found = dict(_records().filter(key__in=missing).values_list("key", "since"))
            unrecorded = [schema for key, schema in missing.items() if key not in found]
            gone = _deleted_at(unrecorded) if unrecorded else {}
        if len(_since) > _MOST_REMEMBERED:
            _since.clear()
        _since.update(found)
        # A tenant without a record is not cached: its record will be made.
        return {schema: _since[key] if key in _since else gone.get(schema) for schema, key in keys.items()}
    return {schema: _since[key] for schema, key in keys.items()}


def _deleted_at(schemas: list[str]) -> dict[str, datetime]:
    """Return when the last tenant with each of these names was deleted."""
    rows = _records().filter(schema_name__in=schemas).exclude(deleted=None).order_by("deleted")
    return dict(rows.values_list("schema_name", "deleted"))


def predates(moment: object, schema: str, key: str) -> bool:
    """Return whether something that carries no key and was created at `moment` is older than the tenant.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    made = since(schema, key)
    if made is None:
        return False
    if not isinstance(moment, datetime):
        return True
    return moment.timestamp() < made.timestamp()  # regardless of USE_TZ at that time


def scope(schema: str, key: str, made: datetime | None) -> str:
    """Return the text that identifies a tenant in the ids of its fires.

    For a tenant older than the records it is the schema name, so that an earlier version computes the same ids.
    """
    return schema if made is None else f"{schema}#{key}"


def names_of(key: str) -> list[str]:
    """Return the present and former schema names of a tenant, the present one first. Raises `DatabaseAway`."""
    with detect_outages(), in_public():
        found = _records().filter(key=key, deleted=None).values_list("schema_name", "former_names").first()
    return [found[0], *found[1]] if found else []


def current_name(schema: str, key: str) -> str | None:
    """Return the present schema name of a tenant; None if it never was `schema`. Raises `DatabaseAway`."""
    names = names_of(key)
    if schema not in names:
        return None
    with detect_outages(), in_public():
        tenants = tenant_model()._default_manager.using(database_alias())
        return names[0] if tenants.filter(pk=key, schema_name=names[0]).exists() else None


def forget() -> None:
    """Forget when tenants were created."""
    _since.clear()
