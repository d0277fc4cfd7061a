"""Lock the database: only roles to which CONNECT was granted can connect to it, and no longer everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tenant_q import audit, tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.provisioning.admin_connection import admin_session, tenants_server
from tenant_q.sql import statement

LOCK = "lock database"


@dataclass(frozen=True, slots=True)
class LockedOut:
    """A role that could no longer connect, and the number of its sessions in the database."""

    name: str
    sessions: int


def roles_to_lock_out() -> list[LockedOut]:
    """Return the roles that can connect to the tenants' database only because everybody can.

    Raises:
        ProvisioningError: The admin role's session cannot be opened.
        DatabaseAway: The database cannot be reached.
    """
    with admin_session() as admin:
        query = sql.SQL(statement("locked_out_roles")).format(kept=sql.Literal(_kept(admin)))
        return [LockedOut(*row) for row in admin.execute(query).fetchall()]


def lock_database(*, actor: str) -> None:
    """Let only tenants' roles, the owner, the admin role and who else was granted CONNECT connect to the database.

    Args:
        actor: Who asks for it, for the audit trail.

    Raises:
        ProvisioningError: Neither the owner nor the admin role may do it. The message names the statement.
        DatabaseAway: The database cannot be reached.
    """
    with admin_session() as admin:
        database, kept = tenants_server().database, _kept(admin)
        query = sql.SQL(statement("lock_database")).format(
            database=sql.Identifier(database), kept=sql.SQL(", ").join(map(sql.Identifier, kept))
        )
        with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
            ((owns, is_open),) = cursor.execute(statement("database_doors")).fetchall()
            if not is_open:
                return
            _execute(cursor if owns else admin, query)
        ((_, is_open),) = admin.execute(statement("database_doors")).fetchall()
    if is_open:
        raise ProvisioningError(
            f"Neither the project's role nor the admin role may lock the database; run as its owner: "
            f"{query.as_string()};"
        )
    audit.record(actor, LOCK, target=database, after={"connect": kept})


def _kept(admin: psycopg.Connection[Any]) -> list[str]:
    server = tenants_server()
    return sorted({server.owner, server.login, admin.info.user})


def _execute(session: Any, query: sql.Composed) -> None:
    try:
        session.execute(query)
    except psycopg.errors.InsufficientPrivilege:  # the caller looks at what came of it
        pass
