"""Find the tenant that is current in a coroutine.

Django keeps a connection for each thread, and all coroutines of a thread share it. While one of them awaits, another
may switch the connection to its own tenant. So tenant_q reads no tenant from a connection in a running event loop. The
tenant of a coroutine is that of its innermost block `async with in_schema(...)`, a context variable, or else that of
the task that runs it, whose package names the tenant.
"""

from __future__ import annotations

import asyncio.events
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tenant_q.exceptions import InEventLoop
from tenant_q.package.running import running


@dataclass(frozen=True, slots=True, eq=False)
class Entered:
    """A block of `in_schema` or `in_public` that was entered.

    Attributes:
        schema: The schema of the block.
        key: The key of its tenant; empty for the public schema.
        is_async: Whether it is a block of `async with`, which switches no connection.
        outer: The block around it; None for the outermost one.
    """

    schema: str
    key: str
    is_async: bool
    outer: Entered | None


# The innermost block.
_entered: ContextVar[Entered | None] = ContextVar("tenant_q_entered", default=None)


def is_in_event_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    return asyncio.events._get_running_loop() is not None


def refuse_in_event_loop(call: str, instead: str = "") -> None:
    """Refuse a call in a running event loop, unless `DJANGO_ALLOW_ASYNC_UNSAFE` is set.

    Args:
        call: The name of the call, for the error's text.
        instead: What a coroutine uses instead of the call; empty if there is nothing.

    Raises:
        InEventLoop: An event loop runs in this thread.
    """
    if is_in_event_loop() and not _is_unsafe_allowed():
        way_out = f"use {instead}, or " if instead else ""
        raise InEventLoop(
            f"{call} cannot be used in a running event loop, whose coroutines share one database connection and so one "
            f"current tenant; {way_out}put the call into a synchronous function and await it through "
            "asgiref.sync.sync_to_async."
        )


def _is_unsafe_allowed() -> bool:
    return bool(os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"))


def schema_of_coroutine() -> str | None:
    """Return the schema of the task whose coroutine calls this; None outside of a task and in synchronous code.

    That is the schema of the innermost block of `in_schema` or `in_public` in which the coroutine is, or in which it
    was started, or else the schema of the package. A bare `connection.set_tenant()` has no effect on it.

    With `DJANGO_ALLOW_ASYNC_UNSAFE`, a coroutine outside of a task has the schema of its block `async with in_schema`.
    """
    address = _address_of_coroutine()
    return None if address is None else address[0]


def key_of_coroutine(schema: str) -> str | None:
    """Return the key of the tenant with this schema, if the coroutine that calls this is that tenant's; else None."""
    address = _address_of_coroutine()
    return address[1] if address is not None and address[0] == schema else None


def _address_of_coroutine() -> tuple[str, str | None] | None:
    if not is_in_event_loop():
        return None
    package, entered = running.get(), _entered.get()
    if package is not None:
        return (package.schema, package.tenant) if entered is None else (entered.schema, entered.key)
    is_entered = entered is not None and entered.is_async and _is_unsafe_allowed()
    return (entered.schema, entered.key) if entered is not None and is_entered else None


def coroutine_address(call: str, schema: str | None) -> tuple[str, str | None] | None:
    """Return the schema for which a coroutine calls, and the key of its tenant where that is known.

    Args:
        call: The name of the call, for the error's text.
        schema: The tenant's schema if the call names one.

    Returns:
        The schema and the key; None if the tenant of the connection is to be used, with `DJANGO_ALLOW_ASYNC_UNSAFE`.

    Raises:
        InEventLoop: The coroutine has entered no schema, belongs to no task, and the call names none.
    """
    entered, package = _entered.get(), running.get()
    own: tuple[str, str | None] | None = None
    if entered is not None and (entered.is_async or package is not None):
        own = entered.schema, entered.key
    elif package is not None:
        own = package.schema, package.tenant
    if schema is not None and (own is None or own[0] != schema):
        return schema, None
    if own is None and not _is_unsafe_allowed():
        raise InEventLoop(
            f"{call} has no tenant: the coroutine has entered none, and the connection's tenant may be that of another "
            "coroutine; use 'async with in_schema(...)' around it, or pass schema_name='<schema>', in a view "
            "request.tenant.schema_name."
        )
    return own


def schema_of_async_block() -> str | None:
    """Return the schema of the block `async with in_schema` whose coroutine called this synchronous code.

    It is None if there is no such block, or if the code has entered another schema with a synchronous one.
    """
    entered = _entered.get()
    return entered.schema if entered is not None and entered.is_async and not is_in_event_loop() else None


@contextmanager
def noted_for_coroutines(schema: str, key: str) -> Iterator[None]:
    """Note the schema of a block and the key of its tenant, for the coroutines that the block starts."""
    before = _entered.get()
    _entered.set(Entered(schema, key, False, before))
    try:
        yield
    finally:
        _entered.set(before)  # no reset by a token: a fixture's end may run in another context than its start


def enter_coroutine(schema: str, key: str) -> Entered:
    """Enter a schema in the coroutine that calls this, and in those that it starts. Return the block."""
    block = Entered(schema, key, True, _entered.get())
    _entered.set(block)
    return block


def leave_coroutine(block: Entered) -> None:
    """Leave a block in the coroutine that has entered it.

    Args:
        block: The block, as `enter_coroutine` returned it.

    Raises:
        InEventLoop: The block is not the innermost one: it was entered in another coroutine, or is left out of order.
    """
    if _entered.get() is not block:
        raise InEventLoop(
            f"A block 'async with in_schema({block.schema!r})' was left in another coroutine than it was entered in, "
            "or out of order; enter and leave it in one coroutine, and do not yield in it."
        )
    _entered.set(block.outer)
