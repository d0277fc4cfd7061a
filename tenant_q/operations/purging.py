"""Empty a tenant's queue. A purge is no death: it leaves one audit record with the count, and no rows of tasks.

What else depends on the packages ends: see `lifecycle.purged`. What workers hold stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tenant_q import audit, tenancy
from tenant_q.brokers import Broker, site_brokers
from tenant_q.brokers.protocol import Chosen, Dead, Waiting
from tenant_q.exceptions import TaskPurged, UnknownTenant
from tenant_q.lifecycle.purged import Aftermath
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.purging")

ALL = Chosen()
"""All that waits."""


@dataclass(slots=True)
class Purged:
    """What a purge has done so far.

    Attributes:
        schema: The schema of the tenant.
        count: How many packages were purged.
        ended: How many iters and chains ended by that.
        left: How many packages stay dead letters, because what follows from their purge could not be saved.
    """

    schema: str
    count: int = 0
    ended: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class _Owner:
    """A tenant that has, or had, a schema's name. Its key is empty for the public schema and for an unknown tenant."""

    key: str
    is_there: bool


def count_waiting(schema: str) -> Waiting:
    """Count what a purge of a tenant would find.

    Args:
        schema: Its schema; also that of a tenant that is gone.

    Raises:
        UnknownTenant: No tenant has this name, and nothing waits under it.
        ConfigurationError: The broker is not Redis.
        BrokerError: The broker does not answer.
        DatabaseAway: The database cannot be reached.
    """
    found = [
        broker.count_waiting(schema, tenant=owner.key) for broker in site_brokers() for owner in _owners(broker, schema)
    ]
    waiting = Waiting(sum(one.queued for one in found), sum(one.delayed for one in found))
    if waiting == Waiting() and _key_of(schema) is None:
        raise UnknownTenant(
            f"No tenant has the schema {schema!r}, and nothing waits under that name; `mstenant list --all` lists all "
            "tenants."
        )
    return waiting


def purge(
    schema: str, chosen: Chosen = ALL, *, actor: str, progress: Callable[[int], None] = lambda count: None
) -> Purged:
    """Purge what a tenant has waiting in all clusters of the site.

    Args:
        schema: The schema of the tenant; also of one that is gone.
        chosen: Which of its packages are purged.
        actor: Who does it, for the audit trail.
        progress: Called after each slice with the number of packages that are done.

    Returns:
        What was purged.

    Raises:
        ConfigurationError: The broker is not Redis.
        BrokerError: The broker does not answer. The same call continues.
        DatabaseAway: The database cannot be reached. The same call continues.
    """
    actor, done = one_line(actor)[:150], Purged(schema)
    brokers = site_brokers()
    owners = {broker.cluster: list(_owners(broker, schema)) for broker in brokers}
    places = [name for name, is_wanted in (("queued", chosen.queued), ("delayed", chosen.delayed)) if is_wanted]
    after = {"places": ", ".join(places), "count": None}
    # The record comes first: without a record nothing is purged.
    record = audit.record(actor, "purge", schema=schema, target=chosen.func, after=after)
    try:
        for broker in brokers:
            for owner in owners[broker.cluster]:
                _purge_queue(broker, owner, chosen, TaskPurged(f"purged by {actor}"), done, progress)
    finally:
        audit.complete(record, {**after, "count": done.count})
        purged = counted(done.count, "package")
        logger.info("Purged %s of %s", purged, schema, event="queue.purged", extra={"schema": schema})
    return done


def _key_of(schema: str) -> str | None:
    """Return the key of the tenant whose queue is purged by its schema's name; None if no tenant has that name."""
    if schema == tenancy.public_schema():
        return ""
    return tenancy.keys_of([schema]).get(schema)


def _owners(broker: Broker, schema: str) -> Iterator[_Owner]:
    """Yield the tenants whose queues are purged by a schema's name: the one that has it, and those that are gone."""
    key = _key_of(schema)
    if key is not None:
        yield _Owner(key, is_there=True)
    for other in broker.tenants_named(schema):
        if other != key and not (other and tenancy.tenant_exists(other)):  # not one that was renamed
            yield _Owner(other, is_there=False)


def _purge_queue(
    broker: Broker, owner: _Owner, chosen: Chosen, cause: TaskPurged, done: Purged, progress: Callable[[int], None]
) -> None:
    text = f"{TaskPurged.__name__}: {cause}"
    aftermath = Aftermath(broker, done.schema, owner.key if owner.is_there else None, cause)
    try:
        if owner.is_there:
            _settle(broker, _left_by_another(broker, done.schema), aftermath, done)
        for taken in broker.take_waiting(done.schema, chosen, text, tenant=owner.key):
            _settle(broker, taken, aftermath, done)
            progress(done.count)
    finally:
        done.ended += aftermath.ended
        done.left += len(aftermath.unsaved)
    aftermath.finish()


def _left_by_another(broker: Broker, schema: str) -> list[Dead]:
    """Return the packages that an interrupted purge has left as dead letters."""
    return [dead for dead in broker.dead(schema, limit=10**9) if dead.cause.startswith(f"{TaskPurged.__name__}: ")]


def _settle(broker: Broker, taken: Sequence[Dead], aftermath: Aftermath, done: Purged) -> None:
    if taken:
        done.count += broker.purge_dead(aftermath.settle(taken))
