"""Scrub the database sessions after a task, and restore Django's state of them.

Language, time zone and all other context variables end with the context in which the task is called.

A task that sent nothing over a session left nothing in it. So each raw connection notes when something is sent over it,
by any cursor, and only used sessions are scrubbed, in one round trip. A session that is in a transaction, in the middle
of a query, broken, set up differently or opened by the task is closed.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connections
from django.db.backends.signals import connection_created
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q import tenancy
from tenant_q.scrubbing import process_state
from tenant_q.scrubbing.connection_setup import NOTED, RawSetup, Settings, Setup, copied
from tenant_q.sql import statement
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.tenancy.connection import USED, forget_transaction, leave_in_other_threads

logger = get_logger("tenant_q.session")

# The execute wrappers of the project at `watch()`, by the alias of the connection.
_wrappers: dict[str, list[Any]] = {}
# The aliases of the connections that were open.
_open: set[str] = set()
# Django's connections of the thread that called `watch()`, as whom they log in, and the settings of all databases.
_watched: dict[str, Any] = {}
_watched_roles: list[str | None] = []
_settings: list[Settings] = []


def watch_opened() -> None:
    """Watch each session that a tenant's role opens, from its opening on, so that it can be scrubbed and kept."""
    connection_created.connect(_watch_opened, dispatch_uid="tenant_q.sessions")


def _watch_opened(*, connection: Any, **_: Any) -> None:
    is_own = threading.current_thread() is threading.main_thread()
    if is_own and tenancy.is_of_tenant(connection) and not hasattr(connection.connection, NOTED):
        _watch_session(connection.connection)
        setattr(connection.connection, USED, True)


def watch() -> None:
    """Watch from now on which database sessions are used. Call it while every session is clean."""
    _open.clear()
    _wrappers.clear()
    _watched.clear()
    _watched_roles[:] = [tenancy.login_role()]
    if not _settings or not _settings[0].hold():
        _settings[:] = [Settings()]
    for connection in connections.all(initialized_only=True):
        if tenancy.is_of_tenant(connection) and getattr(connection.connection, USED, False):
            _scrub(connection, None)  # the project's receivers have used it since its last clean-up
        _watched[connection.alias] = connection
        _wrappers[connection.alias] = list(connection.execute_wrappers)
        if connection.vendor == "postgresql" and connection.connection is not None:
            _open.add(connection.alias)
            _watch_session(connection.connection)
        setup = getattr(connection, NOTED, None)
        if setup is None or not setup.holds(connection):
            setattr(connection, NOTED, Setup(connection))


def copied_settings() -> dict[str, Any]:
    """Copy the settings of all databases for the sessions of another thread. Call it while no task runs."""
    return tenancy.all_owner_settings() if tenancy.is_isolated() else copied(connections.settings)


def use_settings(settings: Mapping[str, Any]) -> None:
    """Give this thread's sessions their own settings, so that no change by a task affects them."""
    for alias, own in settings.items():
        connection = connections[alias]
        connection.settings_dict = own
        setattr(connection, NOTED, Setup(connection))


def clean_up(log_labels: Mapping[str, str] | None = None, *, is_last: bool = True) -> bool:
    """Scrub the database sessions that were used since `watch()`, and restore what was changed.

    Args:
        log_labels: The log labels of the task that ran.
        is_last: Whether code other than this tenant's tasks may run next. Only then is restored what only another
        tenant
            could see.

    Returns:
        Whether a session was used, so that its schema must be entered again.
    """
    was_used = False
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        process_state.restore(log_labels, is_last=is_last)
        if is_last:
            was_used = _put_settings_back(log_labels)
            leave_in_other_threads()
        if tenancy.is_isolated() and _watched_roles != [tenancy.login_role()]:
            return was_used  # what was watched are the connections of a tenant that was left since, or of the owner
    for connection in connections.all(initialized_only=True):
        if is_main and _watched.get(connection.alias, connection) is not connection:
            connection = _put_connection_back(connection, log_labels)
            was_used = True
        connection.run_on_commit = []
        _restore_wrappers(connection)
        if is_last:
            connection.queries_log.clear()
            _restore_setup(connection, log_labels)
        if connection.connection is None:
            was_used = was_used or connection.alias in _open
        elif connection.vendor != "postgresql":
            _scrub_other_database(connection, log_labels)
        elif _is_used(connection.connection):
            _scrub(connection, log_labels)
            was_used = True
    return was_used


def _put_settings_back(log_labels: Mapping[str, str] | None) -> bool:
    """Restore the databases' settings, with which sessions are opened. Return whether any was changed."""
    changed = _settings[0].restore() if _settings else []
    if changed:
        logger.warning(
            "The settings of the databases %s are put back",
            ", ".join(changed),
            event="session.settings_put_back",
            extra=log_labels,
        )
    return bool(changed)


def _put_connection_back(other: Any, log_labels: Mapping[str, str] | None) -> Any:
    """Put back the connection that a task has replaced by another one, and return it."""
    connection = connections[other.alias] = _watched[other.alias]
    logger.warning(
        "Connection %s is put back: the task put another one in its place",
        other.alias,
        event="session.put_back",
        extra=log_labels,
    )
    _close_session(other, "the task put it in the place of another", log_labels)
    return connection


def _restore_setup(connection: Any, log_labels: Mapping[str, str] | None) -> None:
    setup = getattr(connection, NOTED, None)
    if setup is None:  # the task was the first to use it
        setattr(connection, NOTED, Setup(connections.create_connection(connection.alias)))
        setup = getattr(connection, NOTED)
    if changed := setup.restore(connection):
        names = ", ".join(changed)
        logger.warning(
            "What the task changed in connection %s is put back: %s",
            connection.alias,
            names,
            event="session.changes_put_back",
            extra=log_labels,
        )


def _restore_wrappers(connection: Any) -> None:
    connection.execute_wrappers = list(_wrappers.get(connection.alias, ()))


def _watch_session(raw: Any) -> None:
    if not hasattr(raw, NOTED):
        send = raw.wait  # every cursor sends through it

        def wait(*args: Any, **kwargs: Any) -> Any:
            setattr(raw, USED, True)
            return send(*args, **kwargs)

        raw.wait = wait
        setattr(raw, NOTED, RawSetup(raw))
    setattr(raw, USED, False)


def _is_set_up_as_noted(raw: Any) -> bool:
    """Return whether a session is set up as before the task; False if the task opened it."""
    setup = getattr(raw, NOTED, None)
    return setup is not None and setup.holds(raw)


def _is_used(raw: Any) -> bool:
    idle = not raw.closed and raw.pgconn.transaction_status == TransactionStatus.IDLE
    untouched = idle and raw.autocommit and _is_set_up_as_noted(raw)
    return bool(getattr(raw, USED, True)) or not untouched or _has_unread_message(raw)


def _has_unread_message(raw: Any) -> bool:
    """Return whether the server sent a message over an idle session, usually that it ended it."""
    readable, _, _ = select.select([raw.fileno()], [], [], 0)
    return bool(readable)


def _scrub_other_database(connection: Any, log_labels: Mapping[str, str] | None) -> None:
    """Scrub the session of a database other than PostgreSQL: only end its open transaction."""
    if connection.in_atomic_block:
        _close_session(connection, "the task left a transaction open", log_labels)
    else:
        connection.close_if_unusable_or_obsolete()


def _scrub(connection: Any, log_labels: Mapping[str, str] | None) -> None:
    raw = connection.connection
    if raw.closed or raw.info.transaction_status != TransactionStatus.IDLE:
        _close_session(connection, "the task left it in a transaction or in the middle of a query", log_labels)
        return
    if not _is_set_up_as_noted(raw):
        why = "set it up in another way" if hasattr(raw, NOTED) else "opened it"
        _close_session(connection, f"the task {why}", log_labels)
        return
    try:
        if not raw.autocommit:
            connection.set_autocommit(True)
        threshold, raw.prepare_threshold = raw.prepare_threshold, 0  # so that the driver forgets its statements too
        with psycopg.ClientCursor(raw) as cursor:
            cursor.execute(statement("scrub_session"), [connection.timezone_name or "UTC"])
            if role := _assumed_role(connection):
                cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        raw.prepare_threshold = threshold
        connection.errors_occurred = False
        # Receivers of the project set again what they set in each new session.
        with no_return():
            connection_created.send(sender=type(connection), connection=connection)
        setattr(raw, NOTED, RawSetup(raw))
        if tenancy.is_of_tenant(connection):
            setattr(raw, USED, False)
        if connection.alias in _open:  # otherwise its wrappers belong to the new connection
            _restore_wrappers(connection)
    except Exception as error:
        _close_session(connection, one_line(error), log_labels)


def _assumed_role(connection: Any) -> str | None:
    """Return the role that a scrubbed session takes. A tenant's role is taken when its schema is verified again."""
    if tenancy.is_isolated():
        tenancy.note_scrubbed()
        role = tenancy.base_role(connection.alias)
        return None if role == "none" or tenancy.is_of_tenant(connection) else role
    return connection.settings_dict.get("OPTIONS", {}).get("assume_role")  # type: ignore[no-any-return]


def _close_session(connection: Any, why: str, log_labels: Mapping[str, str] | None) -> None:
    """Close a session that cannot be scrubbed. The next use of the connection opens a new one."""
    logger.info("Connection %s is closed: %s", connection.alias, why, event="session.closed", extra=log_labels)
    forget_transaction(connection)
    connection.close()
