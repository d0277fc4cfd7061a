"""The only module that imports `tenant_schemas` and `django_tenants`: all that tenant_q uses of a tenancy package."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.tenancy import acting, owner_blocks
from tenant_q.tenancy.event_loops import noted_for_coroutines, refuse_in_event_loop

Databases = Sequence[str] | None
TASK_TABLE = "django_q_task"


@functools.cache
def _package() -> Any:
    """Return the `utils` module of the tenancy package in `INSTALLED_APPS`."""
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
    """Return the alias of the database whose schemas the tenancy package switches."""
    ask = getattr(_package(), "get_tenant_database_alias", None)
    return str(ask()) if ask else "default"


def tenant_connection() -> Any:
    """Return this thread's connection that the tenancy package switches between tenants. Raises `InEventLoop`."""
    refuse_in_event_loop("The connection to the tenants' database")
    owner_blocks.settle()
    return connections[database_alias()]


def public_schema() -> str:
    """Return the tenancy package's name for the schema that all tenants share."""
    return str(_package().get_public_schema_name())


def tenant_model() -> Any:
    """Return the tenant model that the project has named to the tenancy package."""
    return _package().get_tenant_model()


def domain_model() -> Any:
    """Return the model of the tenancy package's domains; None if a tenant's own row has its domain."""
    ask = getattr(_package(), "get_tenant_domain_model", None)
    return ask() if ask and hasattr(settings, "TENANT_DOMAIN_MODEL") else None


def complete_schema(tenant: Any) -> None:
    """Have the tenancy package create the schema of a tenant, or run the migrations that it lacks.

    The package's signal `post_schema_sync` follows, as after a first `save()`. The tenant is in the public schema then.
    """
    if _package().schema_exists(physical_schema(tenant.schema_name)):
        options = {"tenant": True, "fake": _is_cloned(tenant)} if _keeps_case() else {}
        call_command("migrate_schemas", schema_name=tenant.schema_name, interactive=False, verbosity=0, **options)
    else:
        tenant.create_schema(check_if_exists=True, verbosity=0)
    models, signals = (import_module(f"{_package().__package__}.{name}") for name in ("models", "signals"))
    signals.post_schema_sync.send(sender=models.TenantMixin, tenant=tenant)


def _is_cloned(tenant: Any) -> bool:
    """Return whether django-tenants makes the schema of a tenant as a copy of another one, whose migrations it has."""
    return bool(_package().get_creation_fakes_migrations() and tenant.get_base_schema())


def current_schema() -> str:
    """Return the schema to which the tenancy package has switched this thread. Raises `InEventLoop`."""
    refuse_in_event_loop("current_schema()")
    return str(tenant_connection().schema_name)


def physical_schema(schema: str) -> str:
    """Return the name that the tenancy package gives a schema in PostgreSQL.

    It is in lower case with `django-tenant-schemas`, which quotes no names.
    """
    return schema if _keeps_case() else schema.lower()


@functools.cache
def _keeps_case() -> bool:
    return apps.is_installed("django_tenants")


def shared_apps() -> list[str]:
    """Return the apps whose tables the tenancy package keeps in the public schema."""
    if getattr(settings, "HAS_MULTI_TYPE_TENANTS", False):
        return list(settings.TENANT_TYPES[public_schema()]["APPS"])
    return list(getattr(settings, "SHARED_APPS", []))


def public_has_tasks() -> bool:
    """Return whether the public schema has tasks and schedules of its own: whether `django_q` is a shared app."""
    return lists_app(shared_apps(), "django_q")


def tenant_apps() -> list[str]:
    """Return the apps whose tables the tenancy package keeps in the schemas of tenants, of any tenant type."""
    if getattr(settings, "HAS_MULTI_TYPE_TENANTS", False):
        kinds = (kind for name, kind in settings.TENANT_TYPES.items() if name != public_schema())
        return [app for kind in kinds for app in kind["APPS"]]
    return list(getattr(settings, "TENANT_APPS", []))


def type_without(app: str, tenant: Any) -> str | None:
    """Return a tenant's type in the tenancy package's `TENANT_TYPES` if that type lacks an app; else None."""
    if not getattr(settings, "HAS_MULTI_TYPE_TENANTS", False):
        return None
    kind = getattr(tenant, getattr(settings, "MULTI_TYPE_DATABASE_FIELD", "type"), None)
    listed = settings.TENANT_TYPES.get(kind, {}).get("APPS")
    return None if listed is None or lists_app(list(listed), app) else str(kind)


def lists_app(listed: list[str], name: str) -> bool:
    """Return whether one of the tenancy package's lists of apps names an app, by its module or `AppConfig`."""
    return any(entry == name or entry.startswith(f"{name}.apps.") for entry in listed)


def is_of_tenancy_package(function: Any) -> bool:
    """Return whether a function belongs to a tenancy package."""
    return str(getattr(function, "__module__", "")).partition(".")[0] in ("tenant_schemas", "django_tenants")


def switched_connections(databases: Databases = None) -> list[Any]:
    """Return the connections that the tenancy package switches for a task, first that to the tenants' database.

    Args:
        databases: The aliases of further databases, from the task's option; None for `TENANT_Q["databases"]`.

    Raises:
        InEventLoop: An event loop runs in this thread.
    """
    refuse_in_event_loop("The connections to the tenants' databases")
    aliases = [database_alias(), *(databases or conf().databases or ())]
    return [connections[alias] for alias in dict.fromkeys(aliases)]


def leave() -> None:
    """Act as the owner, and have the tenancy package switch every open connection to the public schema."""
    acting.leave_role()
    for connection in connections.all(initialized_only=True):
        if hasattr(connection, "set_schema_to_public"):
            connection.set_schema_to_public()


@contextmanager
def as_owner_in_public() -> Iterator[None]:
    """Run a block of tenant_q's own statements in the public schema, then switch back. For projects see `in_public`.

    The block acts as the owner of the tables, also while a worker serves a tenant as its role.

    Raises:
        InEventLoop: An event loop runs in this thread.
    """
    refuse_in_event_loop("A query of the public schema")
    with owner_blocks.as_owner(), switched_to_public():
        yield


@contextmanager
def switched_to_public() -> Iterator[None]:
    """Run a block with the tenancy package's connection in the public schema, then switch back."""
    connection = tenant_connection()
    previous = [(connection, connection.tenant)]
    try:
        connection.set_schema_to_public()
        with noted_for_coroutines(public_schema(), ""):
            yield
    finally:
        switch_back(previous)


@contextmanager
def under_name(schema: str) -> Iterator[None]:
    """Have the tenancy package run a block under the name of a schema, which need not exist, then switch back.

    Use it for keys of a cache, which a tenancy package may derive from that name. For statements use `in_schema`.
    """
    connection = tenant_connection()
    previous = [(connection, connection.tenant)]
    try:
        connection.set_schema(schema)
        yield
    finally:
        switch_back(previous)


def tenant_table() -> tuple[str, str]:
    """Return the names of the tenancy package's table of tenants, in the public schema, and of its primary key."""
    meta = tenant_model()._meta
    return str(meta.db_table), str(meta.pk.column)


def switch_back(previous: list[tuple[Any, Any]]) -> None:
    """Have the tenancy package switch connections back to the tenants that they had; None for the public schema."""
    for connection, tenant in previous:
        if tenant is None:
            connection.set_schema_to_public()
        else:
            connection.set_tenant(tenant)
