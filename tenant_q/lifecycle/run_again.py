"""Run a finished task again, from its row."""

from __future__ import annotations

from typing import Any, TypeGuard

from django_q.models import Task

from tenant_q import audit, tenancy
from tenant_q.exceptions import EnqueueError
from tenant_q.lifecycle import submit
from tenant_q.lifecycle.step_engine import STEP_FUNCTIONS
from tenant_q.package.build import build_call
from tenant_q.package.functions import is_path
from tenant_q.package.package import ADMIN

RUN_AGAIN = "run task again"
"""The act in the audit record."""


def may_be_parts(args: Any) -> TypeGuard[tuple[tuple[Any, ...], ...]]:
    """Return whether a task to run again may be an iter: whether its arguments are tuples, one for each part."""
    return isinstance(args, tuple) and bool(args) and all(isinstance(one, tuple) for one in args)


def run_again(task: Task, args: Any, kwargs: Any, result: Any, *, actor: str) -> str:
    """Run a finished task again: enqueue its call as a new task, with the options that its row keeps.

    It leaves an audit record. The row keeps name, hook, group and cluster, and the function's declaration holds. Other
    options, such as a timeout of the call or the next links of a chain, are not repeated. A failed iter is run again as
    an iter, with all of its parts.

    Args:
        task: The row of the task.
        args: The positional arguments that the row holds, unpickled.
        kwargs: The keyword arguments that the row holds, unpickled.
        result: The result that the row holds, unpickled; it is only used if `may_be_parts(args)`.
        actor: Who runs it again, for the audit trail.

    Returns:
        The id of the new task.

    Raises:
        EnqueueError: The row does not hold what is needed, or does not show whether it is the success of an iter or of
            one call.
        QueueFull: The tenant's queue is full.
        BrokerError: The broker cannot be reached.
    """
    id = _submit(task, args, kwargs, result)
    after = {"name": task.name, "func": task.func, "task_id": id}
    audit.record(actor, RUN_AGAIN, schema=tenancy.current_schema(), target=task.id, after=after)
    return id


def _submit(task: Task, args: Any, kwargs: Any, result: Any) -> str:
    if str(task.func).startswith(f"{STEP_FUNCTIONS}."):
        raise EnqueueError(f"{task.name} is a step of a workflow; resume its run, {task.group}, instead.")
    for path in (task.func, task.hook):
        if path and not is_path(path):
            raise EnqueueError(
                f"{task.name} cannot be run again: {path!r} is not the path of a function but a partial, a method or "
                "an object, and its row does not hold its data; enqueue it from code."
            )
    if not isinstance(args, tuple | list | None) or not isinstance(kwargs, dict | None):
        raise EnqueueError(
            f"{task.name} cannot be run again: its row does not hold the arguments of its call; enqueue it from code."
        )
    options = {"hook": task.hook, "group": task.group, "cluster": task.cluster, "task_name": task.name}
    kept = {name: value for name, value in options.items() if value}
    if may_be_parts(args) and isinstance(result, list) and len(result) == len(args):
        if task.success:  # the result of a failed call is a text
            raise EnqueueError(
                f"{task.name} cannot be run again: its row may belong to an iter of {len(args)} parts or to one call "
                "with as many tuples; enqueue it from code."
            )
        return submit.submit_iter(task.func, args, {**(kwargs or {}), "q_options": kept}, origin=ADMIN)
    schema = tenancy.task_schema()
    return submit.submit_package(
        build_call(task.func, tuple(args or ()), kwargs or {}, kept, schema=schema, origin=ADMIN)
    )
