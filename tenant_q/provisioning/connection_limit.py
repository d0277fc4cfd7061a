"""Apply a changed `max_connections` of a tenant's configuration to the tenant's role."""

from __future__ import annotations

from tenant_q.models import TenantRole
from tenant_q.operations.tenant_details import read_details
from tenant_q.provisioning.admin_connection import admin_session
from tenant_q.provisioning.role_rows import locked_row
from tenant_q.provisioning.roles import set_connection_limit

_SERVED = (TenantRole.State.ACTIVE, TenantRole.State.REPAIR)


def apply_connection_limit(schema: str) -> TenantRole | None:
    """Give a tenant's role the connection limit of the tenant's configuration, if it has another one.

    The role is altered before its row, so that a row never promises what the role does not have. Sessions that are open
    go on. Workers use the new limit after `tenant_cache_seconds` at most.

    Args:
        schema: The name of the tenant's schema.

    Returns:
        The role as it is now; None if the tenant has none, or one that is being provisioned or leaves.

    Raises:
        ProvisioningError: The admin's session cannot alter it.
        UnknownTenant: There is no such tenant.
        DatabaseAway: The database cannot be reached.
    """
    with admin_session() as admin, locked_row(schema) as row:
        if row is None or row.state not in _SERVED:
            return None
        limit = read_details(schema).configuration.limit("max_connections")
        if limit != row.connection_limit:
            set_connection_limit(admin, row.role, limit)
            row.connection_limit = limit
            row.save(update_fields=["connection_limit"])
        return row
