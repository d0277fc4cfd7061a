"""Run finished tasks again, from their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from django_q.models import Task

from tenant_q import audit, tenancy
from tenant_q.exceptions import EnqueueError
from tenant_q.lifecycle import failure_entries, iters, push, submit, task_rows
from tenant_q.lifecycle.step_engine import STEP_FUNCTIONS
from tenant_q.lifecycle.task_rows import Stored
from tenant_q.package.build import build_call
from tenant_q.package.functions import is_path
from tenant_q.package.package import ADMIN, Package

RUN_AGAIN = "run task again"
"""The act in the audit record."""


def may_be_parts(args: Any) -> TypeGuard[tuple[tuple[Any, ...], ...]]:
    """Return whether a task to run again may be an iter: whether its arguments are tuples, one for each part."""
    return isinstance(args, tuple) and bool(args) and all(isinstance(one, tuple) for one in args)


def signed(task: Any, name: str, *, schema: str | None = None, tenant: str | None = None) -> Stored:
    """Return the value of a column of a task to run again.

    Args:
        task: A row of `task_rows.as_texts`.
        name: The column: "args", "kwargs" or "result".
        schema: The schema of the row; None for the current one.
        tenant: The key of its tenant; None for the one that has the schema now.

    Raises:
        EnqueueError: The column is not signed, or its value cannot be read.
    """
    stored = task_rows.read(task, name, schema=schema, tenant=tenant, must_be_signed=True)
    what = "result" if name == "result" else "arguments"
    if not stored.is_signed:
        raise EnqueueError(f"its {what} are not signed by a cluster of this site; enqueue the task from code.")
    if stored.error:
        raise EnqueueError(f"its {what} cannot be read ({stored.error}); deploy the code that this names.")
    return stored


def run_again(task: Task, args: Any, kwargs: Any, result: Any, *, actor: str) -> str:
    """Run a finished task again: enqueue its call as a new task, with the options that its row keeps.

    It leaves an audit record, and a failure leaves the open ones in the index of failures. The row keeps name, hook,
    group and cluster, and the function's declaration holds. Other options, such as a timeout of the call or the next
    links of a chain, are not repeated. A failed iter is run again as an iter, with all of its parts.

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
    packages = packages_of(task, args, kwargs, result)
    id = submit.submit_parts(packages) if packages[0].is_iter_part else submit.submit_package(packages[0])
    schema = tenancy.current_schema()
    if not task.success:
        failure_entries.note_again({(tenancy.physical_schema(schema), task.id): id})
    after = {"name": task.name, "func": task.func, "task_id": id}
    audit.record(actor, RUN_AGAIN, schema=schema, target=task.id, after=after)
    return id


def packages_of(
    task: Task, args: Any, kwargs: Any, result: Any, *, schema: str | None = None, id: str | None = None
) -> list[Package]:
    """Return the packages that run a finished task again: one, or those of an iter's parts.

    Args:
        task: The row of the task.
        args: The positional arguments that the row holds, unpickled.
        kwargs: The keyword arguments that the row holds, unpickled.
        result: The result that the row holds, unpickled; it is only used if `may_be_parts(args)`.
        schema: The schema of its tenant; None for the current one.
        id: A deterministic id of the new task; None for a new one.

    Raises:
        EnqueueError: The row does not hold what is needed, or does not show whether it is the success of an iter or of
            one call.
    """
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
    schema = tenancy.task_schema() if schema is None else schema
    if may_be_parts(args) and isinstance(result, list) and len(result) == len(args):
        if task.success:  # the result of a failed call is a text
            raise EnqueueError(
                f"{task.name} cannot be run again: its row may belong to an iter of {len(args)} parts or to one call "
                "with as many tuples; enqueue it from code."
            )
        return iters.iter_parts(task.func, args, {**(kwargs or {}), "q_options": kept}, schema, ADMIN, id=id)
    return [build_call(task.func, tuple(args or ()), kwargs or {}, kept, schema=schema, id=id, origin=ADMIN)]


def enqueue_again(packages: Sequence[Package]) -> dict[str, str]:
    """Enqueue packages of one tenant that run its tasks again, whose ids are deterministic, at once and only once.

    Args:
        packages: The packages.

    Returns:
        The ids of packages that are not enqueued, because another one has their unique key, each with the id of that.

    Raises:
        QueueFull: There is no room for all of them. None is enqueued.
        EnqueueError: A package does not pickle.
        BrokerError: The broker cannot be reached.
    """
    if push.has_own_receivers():
        with tenancy.in_schema(packages[0].schema):
            push.announce(packages)
    return dict(push.push(packages, once=True, limited=True))
