"""Give a worker's thread the role of the tenant that it serves, if tenants are isolated.

Under `TENANT_Q["isolation"]` "login" the role opens a session of its own by the first statement of a tenant's task. A
worker keeps the sessions of the tenants that it served last.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import connections

from tenant_q.conf import conf
from tenant_q.tenancy import acting, kept_sessions, owner_blocks, owner_settings, tenant_logins, worker_state
from tenant_q.tenancy.kept_sessions import KeptSessions
from tenant_q.tenancy.restriction import restricted
from tenant_q.tenancy.role_records import RoleRecord
from tenant_q.tenancy.tenancy_package import Databases, public_schema, switched_connections
from tenant_q.tenancy.tenants import get_tenant, require_role

_kept = KeptSessions()


def _serve_as_login(schema: str, databases: Databases) -> None:
    """Give the aliases in this thread connections that the tenant's role opens, with their first statement."""
    role = require_role(schema)
    tenant = get_tenant(schema)
    is_main = threading.current_thread() is threading.main_thread()
    made = {
        one.alias: _connection(one.alias, schema, role, may_keep=is_main) for one in switched_connections(databases)
    }
    if not is_main:  # while the main thread has as many
        _kept.count_elsewhere(len(made))
    _kept.limit(conf().tenant_sessions - len(made))
    acting.open_as_tenant(
        made,
        schema,
        role.role,
        park=functools.partial(_park, role, made),
        prepare=functools.partial(tenant_logins.prepare, schema=schema),
    )
    for connection in made.values():
        connection.set_tenant(tenant)


def _park(role: RoleRecord, made: dict[str, Any]) -> None:
    """Keep the sessions of a tenant that is no longer served, or close them if others may need its sessions."""
    is_main = threading.current_thread() is threading.main_thread()
    has_few = role.connection_limit is not None and role.connection_limit < conf().workers
    for alias, connection in made.items():
        if has_few or not is_main:
            kept_sessions.close(connection)
        elif connection.connection is not None:
            _kept.put((alias, role.role, role.version), connection)
    if is_main:
        _kept.limit(conf().tenant_sessions)
    else:
        _kept.count_elsewhere(-len(made))


def _connection(alias: str, schema: str, role: RoleRecord, *, may_keep: bool) -> Any:
    found = _kept.take((alias, role.role, role.version)) if may_keep else None
    if found is not None:
        return found
    connection = connections.create_connection(alias)
    password = tenant_logins.password_of_role(schema, role)
    connection.settings_dict = owner_settings.settings_for(alias, role.role, password)
    tenant_logins.prepare(connection, schema)
    return connection


def role_to_verify(schema: str) -> str | None:
    """Return the role of the tenant whose schema is verified; None where tenants are not isolated.

    Raises:
        TenantNotReady: The tenant has no active role.
    """
    return require_role(schema).role if worker_state.is_isolated() and schema != public_schema() else None


def serve(schema: str, databases: Databases = None) -> None:
    """Have this thread act as the role of a tenant, whose schema the owner has verified, if tenants are isolated.

    `tenancy.leave` ends it. Tasks of the public schema act as the owner.

    Args:
        schema: The schema of the tenant.
        databases: The aliases of further databases of the task; None for those of the settings.

    Raises:
        TenantNotReady: The tenant has no active role.
    """
    if not worker_state.is_isolated():
        return
    if schema == public_schema():
        acting.serve_public(schema)
    elif worker_state.mode() == "role":
        acting.take_role(schema, require_role(schema).role, [one.alias for one in switched_connections(databases)])
    else:
        _serve_as_login(schema, databases)


def restricted_to_served(schema: str) -> AbstractContextManager[None]:
    """Restrict a block of the project's code to the tenant that is served, if tenants are isolated."""
    return restricted(schema) if owner_blocks.is_as_tenant() else nullcontext()


@contextmanager
def acting_as(schema: str) -> Iterator[None]:
    """Run a block with the project's code as the role of a tenant, whose schema is current, if tenants are isolated.

    Raises:
        TenantNotReady: The tenant has no active role.
    """
    if not worker_state.is_isolated() or owner_blocks.is_as_tenant():
        yield
        return
    serve(schema)
    try:
        yield
    finally:
        acting.leave_role()
