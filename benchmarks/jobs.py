"""The tasks of `make bench`, the same for every contender."""

from __future__ import annotations

import os
import time

from django.db import connection


def nothing() -> None:
    """The no-op task."""


def one_ms() -> None:
    """Waits a millisecond, as for an answer over the network."""
    time.sleep(0.001)


def start(at: float) -> tuple[float, float]:
    """When it was enqueued, and when it was started, by the clock of this machine."""
    return at, time.time()


def sized(size: int) -> bytes:
    """A result of so many bytes, which cannot be compressed."""
    return os.urandom(size)


def one_query() -> None:
    """Counts the tenant's orders."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM shop_order")
        cursor.fetchone()
