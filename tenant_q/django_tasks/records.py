"""The record that a package of a Django task carries, and the `TaskResult` that it gives with the package.

A record is a dict of plain values:

    backend, queue, priority, run_after    what the task was enqueued with
    enqueued_at                            when
    starts                                 for each start that has ended: worker, at, error (the path of its class, or
                                           empty) and traceback
"""

from __future__ import annotations

import builtins
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from tenant_q import exceptions
from tenant_q.django_tasks.api import (
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
)
from tenant_q.exceptions import Retry, WorkerDied
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package
from tenant_q.package.task_objects import RECORD

P = ParamSpec("P")
R = TypeVar("R")

# What is kept of the earlier starts of a task: characters of each traceback, and the number of tracebacks.
LONGEST_TRACEBACK = 10_000
MOST_TRACEBACKS = 20
UNKNOWN_WORKER = "unknown"
"""The worker of a start that left no record: its process was killed, or it runs now elsewhere."""


def this_worker() -> str:
    """Return the id of the worker in this process, in records: host and process id."""
    return f"{socket.gethostname()[:50]}:{os.getpid()}"


def new_record(task: Task[..., Any], alias: str, package: Package) -> dict[str, Any]:
    """Return the record of a Django task that is enqueued in a package by the backend with this alias."""
    return {
        "backend": alias,
        "queue": task.queue_name,
        "priority": task.priority,
        "run_after": task.run_after,
        "enqueued_at": package.option("started"),
        "starts": [],
    }


def with_start(outcome: Outcome, task: Task[..., Any] | None) -> Outcome:
    """Return the outcome of a Django task with its start in the record of its package.

    Args:
        outcome: The outcome.
        task: The task, for a package that was enqueued without a record: by its path, or by a schedule.
    """
    package = outcome.package
    record = package.task.get(RECORD) or (new_record(task, task.backend, package) if task else None)
    if record is None:
        return outcome
    start = {"worker": this_worker(), "at": outcome.started, "error": "", "traceback": ""}
    if not outcome.success:
        start |= {"error": class_path(outcome), "traceback": str(outcome.result)[-LONGEST_TRACEBACK:]}
    starts = [*record["starts"], start]
    kept = [old | {"traceback": ""} for old in starts[:-MOST_TRACEBACKS]] + starts[-MOST_TRACEBACKS:]
    return replace(outcome, package=Package(package.task | {RECORD: record | {"starts": kept}}))


def class_path(outcome: Outcome) -> str:
    """Return the path of the class of error with which a Django task failed."""
    error, death = outcome.error, outcome.death or ""
    if isinstance(error, Retry) and error.cause is not None:
        error = error.cause
    if error is not None and type(error).__name__ == death:
        return f"{type(error).__module__}.{type(error).__qualname__}"
    return path_of_death(death)


def path_of_death(death: str) -> str:
    """Return the path of the class of an error of which a row has only the name."""
    for module in (exceptions, builtins):
        found = getattr(module, death, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return f"{module.__name__}.{death}"
    return "builtins.Exception"


def result_of(
    package: Package,
    task: Task[P, R],
    status: TaskResultStatus,
    *,
    attempt: int = 0,
    started: datetime | None = None,
    finished: datetime | None = None,
    value: Any = None,
) -> TaskResult[P, R]:
    """Return the `TaskResult` of a package with a record.

    Args:
        package: The package.
        task: The task.
        status: The status of the result.
        attempt: The number of starts so far, this one included.
        started: When the last start began, if it is not in the record.
        finished: When the task ended.
        value: The return value of a success, or the text of a failure.
    """
    record = package.task[RECORD]
    starts = list(record["starts"])
    moments = [start["at"] for start in starts] + ([started] if started else [])
    result: TaskResult[P, R] = TaskResult(
        task=_as_enqueued(task, record),
        id=package.id,
        status=status,
        enqueued_at=record["enqueued_at"],
        started_at=moments[0] if moments else None,
        finished_at=finished,
        last_attempted_at=moments[-1] if moments else None,
        args=_json(list(package.args)),
        kwargs=_json(package.kwargs),
        backend=record["backend"],
        errors=_errors(starts, status, str(value)),
        worker_ids=_workers(starts, status, attempt, str(value), is_here=started is not None),
    )
    if status == TaskResultStatus.SUCCESSFUL:
        object.__setattr__(result, "_return_value", value)  # as Django's own backends do
    return result


def _as_enqueued(task: Task[P, R], record: Mapping[str, Any]) -> Task[P, R]:
    """Return a task as it was enqueued, or as it is declared if its backend no longer accepts that."""
    enqueued = record["backend"], record["queue"], record["priority"], record["run_after"]
    if (task.backend, task.queue_name, task.priority, None) == enqueued:
        return task
    try:
        return task.using(
            backend=record["backend"],
            queue_name=record["queue"],
            priority=record["priority"],
            run_after=record["run_after"],
        )
    except (InvalidTask, InvalidTaskBackend):
        return task


def _json(value: Any) -> Any:
    """Return the arguments of a task in JSON's types; those of a row may be of other types."""
    try:
        return normalize_json(value)
    except (TypeError, ValueError):
        return {"": repr(value)} if isinstance(value, dict) else [repr(value)]


def _workers(
    starts: Sequence[Mapping[str, str]], status: TaskResultStatus, attempt: int, text: str, *, is_here: bool
) -> list[str]:
    """Return the workers of all starts, in order. Those that left no record of a start are unknown."""
    known = [start["worker"] for start in starts]
    if status == TaskResultStatus.RUNNING:
        known.append(this_worker() if is_here else UNKNOWN_WORKER)
    elif status == TaskResultStatus.FAILED and not _failed_at_start(starts):
        attempt -= not text.startswith(f"{WorkerDied.__name__}:")  # given up before a start that is counted
    return [UNKNOWN_WORKER] * (attempt - len(known)) + known


def _failed_at_start(starts: Sequence[Mapping[str, str]]) -> bool:
    return bool(starts and starts[-1]["error"])


def _errors(starts: list[Any], status: TaskResultStatus, text: str) -> list[TaskError]:
    """Return the errors of the starts that failed. That which ended the task has the whole text of its failure."""
    failed = [(start["error"], start["traceback"]) for start in starts if start["error"]]
    if status == TaskResultStatus.FAILED:
        path = failed.pop()[0] if _failed_at_start(starts) else path_of_death(text.partition(":")[0])
        failed.append((path, text))
    return [TaskError(exception_class_path=path, traceback=traceback) for path, traceback in failed]
