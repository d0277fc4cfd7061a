"""How long a cluster process waits for an answer of PostgreSQL outside of a task.

A server whose backend is frozen, or a proxy that swallows what is sent, keeps a connection open for ever: the peer's
kernel answers keepalives. So the wait itself has a limit on this side, and a session that is silent for longer is
dropped. The outage that follows is one as any other.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

# No statement of the cluster's own takes nearly as long: locks are waited for a second at most, and what is deleted is
# deleted in portions.
ANSWER_SECONDS = 30.0
# What is set in a cluster process where the project's OPTIONS do not: seconds, and milliseconds for the last one.
DEFAULTS = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


class _Limit(threading.local):
    """The limit of the current thread. A thread that a task started has none."""

    seconds: float | None = None


_READ, _WRITE = 1, 2
_EVENTS = {_READ: select.POLLIN, _WRITE: select.POLLOUT, _READ | _WRITE: select.POLLIN | select.POLLOUT}
_limit = _Limit()
_Connection: Any = psycopg.Connection
_wait = psycopg.Connection.wait


def install() -> None:
    """Limit the waits of this thread, which does the cluster's own work, and of those that call `limit_thread`.

    Django opens its sessions with `psycopg.connect`, which takes no class of ours, and speaks to the server before
    anybody sees the connection.
    """
    _Connection.wait = _limited_wait
    limit_thread()


def uninstall() -> None:
    """Limit nothing any more."""
    _Connection.wait = _wait
    _limit.seconds = None


def limit_thread() -> None:
    """Limit the waits of the current thread."""
    _limit.seconds = ANSWER_SECONDS


@contextmanager
def limited() -> Iterator[None]:
    """A block in which this thread does the cluster's own work, before or beside its processes."""
    install()
    try:
        yield
    finally:
        uninstall()


@contextmanager
def unlimited() -> Iterator[None]:
    """A block in which a task or a hook runs: its own timeout is the limit of what it sends."""
    before, _limit.seconds = _limit.seconds, None
    try:
        yield
    finally:
        _limit.seconds = before


def current() -> float | None:
    """The seconds for which the current thread waits for an answer; None: without limit."""
    return _limit.seconds


def complete_options(options: dict[str, Any]) -> None:
    """Add to a database's OPTIONS what makes a dead network path show. What is set there stays."""
    for name, value in DEFAULTS.items():
        if name != "connect_timeout" or "PGCONNECT_TIMEOUT" not in os.environ:
            options.setdefault(name, value)


def _limited_wait(raw: Any, gen: Any, *args: Any, **kwargs: Any) -> Any:
    seconds = _limit.seconds
    if seconds is None or args or kwargs:  # who passes more has a limit of its own
        return _wait(raw, gen, *args, **kwargs)
    return wait(raw, gen, seconds)


def wait(raw: Any, gen: Any, seconds: float) -> Any:
    """Run a generator of the driver's to its end, as `Connection.wait` does, through pauses of at most `seconds`.

    Raises `psycopg.OperationalError` after a longer one; the session is dropped then.
    """
    poll, file = select.poll(), raw.fileno()
    try:
        wanted = next(gen)
        while True:
            poll.register(file, _EVENTS[wanted])
            found = poll.poll(seconds * 1000)
            if not found:
                raise dropped(raw, seconds)
            event = found[0][1]
            # An error is to be seen by whatever is tried next.
            wanted = gen.send((_READ if event & ~select.POLLOUT else 0) | (_WRITE if event & ~select.POLLIN else 0))
    except StopIteration as done:
        return done.value


def dropped(raw: Any, seconds: float) -> psycopg.OperationalError:
    """Close a driver's connection without waiting for its peer. Returns the error that says so."""
    if not raw.closed:
        # The copy shares the socket; the driver closes its own file.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
        raw.close()
    return psycopg.OperationalError(f"the server has not answered for {seconds:g} s, so the session is dropped")
