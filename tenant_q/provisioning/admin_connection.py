"""Open sessions of the role that may create roles. `TENANT_Q["admin_database"]` names it, and no alias of Django does.

A task can use every alias, and must never have the right to create roles.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from django.utils.module_loading import import_string

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ProvisioningError
from tenant_q.sql import statement
from tenant_q.support.visible import error_line, one_line

OLDEST = 160000
"""The oldest version of PostgreSQL whose grants of roles say whether rights are inherited: 16."""
_CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class TenantsServer:
    """What the tenants' connection leads to.

    Attributes:
        version: The version of the server, as 180006.
        database: The name of the database.
        identity: The OID of the database and the start of the server, by which another session is compared.
        owner: The role that owns the tenants' objects.
        login: The role that logged in, which is another one with `assume_role`.
    """

    version: int
    database: str
    identity: tuple[int, datetime]
    owner: str
    login: str


class _Open(threading.local):
    """The admin session that is open in this thread, and the server to which it and the tenants' connection lead."""

    session: psycopg.Connection[Any] | None = None
    server: TenantsServer | None = None


_open = _Open()


def is_configured() -> bool:
    """Return whether `TENANT_Q` names the database of the admin role, so that tenants can have roles."""
    return bool(conf().admin_database)


def tenants_server() -> TenantsServer:
    """Look up what the tenants' connection leads to, with one statement; with none inside of an admin session.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    if _open.server is not None:
        return _open.server
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        ((version, database, oid, started, owner, login),) = cursor.execute(statement("tenants_server")).fetchall()
    return TenantsServer(version, database, (oid, started), owner, login)


def owner_role() -> str:
    """Return the name of the role that owns the tenants' objects. Raises `DatabaseAway`."""
    return tenants_server().owner


def database_name() -> str:
    """Return the name of the tenants' database, as PostgreSQL has it. Raises `DatabaseAway`."""
    return tenants_server().database


@contextmanager
def admin_session() -> Iterator[psycopg.Connection[Any]]:
    """Open a session of the admin role in the tenants' database, with limited waits and without a transaction.

    Inside another block of the same thread it is that block's session.

    Raises:
        ProvisioningError: `TENANT_Q["admin_database"]` is not set, cannot be reached, leads to another database, or its
            role may not create roles; or PostgreSQL is older than 16.
        DatabaseAway: The tenants' database cannot be reached.
    """
    if _open.session is not None and not _open.session.closed:
        yield _open.session
        return
    session = _connect()
    with session:
        server = _check(session)
        _open.session, _open.server = session, server
        try:
            yield session
        finally:
            _open.session = _open.server = None


@contextmanager
def sessions_for_many() -> Iterator[None]:
    """Keep one admin session for all operations in a block, if tenants have roles. Raises as `admin_session`."""
    if not is_configured():
        yield
        return
    with admin_session():
        yield


def _connect() -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(
            _url(), autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="tenant_q admin"
        )
    except psycopg.ProgrammingError:  # its text holds parts of the URL, maybe the password
        raise ProvisioningError(
            "TENANT_Q['admin_database'] is no valid URL; set one such as postgresql://admin:...@host/database, with "
            "special characters of the password escaped."
        ) from None
    except psycopg.Error as error:
        raise ProvisioningError(
            f"TENANT_Q['admin_database'] cannot be reached: {one_line(error)}; start the server, or correct the URL."
        ) from None  # the frames of the driver hold the URL with its password


def _url() -> str:
    configured = conf().admin_database
    if not configured:
        raise ProvisioningError(
            "TENANT_Q['admin_database'] is not set, so no roles can be created; set it from the environment to the URL "
            "of the tenants' database for a role with CREATEROLE."
        )
    if "://" in configured:
        return configured
    try:
        found = import_string(configured)()
    except Exception as error:
        raise ProvisioningError(
            f"TENANT_Q['admin_database'] ({configured}) fails: {error_line(error)}; correct the function, or set a URL "
            "such as postgresql://admin:...@host/database."
        ) from error
    if not isinstance(found, str) or "://" not in found:
        raise ProvisioningError(f"TENANT_Q['admin_database'] ({configured}) returns no URL; correct the function.")
    return found


def _check(session: psycopg.Connection[Any]) -> TenantsServer:
    ((version, database, oid, started, role, may_create, *_),) = session.execute(statement("admin_session")).fetchall()
    server = tenants_server()
    if version < OLDEST:
        raise ProvisioningError(
            f"The server is PostgreSQL {version // 10000}, whose roles cannot separate tenants; upgrade it to "
            "PostgreSQL 16 or newer, or set TENANT_Q['isolation'] to 'path'."
        )
    if (oid, started) != server.identity:
        raise ProvisioningError(
            f"TENANT_Q['admin_database'] leads to the database {database!r} of another place than DATABASES, whose "
            f"database is {server.database!r}; name the same server and database in both."
        )
    if not may_create:
        raise ProvisioningError(
            f"The role {role!r} of TENANT_Q['admin_database'] may not create roles; run as a superuser: "
            f"ALTER ROLE {psycopg.sql.Identifier(role).as_string()} CREATEROLE;"
        )
    return server
