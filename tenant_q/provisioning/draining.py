"""Have a tenant's tasks come to their end: refuse new ones, cancel those that wait, and wait for those that run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tenant_q.brokers import Broker, site_brokers
from tenant_q.exceptions import TenantBusy
from tenant_q.support.plurals import counted

RETRY_SECONDS = 0.1
"""The interval at which the running tasks are counted."""
_MOST_LISTED = 1000
_SHOWN = 5


def drain(schema: str, key: str, *, seconds: float, progress: Callable[[str], None]) -> int:
    """Have all clusters refuse new tasks of a tenant, cancel those that wait, and wait until none runs.

    What a dead worker holds is returned when its lease runs out, as a cluster would do, and then cancelled too.

    Args:
        schema: The schema name of the tenant.
        key: The key of its row.
        seconds: The longest wait for its running tasks.
        progress: Called with a text that says for what it waits.

    Returns:
        How many tasks were cancelled.

    Raises:
        TenantBusy: Tasks still run after `seconds`; the message names them. New ones stay refused.
        BrokerError: The broker cannot be reached.
    """
    brokers, deadline, cancelled = site_brokers(), time.monotonic() + seconds, 0
    while True:
        found = [broker.drain_tenant(schema, key) for broker in brokers]
        cancelled += sum(one.cancelled for one in found)
        held = sum(one.held for one in found)
        if not held:
            return cancelled
        left = deadline - time.monotonic()
        if left <= 0:
            raise _still_running(schema, brokers, held, seconds)
        progress(f"waiting for {counted(held, 'task')}, {left:.0f} s at most")
        for broker in brokers:
            broker.expire()
        time.sleep(min(RETRY_SECONDS, left))


def _still_running(schema: str, brokers: Sequence[Broker], held: int, seconds: float) -> TenantBusy:
    live = [one for broker in brokers for one in broker.live(schema, limit=_MOST_LISTED) if one.place == "leased"]
    named = ", ".join(f"{one.func} ({one.id})" for one in live[:_SHOWN]) + (", ..." if len(live) > _SHOWN else "")
    return TenantBusy(
        f"{counted(held, 'task')} of {schema} did not end within {seconds:g} s: {named}; new ones are refused. Run the "
        "same command again, with a longer --drain, or cancel what runs."
    )
