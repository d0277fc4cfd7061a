"""Check before a cluster starts that isolation by the roles of tenants proves something on this server."""

from __future__ import annotations

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.models import TenantRole
from tenant_q.provisioning.admin_connection import OLDEST, tenants_server
from tenant_q.provisioning.probe.sessions import logs_in
from tenant_q.provisioning.shared_tables import shared_tables
from tenant_q.schedules import catalogue
from tenant_q.sql import statement
from tenant_q.support.plurals import counted


def require_isolation() -> list[str]:
    """Require that tenants' roles can isolate tenants, and return warnings.

    Raises:
        ConfigurationError: The server or a role is such that nothing is isolated. The message names the way out.
        DatabaseAway: The database cannot be reached.
    """
    mode, server = conf().isolation, tenants_server()
    if server.version < OLDEST:
        raise ConfigurationError(
            f"TENANT_Q['isolation'] is {mode!r}, which needs PostgreSQL 16 or newer, and the server is PostgreSQL "
            f"{server.version // 10000}; upgrade it, or set 'path'."
        )
    is_superuser, may_create_roles = _attributes()
    if is_superuser:
        raise ConfigurationError(
            f"TENANT_Q['isolation'] is {mode!r}, and the role {server.login!r} of DATABASES is a superuser, whom "
            "PostgreSQL refuses nothing; let a role that is none own the tables."
        )
    if mode == "login" and logs_in(None, None):
        raise ConfigurationError(
            f"The role {server.login!r} of DATABASES can log in without a password, as then could every task; ask for "
            "scram-sha-256 in pg_hba.conf, and take client certificates out of DATABASES."
        )
    shared_tables()
    catalogue.require_shared(TenantRole._meta.db_table, "tenants' roles")
    warnings = [*_without_role()]
    if may_create_roles:
        warnings.append(
            f"The role {server.login!r} of DATABASES may create roles, which no worker needs; run as a superuser: "
            f'ALTER ROLE "{server.login}" NOCREATEROLE;'
        )
    return warnings


def _attributes() -> tuple[bool, bool]:
    """Return whether the project's role, or the one it acts as, is a superuser, and whether it may create roles."""
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        ((is_superuser, may_create_roles),) = cursor.execute(statement("owner_attributes")).fetchall()
    return is_superuser, may_create_roles


def _without_role() -> list[str]:
    with tenancy.detect_outages(), tenancy.in_public():
        alias = tenancy.database_alias()
        ready = TenantRole.objects.using(alias).exclude(state=TenantRole.State.PROVISIONING)
        waiting = sorted(set(tenancy.tenant_names()) - set(ready.values_list("schema_name", flat=True)))
    if not waiting:
        return []
    named = ", ".join(waiting[:3]) + (", ..." if len(waiting) > 3 else "")
    count = counted(len(waiting), "tenant has", "tenants have")
    return [
        f"{count} no database role, so their tasks wait ({named}); run "
        "`python manage.py mstenant provision --all --adopt`."
    ]
