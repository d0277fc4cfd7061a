"""Queue dead packages again, or purge them. Each call leaves an audit record for each tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.db import transaction

from tenant_q import audit, tenancy
from tenant_q.brokers.protocol import Broker, Dead
from tenant_q.exceptions import BadPackage
from tenant_q.package.envelope import Found, open_package, seal
from tenant_q.package.package import Package


def retry(broker: Broker, chosen: Sequence[Dead], *, actor: str) -> int:
    """Queue dead packages again for an operator, with their count of tries reset, and leave an audit record.

    Args:
        broker: The broker of their cluster.
        chosen: The packages, of any tenants.
        actor: The name of the operator, for the audit trail.

    Returns:
        The number of packages that were still dead.

    Raises:
        BrokerError: The broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    return _each_tenant(
        broker,
        chosen,
        actor,
        "retry",
        lambda own: broker.retry_dead({dead.id: _retried_payload(dead) for dead in own}),
    )


def purge(broker: Broker, chosen: Sequence[Dead], *, actor: str) -> int:
    """Delete dead packages for an operator. Arguments, result and errors are those of `retry`."""
    return _each_tenant(broker, chosen, actor, "purge", lambda own: broker.purge_dead([dead.id for dead in own]))


def _each_tenant(
    broker: Broker, chosen: Sequence[Dead], actor: str, act: str, do: Callable[[Sequence[Dead]], int]
) -> int:
    """Change the dead packages tenant by tenant. The audit record comes first, so that nothing is done unrecorded."""
    by_schema: dict[str, list[Dead]] = {}
    for dead in chosen:
        by_schema.setdefault(dead.schema, []).append(dead)
    done = 0
    for schema, own in by_schema.items():
        with tenancy.detect_outages(), transaction.atomic(using=tenancy.database_alias()):
            after = {"cluster": broker.cluster, "count": len(own)}
            audit.record(actor, act, schema=schema, target=" ".join(dead.id for dead in own), after=after)
            done += do(own)
    return done


def _retried_payload(dead: Dead) -> str:
    """Return a dead package's payload with its count of tries reset; empty, to keep it, if it cannot be opened."""
    try:
        key = tenancy.keys_of([dead.schema]).get(dead.schema)
        task = open_package(dead.payload, Found(dead.id, dead.schema, key)).task
    except BadPackage:
        return ""
    return seal(Package({name: value for name, value in task.items() if name != "put_off"}))
