"""Query the table of tenants, without the cache."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.db.models.functions import Lower
from django.utils.module_loading import import_string

from tenant_q.conf import conf
from tenant_q.exceptions import TenantNotReady
from tenant_q.support.forks import no_return
from tenant_q.support.visible import error_line
from tenant_q.tenancy.connection import detect_outages, is_lost
from tenant_q.tenancy.tenancy_package import (
    as_owner_in_public,
    database_alias,
    physical_schema,
    public_has_tasks,
    public_schema,
    tenant_connection,
    tenant_model,
)


def tenants_to_schedule() -> list[str]:
    """Return the schema names that the scheduler serves: those of all ready tenants that are not excluded.

    Raises:
        TenantNotReady: The project's `ready_tenants` fails.
    """
    return sorted(keys_to_schedule())


def keys_to_schedule() -> dict[str, str]:
    """Return the keys of the tenants that `tenants_to_schedule` names, by schema name. Raises as it."""
    with detect_outages(), as_owner_in_public():
        try:
            found = dict(among_ready(all_tenants()).values_list("schema_name", "pk"))
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
    with detect_outages(), as_owner_in_public(), no_return():
        found = function(all_tenants())
        return {one if isinstance(one, str) else str(one.schema_name) for one in found}


def scheduled_among(physical: Collection[str]) -> set[str]:
    """Look up which PostgreSQL schemas belong to a tenant; the public one too if `django_q` is shared.

    This takes one statement.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    shared = {public_schema()} if public_has_tasks() else set()
    wanted = sorted(set(physical) - {public_schema()})
    if not wanted:
        return shared & set(physical)
    return set(keys_of_physical(wanted)) | (shared & set(physical))


def keys_of_physical(physical: Collection[str]) -> dict[str, str]:
    """Return the keys of the tenants that have these PostgreSQL schemas now, by schema, with one statement.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    return {schema: key for schema, (_, key) in tenants_of_physical(physical).items()}


def tenants_of_physical(physical: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return the schema names and keys of the tenants that have these PostgreSQL schemas now, with one statement.

    Args:
        physical: The schemas as PostgreSQL names them.

    Returns:
        The schema name and the key of each tenant, by its schema as PostgreSQL names it.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with detect_outages(), as_owner_in_public():
        rows = all_tenants()
        if not apps.is_installed("django_tenants"):
            rows = rows.annotate(folded=Lower("schema_name")).filter(folded__in=physical)
        else:
            rows = rows.filter(schema_name__in=physical)
        found = rows.values_list("schema_name", "pk")
        return {physical_schema(schema): (str(schema), str(key)) for schema, key in found}


def tenant_count() -> int:
    """Return the number of tenants, without the public one."""
    with as_owner_in_public():
        return int(all_tenants().exclude(schema_name=public_schema()).count())


def tenant_names() -> list[str]:
    """Return the sorted schema names of all tenants but the public one, by one statement. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        return sorted(all_tenants().exclude(schema_name=public_schema()).values_list("schema_name", flat=True))


def tenant_exists(key: str) -> bool:
    """Return whether a tenant has this key, under any name, without the cache. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        return bool(all_tenants().filter(pk=key).exists())


def is_name_taken(schema: str) -> bool:
    """Return whether a tenant has this schema name, regardless of case, without the cache. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        return bool(all_tenants().filter(schema_name__iexact=schema).exists())


def all_tenants() -> Any:
    return tenant_model()._default_manager.using(database_alias())


def among_ready(tenants: Any) -> Any:
    """Return the queryset of those tenants that the project's `TENANT_Q["ready_tenants"]` lets through."""
    path = conf().ready_tenants
    with no_return():
        return import_string(path)(tenants) if path else tenants
