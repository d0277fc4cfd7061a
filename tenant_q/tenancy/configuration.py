"""Give the configuration of the current tenant."""

from __future__ import annotations

from tenant_q.exceptions import NoTenant
from tenant_q.support.call_checks import require_schema_name
from tenant_q.tenancy.event_loops import refuse_in_event_loop, schema_of_coroutine
from tenant_q.tenancy.restriction import require_authorized
from tenant_q.tenancy.switching import refuse_two_tenants
from tenant_q.tenancy.tenancy_package import current_schema, public_has_tasks, public_schema
from tenant_q.tenancy.tenant_config import EMPTY, TenantConfig
from tenant_q.tenancy.tenants import known_config, look_up_config


def config(schema: str | None = None) -> TenantConfig:
    """Return the configuration of a tenant: its display name, settings, features and limits.

    It is read and cached together with the tenant's row, so inside a task it needs no further statement. A change takes
    effect in other processes after `tenant_cache_seconds`. A tenant without a configuration, and the public schema
    where tasks run in it, have an empty one. Each call returns a new copy.

    Args:
        schema: A tenant's schema name; None for the current tenant.

    Raises:
        NoTenant: It is the public schema, and `django_q` has no tables there.
        UnknownTenant: No tenant has this schema name.
        TenantNotAuthorized: The calling code is restricted to another tenant.
        InEventLoop: The caller is a coroutine, and the tenant is not the one of its task.
        WrongArgument: `schema` is not a text.
        DatabaseAway: The database cannot be reached.
    """
    require_schema_name(schema)
    own = schema_of_coroutine()
    if own is None or schema not in (None, own):
        own = None
    elif own != public_schema() and (known := known_config(own)) is not None:
        require_authorized(own)
        return known
    if own != public_schema():
        refuse_in_event_loop("tenancy.config()")
    chosen = own or schema or current_schema()
    if own is None and schema is None:
        refuse_two_tenants(chosen)
    require_authorized(chosen)
    if chosen == public_schema():
        return _config_of_public()
    return look_up_config(chosen)


def _config_of_public() -> TenantConfig:
    if not public_has_tasks():
        raise NoTenant(
            f"Schema {public_schema()!r} has no configuration: choose a tenant with "
            "tenant_q.tenancy.in_schema('<schema>'), the tenancy package's middleware, or config('<schema>')."
        )
    return EMPTY
