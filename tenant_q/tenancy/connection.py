"""The connections to the tenants' databases: detect outages, wait for locks only briefly, share none across a fork."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from django.db import Error as DatabaseFailure
from django.db import InterfaceError, connections, transaction
from psycopg import generators
from psycopg.pq import ExecStatus, TransactionStatus

from tenant_q.exceptions import DatabaseAway
from tenant_q.support.visible import one_line
from tenant_q.tenancy import acting, wait_limits
from tenant_q.tenancy.event_loops import refuse_in_event_loop
from tenant_q.tenancy.tenancy_package import database_alias, public_schema, switched_connections, tenant_connection

T = TypeVar("T")

# The attribute of a driver's connection that is True once something was sent over it (see `scrubbing.sessions`).
USED = "_tenant_q_used"
# The longest wait for a lock on one tenant's table, held by a migration for example, so that no other tenant waits.
LOCK_MS = 1000
# How often a transaction that conflicts with another one is tried in total.
ATTEMPTS = 5
# The tenancy packages do not wrap the driver's errors when they set the search path.
DATABASE_ERRORS = (DatabaseFailure, psycopg.Error)

# Error codes after which the server ends the session: shutdowns, a dropped database, and limits on idle sessions.
_LOSSES = {"57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04"}

# Django's connections of all threads of this process, and those of threads that the cluster did not start.
_made: weakref.WeakSet[Any] = weakref.WeakSet()
_elsewhere: weakref.WeakSet[Any] = weakref.WeakSet()
_own_threads: set[int] = set()
# The parent's connections. They are kept, since a driver may send a goodbye to the server when it frees a connection.
_inherited: list[Any] = []


@contextmanager
def detect_outages() -> Iterator[None]:
    """Raise `DatabaseAway` if a block loses the connection to a tenants' database.

    An error of a statement alone is raised as it is. A lost connection is closed; the next use opens a new one.
    """
    # At the end of a transaction whose session was lost, Django opens a new one. So the old session is checked.
    before = {connection: connection.connection for connection in _concerned()}
    try:
        yield
    except DATABASE_ERRORS as error:
        for connection in _concerned():
            if not connection.in_atomic_block and (was_lost(before.get(connection), error) or is_lost(connection)):
                connection.close()
                reason = one_line(error)
                raise DatabaseAway(f"Database {connection.alias!r} cannot be reached: {reason}.") from error
        raise


def _concerned() -> list[Any]:
    return [*switched_connections(), *acting.owner_connections()]


@contextmanager
def in_patient_transaction(lock_ms: int | None = None) -> Iterator[None]:
    """Run a block in a transaction on the tenants' connection, with a limit for each wait for a lock.

    In a transaction of the caller, the caller's own limit is restored afterwards.

    Args:
        lock_ms: The limit in milliseconds; None for `LOCK_MS`.

    Raises:
        DatabaseAway: The database cannot be reached.
        OperationalError: A lock was not free in time.
    """
    connection = tenant_connection()
    is_outermost = not connection.in_atomic_block
    with detect_outages(), transaction.atomic(using=connection.alias):
        with connection.cursor() as cursor:
            former = None if is_outermost else _lock_timeout(cursor)
            _limit_locks(cursor, str(lock_ms or LOCK_MS))
        yield
        if former is not None:  # after an error, the savepoint restores it
            with connection.cursor() as cursor:
                _limit_locks(cursor, former)


def _lock_timeout(cursor: Any) -> str:
    cursor.execute("SELECT pg_catalog.current_setting('lock_timeout')")
    return str(cursor.fetchone()[0])


def _limit_locks(cursor: Any, value: str) -> None:
    cursor.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", [value])


def retry_conflicts(act: Callable[[], T]) -> T:
    """Run a transaction on the tenants' connection, and again at once if it conflicts with another one.

    A conflict is a deadlock, or a serialization failure in a project with an `isolation_level` stricter than READ
    COMMITTED. In a transaction of the caller, `act` is called only once.

    Args:
        act: A function that runs one transaction.

    Returns:
        What `act` returns.
    """
    is_outermost = not tenant_connection().in_atomic_block
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return act()
        except DATABASE_ERRORS as error:
            if attempt == ATTEMPTS or not is_outermost or not is_conflict(error):
                raise
    raise AssertionError("not reached")


def is_conflict(error: BaseException) -> bool:
    """Return whether a connection's transaction was rolled back in favour of another one."""
    cause = error.__cause__ if isinstance(error, DatabaseFailure) else error
    return isinstance(cause, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected)


def on_commit(act: Callable[[], Any]) -> None:
    """Call `act` when the open transaction on the tenants' connection commits, or at once if none is open.

    Raises:
        InEventLoop: The caller is a coroutine, even one of a task: the transaction would be in another thread.
    """
    refuse_in_event_loop("on_commit")
    transaction.on_commit(act, using=database_alias())


def was_lost(session: Any, error: BaseException) -> bool:
    """Return whether an error was caused by the loss of a connection's session.

    Args:
        session: The driver's connection before the error; None if there was none.
        error: The error.
    """
    cause = error.__cause__ if isinstance(error, DatabaseFailure) and error.__cause__ else error
    if isinstance(cause, psycopg.OperationalError):
        # Errors that the driver itself raises for a lost session have no code.
        is_loss = cause.sqlstate is None or cause.sqlstate[:2] == "08" or cause.sqlstate in _LOSSES
    else:
        is_loss = session is not None and isinstance(cause, psycopg.InterfaceError | InterfaceError)
    return is_loss and (session is None or bool(session.closed))


def is_lost(connection: Any) -> bool:
    """Return whether a tenants' connection has lost its session."""
    raw = connection.connection
    if raw is None or raw.closed:
        return True
    # In a transaction that an error has ended, every query fails, although the server answers.
    return raw.info.transaction_status != TransactionStatus.INERROR and not connection.is_usable()


@contextmanager
def raw_cursor() -> Iterator[psycopg.ClientCursor[Any]]:
    """Yield a cursor of the driver on the tenants' connection. It ignores the search path, so qualify every name."""
    connection = tenant_connection()
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
        yield cursor


def fetch_raw(connection: Any, query: bytes) -> list[str | None]:
    """Send a query over a tenants' connection without a cursor, and return its last row as text.

    With a tenancy package, Django's cursor would take another round trip, and the driver's cursor costs more than the
    server's answer.
    """
    with detect_outages(), connection.wrap_database_errors:
        connection.ensure_connection()
        raw = connection.connection
        if raw.closed:
            raise psycopg.OperationalError("the connection is closed")
        setattr(raw, USED, True)  # this way bypasses the method that `scrubbing.sessions` watches
        raw.pgconn.send_query(query)
        result = raw.wait(generators.execute(raw.pgconn))[-1]
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result, encoding=raw.info.encoding)
        values = (result.get_value(0, column) for column in range(result.nfields))
        return [None if value is None else value.decode() for value in values]


def note_connections() -> None:
    """Keep track of Django's connections in every thread of this process from now on."""
    _made.update(connections.all(initialized_only=True))
    vars(connections)["create_connection"] = _create


def _create(alias: str) -> Any:
    connection = type(connections).create_connection(connections, alias)
    acting.prepare(connection)
    _made.add(connection)
    if threading.current_thread() is not threading.main_thread() and threading.get_ident() not in _own_threads:
        _elsewhere.add(connection)
    return connection


def keep_own_thread() -> None:
    """Keep other threads off the connections of this thread of the cluster, and limit its waits."""
    _own_threads.add(threading.get_ident())
    acting.stay_owner()
    wait_limits.limit_thread()


def leave_in_other_threads() -> None:
    """Take the connections of other threads out of their schema, and let go of their sessions.

    A thread that works on for another tenant must enter it first; until then its queries are refused, and so is the
    rest of an open transaction. A session that a thread is just using is not closed: the last object that holds it
    closes it.
    """
    if not _elsewhere:
        return
    for connection in list(_elsewhere):
        if hasattr(connection, "set_schema_to_public"):
            _leave_elsewhere(connection)


def _leave_elsewhere(connection: Any) -> None:
    if connection.schema_name != public_schema():
        connection.set_schema_to_public()  # and then to none: both packages refuse a cursor there
        connection.tenant, connection.schema_name = None, ""
    raw, connection.connection = connection.connection, None
    if connection.in_atomic_block:
        connection.closed_in_transaction = connection.needs_rollback = True
    if raw is not None and raw.lock.acquire(blocking=False):
        try:
            raw.close()
        finally:
            raw.lock.release()


def drop_inherited_connections() -> None:
    """Let go of the parent's connections without a message to their servers. Call it in a child that was just forked.

    Code that still holds a connection of the driver, in a cursor for example, finds it broken, because its file
    descriptor leads elsewhere in this process.
    """
    for connection in {*connections.all(initialized_only=True), *_made}:
        if connection.connection is not None:
            _cut_socket(connection.connection)
            _inherited.append(connection.connection)
            connection.connection = None
        forget_transaction(connection)
        # Only the thread that forked is left, and it may close only its own connections.
        if connection._thread_ident == threading.get_ident():
            connection.close()
    _elsewhere.clear()
    _own_threads.clear()


def _cut_socket(raw: Any) -> None:
    """Replace the socket of an inherited connection by one whose other end is closed."""
    if not isinstance(raw, psycopg.Connection) or raw.closed:
        return
    ours, other = socket.socketpair()
    with ours:
        other.close()
        os.dup2(ours.fileno(), raw.fileno(), inheritable=False)


def forget_transaction(connection: Any) -> None:
    """Make Django forget the transaction on a connection."""
    connection.in_atomic_block = False
    connection.atomic_blocks = []
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.commit_on_exit = True
    connection.closed_in_transaction = False
    connection.run_on_commit = []


def keep_connections_open() -> None:
    """Keep connections open between tasks, and let Django check them after an error. For processes of a cluster.

    A pool is switched off: it would pass on what a task left in a session to the next task.
    """
    for connection in connections.all():
        connection.settings_dict["CONN_MAX_AGE"] = None
        connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
        connection.close_at = None


def limit_waits() -> None:
    """Limit the waits of a cluster process on its connections, and detect dead network paths."""
    wait_limits.install()
    for connection in connections.all():
        if connection.vendor == "postgresql":
            wait_limits.complete_options(connection.settings_dict.setdefault("OPTIONS", {}))


def close_connections() -> None:
    """Close each connection to a database that is in no transaction. Call it before a fork, so that none crosses it."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
