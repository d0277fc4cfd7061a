"""Call the hook of a task and the receivers of `post_execute` after its result is saved, at least once."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from django_q.models import Task
from django_q.signals import post_execute

from tenant_q import tenancy
from tenant_q.lifecycle import outcome_rows
from tenant_q.lifecycle.execute import resolve
from tenant_q.lifecycle.time_limits import alarm, timeout_of
from tenant_q.package.outcome import Outcome
from tenant_q.package.running import running, running_attempt
from tenant_q.scrubbing import process_state
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.flows")


def has_hook(outcome: Outcome) -> bool:
    """Return whether there is a hook, or a receiver of `post_execute`, to call for an outcome."""
    return bool(outcome.package.option("hook") or post_execute.receivers)


def call(outcome: Outcome) -> None:
    """Call the hook of a task and the receivers of `post_execute`. The tenant's schema must be current.

    Their errors are logged, and change nothing. They have the timeout of the task.

    Args:
        outcome: The saved outcome.
    """
    package = outcome.package
    try:
        with no_return():
            copy_context().run(_call, outcome)
    except BaseException:  # including SystemExit: a hook must not end the worker
        logger.exception("The hook of %s failed", package.name, event="hook.failed", extra=package.log_labels)


def _call(outcome: Outcome) -> None:
    package = outcome.package
    running.set(package)
    running_attempt.set(None)  # in sync mode, a task may have enqueued this one
    with tenancy.unlimited_waits(), alarm(timeout_of(package)):
        post_execute.send(sender="django_q", task=outcome.task_dict())
        if package.option("hook"):
            hook = resolve_hook(package.option("hook"))
            process_state.after_import()
            hook(_hook_task(outcome))


def _hook_task(outcome: Outcome) -> Task:
    task = outcome_rows.as_task(outcome)
    task._state.adding = not outcome_rows.wants_row(outcome)
    return task


def resolve_hook(hook: Any) -> Callable[[Task], Any]:
    """Return the hook itself, or the function at its dotted path. Raises `UnknownFunction` and import errors."""
    return resolve(hook)
