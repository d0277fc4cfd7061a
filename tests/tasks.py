"""Tasks for the tests. `note()` leaves what a task saw in a Redis list, past PostgreSQL."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import redis
from django.db import connection


def client() -> Any:  # redis.Redis; for mypy its replies are bytes or text
    return redis.Redis.from_url(os.environ["REDIS_URL"])


def note(key: str, **values: Any) -> int:
    with client().pipeline() as pipe:
        pipe.rpush(f"note:{key}", json.dumps(values, default=str)).expire(f"note:{key}", 3600)
        return int(pipe.execute()[0])


def notes(key: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client().lrange(f"note:{key}", 0, -1)]


def add(a: int, b: int = 0) -> int:
    return a + b


def nothing() -> None:
    return None


def where() -> dict[str, Any]:
    """Where the task runs, as the server and as Django see it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        schema = cursor.fetchone()[0]
    tenant = connection.tenant
    return {"schema": schema, "tenant": tenant.schema_name, "pk": getattr(tenant, "pk", None)}


def note_where(key: str) -> dict[str, Any]:
    place = where()
    note(key, **place)
    return place


def fail(text: str = "broken") -> None:
    raise ValueError(text)


def exit_now() -> None:
    sys.exit(3)


def unpicklable() -> Any:
    return threading.Lock()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def sleep_and_tell(seconds: float) -> int:
    """Returns the process it ran in."""
    time.sleep(seconds)
    return os.getpid()


def hold(key: str, seconds: float = 60) -> str:
    """Say that it runs, and run until it is let go, for at most `seconds`."""
    runs = note(key, pid=os.getpid())
    deadline = time.monotonic() + seconds
    while not client().exists(f"go:{key}"):
        if time.monotonic() > deadline:
            raise TimeoutError(key)
        time.sleep(0.01)
    return f"run {runs}"


def complain_and_fail(key: str) -> None:
    """Run for a second, log an error, and fail."""
    try:
        hold(key, 1)
    except TimeoutError:
        logging.getLogger("billing").error("the bank is away")
        raise


def let_go(key: str) -> None:
    client().set(f"go:{key}", 1, ex=3600)


def kill_worker(key: str) -> None:
    note(key, pid=os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker_once(key: str) -> str:
    if note(key, pid=os.getpid()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "second run"


def ignore_timeout(key: str) -> None:
    """A C call that no Python signal handler interrupts: the handler runs only between bytecodes."""
    note(key, pid=os.getpid())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)


def ignore_signals(key: str) -> None:
    """As a C call that holds the interpreter: neither a timeout's nor a cancel's signal gets through."""
    note(key, pid=os.getpid())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGUSR1})
    time.sleep(60)


def tell(fraction: float) -> None:
    from tenant_q.utils import QUtilities

    QUtilities.set_progress(fraction)


def tell_and_hold(key: str) -> str:
    """Tell progress in a tight loop, and run until it is let go."""
    from tenant_q.utils import QUtilities

    for n in range(750):
        QUtilities.set_progress(n / 1000, str(n))
    QUtilities.set_progress(0.75, "three of four")
    return hold(key)


async def asynchronous(value: int) -> int:
    return value * 2


def enqueue_another(key: str) -> str:
    from tenant_q.utils import QUtilities

    return QUtilities.add_async_task("tests.tasks.note_where", key)


def plain_async_task(key: str) -> str:
    from django_q.tasks import async_task

    return async_task("tests.tasks.note_where", key)


def hook(task: Any) -> None:
    note(f"hook:{task.id}", result=task.result, success=task.success, **where())


def broken_hook(task: Any) -> None:
    raise ValueError("the hook is broken")


def intended(date: str) -> str:
    return date


def where_everywhere() -> dict[str, str]:
    """The schema of every database's session."""
    from django.db import connections

    found = {}
    for alias in ("default", "replica"):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT current_schema()")
            found[alias] = cursor.fetchone()[0]
    return found


def log_a_line() -> None:
    import logging

    logging.getLogger(__name__).warning("from the task")


def own_schema() -> str:
    return str(where()["schema"])


def assert_own_place(name: str) -> str:
    """Schema, tenant and a row that only this tenant has; returns the name that the row holds."""
    place = where()
    assert place["schema"] == place["tenant"] == name, place
    assert place["pk"] is not None, place
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM only_here")
        found = cursor.fetchall()
    assert found == [(name,)], found
    return str(found[0][0])


def backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def setting(name: str) -> str:
    """What a setting is in the session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", [name])
        return str(cursor.fetchone()[0])


def text(length: int) -> str:
    return "x" * length
