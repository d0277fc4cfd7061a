"""Tasks that use PostgreSQL in ways in which a worker might mistake as whom they act."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection, connections, transaction

from tenant_q import tenancy
from tenant_q.utils import QUtilities
from tests import tasks_isolated
from tests.tasks import note, notes

_pool = ThreadPoolExecutor(1)


def who(alias: str = "default") -> dict[str, Any]:
    """Return the roles of this task's session of a database."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT session_user::text, current_user::text, pg_backend_pid()")
        session, current, pid = cursor.fetchone()
    return {"session": session, "current": current, "pid": pid}


def who_or_error(alias: str = "default") -> Any:
    """Return the same, or the error."""
    try:
        return who(alias)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def who_in_fork(key: str, how: str) -> None:
    """Note as whom a process acts that this task forks."""
    pid = os.fork()
    if pid == 0:
        if how == "close":
            connections.close_all()
        try:
            note(key, found=who_or_error(), shown=tasks_isolated.shown())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def who_in_pool(schema: str) -> Any:
    """Return as whom a thread acts that outlives the task, since the module keeps it."""

    def look() -> Any:
        with tenancy.in_schema(schema):
            return tasks_isolated.who()

    return _pool.submit(look).result()


def who_in_pool_unentered() -> str:
    """Return the role as which such a thread acts in a session of its own, without entering a schema."""

    def look() -> str:
        connection.ensure_connection()
        (role,) = connection.connection.execute("SELECT current_user::text").fetchone()
        return str(role)

    return _pool.submit(look).result()


def who_after(key: str) -> dict[str, Any]:
    """Wait for a note while this task runs; return as whom it acts then, in this thread and in a new one."""
    connection.close()
    _wait_for(key)
    time.sleep(0.3)  # whatever wrote it goes on
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(who()["current"]))
    thread.start()
    thread.join()
    return {"main": who()["current"], "thread": found[0]}


def change_and_close(name: str, value: str) -> None:
    """Give the task's role a setting, and close the session."""
    tasks_isolated.execute(f"ALTER ROLE CURRENT_USER SET {name} TO '{value}'")
    connection.close()


def hold_session(key: str) -> None:
    """Keep a session until a note says go."""
    tasks_isolated.execute("SELECT 1")
    note(key, holds=True)
    _wait_for(f"{key}-go")


def _wait_for(key: str) -> None:
    end = time.monotonic() + 50
    while not notes(key) and time.monotonic() < end:
        time.sleep(0.05)


def note_hook(task: Any) -> None:
    """Note as whom a hook acts."""
    note(task.group, **tasks_isolated.who())


def nap(seconds: float) -> None:
    """Use no session."""
    time.sleep(seconds)


def note_run(key: str, number: int) -> int:
    """Return a number, after using a session."""
    tasks_isolated.who()
    note(key, number=number)
    return number


def tour(key: str, others: str) -> dict[str, Any]:
    """Make the calls of tenant_q that a task may make; return as whom it acts after each, or the error.

    Parameters: `others`, the id of a result that was saved before.
    """
    from django_q.models import Schedule, Task
    from django_q.tasks import async_task, schedule

    from tenant_q.custom.chains import Chain
    from tenant_q.custom.iters import Iter

    add = "tests.tasks.add"

    def chain() -> None:
        made = Chain()
        made.append(add, 1)
        made.append(add, 2)
        made.run()

    def iter_() -> None:
        made = Iter(add)
        made.append(1)
        made.run()

    def scheduled() -> None:
        made = QUtilities.create_schedule(add, 1, name=f"{key}-1", schedule_type=Schedule.DAILY)
        made.name = f"{key}-2"
        made.save()
        made.delete()

    def workflow() -> None:
        started = QUtilities.start_workflow("tests.flows.workflows.line", {"number": 1}, key=f"{key}-flow")
        QUtilities.get_workflow(started.id).cancel()

    def cancelled() -> None:
        QUtilities.cancel(QUtilities.add_async_task(add, 1))

    calls: dict[str, Any] = {
        "add": lambda: QUtilities.add_async_task(add, 1),
        "unique": lambda: QUtilities.add_async_task(add, 1, q_options={"unique": f"{key}-u"}),
        "cached": lambda: QUtilities.add_async_task(add, 1, q_options={"cached": 60}),
        "django_q": lambda: async_task(add, 1),
        "django_q schedule": lambda: schedule(add, 1, schedule_type=Schedule.DAILY),
        "iter of all": lambda: QUtilities.add_async_tasks_from_iter(add, [(1,), (2,)]),
        "chain": chain,
        "iter": iter_,
        "schedule": scheduled,
        "ensure": lambda: QUtilities.ensure_schedule(f"{key}-e", add, 1, schedule_type=Schedule.DAILY),
        "result": lambda: QUtilities.get_result(others),
        "fetch": lambda: QUtilities.fetch_task(others),
        "status": lambda: QUtilities.get_status(others),
        "cancel": cancelled,
        "progress": lambda: (QUtilities.set_progress(0.5), QUtilities.get_progress(others)),
        "queue": QUtilities.get_queue_size,
        "workflow": workflow,
        "config": tenancy.config,
        "rows": lambda: Task.objects.filter(id=others).update(name="renamed"),
        "count": lambda: QUtilities.get_group_count(f"{key}-group"),
        "delete": lambda: QUtilities.delete_task_group(f"{key}-group", tasks=True),
        "delete cached": lambda: QUtilities.delete_task_from_cache(others),
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            call()
            found[name] = who()["current"]
            with transaction.atomic():
                call()
                found[name] = found[name] if who()["current"] == found[name] else "another in a transaction"
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found
