"""Call the hook of a task and the receivers of `post_execute` after its result is saved, at least once.

The hook of a chain is called in the same way, with the link that ended the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from django_q.models import Task
from django_q.signals import post_execute

from tenant_q import tenancy
from tenant_q.lifecycle import outcome_rows
from tenant_q.lifecycle.execute import refusal_among, resolve
from tenant_q.lifecycle.time_limits import alarm, timeout_of
from tenant_q.package import task_objects
from tenant_q.package.outcome import Outcome
from tenant_q.package.running import running, running_attempt
from tenant_q.scrubbing import process_state
from tenant_q.support import sentry
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.flows")


@dataclass(frozen=True, slots=True)
class HookCall:
    """What is to be called for a saved outcome.

    Attributes:
        outcome: The outcome.
        hook: The hook, or its path; None for none.
        announces: Whether the receivers of `post_execute` are called before it.
    """

    outcome: Outcome
    hook: Any
    announces: bool = True


def calls_of(outcome: Outcome) -> list[HookCall]:
    """Return what is to be called for an outcome: its hook with the receivers, and its chain's hook at the end."""
    hook = outcome.package.option("hook")
    is_announced = bool(post_execute.receivers) or task_objects.has_record(outcome.package)
    own = [HookCall(outcome, hook)] if hook or is_announced else []
    return own + calls_of_chain(outcome)


def calls_of_chain(outcome: Outcome) -> list[HookCall]:
    """Return the call of the hook of a chain, if the chain has one, and the outcome of this link ends it."""
    hook = outcome.package.option("chain_hook")
    has_ended = not outcome.success or not outcome.package.option("chain")
    return [HookCall(outcome, hook, announces=False)] if hook and has_ended else []


def call(one: HookCall) -> None:
    """Call the hook of a task, and the receivers of `post_execute`. The tenant's schema must be current.

    Their errors are logged, and change nothing. They have the timeout of the task.

    Args:
        one: What is to be called.

    Raises:
        TenantUnavailable: The tenant's role got no session, so that they are to be called again.
        DatabaseAway: So it is, because the database cannot be reached.
    """
    package = one.outcome.package
    with sentry.task_scope(package.log_labels):
        try:
            with no_return():
                copy_context().run(_call, one)
        except BaseException as error:  # including SystemExit: a hook must not end the worker
            if (refusal := refusal_among(error)) is not None:
                raise refusal from error
            logger.exception("The hook of %s failed", package.name, event="hook.failed", extra=package.log_labels)


def _call(one: HookCall) -> None:
    package = one.outcome.package
    running.set(package)
    running_attempt.set(None)  # in sync mode, a task may have enqueued this one
    with tenancy.restricted_to_served(package.schema), tenancy.unlimited_waits(), alarm(timeout_of(package)):
        try:
            if one.announces:
                post_execute.send(sender="django_q", task=one.outcome.task_dict())
            if one.hook:
                hook = resolve_hook(one.hook)
                process_state.after_import()
                hook(_hook_task(one.outcome))
        finally:  # neither keeps the other from being called
            if one.announces:
                task_objects.finish(one.outcome)


def _hook_task(outcome: Outcome) -> Task:
    task = outcome_rows.as_task(outcome)
    task._state.adding = not outcome_rows.wants_row(outcome)
    return task


def resolve_hook(hook: Any) -> Callable[[Task], Any]:
    """Return the hook itself, or the function at its dotted path. Raises `UnknownFunction` and import errors."""
    return resolve(hook)
