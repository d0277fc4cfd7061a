"""Repair tenants' roles that are marked: a role can change its own password and settings, and nobody else's.

A worker that finds such a role marks it, and its tenant's tasks wait. The scheduler repairs it, since a process that
runs tasks has no right to change roles.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from tenant_q import audit, tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantRole
from tenant_q.provisioning.admin_connection import admin_session
from tenant_q.provisioning.restoring import Admin, restore_role
from tenant_q.provisioning.role_rows import locked_row_to_repair, schemas_to_repair
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.provisioning")

REPAIR = "repair"
ACTOR = "scheduler"
# A session of the role that is altering it keeps the scheduler waiting at most this long, then it is ended.
_LOCK_TIMEOUT = "500ms"


@dataclass(slots=True)
class Repairs:
    """What came of the repair of all marked roles.

    Attributes:
        repaired: The schemas whose roles were repaired.
        failed: Why a role could not be repaired, by its schema.
        is_complete: Whether no marked role is left but those that failed.
    """

    repaired: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    is_complete: bool = True


def repair_tenant(schema: str, *, actor: str = ACTOR) -> bool:
    """Repair a tenant's role if it is marked: attributes, connection limit, password, and no settings of its own.

    Args:
        schema: The name of the tenant's schema.
        actor: Who repairs it, for the audit trail.

    Returns:
        Whether it was repaired. It is not if it is not marked, or if another process is repairing it.

    Raises:
        ProvisioningError: The admin's session cannot repair it.
        ConfigurationError: Its password cannot be computed.
        DatabaseAway: The database cannot be reached.
    """
    with admin_session() as admin:
        return _repair(admin, schema, actor)


def repair_marked(seconds: float, *, but: Collection[str] = ()) -> Repairs:
    """Repair the roles of all tenants that are marked. Without one it costs one statement.

    Args:
        seconds: It ends after about this long.
        but: The schemas whose roles are left as they are.

    Raises:
        ProvisioningError: The admin's session cannot be opened, or was lost.
        ConfigurationError: The passwords cannot be computed.
        DatabaseAway: The database cannot be reached.
    """
    begun, done = time.monotonic(), Repairs()
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        schemas = list(
            schemas_to_repair().exclude(schema_name__in=but).order_by("pk").values_list("schema_name", flat=True)
        )
    if not schemas:
        return done
    with admin_session() as admin:
        admin.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", [_LOCK_TIMEOUT])
        for schema in schemas:
            if time.monotonic() - begun > seconds:
                done.is_complete = False
                break
            _repair_one_of_all(admin, schema, done)
    return done


def _repair_one_of_all(admin: Admin, schema: str, done: Repairs) -> None:
    try:
        if _repair(admin, schema, ACTOR):
            done.repaired.append(schema)
    except ProvisioningError as error:
        if admin.closed:
            raise
        done.failed[schema] = str(error)


def _repair(admin: Admin, schema: str, actor: str) -> bool:
    with locked_row_to_repair(schema) as row:
        if row is None:
            return False
        restore_role(admin, row)
        problem, row.state, row.problem = row.problem, TenantRole.State.ACTIVE, ""
        row.save(update_fields=["state", "problem"])
        before, after = {"problem": problem}, {"version": row.version}
        audit.record(actor, REPAIR, schema=schema, target=row.role, before=before, after=after)
    logger.warning(
        "Repaired the role %s of %s: %s",
        row.role,
        schema,
        problem,
        event="tenant_role.repaired",
        extra={"schema": schema},
    )
    return True
