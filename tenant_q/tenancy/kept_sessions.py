"""The sessions of tenants' roles that a worker keeps open, under `TENANT_Q["isolation"]` "login".

A thread closes them once they are idle.
"""

from __future__ import annotations

import select
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

# A session of a tenant that is not served is closed after this many seconds.
IDLE_SECONDS = 10.0

Key = tuple[str, str, int]  # the alias, the role, the version of its password


class KeptSessions:
    """The idle sessions of tenants that this worker has served, the one served last at the end."""

    def __init__(self) -> None:
        self._found: OrderedDict[Key, tuple[Any, float]] = OrderedDict()
        # The number of sessions that the completer's thread has, which are never kept.
        self._elsewhere = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self, key: Key) -> Any:
        """Return an idle connection, which is no longer kept; None if there is none that can be used."""
        with self._changed:
            connection, _ = self._found.pop(key, (None, 0.0))
        if connection is not None and not _is_usable(connection.connection):
            close(connection)
            return None
        return connection

    def put(self, key: Key, connection: Any) -> None:
        """Keep the connection of a tenant that is no longer served."""
        if not _is_usable(connection.connection):
            close(connection)
            return
        with self._changed:
            self._found[key] = connection, time.monotonic()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._close_idle, name="tenant_q idle sessions", daemon=True)
                self._thread.start()
            self._changed.notify()

    def count_elsewhere(self, number: int) -> None:
        """Count sessions that the completer's thread opens, or with a negative number closes."""
        with self._changed:
            self._elsewhere += number

    def limit(self, number: int) -> None:
        """Close the connections that were used longest ago, until a number is left besides those of other threads."""
        while True:
            with self._changed:
                if len(self._found) <= max(number - self._elsewhere, 0):
                    return
                _, (connection, _) = self._found.popitem(last=False)
            close(connection)

    def _close_idle(self) -> None:
        """Close idle connections, also while a task runs. The thread ends when none is left."""
        while True:
            with self._changed:
                if not self._found:
                    self._thread = None
                    return
                key, (connection, since) = next(iter(self._found.items()))
                left = since + IDLE_SECONDS - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._found[key]
            close(connection)


def _is_usable(raw: Any) -> bool:
    """Return whether a session is open and idle, and the server has not ended it."""
    if raw is None or raw.closed or raw.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    readable, _, _ = select.select([raw.fileno()], [], [], 0)
    return not readable


def close(connection: Any) -> None:
    """Close the session of a connection from any thread; the connection is not used again."""
    raw, connection.connection = connection.connection, None
    if raw is not None:
        with suppress(psycopg.Error, OSError):
            raw.close()
