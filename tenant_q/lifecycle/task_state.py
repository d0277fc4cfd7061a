"""Find out the state of a task, iter or chain: from rows, from places in the broker, or from the cache."""

from __future__ import annotations

from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import CANCELLED
from tenant_q.lifecycle import aliases, cached_results, task_rows
from tenant_q.lifecycle.chain_ids import first_id, next_id
from tenant_q.package.build import deterministic_id
from tenant_q.states import State
from tenant_q.tenancy.cache import tenant_cache

LENGTH_OF_IDS = 32


def state_of(schema: str, id: str) -> State:
    """Find out the state of a tenant's task.

    Args:
        schema: The tenant's schema, which must be current.
        id: The id of the task.

    Raises:
        BrokerError: A broker does not answer.
        ConfigurationError: The broker keeps no states.
    """
    found = _under(schema, id)
    if found is None and (real := aliases.real_id(schema, id)):
        found = _under(schema, real)
    return found or State.UNKNOWN


def _under(schema: str, id: str) -> State | None:
    """Find out the state of what has the id itself, not as an alias."""
    # A task that ends between two queries has left the broker, and has a row then.
    return (
        _by_row(id)
        or _by_broker(schema, id)
        or _by_links(schema, id)
        or _by_parts(schema, id)
        or _by_row(id)
        or _by_cache(id)
    )


def _by_row(id: str) -> State | None:
    rows = task_rows.rows().filter(id=id)
    success = rows.values_list("success", flat=True).first()
    if success is None:
        return None
    if success:
        return State.SUCCESS
    return _of_failure(task_rows.load_result(rows))


def _of_failure(result: object) -> State:
    is_cancelled = isinstance(result, str) and result.startswith(f"{CANCELLED}: ")
    return State.CANCELLED if is_cancelled else State.FAILURE


def _by_broker(schema: str, id: str) -> State | None:
    for broker in site_brokers():
        state = broker.state(schema, id)
        if state:
            return state
    return None


def _by_parts(schema: str, id: str) -> State | None:
    """Find out the state of an iter by its parts: it runs from the start of the first until its row is saved."""
    if any(broker.count_parts(schema, id) for broker in site_brokers()):
        return State.RUNNING
    first = _by_broker(schema, deterministic_id(id, 0))
    return first if first in (State.QUEUED, State.DELAYED, None) else State.RUNNING


def _by_links(schema: str, group: str) -> State | None:
    """Find out the state of a chain by its links, whose ids follow from the group's; None if it is no chain.

    A link has left the broker only when the next one is there, so the links are looked up in their order.
    """
    before, id = None, first_id(group)
    while True:
        ended = _by_row(id) or _by_cache(id)
        if ended is None:
            place = (_by_broker(schema, before) if before else None) or _by_broker(schema, id)
            if place is not None:
                return State.RUNNING if before else place
            ended = _by_row(id) or _by_cache(id)
        if ended is None and before is None:
            before = _link_of_a_pruned_chain(schema, group)
            if before is None:
                return None
            ended, id = State.SUCCESS, before
        if ended is not State.SUCCESS:
            return ended or State.SUCCESS
        before, id = id, next_id(group, id)


def live_link(schema: str, group: str) -> str | None:
    """Find the link of a chain that waits or runs.

    Args:
        schema: The tenant's schema, which must be current.
        group: The id of the chain's group, which was made for it.

    Returns:
        The id of the link; None if the chain has ended, or if it is no chain.

    Raises:
        BrokerError: A broker does not answer.
        ConfigurationError: The broker keeps no states.
    """
    id: str | None = first_id(group)
    is_first = True
    while id is not None:
        if _by_broker(schema, id) not in (None, State.FAILURE):
            return id
        if (_by_row(id) or _by_cache(id)) is State.SUCCESS:
            id = next_id(group, id)
        else:
            id = _link_of_a_pruned_chain(schema, group) if is_first else None
        is_first = False
    return None


def _link_of_a_pruned_chain(schema: str, group: str) -> str | None:
    """Return the id of a successful link of a chain whose first row was pruned; None if no two links are left."""
    if len(group) != LENGTH_OF_IDS:
        return None
    ids = set(task_rows.rows().filter(group=group, success=True).values_list("id", flat=True))
    for id in ids:
        after = next_id(group, id)
        if after in ids or _by_row(after) or _by_broker(schema, after):
            return str(id)
    return None


def _by_cache(id: str) -> State | None:
    task = (
        cached_results.find(id) if len(id) == LENGTH_OF_IDS and tenant_cache() else None
    )  # some caches refuse a key that is not like an id
    return None if task is None else State.SUCCESS if task.success else _of_failure(task.result)
