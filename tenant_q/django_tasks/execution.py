"""Run the tasks of `django.tasks` in a worker, and send their signals there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from django.utils import timezone

from tenant_q.django_tasks import records
from tenant_q.django_tasks.api import (
    Task,
    TaskContext,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from tenant_q.package import declarations
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package
from tenant_q.package.running import running_attempt
from tenant_q.package.task_objects import RECORD


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a Django task as the function of a package."""

    task: Task[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        now = running_attempt.get()
        result = records.result_of(
            _with_record(now.package if now else None, self.task, args, kwargs),
            self.task,
            TaskResultStatus.RUNNING,
            attempt=now.number if now else 1,
            started=timezone.now(),
        )
        task_started.send_robust(sender=type(self.task.get_backend()), task_result=result)
        if self.task.takes_context:
            args = (TaskContext(task_result=result), *args)
        # A coroutine is run by the worker, which can interrupt it.
        is_async = iscoroutinefunction(self.task.func)
        value = self.task.func(*args, **kwargs) if is_async else self.task.call(*args, **kwargs)
        return _awaited(value) if isawaitable(value) else normalize_json(value)


async def _awaited(value: Awaitable[Any]) -> Any:
    return normalize_json(await value)


def _with_record(package: Package | None, task: Task[..., Any], args: Any, kwargs: Any) -> Package:
    """Return the package that runs, with a new record if it was enqueued without one."""
    own = package.task if package is not None else {"id": "", "args": args, "kwargs": kwargs}
    return Package(own if RECORD in own else own | {RECORD: records.new_record(task, task.backend, Package(own))})


class DjangoTasks:
    """The implementation of task objects for `django.tasks`."""

    def runner(self, found: object) -> Callable[..., Any] | None:
        """Return what runs a Django task; None for other objects."""
        return Runner(found) if isinstance(found, Task) else None

    def recorded(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a Django task with its start in the record of its package."""
        return records.with_start(outcome, loaded_task(outcome.package.func))

    def finish(self, outcome: Outcome) -> None:
        """Send `task_finished` for a Django task whose outcome is saved."""
        package = outcome.package
        task = task_of(package.func, may_import=True)  # a worker that gives a package up has not imported its module
        if task is None:
            return
        result = records.result_of(
            package,
            task,
            TaskResultStatus.SUCCESSFUL if outcome.success else TaskResultStatus.FAILED,
            attempt=outcome.attempt,
            finished=outcome.stopped,
            value=outcome.result,
        )
        task_finished.send_robust(sender=type(task.get_backend()), task_result=result)


def loaded_task(func: Any) -> Task[..., Any] | None:
    """Return the Django task that a path names, without importing its module; None if there is none."""
    if not isinstance(func, str):
        return None
    declaration = declarations.find_loaded(func)
    path = declaration.path if declaration is not None else func
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, Task) else None


def task_of(func: Any, *, may_import: bool) -> Task[..., Any] | None:
    """Return the Django task that a path names; None if it names none.

    Args:
        func: The path.
        may_import: Whether its module may be imported: only if a signature covers the path.
    """
    task = loaded_task(func)
    if task is None and may_import and isinstance(func, str):
        with suppress(ImportError):
            importlib.import_module(func.rpartition(".")[0] or func)
            task = loaded_task(func)
    return task
