"""Cancel many tasks at once: chosen ones, those of a group, and an iter or a chain as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from django.db import transaction

from tenant_q import audit, tenancy
from tenant_q.brokers import Broker, site_brokers
from tenant_q.brokers.protocol import CANCELLED, Live
from tenant_q.exceptions import BadPackage
from tenant_q.lifecycle import cancel as single
from tenant_q.lifecycle import task_state
from tenant_q.lifecycle.chain_ids import next_id
from tenant_q.package.build import deterministic_id
from tenant_q.package.envelope import Found, open_package
from tenant_q.package.package import Package
from tenant_q.package.signing import peek
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.cancelling")

# How many ids of an iter's parts are looked for at once.
_PARTS = 1000


def cancel(schema: str, id: str, *, by: str = "") -> bool:
    """Cancel a task, an iter or a chain of a tenant, if any of it is still queued, delayed or leased.

    Args:
        schema: The tenant's schema, which must be current.
        id: The id of the task, of the iter, or of a chain whose group was not named.
        by: Who cancels it. If given, the audit trail has a record, and the failed rows name them.

    Returns:
        Whether there was something to cancel.

    Raises:
        ConfigurationError: The broker cannot cancel.
        BrokerError: The broker does not answer.
        DatabaseAway: The record could not be written, so nothing was cancelled.
    """
    if single.cancel(schema, id, by=by):
        return True
    if len(id) != task_state.LENGTH_OF_IDS:
        return False

    def cancel_whole(reason: str) -> int:
        return _cancel_chain(schema, id, reason) or _cancel_iter(schema, id, reason)

    return _recorded(schema, id, by, cancel_whole) > 0


def cancel_each(schema: str, ids: Sequence[str], *, by: str = "") -> int:
    """Cancel tasks of a tenant by their ids, and return how many there were to cancel.

    Args:
        schema: The tenant's schema.
        ids: The ids of the tasks.
        by: As for `cancel`; the audit trail has one record for all.

    Raises as `cancel`.
    """
    return _recorded(schema, " ".join(ids), by, lambda reason: _cancel_all(schema, ids, reason))


def cancel_group(schema: str, group: str, *, by: str = "") -> int:
    """Cancel the tasks of a group of a tenant, and return how many there were to cancel.

    Args:
        schema: The tenant's schema.
        group: The name of the group.
        by: As for `cancel`; the audit trail has one record for all.

    Raises as `cancel`.
    """
    found = {broker: list(_of_group(broker, schema, group)) for broker in site_brokers()}
    if not any(found.values()):
        return 0

    def cancel_found(reason: str) -> int:
        return sum(len(broker.cancel_all(schema, ids, reason)) for broker, ids in found.items())

    return _recorded(schema, group, by, cancel_found)


def _recorded(schema: str, target: str, by: str, cancel_these: Callable[[str], int]) -> int:
    """Cancel tasks with one audit record, unless there is nothing to cancel.

    Args:
        schema: The tenant's schema.
        target: What the record names.
        by: Who cancels; empty for no record.
        cancel_these: A function that gets the reason, and returns how many it has cancelled.
    """
    by = one_line(by)[:150]
    if not by:
        return _logged(schema, target, "cancelled", cancel_these)
    # The record comes first: without a record there is no cancel.
    with tenancy.detect_outages(), transaction.atomic(using=tenancy.database_alias()):
        record = audit.record(by, "cancel", schema=schema, target=target, after={"count": None})
        count = _logged(schema, target, f"cancelled by {by}", cancel_these)
        if count:
            audit.complete(record, {"count": count})
        else:
            transaction.set_rollback(True, using=tenancy.database_alias())
        return count


def _logged(schema: str, target: str, text: str, cancel_these: Callable[[str], int]) -> int:
    count = cancel_these(f"{CANCELLED}: {text}")
    if count:
        labels = {"schema": schema, "task_id": target[: task_state.LENGTH_OF_IDS]}
        packages = counted(count, "package was", "packages were")
        logger.info("%s %s", packages, text, event="tasks.cancelled", extra=labels)
    return count


def _cancel_all(schema: str, ids: Sequence[str], reason: str) -> int:
    return sum(len(broker.cancel_all(schema, ids, reason)) for broker in site_brokers())


# A group


def _of_group(broker: Broker, schema: str, group: str) -> Iterator[str]:
    """Yield the ids of a tenant's packages in a broker that belong to a group and are not cancelled yet."""
    mark, key = group.encode(), tenancy.current_key(schema)
    for some in broker.each_live(schema):
        for live in some:
            if not (live.give_up_reason or "").startswith(CANCELLED):
                package = _opened(live, schema, key, mark)
                if package is not None and package.group == group:
                    yield live.id


def _opened(live: Live, schema: str, key: str, mark: bytes = b"") -> Package | None:
    """Return the package of a live task if it is whole and its pickle contains a mark."""
    try:
        return open_package(live.payload, Found(live.id, schema, key)) if mark in peek(live.payload) else None
    except (BadPackage, ValueError):
        return None


# A chain


def _cancel_chain(schema: str, group: str, reason: str) -> int:
    """Cancel the link of a chain that waits or runs. The broker cancels what follows a cancelled link."""
    link = task_state.live_link(schema, group)
    while link is not None:
        if _cancel_all(schema, [link], reason):
            _cancel_all(schema, [next_id(group, link)], reason)  # it may have been enqueued just before
            return 1
        link = task_state.live_link(schema, group)
    return 0


# An iter


def _cancel_iter(schema: str, iter_id: str, reason: str) -> int:
    """Cancel the parts of an iter. Their ids follow from that of the iter."""
    brokers = site_brokers()
    recorded = max(broker.count_parts(schema, iter_id) for broker in brokers)
    count, first, parts = 0, 0, recorded + 1
    most = _PARTS if recorded else 1  # before any part has ended, the first one is there, if it is an iter at all
    while first < parts:
        ids = [deterministic_id(iter_id, index) for index in range(first, first + most)]
        for broker in brokers:
            found = broker.cancel_all(schema, ids, reason)
            count += len(found)
            if found:
                parts = max(parts, _parts_of(broker, schema, next(iter(found))))
        first, most = first + most, _PARTS
    return count


def _parts_of(broker: Broker, schema: str, id: str) -> int:
    """Return how many parts the iter of a part has; 0 if the part has ended meanwhile."""
    live = broker.find(schema, id)
    package = live and _opened(live, schema, tenancy.current_key(schema))
    return int(package.option("iter_count") or 0) if package else 0
