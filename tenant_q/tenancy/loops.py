"""Coroutines, and the tenant that is current for them.

Django keeps a connection for each thread, and all coroutines of a thread share it. While one of them awaits, another
may set it to its own tenant. So nothing here asks a connection for its tenant in a running event loop. A coroutine of a
task is the exception: its package names the tenant.
"""

from __future__ import annotations

import asyncio.events
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tenant_q.exceptions import InEventLoop
from tenant_q.package.running import running

# The schema, and its tenant's key, of the innermost block of `in_schema` or `in_public`.
_entered: ContextVar[tuple[str, str] | None] = ContextVar("tenant_q_entered", default=None)


def is_in_event_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    return asyncio.events._get_running_loop() is not None


def refuse_in_event_loop(call: str) -> None:
    """Raise `InEventLoop` when an event loop runs in this thread, unless `DJANGO_ALLOW_ASYNC_UNSAFE` is set.

    Parameters: `call`, what is refused, for the error's text.
    """
    if is_in_event_loop() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        raise InEventLoop(
            f"{call} cannot be used in a running event loop, whose coroutines share one database connection and so one "
            "current tenant; put the call into a synchronous function and await it through asgiref.sync.sync_to_async."
        )


def schema_of_coroutine() -> str | None:
    """Return the schema of the task whose coroutine calls this; None outside of a task and in synchronous code.

    That is the schema of the innermost block of `in_schema` or `in_public` from which the coroutine was started, and
    otherwise the package's. A bare `connection.set_tenant()` is not seen.
    """
    package = running.get() if is_in_event_loop() else None
    if package is None:
        return None
    entered = _entered.get()
    return package.schema if entered is None else entered[0]


def key_of_coroutine(schema: str) -> str | None:
    """Return the key of the tenant with this schema, if a coroutine of a task knows it; see `schema_of_coroutine`."""
    package = running.get() if is_in_event_loop() else None
    if package is None:
        return None
    name, key = _entered.get() or (package.schema, package.tenant)
    return key if name == schema else None


@contextmanager
def noted(schema: str, key: str) -> Iterator[None]:
    """Note that the block runs in a schema, and its tenant's key, for the coroutines that it starts."""
    before = _entered.get()
    _entered.set((schema, key))
    try:
        yield
    finally:
        _entered.set(before)  # no reset by a token: a fixture's end may run in another context than its start
