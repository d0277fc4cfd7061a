"""Provision a tenant: its rows, schema and migrations, policy and configuration, and its database role with its grants.

Which statement needs whom: the admin role creates the tenant's role, which the owner may not; the owner grants on its
own objects, which the admin role may not. So the role is created first, in a transaction of the admin role. Then the
owner grants in a transaction of its own. After a kill in between, the role has no rights, and its row is not active.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tenant_q import audit, policies, tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, ProvisioningError
from tenant_q.models import TenantOperation, TenantRecord, TenantRole
from tenant_q.provisioning import admin_connection, grants, role_rows, roles, scram, tenant_rows
from tenant_q.provisioning.admin_connection import TenantsServer, admin_session, tenants_server
from tenant_q.provisioning.probe import probe_tenants
from tenant_q.provisioning.steps import Step, begin, open_operation, operation_lock, run_steps
from tenant_q.provisioning.tenant_credentials import TenantCredentials, credentials_of
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import role_name

PROVISION, ADOPT = "provision", "adopt"
State = TenantRole.State


@dataclass(slots=True)
class _Provisioning:
    """The provisioning of one tenant.

    Attributes:
        schema: The schema name.
        actor: Who asked for it.
        adopt: Whether the tenant exists.
        has_role: Whether tenants have roles in this project.
        server: What the tenants' connection leads to; None without roles.
        row: The row of the role, once it is there.
    """

    schema: str
    actor: str
    adopt: bool
    has_role: bool
    fields: Mapping[str, Any] = field(default_factory=dict)
    domain: str | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    server: TenantsServer | None = None
    row: TenantRole | None = None


def provision_tenant(
    schema: str,
    *,
    fields: Mapping[str, Any] | None = None,
    domain: str | None = None,
    policy: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    adopt: bool = False,
    actor: str,
    probe: bool = True,
    progress: Callable[[str], None] | None = None,
) -> TenantCredentials:
    """Provision a tenant. After an error or a kill, the same call continues where it ended.

    With `TENANT_Q["isolation"]` "path" a tenant gets a role only if `TENANT_Q["admin_database"]` is set, so that roles
    can be there before the mode is changed.

    Args:
        schema: The schema name.
        fields: The values of the tenant model's other fields.
        domain: Its domain.
        policy: Values of its policy, as of `tenant_q.policies.change`.
        config: Its configuration, as of `tenant_q.policies.configure`.
        adopt: Whether the tenant exists. Its tasks go on meanwhile.
        actor: Who asks for it, for the audit trail.
        probe: Whether to try what the new role can reach of other tenants before it is used.
        progress: Is called with the name of each step before it is carried out.

    Returns:
        The credentials of its role.

    Raises:
        UnknownTenant: A tenant to adopt does not exist.
        ConfigurationError: A name, a value or a setting is not possible; nothing is made.
        ProvisioningError: The server refuses something, another operation on the tenant has not ended, or the probe
            found that the role reaches another tenant.
        BrokerError: The policy is saved, and the broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    _refuse_in_transaction()
    one = _Provisioning(
        schema, actor, adopt, _has_roles(), dict(fields or {}), domain, dict(policy or {}), dict(config or {})
    )
    with operation_lock(schema):
        found = open_operation(schema)
        _check(one, found)
        operation = begin(schema, PROVISION, found, actor=actor, arguments=_arguments(one))
        run_steps(operation, _steps(one, probe=probe), last=Step("active", partial(_activate, one)), progress=progress)
    tenancy.forget_tenant(schema)
    if one.row is None or one.server is None:
        return TenantCredentials(schema, None)
    return credentials_of(schema, one.row.role, one.row.version, one.server.database)


def _has_roles() -> bool:
    return conf().isolation != "path" or admin_connection.is_configured()


def _refuse_in_transaction() -> None:
    if tenancy.tenant_connection().in_atomic_block:
        raise ProvisioningError(
            "A tenant cannot be provisioned inside of a transaction, because its steps commit one by one; call "
            "provision_tenant() after the transaction, with transaction.on_commit() for example."
        )


def _arguments(one: _Provisioning) -> dict[str, Any]:
    """Return what the row of the operation keeps of the arguments. Values may be secret, so only their names."""
    return {
        "adopt": one.adopt,
        "domain": one.domain,
        "fields": sorted(one.fields),
        "policy": sorted(one.policy),
        "config": {name: sorted(value) if isinstance(value, Mapping) else [] for name, value in one.config.items()},
    }


# Before anything is made


def _check(one: _Provisioning, operation: TenantOperation | None) -> None:
    """Require that the tenant can be provisioned: its name, its values, the server and the settings."""
    if operation is not None and operation.kind == PROVISION:
        one.adopt = one.adopt or bool(operation.arguments.get("adopt"))
        one.domain = one.domain if one.domain is not None else operation.arguments.get("domain")
    if one.adopt:
        _require_adoptable(one)
    elif operation is None:
        tenant_rows.require_new_name(one.schema)
        tenant_rows.require_values(one.schema, one.fields, one.domain)
    if one.policy:
        policies.check_policy(one.schema, one.policy)
    if one.config:
        policies.check_configuration(one.schema, one.config)
    if one.has_role:
        _check_server(one)


def _require_adoptable(one: _Provisioning) -> None:
    if one.fields:
        raise ConfigurationError(f"The tenant {one.schema!r} exists, so it takes no fields; change its row instead.")
    tenancy.refresh_tenant(one.schema, 0)  # raises for an unknown one
    if one.schema == tenancy.public_schema():
        raise ConfigurationError(f"{one.schema!r} is the public schema, whose tasks run as the owner; name a tenant.")


def _check_server(one: _Provisioning) -> None:
    server = one.server = tenants_server()
    role = role_name(server.database, tenancy.physical_schema(one.schema))
    password_of(server.database, role, 1)  # raises if no key is set
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        one.row = role_rows.role_rows().filter(schema_name=one.schema).first()
    if one.row is not None and one.row.state == State.LEAVING:
        raise ProvisioningError(
            f"The tenant {one.schema!r} is being decommissioned; run `python manage.py mstenant decommission "
            f"{one.schema} --yes` until it has ended."
        )


# The steps


def _steps(one: _Provisioning, *, probe: bool) -> list[Step]:
    steps = [] if one.adopt else [Step("tenant", partial(_make_tenant, one))]
    if one.policy or one.config:
        steps.append(Step("settings", partial(_set, one)))
    if one.has_role:
        steps.append(Step("role", partial(_make_role, one)))
        if probe:
            steps.append(Step("probe", partial(_probe, one)))
    return steps


def _make_tenant(one: _Provisioning) -> None:
    """Make the tenant's rows, schema and tables, and its record, which a kill after its row may have prevented."""
    tenant_rows.make(one.schema, one.fields, one.domain)
    tenancy.note_existing(TenantRecord)


def _set(one: _Provisioning) -> None:
    """Set the policy and the configuration, unless they are set already."""
    if one.policy:
        values = policies.values_of(policies.policy_of(one.schema))
        if any(values.get(name, _Unset) != value for name, value in one.policy.items()):
            policies.change(one.schema, actor=one.actor, act="limit", **one.policy)
    if one.config and _differs(tenancy.config(one.schema).as_json(), one.config):
        policies.configure(one.schema, actor=one.actor, **one.config)


class _Unset:
    """No value of a policy or configuration."""


def _differs(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a configuration lacks a value. Of mappings, only the keys that are wanted count."""
    for name, value in wanted.items():
        own = found.get(name, _Unset)
        if isinstance(value, Mapping) and isinstance(own, Mapping):
            if any(own.get(key) != one for key, one in value.items()):
                return True
        elif own != value:
            return True
    return False


def _make_role(one: _Provisioning) -> None:
    """Create the role, or correct it, and make its grants."""
    server, row = _server(one), _row(one)
    limit = tenancy.config(one.schema).limit("max_connections")
    if row.connection_limit != limit:
        row.connection_limit = limit
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            role_rows.role_rows().filter(pk=row.pk).update(connection_limit=limit)
    with admin_session() as admin:
        roles.create_or_correct(
            admin,
            row.role,
            database=server.database,
            verifier=scram.role_verifier(server.database, row.role, row.version),
            connection_limit=limit,
        )
        grants.apply_grants(one.schema, row.role, admin)
        roles.allow_use(admin, row.role, server.login if conf().isolation == "role" else None)


def _probe(one: _Provisioning) -> None:
    """Require that the role reaches nothing outside of its schema."""
    found = probe_tenants([one.schema], actor=one.actor)
    if not found.is_closed:
        raise ProvisioningError(
            f"The role of {one.schema!r} is not used yet, because the probe failed: {found.sentence}; then run the "
            "same command again."
        )


def _activate(one: _Provisioning) -> None:
    """Have the role used from now on, and record it in the audit trail."""
    after: dict[str, Any] = {"domain": one.domain} if one.domain else {}
    target = ""
    if one.has_role:
        row = _row(one)
        role_rows.role_rows().filter(pk=row.pk).update(state=State.ACTIVE, problem="")
        target, after = row.role, {**after, "version": row.version, "connection_limit": row.connection_limit}
    audit.record(one.actor, ADOPT if one.adopt else PROVISION, schema=one.schema, target=target, after=after)


def _server(one: _Provisioning) -> TenantsServer:
    assert one.server is not None, "a tenant without a role needs no server"
    return one.server


def _row(one: _Provisioning) -> TenantRole:
    """Return the row of the tenant's role, made if it is missing."""
    if one.row is None:
        one.row = role_rows.make_row(one.schema, _server(one).database)
    return one.row
