"""Remove the database role of a tenant: end its sessions, take back its rights, and drop it with what it owns.

PostgreSQL drops no role that owns something or has a right anywhere on the server. Only the role that granted a right
takes it back. So the owner of the tables has the rights of the tenant's role meanwhile, and the admin role drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantRole
from tenant_q.provisioning import grants, roles
from tenant_q.provisioning.admin_connection import database_name, owner_role
from tenant_q.provisioning.restoring import end_sessions
from tenant_q.provisioning.role_rows import locked_row
from tenant_q.sql import statement

Admin = psycopg.Connection[Any]
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Dependency:
    """What keeps PostgreSQL from dropping a role.

    Attributes:
        elsewhere: The other database in which it is; None for this one, and for what all databases share.
        what: A description; None for objects in another database.
        is_database: Whether it is a right on this database itself.
    """

    elsewhere: str | None
    what: str | None
    is_database: bool


def require_nothing_elsewhere(role: str) -> None:
    """Raise `ProvisioningError` if a tenant's role owns something, or has a right, in another database."""
    if databases := list(dict.fromkeys(one.elsewhere for one in _dependencies(role) if one.elsewhere is not None)):
        command = f"DROP OWNED BY {_quoted(role)};"
        named = " and ".join(repr(name) for name in databases[:_SHOWN])
        raise ProvisioningError(
            f"The role {role!r} owns objects, or has rights, in the database {named}, which only a session there can "
            f"remove; connect there as a superuser and run: {command} Then run the same command again."
        )


def lock_out(admin: Admin, schema: str, role: str) -> None:
    """Let a tenant's role open no more sessions, give the owner its rights, and end the sessions that it has.

    Args:
        admin: A session of the admin role.
        schema: The schema name of the tenant.
        role: The name of the role, which need not exist any more.

    Raises:
        ProvisioningError: A right is missing, or a session does not end.
        DatabaseAway: The database cannot be reached.
    """
    with locked_row(schema) as row:
        if row is not None:
            row.state = TenantRole.State.LEAVING  # no scheduler repairs it any more
            row.save(update_fields=["state"])
    if roles.exists(admin, role):
        roles.forbid_login(admin, role)
        roles.lend(admin, role, owner_role(), inherit=True)
        end_sessions(admin, TenantRole(schema_name=schema, role=role))


def take_back(admin: Admin, role: str, *, keep_objects: bool) -> None:
    """Take back all rights of a tenant's role in this database, and drop or keep what it owns there.

    Args:
        admin: A session of the admin role.
        role: The name of the role, which need not exist any more.
        keep_objects: Whether what it owns is given to the owner of the tables.

    Raises:
        ProvisioningError: A right is missing.
        DatabaseAway: The database cannot be reached.
    """
    if roles.exists(admin, role):
        roles.again_on_conflict(lambda: _take_back(role, keep_objects=keep_objects))
        if any(one.is_database for one in _dependencies(role)):  # granted by the admin role
            admin.execute(_of_role("REVOKE ALL ON DATABASE {database} FROM {role}", role, database=database_name()))


def _take_back(role: str, *, keep_objects: bool) -> None:
    with tenancy.as_owner_in_public(), tenancy.in_patient_transaction(), tenancy.raw_cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [grants.LOCK])
        if keep_objects:
            cursor.execute(_of_role("REASSIGN OWNED BY {role} TO CURRENT_USER", role))
        cursor.execute(_of_role("DROP OWNED BY {role} CASCADE", role))


def drop(admin: Admin, role: str) -> None:
    """Drop a tenant's role that owns nothing and has no rights any more, if it is there.

    Args:
        admin: A session of the admin role.
        role: The name of the role.

    Raises:
        ProvisioningError: Something is left that this project's roles cannot remove; the message names it.
        DatabaseAway: The database cannot be reached.
    """
    require_nothing_elsewhere(role)
    if left := [one.what for one in _dependencies(role)]:
        raise _left_over(role, ", ".join(map(str, left[:_SHOWN])) + (", ..." if len(left) > _SHOWN else ""))
    try:
        roles.drop(admin, role)
    except errors.DependentObjectsStillExist as error:
        raise _left_over(role, error.diag.message_detail or str(error)) from error


def _left_over(role: str, what: str) -> ProvisioningError:
    quoted = _quoted(role)
    return ProvisioningError(
        f"The role {role!r} cannot be dropped, because it still owns or may use {what}; run in the database "
        f"{database_name()!r} as a superuser: REASSIGN OWNED BY {quoted} TO {_quoted(owner_role())}; "
        f"DROP OWNED BY {quoted}; then run the same command again."
    )


def _dependencies(role: str) -> list[_Dependency]:
    query = sql.SQL(statement("role_dependencies")).format(role=sql.Literal(role))
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), tenancy.raw_cursor() as cursor:
        return [_Dependency(*row) for row in cursor.execute(query).fetchall()]


def _of_role(text: Any, role: str, **names: str) -> sql.Composed:
    return sql.SQL(text).format(role=sql.Identifier(role), **{key: sql.Identifier(one) for key, one in names.items()})


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
