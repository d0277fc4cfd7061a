"""Limit how long a cluster process waits for an answer from PostgreSQL outside of a task.

If a server's backend is frozen, or a proxy drops packets, a connection stays open for ever, because the peer's kernel
answers keepalives. So the client limits its own wait, and drops a session that is silent for longer. That is handled
like any other outage.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

# The cluster's own statements take much less: they wait at most one second for a lock, and delete rows in portions.
ANSWER_SECONDS = 30.0
# Defaults in a cluster process for options that the project does not set: seconds, the last one in milliseconds.
DEFAULTS = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


class _Limit(threading.local):
    """The limit for a wait of the current thread in seconds. A thread that a task started has none."""

    seconds: float | None = None


_READ, _WRITE = 1, 2
_EVENTS = {_READ: select.POLLIN, _WRITE: select.POLLOUT, _READ | _WRITE: select.POLLIN | select.POLLOUT}
_limit = _Limit()
_Connection: Any = psycopg.Connection
_wait = psycopg.Connection.wait
_connect = psycopg.connect
# The sessions that were dropped, and after how many seconds.
_dropped: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


def install() -> None:
    """Limit the waits for PostgreSQL of this thread, which does the cluster's own work.

    A further thread of the cluster calls `limit_thread`.

    Functions of psycopg are replaced, because Django opens its sessions with `psycopg.connect`, to which it cannot pass
    a subclass, and sends statements before it announces the connection.
    """
    _Connection.wait = _limited_wait
    psycopg.connect = _closing_connect
    limit_thread()


def uninstall() -> None:
    """Remove the limits of waits for PostgreSQL."""
    _Connection.wait = _wait
    psycopg.connect = _connect
    _limit.seconds = None


def limit_thread() -> None:
    """Limit the waits for PostgreSQL of the current thread."""
    _limit.seconds = ANSWER_SECONDS


@contextmanager
def limited_waits() -> Iterator[None]:
    """Limit the waits for PostgreSQL in a block that does the cluster's own work outside of its processes."""
    install()
    try:
        yield
    finally:
        uninstall()


@contextmanager
def unlimited_waits() -> Iterator[None]:
    """Suspend the limit for waits in a block that runs a task or a hook, which has its own timeout."""
    before, _limit.seconds = _limit.seconds, None
    try:
        yield
    finally:
        _limit.seconds = before


def current_limit() -> float | None:
    """Return the limit in seconds for a wait of the current thread; None for no limit."""
    return _limit.seconds


def complete_options(options: dict[str, Any]) -> None:
    """Add the options that limit a wait on a dead network path to a database's OPTIONS. Existing options stay."""
    for name, value in DEFAULTS.items():
        if name != "connect_timeout" or "PGCONNECT_TIMEOUT" not in os.environ:
            options.setdefault(name, value)


def _limited_wait(raw: Any, gen: Any, *args: Any, **kwargs: Any) -> Any:
    seconds = _limit.seconds
    if seconds is None or args or kwargs:  # a caller that passes more has its own limit
        return _wait(raw, gen, *args, **kwargs)
    return wait(raw, gen, seconds)


def _closing_connect(*args: Any, **kwargs: Any) -> Any:
    """Open a session as psycopg's `connect` does, and close its socket at once if that fails.

    The driver's error refers to frames that refer to the error and to the half-open session, which would otherwise stay
    open until the garbage collector runs. In an idle process that takes long.
    """
    try:
        return _connect(*args, **kwargs)
    except psycopg.Error as error:
        for each in (error, error.__cause__, error.__context__):
            if each is not None:
                traceback.clear_frames(each.__traceback__)
        raise


def wait(raw: Any, gen: Any, seconds: float) -> Any:
    """Wait for PostgreSQL as the driver's `Connection.wait` does, but at most `seconds` for each answer.

    Raises:
        psycopg.OperationalError: The server was silent for longer; the session is dropped.
    """
    if raw in _dropped:
        raise _Silent(_dropped[raw])
    poll, file = select.poll(), raw.fileno()
    try:
        wanted = next(gen)
        while True:
            poll.register(file, _EVENTS[wanted])
            found = poll.poll(seconds * 1000)
            if not found:
                raise drop_silent_session(raw, seconds)
            event = found[0][1]
            # The next call of the driver reports an error of the socket.
            wanted = gen.send((_READ if event & ~select.POLLOUT else 0) | (_WRITE if event & ~select.POLLIN else 0))
    except StopIteration as done:
        return done.value


def drop_silent_session(raw: Any, seconds: float) -> psycopg.OperationalError:
    """Drop a session whose wait has reached the limit, and return the error to raise."""
    if not raw.closed:
        # The copy shares the socket; the driver closes its own file descriptor.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
        raw.close()
        _dropped[raw] = seconds
    return _Silent(seconds)


class _Silent(psycopg.OperationalError):
    """The error of a session that was dropped after its longest wait.

    The statement after it raises it too, because django-tenants hides the first error.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the server has not answered for {seconds:g} s, so the session is dropped")
