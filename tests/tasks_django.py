"""Tasks of Django's Tasks API for the tests, and receivers that leave notes about its signals."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import django
from django.db import connection

import tenant_q
from tenant_q.django_tasks.api import task_finished, task_started
from tenant_q.utils import QUtilities
from tests import tasks

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


class Boom(Exception):
    """An error of a task."""


@task
def where() -> str:
    return connection.schema_name


@task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task()
async def echo_later(value: Any) -> Any:
    return value


@task
def fail(text: str) -> None:
    raise Boom(text)


@task
async def fail_later(text: str) -> None:
    raise Boom(text)


@task
def leave(code: int) -> None:
    sys.exit(code)


@task
def unserializable() -> Any:
    return {1, 2}


@task
def complex_error() -> None:
    raise ValueError(ValueError("within"), object())


@task(takes_context=True)
def describe(context: Any, key: str) -> dict[str, Any]:
    result = context.task_result
    return {
        "id": result.id,
        "attempt": context.attempt,
        "status": str(result.status),
        "args": result.args,
        "path": result.task.module_path,
        "workers": result.worker_ids,
        "key": key,
    }


@task(takes_context=True)
async def describe_later(context: Any) -> int:
    return context.attempt


@task(takes_context=True, backend="stubborn")
def succeed_third(context: Any, key: str) -> int:
    if context.attempt < 3:
        raise Boom(f"attempt {context.attempt} of {key}")
    return context.attempt


@task(backend="stubborn")
def never_succeed() -> None:
    raise Boom("again")


@task
@tenant_q.task(max_attempts=2, retry_delay=0, retry_jitter=0, name="tests.django_declared")
def declared(key: str) -> int:
    times = tasks.note(key)
    if times < 2:
        raise Boom(f"start {times}")
    return times


@task
@tenant_q.task(unique=lambda order: f"order {order}")
def charge(order: int) -> int:
    return order


@task
def interrupt() -> None:
    raise KeyboardInterrupt


@task
def kill_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def enqueue_another() -> str:
    return where.enqueue().id


@task
async def enqueue_another_later() -> list[str]:
    return [(await where.aenqueue()).id, where.enqueue().id, await QUtilities.aadd_async_task("tests.tasks.where")]


def not_a_task() -> int:
    return 1


def _note(name: str) -> Any:
    def receive(sender: Any, task_result: Any, **_: Any) -> None:
        words = name, task_result.id, task_result.status, task_result.attempts, connection.schema_name
        tasks.client().rpush("note:signals", " ".join(map(str, words)))
        tasks.client().expire("note:signals", 3600)

    return receive


_receivers = [_note("started"), _note("finished")]
if os.environ.get("TEST_TASK_SIGNALS"):
    task_started.connect(_receivers[0])
    task_finished.connect(_receivers[1])
