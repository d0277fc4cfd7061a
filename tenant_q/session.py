"""Nothing survives a task: what it left in its database sessions and in Django's idea of them is taken back.

Language, time zone and all other context variables end with the context in which the executor calls the task.

A task that opened no cursor left nothing in a session, so the sessions are watched: each raw connection notes when a
cursor is made of it, also past Django. Only those are scrubbed, in one round trip; one that is in a transaction, in
the middle of a query or broken is closed.
"""

from __future__ import annotations

import functools
import select
import signal
from typing import Any

import psycopg
from django.db import connections
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q.labels import get_logger
from tenant_q.statements import statement

logger = get_logger("tenant_q.session")

_USED = "_tenant_q_used"
_open: set[str] = set()
_SIGNALS = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)


def watch() -> None:
    """From here on, know which sessions are used. Call it when every session is as it should be."""
    _open.clear()
    for connection in connections.all(initialized_only=True):
        if connection.vendor == "postgresql" and connection.connection is not None:
            _open.add(connection.alias)
            _watch(connection.connection)


def clean_up() -> bool:
    """Take back what was left since `watch()`.

    Returns whether a session was used, and so does not know its schema any more.
    """
    was_used = False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    for connection in connections.all(initialized_only=True):
        connection.run_on_commit = []
        connection.execute_wrappers = []
        if connection.connection is None:
            was_used = was_used or connection.alias in _open
        elif connection.vendor != "postgresql":
            _reset_other(connection)
        elif _is_used(connection.connection):
            _scrub(connection)
            was_used = True
    return was_used


def _watch(raw: Any) -> None:
    for name in ("cursor_factory", "server_cursor_factory"):
        factory = getattr(raw, name)
        if not getattr(factory, _USED, False):
            setattr(raw, name, _noting(factory))
    setattr(raw, _USED, False)


@functools.cache
def _noting(factory: Any) -> Any:
    """A cursor class that marks its connection as used when one is made."""

    def __init__(self: Any, connection: Any, *args: Any, **kwargs: Any) -> None:
        setattr(connection, _USED, True)
        factory.__init__(self, connection, *args, **kwargs)

    return type(factory.__name__, (factory,), {"__init__": __init__, _USED: True})


def _is_used(raw: Any) -> bool:
    # A connection that the task opened was never watched, and counts as used.
    idle = not raw.closed and raw.info.transaction_status == TransactionStatus.IDLE
    return bool(getattr(raw, _USED, True)) or not idle or not raw.autocommit or _was_spoken_to(raw)


def _was_spoken_to(raw: Any) -> bool:
    """Whether the server said something unasked: as a rule that it ended the session."""
    readable, _, _ = select.select([raw.fileno()], [], [], 0)
    return bool(readable)


def _reset_other(connection: Any) -> None:
    """Of a database that is not PostgreSQL only transactions are known."""
    if connection.in_atomic_block:
        _close(connection, "the task left a transaction open")
    else:
        connection.close_if_unusable_or_obsolete()


def _scrub(connection: Any) -> None:
    raw = connection.connection
    if raw.closed or raw.info.transaction_status != TransactionStatus.IDLE:
        _close(connection, "the task left it in a transaction or in the middle of a query")
        return
    try:
        if not raw.autocommit:
            connection.set_autocommit(True)
        for name in ("isolation_level", "read_only", "deferrable"):
            if getattr(raw, name) != getattr(connection, name, None):
                setattr(raw, name, getattr(connection, name, None))
        with psycopg.ClientCursor(raw) as cursor:
            cursor.execute(statement("scrub_session"), [connection.timezone_name or "UTC"])
            if role := connection.settings_dict.get("OPTIONS", {}).get("assume_role"):
                cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        connection.errors_occurred = False
    except Exception as error:
        _close(connection, " ".join(str(error).split()))


def _close(connection: Any, why: str) -> None:
    """Close a connection that cannot be brought back; the next use opens a new one."""
    schema = getattr(connection, "schema_name", None)
    logger.info("Connection %s is closed: %s", connection.alias, why, extra={"schema": schema})
    connection.in_atomic_block = False
    connection.atomic_blocks = []
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.commit_on_exit = True
    connection.closed_in_transaction = False
    connection.close()
