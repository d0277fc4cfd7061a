"""Read what is kept about one tenant in the public schema: policy, configuration, database role, open operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenant_q import policies, tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import UnknownTenant
from tenant_q.models import TenantConfiguration, TenantOperation, TenantPolicy, TenantRole


@dataclass(frozen=True, slots=True)
class TenantDetails:
    """What is kept about one tenant.

    Attributes:
        schema: The name of its schema.
        is_known: Whether its row exists. It does not yet, or no longer, where an operation on it has not ended.
        policy: Its policy; without a row, an unsaved one with the defaults.
        configuration: Its configuration, without the cache.
        role: Its database role; None if it has none.
        operation: The operation on it that has not ended, or None.
    """

    schema: str
    is_known: bool
    policy: TenantPolicy
    configuration: tenancy.TenantConfig
    role: TenantRole | None
    operation: TenantOperation | None

    @property
    def advice(self) -> str:
        """The command that the tenant needs, in a sentence; empty if it needs none."""
        if self.operation is not None:
            sure = " --yes" if self.operation.kind == "decommission" else ""
            command = f"`mstenant {self.operation.kind} {self.schema}{sure}`"
            return f"{command} has not ended; run it again, which continues it."
        if self.schema == tenancy.public_schema():
            return ""
        if self.role is None:
            command = f"`mstenant provision {self.schema} --adopt`"
            return "" if conf().isolation == "path" else f"Its tasks wait for its role, which {command} makes."
        if self.role.state == TenantRole.State.REPAIR:
            return "Its tasks wait until the scheduler has repaired its role."
        limit = self.configuration.limit("max_connections")
        if limit != self.role.connection_limit and self.role.state == TenantRole.State.ACTIVE:
            command = f"`mstenant configure {self.schema} limits.max_connections={limit or ''}`"
            return f"Its max_connections is not the limit of its role; {command} applies it."
        return ""


def read_details(schema: str) -> TenantDetails:
    """Read what is kept about one tenant.

    Args:
        schema: The name of its schema.

    Raises:
        UnknownTenant: Neither a tenant nor a policy, role or open operation has this name.
        NoTenant: It is the public schema, and no tasks run there.
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        configuration, role, operation = (
            _row_of(model, schema) for model in (TenantConfiguration, TenantRole, TenantOperation)
        )
    is_known = schema == tenancy.public_schema() or schema in tenancy.keys_of([schema])
    try:
        policy = policies.policy_of(schema)
    except UnknownTenant:
        if role is None and operation is None:
            raise
        policy = TenantPolicy(schema_name=schema)
    return TenantDetails(schema, is_known, policy, _config_of(configuration), role, operation)


def read_roles() -> list[TenantRole]:
    """Read the database roles of all tenants. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return list(TenantRole.objects.using(tenancy.database_alias()))


def _row_of(model: Any, schema: str) -> Any:
    return model.objects.using(tenancy.database_alias()).filter(schema_name=schema).first()


def _config_of(row: TenantConfiguration | None) -> tenancy.TenantConfig:
    if row is None:
        return tenancy.TenantConfig()
    return tenancy.TenantConfig(row.display_name, row.settings, row.features, row.limits)
