"""Read and change tenants' policies, rows in the public schema that the brokers enforce, and their configurations.

A broker has a copy of each row. It gets the copy after the commit of a change, and from the scheduler every half
minute, in case it was away or lost its data.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from tenant_q import audit, tenancy
from tenant_q.brokers import Broker, get_broker, site_brokers
from tenant_q.brokers.protocol import Policy
from tenant_q.exceptions import BrokerError, ConfigurationError
from tenant_q.models import TenantConfiguration, TenantPolicy
from tenant_q.models.tenants import CONFIGURED, problems_of
from tenant_q.schedules import due_index
from tenant_q.support.call_checks import short
from tenant_q.support.hints import did_you_mean

FIELDS = (
    "weight",
    "max_running",
    "max_queued",
    "max_results",
    "success_days",
    "max_failures",
    "failure_days",
    "paused",
)
# The first key of the advisory lock; the second one stands for the cluster.
_LOCK = zlib.crc32(b"tenant_q.policies") & 0x7FFFFFFF


class Values(TypedDict, total=False):
    """The values of a policy. A limit of None means no limit."""

    weight: float
    max_running: int | None
    max_queued: int | None
    max_results: int | None
    success_days: float | None
    max_failures: int | None
    failure_days: float | None
    paused: bool


# Reading


def policy_of(schema: str) -> TenantPolicy:
    """Return a tenant's policy; without a row, an unsaved one with the defaults. Raises as `change`."""
    tenancy.require_authorized(schema)
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = _rows().filter(schema_name=schema).first()
    if found is None:
        _check_tenant(schema)
    return found or TenantPolicy(schema_name=schema)


def policies(*, every_tenant: bool = False) -> list[TenantPolicy]:
    """Return the policies, sorted by schema name.

    Args:
        every_tenant: Whether to include tenants without a row, with unsaved default policies.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = {row.schema_name: row for row in _rows()}
        if every_tenant:
            tenants = tenancy.tenant_model()._default_manager.using(tenancy.database_alias())
            names = tenants.exclude(schema_name=tenancy.public_schema()).values_list("schema_name", flat=True)
            found = {name: TenantPolicy(schema_name=name) for name in names} | found
    return [found[name] for name in sorted(found)]


def is_paused(schema: str) -> bool:
    """Return whether a tenant is paused by its policy. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return bool(_rows().filter(schema_name=schema, paused=True).exists())


def paused() -> set[str]:
    """Return the tenants that are paused by their policies. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return set(_rows().filter(paused=True).values_list("schema_name", flat=True))


def values_of(policy: TenantPolicy) -> dict[str, Any]:
    """Return the values of a policy by the names in `FIELDS`."""
    return {name: getattr(policy, name) for name in FIELDS}


def _rows() -> Any:
    return TenantPolicy.objects.using(tenancy.database_alias())


def _check_tenant(schema: str) -> None:
    if schema == tenancy.public_schema():
        tenancy.task_schema(schema)  # raises if no tasks run in the public schema
    else:
        tenancy.get_tenant(schema)


# Changing


def change(schema: str, *, actor: str, act: str, **values: Unpack[Values]) -> TenantPolicy:
    """Change a tenant's policy. It applies at once, also to tasks that are queued already.

    The row and its audit record are saved in one transaction. Inside a transaction of the caller, the change applies
    when that commits.

    Args:
        schema: The tenant.
        actor: Who changes it, for the audit trail.
        act: The name of the change in the audit trail, such as "pause".
        values: The new values, by the names in `FIELDS`.

    Returns:
        The policy with its new values.

    Raises:
        UnknownTenant: Neither a tenant nor a policy has this schema name.
        TenantNotAuthorized: The calling code is restricted to another tenant.
        ConfigurationError: A value is not possible; nothing is changed.
        BrokerError: The broker cannot be reached. The change is saved, and applies when the broker is back.
        DatabaseAway: The database cannot be reached.
    """
    tenancy.require_authorized(schema)
    _check_names(values)
    alias = tenancy.database_alias()
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        policy = _locked(schema)
        before = values_of(policy)
        for name, value in values.items():
            setattr(policy, name, value)
        _check_values(policy, values)
        policy.changed = timezone.now()
        after = values_of(policy)
        # Without signals, because their receiver would put it in force a second time, and only log errors.
        _rows().filter(pk=policy.pk).update(**after, changed=policy.changed)
        audit.record(actor, act, schema=schema, before=before, after=after)
        transaction.on_commit(_put_in_force_or_raise, using=alias)
    return policy


def _locked(schema: str) -> TenantPolicy:
    """Return the row of a tenant's policy, created if missing, and locked until the transaction ends."""
    rows = _rows()
    if not rows.filter(schema_name=schema).exists():
        _check_tenant(schema)
        rows.bulk_create(
            [TenantPolicy(schema_name=schema)], ignore_conflicts=True
        )  # another transaction may create it too
    found: TenantPolicy = rows.select_for_update().get(schema_name=schema)
    return found


def check_policy(schema: str, values: Mapping[str, Any]) -> None:
    """Check the values for the policy of a tenant that may not exist yet. Raises `ConfigurationError`."""
    _check_names(values)
    policy = TenantPolicy(schema_name=schema)
    for name, value in values.items():
        setattr(policy, name, value)
    _check_values(policy, values)


def _check_names(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in FIELDS:
            raise ConfigurationError(f"A tenant's policy has no '{name}': {did_you_mean(name, FIELDS)}")


def _check_values(policy: TenantPolicy, values: Mapping[str, Any]) -> None:
    schema = policy.schema_name
    try:
        # An existing tenant may have a name that a new one may not have, and its row is locked.
        policy.full_clean(exclude=["schema_name"], validate_unique=False)
    except ValidationError as error:
        name, reasons = next(iter(error.message_dict.items()))
        raise ConfigurationError(f"{name} of {schema} cannot be {values.get(name)!r}: {' '.join(reasons)}") from error
    broker = get_broker()
    if not broker.supports_tenant_queues:
        broker.set_policies({schema: in_force_of(policy)})  # raises, before the row is saved, if it cannot


# Putting in force


def policy_saved(*, using: str, **_: Any) -> None:
    """Receive `post_save` and `post_delete` of policies: put a change by other code in force after its commit.

    An error is logged, so that other callbacks of that commit run; the scheduler tries again.
    """
    transaction.on_commit(put_in_force_everywhere, using=using, robust=True)


def put_in_force_everywhere() -> None:
    """Put every tenant's policy in force in each cluster of the site. Raises the errors of `put_in_force`."""
    for broker in site_brokers():
        put_in_force(broker)
    paused = _rows().filter(paused=True).values_list("schema_name", flat=True)
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        due_index.release(due_index.PAUSED, but=[tenancy.physical_schema(name) for name in paused])


def put_in_force(broker: Broker) -> None:
    """Put every tenant's policy in force in one cluster.

    Args:
        broker: The broker of the cluster.

    Raises:
        BrokerError: The broker cannot be reached.
        ConfigurationError: The broker does not support policies.
        DatabaseAway: The database cannot be reached.
        DatabaseError: A statement failed.
    """
    alias = tenancy.database_alias()
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        # Under a lock, so that the last set of policies was read after the last commit.
        with tenancy.tenant_connection().cursor() as cursor:
            cursor.execute(
                "SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)", [_LOCK, zlib.crc32(broker.cluster.encode()) >> 1]
            )
        broker.set_policies({row.schema_name: in_force_of(row) for row in _rows()}, complete=True)


def _put_in_force_or_raise() -> None:
    try:
        put_in_force_everywhere()
    except BrokerError as error:
        raise BrokerError(f"The change is saved and applies when the broker is back: {error}") from error


def in_force_of(row: TenantPolicy) -> Policy:
    """Return the values of a policy's row that the broker enforces."""
    return Policy(row.weight, row.max_running, row.max_queued, row.paused)


# Configuring


class Configuration(TypedDict, total=False):
    """The values of a tenant's configuration."""

    display_name: str
    settings: Mapping[str, Any]
    features: Mapping[str, Any]
    limits: Mapping[str, Any]


def configure(
    schema: str, *, actor: str, act: str = "configure", **values: Unpack[Configuration]
) -> tenancy.TenantConfig:
    """Change a tenant's configuration. Other processes use it after `tenant_cache_seconds` at most.

    The row and its audit record, which has what changed, are saved in one transaction.

    Args:
        schema: The tenant.
        actor: Who changes it, for the audit trail.
        act: The name of the change in the audit trail.
        values: `display_name`, and the keys to set in `settings`, `features` and `limits`. Their other keys stay; a
            value of None removes a key.

    Returns:
        The configuration with its new values.

    Raises:
        UnknownTenant: No tenant has this schema name.
        TenantNotAuthorized: The calling code is restricted to another tenant.
        ConfigurationError: A value is not possible; nothing is changed.
        DatabaseAway: The database cannot be reached.
    """
    tenancy.require_authorized(schema)
    check_configuration(schema, values)
    alias = tenancy.database_alias()
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        row = _locked_configuration(schema)
        changes = {name: _configured(row, name, value) for name, value in values.items()}
        before, after = ({name: change[part] for name, change in changes.items()} for part in (0, 1))
        row.save(using=alias)  # its receiver forgets what this process has cached
        row.refresh_from_db(using=alias)
        audit.record(actor, act, schema=schema, before=before, after=after)
    return tenancy.TenantConfig(row.display_name, row.settings, row.features, row.limits)


def check_configuration(schema: str, values: Mapping[str, Any]) -> None:
    """Check the values for the configuration of a tenant that may not exist yet. Raises `ConfigurationError`."""
    if schema == tenancy.public_schema():
        raise ConfigurationError(f"The public schema {schema!r} has no configuration; name a tenant.")
    for name, value in values.items():
        if name not in CONFIGURED:
            raise ConfigurationError(f"A tenant's configuration has no '{name}': {did_you_mean(name, CONFIGURED)}")
        if problems := list(problems_of(name, dict(value) if isinstance(value, Mapping) else value)):
            raise ConfigurationError(f"{name} of {schema} cannot be {short(value)}: {' '.join(map(str, problems))}")


def _locked_configuration(schema: str) -> TenantConfiguration:
    """Return the row of a tenant's configuration, created if missing, and locked until the transaction ends."""
    rows = TenantConfiguration.objects.using(tenancy.database_alias())
    if not rows.filter(schema_name=schema).exists():
        tenancy.get_tenant(schema)  # raises
        rows.bulk_create([TenantConfiguration(schema_name=schema)], ignore_conflicts=True)
    found: TenantConfiguration = rows.select_for_update().get(schema_name=schema)
    return found


def _configured(row: TenantConfiguration, name: str, value: Any) -> tuple[Any, Any]:
    """Set a value of a tenant's configuration. Return what it changes, as it was before and is after."""
    was = getattr(row, name)
    if not isinstance(value, Mapping):
        setattr(row, name, value)
        return was, value
    after = {key: found for key, found in value.items() if found is not None}
    setattr(row, name, {key: found for key, found in was.items() if key not in value} | after)
    return {key: was[key] for key in value if key in was}, after
