"""Tasks of the chaos tests: each leaves an effect in its tenant's schema, which tells when it was done twice."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress

from django.db import DatabaseError, connection

from shop.models import Report
from tests import tasks
from tests.chaos import points

EFFECTS = "chaos_effect"
FIRES = "chaos_fire"


def effect(key: str, seconds: float = 0.001) -> None:
    points.reached("mid-run", [key])
    time.sleep(seconds)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {EFFECTS} (task_key, at) VALUES (%s, clock_timestamp())", [key])
    points.reached("after-effect-in-transaction" if connection.in_atomic_block else "after-effect", [key])


def fire_effect(schedule: str, planned: str) -> None:
    """Plain: what would fire twice would be there twice."""
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {FIRES} (schedule, planned) VALUES (%s, %s)", [schedule, planned])


def long_effect(key: str) -> None:
    """Too long for a batch: it runs alone."""
    effect(key, 0.06)


def hold_interpreter(key: str, seconds: float) -> float:
    """Hold the GIL for at least `seconds` in one C call, that of a regular expression that backtracks."""
    tasks.note(key, pid=os.getpid(), at=time.time())
    length, held = 20, 0.0
    while held < seconds:
        length += 1
        begun = time.monotonic()
        re.match(r"(a+)+$", "a" * length + "b")
        held = time.monotonic() - begun
    return held


def hold(key: str) -> str:
    """As `tests.tasks.hold`, and it notes when it began."""
    tasks.note(f"{key}:at", at=time.time(), pid=os.getpid())
    return tasks.hold(key)


def sleep(key: str, seconds: float) -> float:
    tasks.note(key, at=time.time())
    return tasks.sleep(seconds)


def report(title: str) -> None:
    """Leave a row that says whose task wrote it."""
    Report.objects.create(title=title, made_in=connection.schema_name, orders=0, revenue=0)


def report_on_and_on(title: str) -> None:
    """Write rows until somebody stops it, also while its schema is gone."""
    tasks.note(f"on:{title}", pid=os.getpid())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(DatabaseError):
            report(title)
        time.sleep(0.01)


def report_and_sleep(seconds: float) -> None:
    """Say how far it is."""
    from tenant_q.utils import QUtilities

    QUtilities.set_progress(0.5)
    time.sleep(seconds)


def die_once(key: str) -> int:
    """Kill the worker in the first run. Returns the number of the run."""
    runs = tasks.note(key)
    if runs == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return runs
