"""Log a tenant's role in, with its present password, and find out why it cannot log in."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import psycopg
from psycopg import sql

from tenant_q.exceptions import ConfigurationError, DatabaseAway, LoginAway, LoginRefused, SessionLimit
from tenant_q.sql import statement
from tenant_q.support.visible import one_line
from tenant_q.tenancy import acting, role_records, verification
from tenant_q.tenancy.connection import detect_outages, raw_cursor
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_records import RoleRecord
from tenant_q.tenancy.tenancy_package import as_owner_in_public, public_schema
from tenant_q.tenancy.tenants import refresh_tenant


def password_of_role(schema: str, role: RoleRecord) -> str:
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
    password = password_of_role(schema, role)
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
