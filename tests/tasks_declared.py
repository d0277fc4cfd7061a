"""Declared tasks for the tests. The module is not called `tasks`, so only those who import it know them."""

from __future__ import annotations

import functools
import time
from typing import Any

from django.db import OperationalError

from tenant_q import Retry, task
from tenant_q.package.running import running
from tests import tasks


class Flaky(Exception):
    """An error that passes."""


class VeryFlaky(Flaky):
    """A kind of it."""


@task(max_attempts=3, retry_delay=0, retry_jitter=0)
def fail_twice(key: str) -> int:
    times = tasks.note(key)
    if times < 3:
        raise Flaky(f"start {times}")
    return times


@task
def plain(a: int, b: int = 0) -> int:
    return a + b


def shouting(func: Any) -> Any:
    @functools.wraps(func)
    def outer(*args: Any, **kwargs: Any) -> str:
        return str(func(*args, **kwargs)).upper()

    return outer


@shouting
@task(max_attempts=6)
def wrapped(text: str) -> str:
    return text


@task(cached=False)
def stored(text: str) -> str:
    return text


@task(name="tests.renamed", max_attempts=4)
def renamed(a: int) -> int:
    return a * 2


@task(max_attempts=5, retry_delay=0, retry_on=Flaky, no_retry_on=(VeryFlaky,))
def choosy(key: str, kind: str) -> None:
    tasks.note(key)
    raise {"flaky": Flaky, "very": VeryFlaky, "other": ValueError}[kind](kind)


@task(max_attempts=3, retry_delay=0)
def decides(key: str, **retry: Any) -> None:
    tasks.note(key)
    raise Retry("not yet", **retry)


@task(max_attempts=2, retry_delay=0, retry_on=())
def decides_with_cause(key: str) -> None:
    tasks.note(key)
    try:
        raise ZeroDivisionError("nothing to divide by")
    except ZeroDivisionError as error:
        raise Retry(cause=error) from error


@task(unique=lambda order, **_: f"order {order}")
def charge(order: int, note: str = "") -> str:
    return f"charged {order}"


def enqueue_again(options: dict[str, Any]) -> str | None:
    """Enqueue this task once more, from itself. Return its id; None if it was enqueued by itself."""
    from tenant_q.utils import QUtilities  # which needs the apps

    package = running.get()
    if package is None or package.group:
        return None
    id: str = QUtilities.add_async_task(package.func, options, group="again", q_options=options)
    return id


@task(expires=30)
def soon() -> str:
    return "in time"


def takes_one(a: int) -> int:
    return a


@task(transactional=True, timeout=7, cluster=None)
def atomic(key: str) -> str:
    return key


def away() -> None:
    raise OperationalError("the database is away")


def refuse() -> None:
    raise ConnectionRefusedError("no")


def takes_option_names(**kwargs: Any) -> dict[str, Any]:
    return kwargs


taker = task(takes_option_names)


@task(priority=7)
def urgent(key: str) -> None:
    tasks.note(key, name="urgent")


@task(rate="20/s")
def limited(key: str) -> None:
    tasks.note(key, at=time.time())


@task(rate="20/s", rate_scope="site")
def limited_for_all(key: str) -> None:
    tasks.note(key, at=time.time())
