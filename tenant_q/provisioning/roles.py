"""Create, correct and drop the database roles of tenants, over a session of the admin role.

A role that the admin role creates is in the group of its database from the first moment. A role of the same name
outside of the group belongs to somebody else, and is never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.sql import statement
from tenant_q.tenancy.role_names import group_name

T = TypeVar("T")
Admin = psycopg.Connection[Any]
NO_LIMIT = -1
_ATTEMPTS = 5
# Another session has just created the same group, or changes the same row of the catalogue.
_CONFLICTS = (
    errors.UniqueViolation,
    errors.DuplicateObject,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.SerializationFailure,
)


@dataclass(frozen=True, slots=True)
class _State:
    """What is there of a tenant's role and of the group, with the rights of the admin role on them."""

    may_grant_group: bool | None
    may_change: bool | None
    is_in_group: bool
    superfluous: str
    has_end: bool | None


def create_or_correct(
    admin: Admin,
    role: str,
    *,
    database: str,
    verifier: str,
    connection_limit: int | None = None,
) -> None:
    """Create a tenant's role with its group and password, or correct it if it exists.

    A new one cannot be used before `allow_use`.

    Args:
        admin: A session of the admin role.
        role: The name of the role.
        database: The name of the database.
        verifier: The SCRAM verifier of its password.
        connection_limit: The most sessions at once; None for no limit.

    Raises:
        ProvisioningError: The role or the group exists and is not ours.
    """
    group = group_name(database)
    values = {
        "role": sql.Identifier(role),
        "group": sql.Identifier(group),
        "database": sql.Identifier(database),
        "limit": sql.Literal(NO_LIMIT if connection_limit is None else connection_limit),
        "verifier": sql.Literal(verifier),
    }

    def act() -> None:
        state = _state(admin, role, group)
        _require_ours(state, role, group, admin)
        if state.may_grant_group is None:
            admin.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(values["group"]))
        name = "tenant_role_correct" if state.is_in_group else "tenant_role_create"
        names = [name, "tenant_role_unexpire"] if state.has_end else [name]
        _run(admin, sql.SQL(";\n").join(sql.SQL(statement(one)).format(**values) for one in names))

    again_on_conflict(act)


def set_password(admin: Admin, role: str, verifier: str) -> None:
    """Set the password of a tenant's role, by its SCRAM verifier."""
    _run(admin, sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))


def set_connection_limit(admin: Admin, role: str, connection_limit: int | None) -> None:
    """Set the most sessions that a tenant's role may have at once; None for no limit."""
    limit = sql.Literal(NO_LIMIT if connection_limit is None else connection_limit)
    _run(admin, sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(sql.Identifier(role), limit))


def allow_use(admin: Admin, role: str, owner: str | None = None) -> None:
    """Let a tenant's role be used, once it has its grants: without them, its tasks would find no table.

    Args:
        admin: A session of the admin role.
        role: The name of the role, which may open sessions from now on.
        owner: The role that may switch to it, with `TENANT_Q["isolation"] = "role"`; None for no role.
    """
    _run(admin, sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
    if owner is not None:
        again_on_conflict(lambda: lend(admin, role, owner, inherit=False))


def forbid_login(admin: Admin, role: str) -> None:
    """Refuse new sessions of a tenant's role. Those that are open go on."""
    _run(admin, sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))


def lend(admin: Admin, role: str, owner: str, *, inherit: bool) -> None:
    """Let the owner switch to a tenant's role.

    Args:
        admin: A session of the admin role.
        role: The role of the tenant.
        owner: The role of the project.
        inherit: Whether the owner also has its rights, as a decommissioning needs them, without a switch.
    """
    text = "GRANT {} TO {} WITH INHERIT TRUE, SET TRUE" if inherit else "GRANT {} TO {} WITH INHERIT FALSE, SET TRUE"
    _run(admin, sql.SQL(text).format(sql.Identifier(role), sql.Identifier(owner)))


def drop(admin: Admin, role: str) -> None:
    """Drop a tenant's role, if it is there. Nothing may belong to it, and no grant may name it."""
    _run(admin, sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def exists(admin: Admin, role: str) -> bool:
    """Return whether the server has a role of this name."""
    return admin.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", [role]).fetchone() is not None


def is_ours(admin: Admin, role: str, database: str) -> bool:
    """Return whether a role of this name exists and is a tenant's role of this database."""
    return _state(admin, role, group_name(database)).is_in_group


def require_free(admin: Admin, role: str, database: str) -> None:
    """Raise `ProvisioningError` if a role of this name exists that is not a tenant's role of this database."""
    group = group_name(database)
    _require_ours(_state(admin, role, group), role, group, admin)


def again_on_conflict(act: Callable[[], T]) -> T:
    """Call a function that changes rights, and again if another session has just changed the same ones."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return act()
        except tenancy.DATABASE_ERRORS as error:
            if attempt == _ATTEMPTS or not _is_conflict(error):
                raise
    raise AssertionError("not reached")


def _is_conflict(error: Exception) -> bool:
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    return isinstance(cause, _CONFLICTS) or "concurrently updated" in str(cause)  # that one has no code of its own


def _state(admin: Admin, role: str, group: str) -> _State:
    query = sql.SQL(statement("tenant_role_state")).format(role=sql.Literal(role), group=sql.Literal(group))
    (row,) = admin.execute(query).fetchall()
    return _State(*row)


def _require_ours(state: _State, role: str, group: str, admin: Admin) -> None:
    me = sql.Identifier(admin.info.user).as_string()
    if state.may_grant_group is False:
        raise ProvisioningError(
            f"The role {group!r} exists, and {admin.info.user!r} may not grant it; run as its creator: "
            f"GRANT {sql.Identifier(group).as_string()} TO {me} WITH ADMIN OPTION;"
        )
    if state.may_change is None:
        return
    quoted = sql.Identifier(role).as_string()
    if not state.is_in_group:
        raise ProvisioningError(
            f"The role {role!r} exists and is not a tenant's role of this database, so it is not changed; "
            f"rename or drop it if nobody uses it (ALTER ROLE {quoted} RENAME TO ...), or choose another schema name."
        )
    if not state.may_change:
        raise ProvisioningError(
            f"{admin.info.user!r} may not change the role {role!r}; run as its creator: "
            f"GRANT {quoted} TO {me} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE;"
        )
    if state.superfluous:
        raise ProvisioningError(
            f"The role {role!r} has rights that no tenant's role may have; run as a superuser: "
            f"ALTER ROLE {quoted} {state.superfluous};"
        )


def _run(admin: Admin, query: sql.Composed) -> None:
    """Execute statements of the admin role as one message, which is one transaction."""
    try:
        admin.execute(query)
    except errors.InsufficientPrivilege as error:
        raise ProvisioningError(
            f"The role {admin.info.user!r} of TENANT_Q['admin_database'] lacks a right: {error.diag.message_primary}; "
            "grant it, or use the role that created the tenants' roles."
        ) from error
