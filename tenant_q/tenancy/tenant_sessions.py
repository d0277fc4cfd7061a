"""The sessions that tenants' roles open in a worker, under `TENANT_Q["isolation"]` "login".

A session is opened by the first statement of a tenant's task. A worker keeps those of the tenants that it served last,
and a thread closes them once they are idle.
"""

from __future__ import annotations

import functools
import select
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import psycopg
from django.db import connections
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, DatabaseAway, LoginAway, LoginRefused, SessionLimit
from tenant_q.sql import statement
from tenant_q.support.visible import one_line
from tenant_q.tenancy import acting, owner_blocks, owner_settings, role_records, verification, worker_state
from tenant_q.tenancy.connection import detect_outages, raw_cursor
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.restriction import restricted
from tenant_q.tenancy.role_records import RoleRecord
from tenant_q.tenancy.tenancy_package import (
    Databases,
    as_owner_in_public,
    public_schema,
    switched_connections,
)
from tenant_q.tenancy.tenants import get_tenant, refresh_tenant, require_role

# A session of a tenant that is not served is closed after this many seconds.
IDLE_SECONDS = 10.0

_Key = tuple[str, str, int]  # the alias, the role, the version of its password


class _Kept:
    """The idle sessions of tenants that this worker has served, the one served last at the end."""

    def __init__(self) -> None:
        self._found: OrderedDict[_Key, tuple[Any, float]] = OrderedDict()
        # The number of sessions that the completer's thread has, which are never kept.
        self._elsewhere = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self, key: _Key) -> Any:
        """Return an idle connection, which is no longer kept; None if there is none that can be used."""
        with self._changed:
            connection, _ = self._found.pop(key, (None, 0.0))
        if connection is not None and not _is_usable(connection.connection):
            _close(connection)
            return None
        return connection

    def put(self, key: _Key, connection: Any) -> None:
        """Keep the connection of a tenant that is no longer served."""
        if not _is_usable(connection.connection):
            _close(connection)
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
            _close(connection)

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
            _close(connection)


_kept = _Kept()


def _serve_as_login(schema: str, databases: Databases) -> None:
    """Give the aliases in this thread connections that the tenant's role opens, with their first statement."""
    role = require_role(schema)
    tenant = get_tenant(schema)
    is_main = threading.current_thread() is threading.main_thread()
    made = {
        one.alias: _connection(one.alias, schema, role, may_keep=is_main) for one in switched_connections(databases)
    }
    if not is_main:  # while the main thread has as many
        _kept.count_elsewhere(len(made))
    _kept.limit(conf().tenant_sessions - len(made))
    acting.open_as_tenant(
        made,
        schema,
        role.role,
        park=functools.partial(_park, role, made),
        prepare=functools.partial(prepare, schema=schema),
    )
    for connection in made.values():
        connection.set_tenant(tenant)


def _park(role: RoleRecord, made: dict[str, Any]) -> None:
    """Keep the sessions of a tenant that is no longer served, or close them if others may need its sessions."""
    is_main = threading.current_thread() is threading.main_thread()
    has_few = role.connection_limit is not None and role.connection_limit < conf().workers
    for alias, connection in made.items():
        if has_few or not is_main:
            _close(connection)
        elif connection.connection is not None:
            _kept.put((alias, role.role, role.version), connection)
    if is_main:
        _kept.limit(conf().tenant_sessions)
    else:
        _kept.count_elsewhere(-len(made))


def _connection(alias: str, schema: str, role: RoleRecord, *, may_keep: bool) -> Any:
    found = _kept.take((alias, role.role, role.version)) if may_keep else None
    if found is not None:
        return found
    connection = connections.create_connection(alias)
    password = _password_of(connection, schema, role)
    connection.settings_dict = owner_settings.settings_for(alias, role.role, password)
    prepare(connection, schema)
    return connection


def _password_of(connection: Any, schema: str, role: RoleRecord) -> str:
    """Return the password of a tenant's role. Raises `LoginRefused` if the project's function fails: its tasks wait."""
    try:
        return password_of(_database(), role.role, role.version)
    except ConfigurationError as error:
        raise LoginRefused(f"The role {role.role} of tenant {schema!r} has no password: {error}") from error


@functools.cache
def _database() -> str:
    """Return the name of the tenants' database as the server has it. A pooler and a service may have another name."""
    with detect_outages(), as_owner_in_public(), raw_cursor() as cursor:
        found = cursor.execute("SELECT pg_catalog.current_database()::pg_catalog.text").fetchall()
    return str(found[0][0])


def prepare(connection: Any, schema: str) -> None:
    """Have a connection of a tenant log in with the present password of its role, and report why it cannot."""
    connection.get_new_connection = functools.partial(_log_in, connection, schema)
    connection.connect = functools.partial(_connect, connection, schema)


def seconds_of_opening() -> float:
    """Return the seconds that this thread has spent opening sessions of tenants' roles.

    They are not counted as a task's own time. Otherwise the broker would take the tasks of tenants without a session
    for long ones, give out fewer of them at once, and so cause even more sessions to be opened.
    """
    return _opening.seconds


class _Opening(threading.local):
    seconds = 0.0


_opening = _Opening()


def _connect(connection: Any, schema: str) -> None:
    acting.refuse_unserved()  # a thread of a pool may have the connection since a task of another tenant
    begun = time.monotonic()
    try:
        type(connection).connect(connection)
        _refuse_own_settings(connection, schema)
    finally:
        _opening.seconds += time.monotonic() - begun


def _refuse_own_settings(connection: Any, schema: str) -> None:
    """Close a session if its role has given itself settings since the schema was verified, as they apply to it.

    The owner looks for them: its session knows the catalogue already, which takes a new one much longer.
    """
    query = sql.SQL("SELECT {}").format(
        sql.SQL(statement("own_settings")).format(role=sql.Literal(connection.settings_dict["USER"]))
    )
    with detect_outages(), as_owner_in_public(), raw_cursor() as cursor:
        ((found,),) = cursor.execute(query).fetchall()
    if found:
        connection.close()
        verification.have_repaired(schema, found)


def _log_in(connection: Any, schema: str, parameters: dict[str, Any]) -> Any:
    open_session = type(connection).get_new_connection
    try:
        return open_session(connection, parameters)
    except psycopg.OperationalError as error:
        role = _find_out(schema, parameters["user"], error)
    # The password may have been rotated, or a session may have ended, since the tenant was looked up.
    refresh_tenant(schema, 0)
    password = _password_of(connection, schema, role)
    connection.settings_dict["PASSWORD"] = password
    try:
        return open_session(connection, parameters | {"password": password})
    except psycopg.OperationalError as error:
        _find_out(schema, role.role, error)
        verification.mark_role(schema, role, one_line(error))
        raise LoginRefused(
            f"The role {role.role} of tenant {schema!r} cannot log in: {one_line(error)}; a scheduler repairs it."
        ) from error


def _find_out(schema: str, role: str, error: Exception) -> RoleRecord:
    """Return the record of a role that could not log in, once no rotation of its password is going on.

    Raises:
        SessionLimit: The role, or the server, has as many sessions as it may.
        LoginRefused: The role is not active.
        LoginAway: The owner cannot log in either.
    """
    query = sql.SQL(statement("role_now")).format(
        roles=sql.Identifier(public_schema(), role_records.rows().model._meta.db_table), schema=sql.Literal(schema)
    )
    try:
        with detect_outages(), as_owner_in_public(), raw_cursor() as cursor:
            found = cursor.execute(query).fetchone()
    except DatabaseAway as away:
        raise LoginAway(str(away)) from away
    if found is None:
        raise LoginRefused(f"Tenant {schema!r} has no database role any more; provision it.") from error
    version, state, is_at_limit, is_server_full = found
    if is_at_limit or is_server_full:
        whose = f"The role {role} of tenant {schema!r}" if is_at_limit else "The server"
        raise SessionLimit(f"{whose} has as many sessions as it may; the task is tried again.") from error
    if state != "active":
        raise LoginRefused(f"The role {role} of tenant {schema!r} is in the state {state!r}.") from error
    return RoleRecord(role, version, state, None)


def _is_usable(raw: Any) -> bool:
    """Return whether a session is open and idle, and the server has not ended it."""
    if raw is None or raw.closed or raw.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    readable, _, _ = select.select([raw.fileno()], [], [], 0)
    return not readable


def _close(connection: Any) -> None:
    """Close the session of a connection from any thread; the connection is not used again."""
    raw, connection.connection = connection.connection, None
    if raw is not None:
        with suppress(psycopg.Error, OSError):
            raw.close()


def role_to_verify(schema: str) -> str | None:
    """Return the role of the tenant whose schema is verified; None where tenants are not isolated.

    Raises:
        TenantNotReady: The tenant has no active role.
    """
    return require_role(schema).role if worker_state.is_isolated() and schema != public_schema() else None


def serve(schema: str, databases: Databases = None) -> None:
    """Have this thread act as the role of a tenant, whose schema the owner has verified, if tenants are isolated.

    `tenancy.leave` ends it. Tasks of the public schema act as the owner.

    Args:
        schema: The schema of the tenant.
        databases: The aliases of further databases of the task; None for those of the settings.

    Raises:
        TenantNotReady: The tenant has no active role.
    """
    if not worker_state.is_isolated():
        return
    if schema == public_schema():
        acting.serve_public(schema)
    elif worker_state.mode() == "role":
        acting.take_role(schema, require_role(schema).role, [one.alias for one in switched_connections(databases)])
    else:
        _serve_as_login(schema, databases)


def restricted_to_served(schema: str) -> AbstractContextManager[None]:
    """Restrict a block of the project's code to the tenant that is served, if tenants are isolated."""
    return restricted(schema) if owner_blocks.is_as_tenant() else nullcontext()


@contextmanager
def acting_as(schema: str) -> Iterator[None]:
    """Run a block with the project's code as the role of a tenant, whose schema is current, if tenants are isolated.

    Raises:
        TenantNotReady: The tenant has no active role.
    """
    if not worker_state.is_isolated() or owner_blocks.is_as_tenant():
        yield
        return
    serve(schema)
    try:
        yield
    finally:
        acting.leave_role()
