"""Entering a tenant and leaving it.

Both tenancy packages switch by `connection.set_tenant()`, which sets the `search_path` of the next cursor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from tenant_q.exceptions import EnqueueError, NoTenant, TenantReplaced, WrongArgument
from tenant_q.support.call_checks import is_text, require_schema_name, shown
from tenant_q.tenancy import records, tenants, verification
from tenant_q.tenancy.loops import noted, refuse_in_event_loop, schema_of_coroutine
from tenant_q.tenancy.seam import (
    Databases,
    lists_app,
    public_schema,
    restore,
    shared_apps,
    switched_connections,
    tenant_connection,
    tenant_model,
    type_without,
)
from tenant_q.tenancy.tenants import get_tenant, known_tenant, require_known
from tenant_q.tenancy.verification import verify


def task_schema(schema: str | None = None) -> str:
    """The schema a task or result call is for: `schema`, or the current one.

    In a coroutine of a task, it is that task's tenant.

    Raises `NoTenant` when that is the public schema and `django_q` has no tables there, `UnknownTenant` when no tenant
    has that schema name, `EnqueueError` when its type in `TENANT_TYPES` lacks `django_q`, `WrongArgument` when
    `schema` is not a text, and `InEventLoop` in any other coroutine.
    """
    return task_address(schema)[0]


def task_address(schema: str | None = None) -> tuple[str, str | None]:
    """Return the schema that a task is for, and the key of its tenant if the tenant is current on the connection.

    Parameters and what is raised are those of `task_schema`.
    """
    require_schema_name(schema)
    own = schema_of_coroutine()
    if own is None or schema not in (None, own):
        own = None
        refuse_in_event_loop("A call for a tenant's tasks")
    chosen = own or schema or str(tenant_connection().schema_name)
    if chosen == public_schema():
        if not lists_app(shared_apps(), "django_q"):
            raise NoTenant(
                f"Schema {chosen!r} is current and has no django_q tables: choose a tenant with "
                "tenant_q.tenancy.in_schema('<schema>'), the tenancy package's middleware, or schema_name='<schema>'."
            )
        return chosen, None
    if own is not None:  # its package runs, so the tenant is known
        return chosen, None
    current = tenant_connection().tenant
    is_current = not schema and isinstance(current, tenant_model()) and current.schema_name == chosen
    if not is_current:
        require_known(chosen)
        current = known_tenant(chosen)
    _refuse_type(current)
    return chosen, str(current.pk) if is_current and current.pk is not None else None


def _refuse_type(tenant: Any) -> None:
    """Raise `EnqueueError` for a tenant whose type has no task tables: its task would wait for ever."""
    kind = type_without("django_q", tenant)
    if kind is not None:
        raise EnqueueError(
            f"Tenants of the type {kind!r}, such as {tenant.schema_name!r}, have no tables of django_q: add it "
            f"to TENANT_TYPES[{kind!r}]['APPS'] and run `python manage.py migrate_schemas`, or choose another tenant."
        )


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
    known = known_tenant(schema)
    if not is_there or not connection.include_public_schema or known is None:
        return False
    has, had = dict(vars(connection.tenant)), dict(vars(known))
    state = has.pop("_state", None)
    had.pop("_state")
    return type(connection.tenant) is type(known) and has == had and not getattr(state, "fields_cache", None)


@contextmanager
def in_schema(schema: str, databases: Databases = None) -> Iterator[None]:
    """Run a block in `schema`, with `connection.tenant` its real tenant, and go back afterwards.

    Raises `UnknownTenant` when no tenant has that schema name, and `InEventLoop` in a coroutine.
    """
    if not is_text(schema):
        raise WrongArgument(f"in_schema() was called with {shown(schema)}; it must be a schema's name.")
    refuse_in_event_loop(f"in_schema({schema!r})")
    previous = [(connection, connection.tenant) for connection in switched_connections(databases)]
    try:
        enter(schema, databases)
        with noted(schema, str(getattr(tenant_connection().tenant, "pk", "") or "")):
            yield
    finally:
        restore(previous)


@contextmanager
def in_verified_schema(schema: str, databases: Databases = None, *, tenant: str | None = None) -> Iterator[None]:
    """As `in_schema`, sure that the schema is there, is the tenant's and has task tables. Raises besides as `verify`.

    Parameters: `tenant`, the key of the tenant that must have the schema; None for the one that has it now.
    """
    with in_schema(schema, databases):
        verify_entered(schema, databases, tenant=tenant)
        yield


def verify_entered(schema: str, databases: Databases = None, *, tenant: str | None = None) -> None:
    """Verify a schema that was entered by its name, with its tenant as it is now.

    What is remembered of the tenant may be some seconds old: where another one has the schema, that one is entered.
    Parameters and what is raised are those of `verify`.
    """
    if schema == public_schema():
        return
    try:
        verify(schema, databases, tenant=tenant)
    except TenantReplaced:
        tenants.refresh_tenant(schema, 0)
        enter(schema, databases)
        verify(schema, databases, tenant=tenant)


def forget_tenants() -> None:
    """Drop what is remembered of tenants: the next look-up asks the database."""
    tenants.forget()
    verification.forget()
    records.forget()
