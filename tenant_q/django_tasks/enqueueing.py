"""Enqueue the tasks of `django.tasks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.utils import timezone

from tenant_q import tenancy
from tenant_q.django_tasks import records
from tenant_q.django_tasks.api import (
    DEFAULT_TASK_PRIORITY,
    DEFAULT_TASK_QUEUE_NAME,
    BaseTaskBackend,
    Task,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
)
from tenant_q.lifecycle import aliases, submit
from tenant_q.package import declarations, task_objects
from tenant_q.package.build import build_call
from tenant_q.package.package import Package

P = ParamSpec("P")
R = TypeVar("R")


def enqueue(backend: BaseTaskBackend, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
    """Enqueue a task for the current tenant. Returns and raises as `TenantTaskBackend.enqueue`."""
    return _enqueue(backend, task, args, kwargs, *tenancy.task_address())


def enqueue_for(
    backend: BaseTaskBackend, task: Task[P, R], args: Any, kwargs: Any, schema: str, tenant: str | None
) -> TaskResult[P, R]:
    """Enqueue a task for the tenant with this schema, whose key may be known. Returns and raises as `enqueue`."""
    schema, own = tenancy.task_address(schema)
    return _enqueue(backend, task, args, kwargs, schema, own if tenant is None else tenant)


def _enqueue(
    backend: BaseTaskBackend, task: Task[P, R], args: Any, kwargs: Any, schema: str, tenant: str | None
) -> TaskResult[P, R]:
    backend.validate_task(task)
    plain_args: Any = normalize_json(list(args))
    plain_kwargs: Any = normalize_json(dict(kwargs))
    options = _options(backend, task)
    package = build_call(task.module_path, tuple(plain_args), plain_kwargs, options, schema=schema, tenant=tenant)
    package.task[task_objects.RECORD] = records.new_record(task, backend.alias, package)
    result: TaskResult[P, R] = records.result_of(package, task, TaskResultStatus.READY)
    announce = partial(task_enqueued.send, sender=type(backend), task_result=result)
    if package.option("sync"):
        return _run_here(package, result, announce)
    id = submit.submit_package(package)
    if id != package.id:
        return replace(result, id=id)
    if package.is_on_commit:
        tenancy.on_commit(partial(_announce_unless_joined, package, announce))
    else:
        announce()
    return result


def _announce_unless_joined(package: Package, announce: Callable[[], object]) -> None:
    """Announce a task that was enqueued by a commit, unless another one has its unique key."""
    if package.option("unique") is None or aliases.real_id(package.schema, package.id) is None:
        announce()


def _options(backend: BaseTaskBackend, task: Task[..., Any]) -> dict[str, Any]:
    """Return the options of a task's package: its own, and those of the backend that its function does not declare."""
    declaration = declarations.find_loaded(task.module_path)
    declared = declaration.options if declaration else {}
    options = {name: value for name, value in backend.options.items() if name not in declared}
    options |= {"save": True, "cached": False}  # the row is what `get_result` reads
    if task.queue_name != DEFAULT_TASK_QUEUE_NAME:
        options["cluster"] = task.queue_name
    if task.priority != DEFAULT_TASK_PRIORITY:
        options["priority"] = task.priority
    if task.run_after is not None:
        options["delay"] = max(0.0, (task.run_after - timezone.now()).total_seconds())
    return options


def _run_here(package: Package, result: TaskResult[P, R], announce: Callable[[], object]) -> TaskResult[P, R]:
    """Run a task in this process, as `Q_CLUSTER["sync"]` says. An error of the task itself is in its result."""
    announce()
    try:
        submit.submit_package(package)
    except KeyboardInterrupt:  # it is meant for this process, not for the task
        raise
    except BaseException:
        result.refresh()
        if not result.is_finished:
            raise
    else:
        if not package.is_on_commit:
            result.refresh()
    return result
