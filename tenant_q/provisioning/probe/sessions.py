"""The sessions of a probe: one of the owner, and one of each tenant's role, opened as a worker opens it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from django.db import connections
from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway, ProvisioningError
from tenant_q.provisioning.probe.subjects import Subject
from tenant_q.sql import statement
from tenant_q.support.visible import one_line
from tenant_q.tenancy import owner_settings
from tenant_q.tenancy.credentials import password_of

# The number of sessions that a role or the server may have is reached. Workers close idle ones after ten seconds.
_FULL = "53300"
_FULL_SECONDS = 15.0
# An attempt must not wait for the locks of others, and they must not wait long for it.
_LIMITS = "SET lock_timeout TO '100ms'; SET statement_timeout TO '20s'"
# What a probe finds open may hold functions of others, which the owner must not run.
_CATALOGUE_ONLY = "SET search_path TO pg_catalog, pg_temp; SET statement_timeout TO 0"
# libpq would look for the password of a file; this one cannot exist.
_NO_FILE = "/dev/null/none"


@contextmanager
def owner_session() -> Iterator[psycopg.Connection[Any]]:
    """Open a session of the role that owns the tenants' objects. By bare names it finds only PostgreSQL's own objects.

    Raises:
        DatabaseAway: The database cannot be reached, or the session is lost.
    """
    with ExitStack() as ends:
        try:
            raw = ends.enter_context(_session(owner_settings.owner_settings(tenancy.database_alias())))
            raw.execute(_CATALOGUE_ONLY)
            yield raw
        except psycopg.OperationalError as error:
            raise DatabaseAway(f"The tenants' database cannot be reached: {one_line(error)}; probe again.") from None


@contextmanager
def tenant_session(subject: Subject, mode: str) -> Iterator[psycopg.Connection[Any]]:
    """Open a session that acts as a tenant's role, as a worker of that isolation opens it, with limits for its waits.

    Args:
        subject: The tenant's role.
        mode: "login" or "role".

    Raises:
        ProvisioningError: The role cannot log in, or the owner cannot switch to it.
        ConfigurationError: Its password cannot be computed.
    """
    alias = tenancy.database_alias()
    values = owner_settings.owner_settings(alias)
    if mode == "login":
        password = password_of(str(values["NAME"]), subject.role, subject.version)
        values = owner_settings.settings_for(alias, subject.role, password)
    with ExitStack() as ends:
        try:
            raw = ends.enter_context(_session(values))
            if mode == "role":
                raw.execute(sql.SQL(statement("switch_role")).format(role=sql.Literal(subject.role)))
            raw.execute(_LIMITS)
        except psycopg.Error as error:
            able = "log in" if mode == "login" else "be set by this project's role"
            raise ProvisioningError(
                f"The role {subject.role!r} cannot {able}: {one_line(error)}; "
                f"run `python manage.py mstenant provision {subject.schema} --adopt`."
            ) from None  # the frames of the driver hold the password
        try:
            yield raw
        except psycopg.OperationalError as error:
            raise ProvisioningError(
                f"The session of the role {subject.role!r} was lost: {one_line(error)}; probe again."
            ) from None


def logs_in(user: str | None, password: str | None) -> bool:
    """Return whether the server opens a session for a role.

    Args:
        user: The role; None for the owner.
        password: Its password. None for none: not that of the settings, of the environment or of a file either.
    """
    values = owner_settings.owner_settings(tenancy.database_alias())
    if user is not None:
        values = owner_settings.settings_for(tenancy.database_alias(), user, "")
    connection = connections.create_connection(tenancy.database_alias())
    connection.settings_dict = values
    parameters = connection.get_connection_params()
    if password is None:
        parameters |= {"password": "", "passfile": _NO_FILE}
    else:
        parameters |= {"password": password}
    try:
        psycopg.connect(**parameters).close()
    except psycopg.OperationalError as error:
        return "too many connections for role" in str(error)  # which the server says after it has let the role in
    return True


@contextmanager
def _session(values: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """Open a session with the settings of a database, as Django does, and close it after the block."""
    connection = connections.create_connection(tenancy.database_alias())
    connection.settings_dict = values
    deadline = time.monotonic() + _FULL_SECONDS
    while True:
        try:
            with connection.wrap_database_errors:
                connection.ensure_connection()
            break
        except tenancy.DATABASE_ERRORS as error:
            cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
            if _is_full(cause) and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise cause from None  # the frames of the driver hold the password
    try:
        raw: psycopg.Connection[Any] = connection.connection
        raw.autocommit = True
        yield raw
    finally:
        connection.close()


def _is_full(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) == _FULL or "too many connections" in str(error)
