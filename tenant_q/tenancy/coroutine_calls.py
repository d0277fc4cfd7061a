"""Await synchronous code for the tenant of a coroutine.

The code runs in the thread in which asgiref runs all synchronous code of the event loop, or of the request in an ASGI
server: Django closes the connections of that thread, and in a test it sees the test's transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from asgiref.sync import sync_to_async

from tenant_q.tenancy.event_loops import coroutine_address
from tenant_q.tenancy.restriction import require_authorized
from tenant_q.tenancy.tenancy_package import current_schema

R = TypeVar("R")


async def call_for_coroutine(name: str, call: Callable[[str, str | None], R], schema: str | None) -> R:
    """Await a synchronous call for the tenant of the coroutine. The event loop is not blocked meanwhile.

    Args:
        name: The name of the call, for the error's text.
        call: The call. It gets the schema, and the key of the schema's tenant or None if that is not known.
        schema: The schema of the tenant; None for that of the coroutine.

    Returns:
        What the call returns.

    Raises:
        InEventLoop: The coroutine has no tenant, and `schema` is None.
        TenantNotAuthorized: The calling code is restricted to another tenant.
    """
    own, key = coroutine_address(name, schema) or (current_schema(), None)
    require_authorized(own)
    return await sync_to_async(call, thread_sensitive=True)(own, key)
