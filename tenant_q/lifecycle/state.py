"""What has become of a task: its row, or its place in the broker, tells."""

from __future__ import annotations

from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import CANCELLED
from tenant_q.lifecycle import cached, task_rows
from tenant_q.package.build import deterministic_id
from tenant_q.states import State
from tenant_q.tenancy.cache import tenant_cache


def state_of(schema: str, id: str) -> State:
    """What has become of a tenant's task, whose schema must be current. Raises `BrokerError`, `ConfigurationError`."""
    # A task that ends in between is in the broker no more, and has its row.
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
    """An iter runs from its first part on until its own row is there."""
    if any(broker.count_parts(schema, id) for broker in site_brokers()):
        return State.RUNNING
    first = _by_broker(schema, deterministic_id(id, 0))
    return first if first in (State.QUEUED, State.DELAYED, None) else State.RUNNING


def _by_cache(id: str) -> State | None:
    task = cached.find(id) if len(id) == 32 and tenant_cache() else None  # some caches refuse what is no id
    return None if task is None else State.SUCCESS if task.success else _of_failure(task.result)
