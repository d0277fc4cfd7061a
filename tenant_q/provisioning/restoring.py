"""Restore a tenant's role as its row describes it: attributes, limit, password and no settings; end its sessions."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors, sql

from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantRole
from tenant_q.provisioning import roles, scram
from tenant_q.provisioning.admin_connection import database_name
from tenant_q.sql import statement
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line

Admin = psycopg.Connection[Any]
END_SECONDS = 5
"""The longest wait for the end of one session of a role."""


def restore_role(admin: Admin, row: TenantRole) -> None:
    """Restore a tenant's role as its row describes it.

    A role may alter its own password and settings. If one of its sessions has done so in a transaction that is still
    open, the role's sessions are ended.

    Args:
        admin: A session of the admin role.
        row: The row of the tenant's role. Its version determines the password.

    Raises:
        ProvisioningError: The role does not exist or is not ours, or PostgreSQL refuses the change.
        ConfigurationError: The password cannot be computed.
    """
    database = database_name()  # not the name that the admin's session uses, which may be a pooler's
    verifier = scram.role_verifier(database, row.role, row.version)
    try:
        if not roles.exists(admin, row.role):
            raise ProvisioningError(
                f"The role {row.role} of {row.schema_name} does not exist; run "
                f"`python manage.py mstenant provision {row.schema_name} --adopt`."
            )
        try:
            _correct(admin, row, database, verifier)
        except errors.LockNotAvailable:
            end_sessions(admin, row)
            _correct(admin, row, database, verifier)
    except psycopg.Error as error:
        raise _refused(row, error) from error


def end_sessions(admin: Admin, row: TenantRole) -> int:
    """End all sessions of a tenant's role, on the whole server, and wait for their end.

    Only who inherits a role's rights may end its sessions. The admin role does so in a transaction that is rolled back,
    so that a kill leaves nothing.

    Args:
        admin: A session of the admin role.
        row: The row of the tenant's role.

    Returns:
        The number of the sessions.

    Raises:
        ProvisioningError: A session does not end, or PostgreSQL refuses it.
    """
    role, admin_role = sql.Identifier(row.role), sql.Identifier(admin.info.user)
    query = sql.SQL(statement("end_sessions_of_role")).format(
        role=sql.Literal(row.role), patience=sql.Literal(END_SECONDS * 1000)
    )
    try:
        with admin.transaction(force_rollback=True):
            admin.execute(sql.SQL("GRANT {} TO {} WITH INHERIT TRUE, SET FALSE").format(role, admin_role))
            ended = [has_ended for (has_ended,) in admin.execute(query).fetchall()]
    except psycopg.Error as error:
        raise _refused(row, error) from error
    if not all(ended):
        raise ProvisioningError(
            f"{counted(ended.count(False), 'session')} of the role {row.role} did not end within {END_SECONDS} s; look "
            "at them in pg_stat_activity, and try again."
        )
    return len(ended)


def _correct(admin: Admin, row: TenantRole, database: str, verifier: str) -> None:
    roles.create_or_correct(
        admin, row.role, database=database, verifier=verifier, connection_limit=row.connection_limit
    )
    roles.allow_use(admin, row.role)


def _refused(row: TenantRole, error: psycopg.Error) -> ProvisioningError:
    return ProvisioningError(
        f"The role {row.role} of {row.schema_name} could not be changed: {one_line(error)}; correct that, and run "
        f"`python manage.py mstenant rotate {row.schema_name}`."
    )
