"""Tasks of the failovers: each effect, hook and row says which process made it."""

from __future__ import annotations

import os
import time
from typing import Any

from django.db import connection


def effect(key: str, seconds: float = 0.02) -> int:
    time.sleep(seconds)
    _note(key, "effect", 0.0)
    return os.getpid()


def hook(task: Any) -> None:
    _note(task.args[0], "hook", task.started.timestamp())


def _note(key: str, what: str, started: float) -> None:
    values = (key, what, os.getpid(), started)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO failover_effect VALUES (%s, %s, %s, %s)", values)
