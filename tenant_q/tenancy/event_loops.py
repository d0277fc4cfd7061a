"""Find the tenant that is current in a coroutine.

Django keeps a connection for each thread, and all coroutines of a thread share it. While one of them awaits, another
may switch the connection to its own tenant. So tenant_q reads no tenant from a connection in a running event loop. A
coroutine of a task is the exception: its package names the tenant.
"""

from __future__ import annotations

import asyncio.events
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tenant_q.exceptions import InEventLoop
from tenant_q.package.running import running

# The schema of the innermost block of `in_schema` or `in_public`, and the key of its tenant.
_entered: ContextVar[tuple[str, str] | None] = ContextVar("tenant_q_entered", default=None)


def is_in_event_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    return asyncio.events._get_running_loop() is not None


def refuse_in_event_loop(call: str) -> None:
    """Refuse a call in a running event loop, unless `DJANGO_ALLOW_ASYNC_UNSAFE` is set.

    Args:
        call: The name of the call, for the error's text.

    Raises:
        InEventLoop: An event loop runs in this thread.
    """
    if is_in_event_loop() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        raise InEventLoop(
            f"{call} cannot be used in a running event loop, whose coroutines share one database connection and so one "
            "current tenant; put the call into a synchronous function and await it through asgiref.sync.sync_to_async."
        )


def schema_of_coroutine() -> str | None:
    """Return the schema of the task whose coroutine calls this; None outside of a task and in synchronous code.

    That is the schema of the innermost block of `in_schema` or `in_public` in which the coroutine was started, or else
    the schema of the package. A bare `connection.set_tenant()` has no effect on it.
    """
    package = running.get() if is_in_event_loop() else None
    if package is None:
        return None
    entered = _entered.get()
    return package.schema if entered is None else entered[0]


def key_of_coroutine(schema: str) -> str | None:
    """Return the key of the tenant with this schema, if the coroutine that calls this is that tenant's; else None."""
    package = running.get() if is_in_event_loop() else None
    if package is None:
        return None
    name, key = _entered.get() or (package.schema, package.tenant)
    return key if name == schema else None


@contextmanager
def noted_for_coroutines(schema: str, key: str) -> Iterator[None]:
    """Note the schema of a block and the key of its tenant, for the coroutines that the block starts."""
    before = _entered.get()
    _entered.set((schema, key))
    try:
        yield
    finally:
        _entered.set(before)  # no reset by a token: a fixture's end may run in another context than its start
