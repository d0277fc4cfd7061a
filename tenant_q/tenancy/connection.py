"""The connections to the tenants' databases: outages told apart, locks not waited for, none across a fork."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import Error as DatabaseFailure
from django.db import connections, transaction
from psycopg.pq import ExecStatus

from tenant_q.exceptions import DatabaseAway
from tenant_q.tenancy.loops import refuse_in_event_loop
from tenant_q.tenancy.seam import database_alias, switched_connections, tenant_connection

# The attribute of a driver's connection that says that something was sent over it (see `session`).
USED = "_tenant_q_used"
# A lock on one tenant's table (of a migration, say) is waited for this long, so that it holds up nobody else.
LOCK_MS = 1000
# The tenancy packages let the driver's own errors through when they set the search path.
DATABASE_ERRORS = (DatabaseFailure, psycopg.Error)


@contextmanager
def told_when_away() -> Iterator[None]:
    """Turn an error of the block into `DatabaseAway` where the server is what failed, not the statement.

    The connection is closed then; the next use opens a new one.
    """
    try:
        yield
    except DATABASE_ERRORS as error:
        for connection in switched_connections():
            if not connection.in_atomic_block and is_lost(connection):
                connection.close()
                reason = " ".join(str(error).split())
                raise DatabaseAway(
                    f"Database {connection.alias!r} cannot be reached: {reason}; it is tried again until it can."
                ) from error
        raise


@contextmanager
def in_patient_transaction(lock_ms: int | None = None) -> Iterator[None]:
    """A transaction on the tenants' connection that waits for no lock longer than `lock_ms`, else `LOCK_MS`.

    Raises `DatabaseAway`, and Django's `OperationalError` when a lock was not free in time.
    """
    connection = tenant_connection()
    with told_when_away(), transaction.atomic(using=connection.alias):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", [str(lock_ms or LOCK_MS)])
        yield


def on_commit(act: Callable[[], Any]) -> None:
    """Call `act` when the transaction commits that is open on the tenants' connection; at once where none is.

    Raises `InEventLoop` in a coroutine, also in one of a task: the transaction is in another thread.
    """
    refuse_in_event_loop("on_commit")
    transaction.on_commit(act, using=database_alias())


def is_lost(connection: Any) -> bool:
    raw = connection.connection
    return raw is None or bool(raw.closed) or not connection.is_usable()


@contextmanager
def raw_cursor() -> Iterator[psycopg.ClientCursor[Any]]:
    """A cursor of the driver on the tenants' connection, past the search path: every name has to be qualified."""
    connection = tenant_connection()
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
        yield cursor


def fetch_raw(connection: Any, query: bytes) -> list[str | None]:
    """The last row of a query, as text: one call of libpq, past all cursors.

    Django's would be a round trip more with a tenancy package, and the driver's costs more than the server's answer.
    """
    with told_when_away(), connection.wrap_database_errors:
        connection.ensure_connection()
        raw = connection.connection
        if raw.closed:
            raise psycopg.OperationalError("the connection is closed")
        setattr(raw, USED, True)  # what is sent in this way passes by what watches the session
        result = raw.pgconn.exec_(query)
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result, encoding=raw.info.encoding)
        values = (result.get_value(0, column) for column in range(result.nfields))
        return [None if value is None else value.decode() for value in values]


def words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def drop_inherited_connections() -> None:
    """In a child just forked: forget the parent's connections without a word to their servers."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None
        connection.in_atomic_block = False
        connection.savepoint_ids = []
        connection.needs_rollback = False
        connection.run_on_commit = []
        connection.close()


def keep_connections_open() -> None:
    """In a cluster process: connections stay open between tasks and are checked after an error.

    Not in a pool: it would hand what a task left in a session on to the next.
    """
    for connection in connections.all():
        connection.settings_dict["CONN_MAX_AGE"] = None
        connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
        connection.close_at = None


def close_connections() -> None:
    """Before a fork: close what no transaction needs, so that no connection crosses it."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
