"""Enter and leave tenants.

Both tenancy packages switch with `connection.set_tenant()`, which sets the `search_path` of the next cursor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from functools import wraps
from types import TracebackType
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings

from tenant_q.exceptions import EnqueueError, NoTenant, TenantReplaced, WrongArgument
from tenant_q.support.call_checks import is_text, require_schema_name, shown
from tenant_q.tenancy import owner_blocks, records, tenants, verification
from tenant_q.tenancy.event_loops import (
    Entered,
    enter_coroutine,
    leave_coroutine,
    noted_for_coroutines,
    refuse_in_event_loop,
    schema_of_async_block,
    schema_of_coroutine,
)
from tenant_q.tenancy.restriction import require_authorized
from tenant_q.tenancy.tenancy_package import (
    Databases,
    public_has_tasks,
    public_schema,
    switch_back,
    switched_connections,
    switched_to_public,
    tenant_connection,
    tenant_model,
    type_without,
)
from tenant_q.tenancy.tenants import get_tenant, known_tenant, require_known
from tenant_q.tenancy.verification import verify


def task_schema(schema: str | None = None) -> str:
    """Return the schema to switch to for a call for tasks or results: `schema`, or else the current one.

    In a coroutine of a task, the current schema is the one of that task.

    Args:
        schema: A tenant's schema name; None for the current tenant.

    Raises:
        NoTenant: It is the public schema, and `django_q` has no tables there.
        UnknownTenant: No tenant has this schema name.
        EnqueueError: The tenant's type in `TENANT_TYPES` lacks `django_q`.
        TenantNotAuthorized: The calling code is restricted to another tenant.
        WrongArgument: `schema` is not a text.
        InEventLoop: The caller is a coroutine that belongs to no task.
    """
    return task_address(schema)[0]


def task_address(schema: str | None = None) -> tuple[str, str | None]:
    """Return the schema to switch to, as `task_schema` does, and its tenant's key if that tenant is current.

    Arguments and errors are the same too.
    """
    require_schema_name(schema)
    own = schema_of_coroutine()
    if own is None or schema not in (None, own):
        own = None
        refuse_in_event_loop(
            "A call for a tenant's tasks",
            "its asynchronous form (QUtilities.aadd_async_task, aget_result, aget_status, acancel, or the aenqueue and "
            "aget_result of a task)",
        )
    chosen = own or schema or str(tenant_connection().schema_name)
    if own is None and schema is None:
        refuse_two_tenants(chosen)
    require_authorized(chosen)
    if chosen == public_schema():
        if not public_has_tasks():
            raise NoTenant(
                f"Schema {chosen!r} is current and has no django_q tables: choose a tenant with "
                "tenant_q.tenancy.in_schema('<schema>'), the tenancy package's middleware, or schema_name='<schema>'."
            )
        return chosen, None
    if own is not None:  # its package runs, so the tenant exists
        return chosen, None
    current = tenant_connection().tenant
    is_current = not schema and isinstance(current, tenant_model()) and current.schema_name == chosen
    if not is_current:
        require_known(chosen)
        current = known_tenant(chosen)
    _refuse_type(current)
    return chosen, str(current.pk) if is_current and current.pk is not None else None


def refuse_two_tenants(current: str) -> None:
    """Refuse a call in synchronous code that a coroutine awaits if the connection is not in the coroutine's schema."""
    entered = schema_of_async_block()
    if entered is not None and entered != current:
        raise NoTenant(
            f"The coroutine is in schema {entered!r}, and the connection that its synchronous code uses is in "
            f"{current!r}: choose one with schema_name='<schema>', or with in_schema('<schema>') in that code."
        )


def _refuse_type(tenant: Any) -> None:
    """Refuse to address a tenant whose type has no task tables: its tasks could never run."""
    kind = type_without("django_q", tenant)
    if kind is not None:
        raise EnqueueError(
            f"Tenants of the type {kind!r}, such as {tenant.schema_name!r}, have no tables of django_q: add it "
            f"to TENANT_TYPES[{kind!r}]['APPS'] and run `python manage.py migrate_schemas`, or choose another tenant."
        )


def enter(schema: str, databases: Databases = None) -> None:
    """Switch the connections to a schema, with its real tenant.

    Args:
        schema: The tenant's schema name, or the public schema.
        databases: The aliases of further databases of the task; None for those of the settings.

    Raises:
        UnknownTenant: No tenant has this schema name. The connections stay as they were.
        TenantNotAuthorized: The calling code is restricted to another tenant.
    """
    require_authorized(schema)
    tenant = None if schema == public_schema() else get_tenant(schema)
    for connection in switched_connections(databases):
        if tenant is None:
            connection.set_schema_to_public()
        else:
            connection.set_tenant(tenant)


def enter_again(schema: str) -> None:
    """Enter a schema again, unless all connections are still switched as `enter` left them."""
    if not all(_is_as_entered(connection, schema) for connection in switched_connections()):
        enter(schema)


def _is_as_entered(connection: Any, schema: str) -> bool:
    # Such a method may undo changes that are not visible here.
    if getattr(settings, "EXTRA_SET_TENANT_METHOD_PATH", None):
        return False
    is_there = connection.schema_name == connection.settings_dict.get("SCHEMA") == schema
    known = known_tenant(schema)
    if not is_there or not connection.include_public_schema or known is None:
        return False
    has, had = dict(vars(connection.tenant)), dict(vars(known))
    state = has.pop("_state", None)
    had.pop("_state")
    return type(connection.tenant) is type(known) and has == had and not getattr(state, "fields_cache", None)


class in_schema(ContextDecorator):
    """Run a block in a schema, with its real tenant as `connection.tenant`, then restore the current tenant.

    In a coroutine use `async with in_schema(...)`. It switches no connection, which other coroutines share. The calls
    of tenant_q for tasks that the coroutine awaits are for the tenant of the block, also in coroutines that the block
    starts. It is also a decorator, of functions and of coroutine functions.

    Args:
        schema: The tenant's schema name, or the public schema.
        databases: The aliases of further databases to switch; None for those of the settings. Not for `async with`.

    Raises:
        UnknownTenant: No tenant has this schema name.
        TenantNotAuthorized: The calling code is restricted to another tenant.
        InEventLoop: The caller is a coroutine, and uses `with`.
        WrongArgument: `schema` is not a text.
    """

    def __init__(self, schema: str, databases: Databases = None) -> None:
        self.schema = schema
        self.databases = databases
        self._blocks: list[AbstractContextManager[None]] = []
        self._coroutine_block: Entered | None = None

    def _recreate_cm(self) -> in_schema:
        return in_schema(self.schema, self.databases)

    def __call__(self, func: Callable[..., Any]) -> Any:
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @wraps(func)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            async with self._recreate_cm():
                return await func(*args, **kwargs)

        return inside

    def __enter__(self) -> None:
        _require_schema(self.schema)
        block = _switched(self.schema, self.databases)
        block.__enter__()
        self._blocks.append(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._blocks.pop().__exit__(kind, error, traceback)

    async def __aenter__(self) -> None:
        _require_schema(self.schema)
        if self.databases is not None or self._coroutine_block is not None:
            raise WrongArgument(
                f"'async with in_schema({self.schema!r})' switches no database and is used for one block at a time; "
                "call in_schema() anew for each block, without databases."
            )
        require_authorized(self.schema)
        key = await sync_to_async(_key_to_enter, thread_sensitive=True)(self.schema)
        self._coroutine_block = enter_coroutine(self.schema, key)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block, self._coroutine_block = self._coroutine_block, None
        if block is not None:
            leave_coroutine(block)


@contextmanager
def in_public() -> Iterator[None]:
    """Run a block with the tenancy package's connection in the public schema, then switch back.

    Raises:
        TenantNotAuthorized: The calling code is restricted to a tenant.
        InEventLoop: An event loop runs in this thread.
    """
    refuse_in_event_loop("in_public()")
    require_authorized(public_schema())
    with switched_to_public():
        yield


def _require_schema(schema: Any) -> None:
    if not is_text(schema):
        raise WrongArgument(f"in_schema() was called with {shown(schema)}; it must be a schema's name.")


def _key_to_enter(schema: str) -> str:
    return "" if schema == public_schema() else str(get_tenant(schema).pk)


@contextmanager
def _switched(schema: str, databases: Databases) -> Iterator[None]:
    refuse_in_event_loop(f"in_schema({schema!r})", f"'async with in_schema({schema!r})'")
    owner_blocks.settle()
    previous = [(connection, connection.tenant) for connection in switched_connections(databases)]
    try:
        enter(schema, databases)
        with noted_for_coroutines(schema, str(getattr(tenant_connection().tenant, "pk", "") or "")):
            yield
    finally:
        switch_back(previous)


@contextmanager
def in_verified_schema(schema: str, databases: Databases = None, *, tenant: str | None = None) -> Iterator[None]:
    """Run a block as `in_schema`, after verifying that the schema exists, is the tenant's and has task tables.

    Args:
        schema: The tenant's schema name, or the public schema.
        databases: The aliases of further databases to switch; None for those of the settings.
        tenant: The key of the tenant that must have the schema; None for the tenant that has it now.

    Raises:
        TenantUnavailable: See `verify` for the kinds of this error.
    """
    with in_schema(schema, databases):
        verify_entered(schema, databases, tenant=tenant)
        yield


def verify_entered(
    schema: str, databases: Databases = None, *, tenant: str | None = None, role: str | None = None
) -> None:
    """Verify a schema that was entered by its name, and enter it again if another tenant has it now.

    The cached tenant may be outdated. Arguments and errors are those of `verify`.
    """
    if schema == public_schema():
        return
    try:
        verify(schema, databases, tenant=tenant, role=role)
    except TenantReplaced:
        tenants.refresh_tenant(schema, 0)
        enter(schema, databases)
        verify(schema, databases, tenant=tenant, role=role)


def forget_tenant(schema: str) -> None:
    """Forget the cached row of one tenant, with its role and configuration."""
    tenants.forget_one(schema)


def forget_tenants() -> None:
    """Forget all cached facts about tenants, so that the next look-up queries the database."""
    tenants.forget()
    verification.forget()
    records.forget()
