"""Tasks that leave other processes behind, and what those and the worker's next tasks do with the database."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from setproctitle import getproctitle

LONGEST = 300.0  # seconds until a child gives up by itself


def _fork() -> None:
    multiprocessing.get_context("fork").Process(target=_use_until_told, args=("fork",), daemon=False).start()


def _fork_and_close_first() -> None:
    """Django's documentation of other tools says so: close the connections in the child before they are used."""

    def run() -> None:
        from django.db import connections

        connections.close_all()
        _use_until_told("close_first")

    multiprocessing.get_context("fork").Process(target=run, daemon=False).start()


def _fork_in_a_cursor() -> None:
    """The child goes on with a cursor that was opened before."""

    def run(cursor: Any) -> None:
        try:
            cursor.execute("SELECT 'still there'")
        except Exception:
            _use_until_told("cursor")
        else:
            _tell("crossed", what="the child speaks over the worker's session")

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        multiprocessing.get_context("fork").Process(target=run, args=(cursor,), daemon=False).start()


def _fork_that_returns() -> None:
    if os.fork() == 0:
        _use_until_told("returns")


def _fork_that_raises() -> None:
    if os.fork() == 0:
        _use_until_told("raises")
        raise ValueError("in the child")


def _spawn() -> None:
    multiprocessing.get_context("spawn").Process(
        target=use_in_tenant, args=(connection.schema_name,), daemon=False
    ).start()


def _subprocess() -> None:
    code = (
        f"import django; django.setup(); from tests.tasks_forking import *; use_in_tenant({connection.schema_name!r})"
    )
    subprocess.Popen([sys.executable, "-c", code])


WAYS: dict[str, Callable[[], None]] = {
    "fork": _fork,
    "close_first": _fork_and_close_first,
    "cursor": _fork_in_a_cursor,
    "returns": _fork_that_returns,
    "raises": _fork_that_raises,
    "spawn": _spawn,
    "subprocess": _subprocess,
}


def leave_a_child(way: str) -> int:
    """Start a child in this way, and return. Returns the pid of the process that the task ran in."""
    pid = os.getpid()
    add_row()  # the session is open, so there is one to inherit
    WAYS[way]()
    return pid


def use_in_tenant(schema: str) -> None:
    """For a process of its own: it inherits nothing, and chooses its tenant itself."""
    import django

    django.setup()
    from tenant_q.tenancy import in_schema

    with in_schema(schema):
        _use_until_told("own")


def _use_until_told(how: str) -> None:
    from tests import tasks

    stop = f"stop:{os.environ['Q_NAME']}"
    _tell("up", how=how)
    deadline, rows = time.monotonic() + LONGEST, 0
    try:
        while not tasks.client().exists(stop) and time.monotonic() < deadline:
            write_and_look("acme_corp")
            rows += 1
            time.sleep(0.02)
    except BaseException as error:
        _tell("crossed", what=f"{how}: {error!r}")
        raise
    finally:
        _tell("ended", how=how, rows=rows)


def _tell(what: str, /, **values: Any) -> None:
    from tests import tasks

    tasks.note(f"{os.environ['Q_NAME']}:{what}", pid=os.getpid(), **values)


def add_row() -> None:
    from shop.models import Order

    Order.objects.create(number=uuid.uuid4().hex, buyer=connection.schema_name, amount=1)


def write_and_look(schema: str) -> None:
    """Write a row as `schema`, and see that all answers are this process's own and all rows this tenant's."""
    from shop.models import Order

    assert connection.schema_name == schema, connection.schema_name
    row = Order.objects.create(number=uuid.uuid4().hex, buyer=schema, amount=1)
    assert Order.objects.get(pk=row.pk).number == row.number
    assert not Order.objects.exclude(buyer=schema).exists()
    mine = uuid.uuid4().hex
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema(), %s", [mine])
        assert cursor.fetchone() == (schema, mine)


# Forks that return twice. Each returns the pid of the process that it ran in.


def twice() -> int:
    os.fork()
    return os.getpid()


def twice_in_a_transaction() -> int:
    with transaction.atomic():
        add_row()
        os.fork()
    return os.getpid()


def twice_in_a_generator() -> int:
    def generate() -> Iterator[int]:
        yield 1
        os.fork()
        yield 2

    return os.getpid() if list(generate()) else 0


def twice_past_python() -> int:
    """Python's own hooks are not called."""
    ctypes.CDLL(None).fork()
    return os.getpid()


def twice_in_a_thread() -> int:
    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
    return os.getpid()


async def twice_in_a_coroutine() -> int:
    return twice()


async def twice_in_sync_to_async() -> int:
    return await sync_to_async(twice)()


def twice_while_it_is_pickled() -> Any:
    return _ForksWhenPickled()


class _ForksWhenPickled:
    def __reduce__(self) -> Any:
        if getproctitle().endswith(" worker") and os.environ.get("FORKED") is None:
            os.environ["FORKED"] = "1"
            os.fork()
            os.environ.pop("FORKED")
        return (os.getpid, ())


def hook_twice(task: Any) -> None:
    from tests import tasks

    os.fork()
    tasks.note(f"{os.environ['Q_NAME']}:hook", task=task.id, pid=os.getpid())


TWICE = (
    twice,
    twice_in_a_transaction,
    twice_in_a_generator,
    twice_past_python,
    twice_in_a_thread,
    twice_in_a_coroutine,
    twice_in_sync_to_async,
    twice_while_it_is_pickled,
)


# What a child may do


def terminate_a_child() -> int | None:
    """Returns the exit code of a child that gets SIGTERM."""
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join(10)
    return child.exitcode


def signal_a_child(number: int) -> int:
    """Returns how a child ends that receives a signal which means something to the worker."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.kill(pid, number)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


def progress_of_a_child(key: str) -> None:
    """The child reports more than the task."""
    from tenant_q.utils import QUtilities
    from tests import tasks

    _in_a_child(lambda: QUtilities.set_progress(0.75))
    QUtilities.set_progress(0.25)
    _in_a_child(lambda: QUtilities.set_progress(0.75))
    tasks.hold(key)


def enqueue_in_a_child(key: str) -> None:
    from tests.tasks import enqueue_another

    _in_a_child(lambda: enqueue_another(key))


def run_in_sync_in_a_child(key: str) -> None:
    from tenant_q.utils import QUtilities

    def run() -> None:
        QUtilities.add_async_task("tests.tasks.note_where", key, q_options={"sync": True})
        QUtilities.add_async_task("tests.tasks.note_where", key, q_options={"sync": True})

    _in_a_child(run)


def cache_in_a_child() -> Any:
    from django.core.cache import cache

    cache.set("forked", "no")
    _in_a_child(lambda: cache.set("forked", "yes"))
    return cache.get("forked")


def _in_a_child(act: Callable[[], Any]) -> None:
    child = multiprocessing.get_context("fork").Process(target=act)
    child.start()
    child.join(20)
    assert child.exitcode == 0, child.exitcode
