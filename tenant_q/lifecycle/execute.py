"""Package to outcome: find the function, arm the timeout, call it, record what came of it.

No queue and no process here. Whatever a task does, `execute()` returns an outcome.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import pickle
import pydoc
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, cast

from asgiref.sync import AsyncToSync, async_to_sync
from django.utils import timezone
from django_q.conf import error_reporter
from django_q.exceptions import TimeoutException
from django_q.signals import post_execute_in_worker, pre_execute

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import (
    CancelException,
    CoroutineCancelled,
    DatabaseAway,
    LeaseLost,
    OversizedResult,
    TakenBack,
    TaskCancelled,
    TaskDeath,
    TaskExited,
    TaskInterrupted,
    TaskOutOfMemory,
    TaskTimeout,
    TenantUnavailable,
    UnknownFunction,
    UnpicklableResult,
)
from tenant_q.lifecycle import save_results, transactional
from tenant_q.package.package import Outcome, Package, labels
from tenant_q.package.running import running
from tenant_q.scrubbing import process_state
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger
from tenant_q.support.tracing import traced
from tenant_q.support.unix_signals import DEFAULT, get_handler, set_handler

logger = get_logger("tenant_q.executor")


# So long it is waited for an async task that was interrupted; a worker is killed before.
ASYNC_END_SECONDS = 10.0
# The most characters of a failure's text in its row, and of its message in the log.
LONGEST_TEXT = 1_000_000
LONGEST_MESSAGE = 10_000


_DEATHS: dict[type[BaseException], type[TaskDeath]] = {
    KeyboardInterrupt: TaskInterrupted,
    asyncio.CancelledError: CoroutineCancelled,
    MemoryError: TaskOutOfMemory,
}


def execute(
    package: Package,
    *,
    attempt: int = 1,
    during: AbstractContextManager[None] | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Outcome:
    """Run a package in the schema that is current.

    Parameters: `attempt`, the number of this start, counted from 1; `during`, a context manager around the call itself;
    `before_commit`, called before a transactional task is committed; it may raise `LeaseLost` or `TakenBack`.

    Returns the outcome; a failure's result is its text and traceback, as in Django-Q2. Raises nothing that the task
    raised, except `TakenBack` or `LeaseLost` when a transactional task was rolled back.
    """
    started, clock = timezone.now(), time.monotonic()

    def outcome(result: Any, **fields: Any) -> Outcome:
        return Outcome(
            package=package,
            result=result,
            started=started,
            stopped=timezone.now(),
            seconds=time.monotonic() - clock,
            attempt=attempt,
            **fields,
        )

    call = partial(_call_in_transaction, before_commit=before_commit) if package.is_transactional else _call
    try:
        # In a context of its own: language, time zone and every context variable that the task sets end with it.
        return copy_context().run(call, package, outcome, during or nullcontext())
    except (TakenBack, LeaseLost):
        raise
    except BaseException as error:
        text, death = _failure(package, error)
        is_cancelled = isinstance(error, CancelException)
        return outcome(text, success=False, death=death, error=error, is_final=is_cancelled)


def give_up(package: Package, error: Exception, *, attempt: int = 1, is_final: bool = True) -> Outcome:
    """The outcome of a package that is not run: its failed row tells why.

    Parameters: `is_final`, whether it is not to be started again even if it has attempts left.
    """
    now = timezone.now()
    return Outcome(
        package=package,
        success=False,
        result=f"{type(error).__name__}: {error}",
        started=now,
        stopped=now,
        seconds=0.0,
        attempt=attempt,
        death=type(error).__name__,
        is_final=is_final,
    )


def timeout_of(package: Package) -> float | None:
    """Seconds a package may run, or None without limit (no timeout, or one below 1, as -1 in Django-Q2)."""
    timeout = package.option("timeout", conf().timeout)
    return timeout if timeout is not None and timeout > 0 else None


def _call_in_transaction(
    package: Package,
    outcome: Callable[..., Outcome],
    during: AbstractContextManager[None],
    before_commit: Callable[[], None] | None = None,
) -> Outcome:
    """The task's work and its row are committed together, once: a delivery that finds a success does not run."""
    own: list[BaseException] = []
    try:
        with no_return(), transactional.only_success(package) as before:
            if before is not None:
                done = replace(outcome(before.result, success=True), started=before.started, stopped=before.stopped)
            else:
                with _noted(own):
                    done = _call(package, outcome, during)
                save_results.save_in_transaction(done)
                if before_commit is not None:
                    before_commit()
    except (TenantUnavailable, DatabaseAway) as error:
        if error in own:  # the task asked for another tenant, say
            raise
        raise TakenBack(f"{package.func_name} is taken back: {error}", error) from error
    return replace(done, is_saved=True)


@contextmanager
def _noted(raised: list[BaseException]) -> Iterator[None]:
    """Note what the block raises."""
    try:
        yield
    except BaseException as error:
        raised.append(error)
        raise


@traced
def _call(package: Package, outcome: Callable[..., Outcome], during: AbstractContextManager[None]) -> Outcome:
    with no_return() as project:
        func = resolve(package.func)
        process_state.after_import()
        pre_execute.send(sender="django_q", func=func, task=package.task)
        running.set(package)
        with tenancy.unlimited_waits(), alarm(timeout_of(package)), during:
            result = func(*package.args, **package.kwargs)
            project.returned()
            if inspect.isawaitable(result):
                result = _wait_for(result)
        _check_pickles(result, package)
        _after_execution(func, package, result, success=True)
    return outcome(result, success=True)


def _wait_for(awaitable: Any) -> Any:
    """Run an awaitable to its end. What it calls by `sync_to_async` runs here, in the tenant's schema.

    It runs in a thread of its own, and a timeout or a cancel raises in this one. It is to end with it; one that does
    not keeps the worker busy, whose sentinel then kills it.
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
    """End a process that is forked in what an executor runs for an async task: the task's loop is not in it."""
    submit = getattr(executor, "submit", None)
    if submit is None:
        return

    def guarded(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            with no_return():
                return function(*args, **kwargs)

        return submit(call)

    executor.submit = guarded


def resolve(func: Any) -> Callable[..., Any]:
    """The function of a package: itself, or what its dotted path names. Raises `UnknownFunction`."""
    if callable(func):
        return cast(Callable[..., Any], func)
    path = str(func)
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ModuleNotFoundError:
        found = None
    found = found or pydoc.locate(path)
    if not callable(found):
        raise UnknownFunction(f"Function {path} is not defined; check the path, and that this code is deployed here.")
    return cast(Callable[..., Any], found)


@contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Raise Django-Q2's `TimeoutException` in the block after `seconds`. A signal interrupts only the main thread.

    No timer and no handler that the block sets for itself is there after it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: Any) -> None:
        raise TimeoutException(f"Task exceeded maximum timeout value ({seconds:g} seconds)")

    # In sync mode a task runs another one here; its own alarm goes on afterwards, and rings in time.
    outer, begun = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    before = get_handler(signal.SIGALRM)
    try:
        if seconds is not None:
            set_handler(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, min(seconds, outer or seconds))
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            if get_handler(signal.SIGALRM) is not before:
                set_handler(signal.SIGALRM, DEFAULT if before is None else before)
            if outer:
                signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - begun), 1e-6))


class _Pickler(pickle.Pickler):
    """A pickler that notes whether a value contains more than plain values: a class, a function or an instance."""

    is_plain = True

    def reducer_override(self, value: Any) -> Any:
        self.is_plain = False
        return NotImplemented


def _check_pickles(result: Any, package: Package) -> None:
    """Raise if a result cannot be pickled, if its pickle does not load, or if it is too large.

    The pickle of plain values is not loaded: it cannot fail, and would double the cost.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    what = f"{package.func_name} returned a {type(result).__name__}"
    try:
        pickler.dump(result)
    except Exception as error:
        raise UnpicklableResult(f"{what} that cannot be pickled ({error}); return plain values.") from error
    size, limit = buffer.tell(), conf().max_bytes
    if size > limit:
        raise OversizedResult(
            f"{what} of {size} bytes, pickled, and TENANT_Q['max_bytes'] is {limit}; store it elsewhere."
        )
    if pickler.is_plain:
        return
    try:
        pickle.loads(buffer.getbuffer())
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise UnpicklableResult(f"{what} whose pickle does not load ({cause}); return plain values.") from error


def _failure(package: Package, error: BaseException) -> tuple[str, str]:
    """The text of a failed row and the class name of the cause."""
    try:
        death = _cause(error)
        text = f"{_message(death)} : {''.join(traceback.format_exception(error))}"
    except BaseException:  # an error that breaks whatever looks at it
        death = error
        where = "".join(traceback.format_tb(BaseException.__getattribute__(error, "__traceback__")))
        text = f"{_message(error)} : Traceback (most recent call last):\n{where}{type(error).__name__}"
    if type(death) is not type(error):
        text = f"{type(death).__name__}: {text}"
    text = _shortened(text)
    logger.info("%s failed: %s", package.name, _message(death)[:LONGEST_MESSAGE], extra=labels(package))
    try:
        if error_reporter and not isinstance(death, TaskCancelled):
            error_reporter.report()
        _after_execution(None, package, text, success=False)
    except BaseException:  # what a reporter or a receiver does is not to end the worker
        logger.exception("Reporting the failure of %s failed", package.name, extra=labels(package))
    return text, type(death).__name__


def _shortened(text: str) -> str:
    """Return the text of a failure, without its middle if it is long: an exception's text may contain any value."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters are left out ...\n{text[-half:]}"


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, TaskDeath):
        return error
    if isinstance(error, TimeoutException):
        return TaskTimeout(str(error))
    if isinstance(error, CancelException):
        return TaskCancelled(str(error))
    if isinstance(error, SystemExit):
        return TaskExited(f"the task called sys.exit({error.code!r})")
    for raised, death in _DEATHS.items():
        if isinstance(error, raised):
            return death(f"the task raised {type(error).__name__}")
    return error


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return f"<{type(error).__name__} whose text cannot be shown>"


def _after_execution(func: Any, package: Package, result: Any, *, success: bool) -> None:
    if not post_execute_in_worker.receivers:
        return
    task = package.task | {"result": result, "success": success, "stopped": timezone.now()}
    post_execute_in_worker.send(sender="django_q", func=func, task=task)
