"""Find out the state of a task from its row, from its place in the broker, or from the cache."""

from __future__ import annotations

from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import CANCELLED
from tenant_q.lifecycle import cached_results, task_rows
from tenant_q.package.build import deterministic_id
from tenant_q.states import State
from tenant_q.tenancy.cache import tenant_cache


def state_of(schema: str, id: str) -> State:
    """Find out the state of a tenant's task.

    Args:
        schema: The tenant's schema, which must be current.
        id: The id of the task.

    Raises:
        BrokerError: A broker does not answer.
        ConfigurationError: The broker keeps no states.
    """
    # A task that ends between two queries has left the broker, and has a row then.
    return (
        _by_row(id) or _by_broker(schema, id) or _by_parts(schema, id) or _by_row(id) or _by_cache(id) or State.UNKNOWN
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


def _by_cache(id: str) -> State | None:
    task = (
        cached_results.find(id) if len(id) == 32 and tenant_cache() else None
    )  # some caches refuse a key that is not like an id
    return None if task is None else State.SUCCESS if task.success else _of_failure(task.result)
