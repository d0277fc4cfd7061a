"""Rotate the passwords of tenants' roles: a higher version in a role's row, and in PostgreSQL the password of it.

The row is locked while PostgreSQL changes the password, so a worker that is refused meanwhile waits for the new
version. After a kill in between, the password of a role may be newer than its row. Then the same command sets the next
one, or the scheduler repairs the role to its row as soon as a worker is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from tenant_q import audit, tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantOperation, TenantRole
from tenant_q.provisioning.admin_connection import admin_session
from tenant_q.provisioning.restoring import Admin, end_sessions, restore_role
from tenant_q.provisioning.role_rows import locked_row, role_rows
from tenant_q.provisioning.steps import operation_lock

ROTATE = "rotate"
EVERY_TENANT = "*"
"""The schema of the operation that rotates all tenants; no schema has this name."""
FORGOTTEN_HOURS = 24
"""A rotation of all tenants that began this long ago and was interrupted is not continued: all are rotated again."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rotation of one tenant's role.

    Attributes:
        schema: The tenant's schema.
        role: The name of the role.
        version: The version of its new password.
        ended: The number of sessions that were ended.
    """

    schema: str
    role: str
    version: int
    ended: int


@dataclass(slots=True)
class Rotations:
    """The rotation of all tenants' roles.

    Attributes:
        rotated: What was done, in the order in which the roles were created.
        failed: Why a tenant's role was not rotated, by its schema.
        continues: When the interrupted rotation began that this one continued; else None.
    """

    rotated: list[Rotation] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    continues: datetime | None = None


def rotate_tenant(schema: str, *, actor: str, now: bool = False) -> Rotation:
    """Give a tenant's role a new password. Tasks that run keep their sessions, and no task fails.

    The old password is refused at once. A role that was to be repaired is repaired with it.

    Args:
        schema: The name of the tenant's schema.
        actor: The name of the operator, for the audit trail.
        now: Whether to end the sessions that were opened with the old password. Tasks that use one fail.

    Raises:
        UnknownTenant: No tenant has this schema name.
        ProvisioningError: The tenant has no role with a password, or the admin's session cannot change it.
        ConfigurationError: The password cannot be computed.
        DatabaseAway: The database cannot be reached.
    """
    tenancy.require_authorized(schema)
    with admin_session() as admin:
        return _rotate(admin, schema, actor=actor, now=now)


def count_to_rotate(*, now: bool = False) -> int:
    """Return the number of tenants' roles that `rotate_all` would rotate. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return int(_rest(_interrupted(now=now)).count())


def rotate_all(*, actor: str, now: bool = False, progress: Callable[[str], None] | None = None) -> Rotations:
    """Give each tenant's role a new password, one after the other.

    If it is interrupted, the next call continues after the last tenant that was rotated.

    Args:
        actor: The name of the operator, for the audit trail.
        now: Whether to end the sessions that were opened with the old passwords.
        progress: Is called with each tenant's schema before its rotation.

    Returns:
        What was done. A tenant's failure is noted in it, and the others are rotated.

    Raises:
        ProvisioningError: The admin's session cannot be opened, or was lost.
        ConfigurationError: The passwords cannot be computed.
        DatabaseAway: The database cannot be reached.
    """
    with admin_session() as admin:
        operation, done = _begin(actor, now=now)
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            rest = list(_rest(operation).values_list("pk", "schema_name"))
        for key, schema in rest:
            if progress:
                progress(schema)
            _rotate_one_of_all(admin, schema, done, actor=actor, arguments=operation.arguments | {"after": key})
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            _operations().delete()
    return done


def _rotate_one_of_all(admin: Admin, schema: str, done: Rotations, *, actor: str, arguments: dict[str, Any]) -> None:
    """Rotate one of all tenants' roles, and note in the same transaction that it is done."""

    def note() -> None:
        _operations().update(arguments=arguments | {"failed": done.failed})

    try:
        done.rotated.append(_rotate(admin, schema, actor=actor, now=arguments["now"], note=note))
    except ProvisioningError as error:
        if admin.closed:
            raise
        done.failed[schema] = str(error)


def _rotate(admin: Admin, schema: str, *, actor: str, now: bool, note: Callable[[], None] = lambda: None) -> Rotation:
    with operation_lock(schema):
        return tenancy.retry_conflicts(lambda: _rotate_row(admin, schema, actor, now, note))


def _rotate_row(admin: Admin, schema: str, actor: str, now: bool, note: Callable[[], None]) -> Rotation:
    with locked_row(schema) as row:
        if row is None:
            tenancy.get_tenant(schema)
            raise ProvisioningError(
                f"{schema} has no role yet; run `python manage.py mstenant provision {schema} --adopt`."
            )
        _require_password(row)
        row.version += 1
        restore_role(admin, row)
        # Nobody knows the new version before the commit, so each session was opened with an old password.
        ended = end_sessions(admin, row) if now else 0
        row.state, row.problem = TenantRole.State.ACTIVE, ""
        row.save(update_fields=["version", "state", "problem"])
        before, after = {"version": row.version - 1}, {"version": row.version, "ended_sessions": ended}
        audit.record(actor, ROTATE, schema=schema, target=row.role, before=before, after=after)
        note()
    return Rotation(schema, row.role, row.version, ended)


def _require_password(row: TenantRole) -> None:
    """Raise `ProvisioningError` if a tenant's role is not in use yet, or not any more."""
    schema = row.schema_name
    if row.state == TenantRole.State.PROVISIONING:
        raise ProvisioningError(
            f"The provisioning of {schema} has not ended; run `python manage.py mstenant provision {schema}` first."
        )
    if row.state == TenantRole.State.LEAVING:
        raise ProvisioningError(
            f"{schema} is being decommissioned, so its role gets no new password; run "
            f"`python manage.py mstenant decommission {schema} --yes` to drop it."
        )


def _begin(actor: str, *, now: bool) -> tuple[TenantOperation, Rotations]:
    """Return the rotation of all tenants to carry out, which may be an interrupted one, and what was done of it."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = _interrupted(now=now)
        if found is not None:
            return found, Rotations(failed=found.arguments["failed"], continues=found.started)
        values = {
            "kind": ROTATE,
            "step": "",
            "arguments": {"after": 0, "now": now, "failed": {}},
            "actor": actor,
            "started": timezone.now(),
        }
        operation, _ = _operations().update_or_create(schema_name=EVERY_TENANT, defaults=values)
        return operation, Rotations()


def _interrupted(*, now: bool) -> TenantOperation | None:
    """Return the rotation of all tenants that was interrupted and can be continued.

    One that was to leave the old sessions open is not continued with `now`.
    """
    found: TenantOperation | None = _operations().first()
    if found is None or (now and not found.arguments["now"]):
        return None
    return found if timezone.now() - found.started < timedelta(hours=FORGOTTEN_HOURS) else None


def _operations() -> Any:
    return TenantOperation.objects.using(tenancy.database_alias()).filter(schema_name=EVERY_TENANT)


def _rest(operation: TenantOperation | None) -> Any:
    """Return a queryset of the roles that a rotation of all tenants has left."""
    return role_rows().filter(pk__gt=operation.arguments["after"] if operation else 0).order_by("pk")
