"""Run the coroutine of an async task to its end, in a worker without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import AsyncToSync, async_to_sync

from tenant_q.support.forks import no_return

# How long to wait for the end of an async task that was interrupted; its worker is killed earlier.
ASYNC_END_SECONDS = 10.0


def run_coroutine(awaitable: Awaitable[Any]) -> Any:
    """Run a coroutine, or another awaitable that a task returned, to its end. Return its result.

    The event loop runs in a thread of its own. What the awaitable calls by `sync_to_async` runs in this thread, in the
    tenant's schema. A timeout or a cancel raises in this thread, and then cancels the awaitable. If that ignores it,
    the worker stays busy, and its sentinel kills it.
    """
    ended = threading.Event()
    running_at: list[tuple[asyncio.AbstractEventLoop, Any]] = []

    async def run() -> Any:
        running_at.append((asyncio.get_running_loop(), asyncio.current_task()))
        _end_forks_of(getattr(AsyncToSync.executors, "current", None))
        try:
            with no_return():
                return await awaitable
        finally:
            ended.set()

    try:
        return async_to_sync(run)()
    except BaseException:
        for loop, task in running_at:
            if not ended.is_set():
                loop.call_soon_threadsafe(task.cancel)
                ended.wait(ASYNC_END_SECONDS)
        raise


def _end_forks_of(executor: Any) -> None:
    """End each process that a coroutine forks in a function that the executor runs: it has no event loop."""
    submit = getattr(executor, "submit", None)
    if submit is None:
        return

    def guarded(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            with no_return():
                return function(*args, **kwargs)

        return submit(call)

    executor.submit = guarded
