"""Tenants' policies: rows in the public schema, which the brokers enforce.

The row is the truth, the broker has a copy. It is made after the commit of a change, and again every half minute by
the scheduler, so that a broker that was away or lost its data has it too.
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
from tenant_q.models import TenantPolicy
from tenant_q.schedules import due_index
from tenant_q.support.hints import did_you_mean

FIELDS = ("weight", "max_running", "max_queued", "max_results", "paused")
# The first key of the advisory lock; the second names the cluster.
_LOCK = zlib.crc32(b"tenant_q.policies") & 0x7FFFFFFF


class Values(TypedDict, total=False):
    """What a policy says. A limit that is None is none."""

    weight: float
    max_running: int | None
    max_queued: int | None
    max_results: int | None
    paused: bool


# Reading


def policy_of(schema: str) -> TenantPolicy:
    """The tenant's policy; one with the defaults, not saved, when it has none. Raises `UnknownTenant`."""
    with tenancy.told_when_away(), tenancy.in_public():
        found = _rows().filter(schema_name=schema).first()
    if found is None:
        _check_tenant(schema)
    return found or TenantPolicy(schema_name=schema)


def policies(*, every_tenant: bool = False) -> list[TenantPolicy]:
    """The policies there are, by schema name.

    Parameters: `every_tenant`, whether tenants without one are among them, with the defaults and not saved.
    """
    with tenancy.told_when_away(), tenancy.in_public():
        found = {row.schema_name: row for row in _rows()}
        if every_tenant:
            tenants = tenancy.tenant_model()._default_manager.using(tenancy.database_alias())
            names = tenants.exclude(schema_name=tenancy.public_schema()).values_list("schema_name", flat=True)
            found = {name: TenantPolicy(schema_name=name) for name in names} | found
    return [found[name] for name in sorted(found)]


def is_paused(schema: str) -> bool:
    """Whether nothing of a tenant is to be started. Raises `DatabaseAway`."""
    with tenancy.told_when_away(), tenancy.in_public():
        return bool(_rows().filter(schema_name=schema, paused=True).exists())


def paused() -> set[str]:
    """The tenants of which nothing is to be started. Raises `DatabaseAway`."""
    with tenancy.told_when_away(), tenancy.in_public():
        return set(_rows().filter(paused=True).values_list("schema_name", flat=True))


def values_of(policy: TenantPolicy) -> dict[str, Any]:
    """What a policy says, by the names of `FIELDS`."""
    return {name: getattr(policy, name) for name in FIELDS}


def _rows() -> Any:
    return TenantPolicy.objects.using(tenancy.database_alias())


def _check_tenant(schema: str) -> None:
    if schema == tenancy.public_schema():
        tenancy.task_schema(schema)  # tasks may run there, or there is nothing to share
    else:
        tenancy.get_tenant(schema)


# Changing


def change(schema: str, *, actor: str, act: str, **values: Unpack[Values]) -> TenantPolicy:
    """Change a tenant's policy, in force on what is queued already when this returns.

    The row and its audit record are one transaction. Inside a transaction of the caller's, both are there and in force
    when that commits.

    Parameters: `actor`, who does it; `act`, what it is called, as "pause"; `values`, what is to be different.

    Returns the policy as it is now. Raises `UnknownTenant` when neither a tenant nor a policy has this schema name,
    `ConfigurationError` for a value that cannot be, and then nothing is changed; `BrokerError` when the broker is away,
    and then the change is saved and will be in force when it is back.
    """
    _check_names(values)
    alias = tenancy.database_alias()
    with tenancy.told_when_away(), tenancy.in_public(), transaction.atomic(using=alias):
        policy = _locked(schema)
        before = values_of(policy)
        for name, value in values.items():
            setattr(policy, name, value)
        _check_values(policy, values)
        policy.changed = timezone.now()
        after = values_of(policy)
        # Past the signals: their receiver would put it in force a second time, and keep errors to itself.
        _rows().filter(pk=policy.pk).update(**after, changed=policy.changed)
        audit.record(actor, act, schema=schema, before=before, after=after)
        transaction.on_commit(_put_in_force_or_tell, using=alias)
    return policy


def _locked(schema: str) -> TenantPolicy:
    """The tenant's row, made when there is none, and nobody else's until the transaction ends."""
    rows = _rows()
    if not rows.filter(schema_name=schema).exists():
        _check_tenant(schema)
        rows.bulk_create([TenantPolicy(schema_name=schema)], ignore_conflicts=True)  # two at once make one row
    found: TenantPolicy = rows.select_for_update().get(schema_name=schema)
    return found


def _check_names(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in FIELDS:
            raise ConfigurationError(f"A tenant's policy has no '{name}': {did_you_mean(name, FIELDS)}")


def _check_values(policy: TenantPolicy, values: Mapping[str, Any]) -> None:
    schema = policy.schema_name
    try:
        # A tenant that is there may have a name that new ones may not, and its row is locked.
        policy.full_clean(exclude=["schema_name"], validate_unique=False)
    except ValidationError as error:
        name, reasons = next(iter(error.message_dict.items()))
        raise ConfigurationError(f"{name} of {schema} cannot be {values.get(name)!r}: {' '.join(reasons)}") from error
    broker = get_broker()
    if not broker.supports_tenant_queues:
        broker.set_policies({schema: in_force_of(policy)})  # raises, before it is saved, what it cannot do


# Putting in force


def policy_saved(*, using: str, **_: Any) -> None:
    """Receiver of `post_save` and `post_delete`: put in force, after its commit, what any other code changes.

    An error goes to the log and the other things to be done on that commit are done; the scheduler tries again.
    """
    transaction.on_commit(put_in_force_everywhere, using=using, robust=True)


def put_in_force_everywhere() -> None:
    """Put every tenant's policy in force in each of the site's clusters. Raises as `put_in_force`."""
    for broker in site_brokers():
        put_in_force(broker)
    paused = _rows().filter(paused=True).values_list("schema_name", flat=True)
    with tenancy.told_when_away(), tenancy.in_public():
        due_index.release(due_index.PAUSED, but=[tenancy.physical_schema(name) for name in paused])


def put_in_force(broker: Broker) -> None:
    """Put every tenant's policy in force in one cluster.

    Raises `BrokerError`, `DatabaseError`, `DatabaseAway`, and `ConfigurationError` when the broker knows no policies.
    """
    alias = tenancy.database_alias()
    with tenancy.told_when_away(), tenancy.in_public(), transaction.atomic(using=alias):
        # One at a time, and read under the lock: what is put last was read after the last commit.
        with tenancy.tenant_connection().cursor() as cursor:
            cursor.execute(
                "SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)", [_LOCK, zlib.crc32(broker.cluster.encode()) >> 1]
            )
        broker.set_policies({row.schema_name: in_force_of(row) for row in _rows()}, complete=True)


def _put_in_force_or_tell() -> None:
    try:
        put_in_force_everywhere()
    except BrokerError as error:
        raise BrokerError(f"The change is saved, and will be in force when the broker is back: {error}") from error


def in_force_of(row: TenantPolicy) -> Policy:
    """A tenant's row as the broker puts it in force."""
    return Policy(row.weight, row.max_running, row.max_queued, row.paused)
