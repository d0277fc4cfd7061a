"""Execute a package: find its function, call it within its timeout, and return the outcome.

This module knows no queue and no process. Whatever a task does, `execute()` returns an outcome.
"""

from __future__ import annotations

import importlib
import inspect
import pydoc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from typing import Any, cast

from django.utils import timezone
from django_q.conf import error_reporter
from django_q.signals import post_execute_in_worker, pre_execute

from tenant_q import tenancy
from tenant_q.exceptions import (
    CancelException,
    DatabaseAway,
    LeaseLost,
    LoginAway,
    LoginRefused,
    SessionLimit,
    StepGone,
    TakenBack,
    TaskCancelled,
    TenantUnavailable,
    UnknownFunction,
)
from tenant_q.lifecycle import outcome_log, save_results, step_engine, transactional
from tenant_q.lifecycle.coroutines import run_coroutine
from tenant_q.lifecycle.failure_text import write_failure
from tenant_q.lifecycle.result_checks import check_result
from tenant_q.lifecycle.time_limits import alarm, timeout_of
from tenant_q.package import declarations, task_objects
from tenant_q.package.misplaced import add_right_form
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package
from tenant_q.package.running import RunningAttempt, running, running_attempt
from tenant_q.scrubbing import process_state
from tenant_q.support import sentry
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger
from tenant_q.support.tracing import traced

logger = get_logger("tenant_q.executor")


def execute(
    package: Package,
    *,
    attempt: int = 1,
    during: AbstractContextManager[None] | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Outcome:
    """Execute a package in the current schema.

    Args:
        package: The package to execute.
        attempt: The number of this start, counted from 1.
        during: A context manager that is entered around the call of the function.
        before_commit: Called before a transactional task is committed. It may raise `LeaseLost` or `TakenBack`.

    Returns:
        The outcome. The result of a failure is its text and traceback, as in Django-Q2.

    Raises:
        TakenBack: A transactional task was rolled back, and is to be run again.
        LeaseLost: A transactional task was rolled back, and another worker may have its package.
        StepGone: A transactional step was rolled back, because it is not ready any more.
    """
    started, clock = timezone.now(), time.monotonic() - tenancy.seconds_of_opening()

    def outcome(result: Any, **fields: Any) -> Outcome:
        ended = Outcome(
            package=declarations.complete(package),
            result=result,
            started=started,
            stopped=timezone.now(),
            seconds=time.monotonic() - tenancy.seconds_of_opening() - clock,
            attempt=attempt,
            **fields,
        )
        return task_objects.recorded(ended)

    with sentry.task_scope(package.log_labels):
        try:
            # A context of its own: language, time zone and all context variables that the task sets end with it.
            done = copy_context().run(_run, package, attempt, outcome, during or nullcontext(), before_commit)
        except (TakenBack, LeaseLost, StepGone):
            raise
        except BaseException as error:
            if (refusal := refusal_among(error)) is not None:
                raise TakenBack(f"{package.func_name} got no session: {refusal}", refusal) from error
            add_right_form(error, package.kwargs)
            text, cause = write_failure(error)
            is_cancelled = isinstance(error, CancelException)
            failed = outcome(text, success=False, death=type(cause).__name__, error=error, is_final=is_cancelled)
            return _reported(failed, package, cause)
        outcome_log.log_success(done)
    return done


def refusal_among(error: BaseException | None) -> TenantUnavailable | DatabaseAway | None:
    """Return the error among the causes of another by which the tenant's role got no session; None if it got one."""
    while error is not None:
        if isinstance(error, LoginRefused | SessionLimit | LoginAway):
            return error
        error = error.__cause__ or error.__context__
    return None


@traced
def _run(
    package: Package,
    attempt: int,
    outcome: Callable[..., Outcome],
    during: AbstractContextManager[None],
    before_commit: Callable[[], None] | None,
) -> Outcome:
    with no_return():
        steps = step_engine.engine_for(package)
        func = resolve(package.func) if steps is None else steps.runner(package)
        process_state.after_import()
    package = declarations.complete(package)
    if package.is_transactional:
        return _call_in_transaction(func, package, attempt, outcome, during, before_commit)
    return _call(func, package, attempt, outcome, during)


def _call_in_transaction(
    func: Callable[..., Any],
    package: Package,
    attempt: int,
    outcome: Callable[..., Outcome],
    during: AbstractContextManager[None],
    before_commit: Callable[[], None] | None,
) -> Outcome:
    """Execute a transactional task: commit its work with its row, and run nothing if it has succeeded before."""
    own: list[BaseException] = []
    try:
        with no_return(), transactional.one_transaction(package) as before:
            if before is not None:
                done = replace(outcome(before.result, success=True), started=before.started, stopped=before.stopped)
            else:
                with _noted(own):
                    done = _call(func, package, attempt, outcome, during)
                _save_in_transaction(done)
                if before_commit is not None:
                    before_commit()
    except (TenantUnavailable, DatabaseAway) as error:
        if error in own:  # the task itself called for another tenant, for example
            raise
        raise TakenBack(f"{package.func_name} is taken back: {error}", error) from error
    return replace(done, is_saved=True)


def _save_in_transaction(done: Outcome) -> None:
    steps = step_engine.engine_for(done.package)
    if steps is None:
        save_results.save_in_transaction(done)
    else:
        steps.end_in_transaction(done)


@contextmanager
def _noted(raised: list[BaseException]) -> Iterator[None]:
    """Add the exception that the executed task raises in the block to a list."""
    try:
        yield
    except BaseException as error:
        raised.append(error)
        raise


def _call(
    func: Callable[..., Any],
    package: Package,
    attempt: int,
    outcome: Callable[..., Outcome],
    during: AbstractContextManager[None],
) -> Outcome:
    with no_return() as project:
        pre_execute.send(sender="django_q", func=func, task=package.task)
        running.set(package)
        running_attempt.set(RunningAttempt(package, attempt, time.time()))
        own = tenancy.restricted_to_served(package.schema)
        with own, tenancy.unlimited_waits(), alarm(timeout_of(package)), during:
            result = func(*package.args, **package.kwargs)
            project.returned()
            if inspect.isawaitable(result):
                result = run_coroutine(result)
        if step_engine.engine_for(package) is None:  # the output of a step is checked as JSON
            check_result(result, package)
        _send_executed(func, package, result, success=True)
    return outcome(result, success=True)


def resolve(func: object) -> Callable[..., Any]:
    """Return the function that executing a package calls.

    Args:
        func: The function itself, its dotted path, or the name of a declared task.

    Returns:
        The function.

    Raises:
        UnknownFunction: The path does not lead to a callable.
    """
    if callable(func):
        return func
    path = str(func)
    declaration = declarations.find_loaded(path)
    if declaration is not None:
        return task_objects.runner_at(declaration.path) or declaration.callable
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ModuleNotFoundError:
        found = None
    found = found or pydoc.locate(path)
    if not callable(found) and (runner := task_objects.runner_of(found)) is not None:
        return runner
    if not callable(found) and (declaration := declarations.find(path)):  # a name that is no path
        return task_objects.runner_at(declaration.path) or declaration.callable
    if not callable(found):
        raise UnknownFunction(f"Function {path} is not defined; check the path, and that this code is deployed here.")
    return cast(Callable[..., Any], found)


def _reported(failed: Outcome, package: Package, cause: BaseException) -> Outcome:
    """Report an execution that failed to the log, to Django-Q2's error reporter and to its signal's receivers.

    Returns:
        The outcome, which knows whether it was logged.
    """
    try:
        failed = replace(failed, is_logged=outcome_log.log_last_attempt(failed, cause))
        if error_reporter and not isinstance(cause, TaskCancelled):
            error_reporter.report()
        _send_executed(None, package, failed.result, success=False)
    except BaseException:  # an error of a reporter or a receiver must not end the worker
        logger.exception(
            "Could not report the failure of %s", package.name, event="task.report_failed", extra=package.log_labels
        )
    return failed


def _send_executed(func: Callable[..., Any] | None, package: Package, result: Any, *, success: bool) -> None:
    if not post_execute_in_worker.receivers:
        return
    task = package.task | {"result": result, "success": success, "stopped": timezone.now()}
    post_execute_in_worker.send(sender="django_q", func=func, task=task)
