"""Cancel a task, wherever it is: queued, delayed, or leased by a worker.

The broker keeps the cancel with the package, as its give-up reason, until the package is gone. So the worker that gets
the package next gives it up and leaves its failed row, whichever process dies in between. A worker that holds it is
interrupted by its sentinel.
"""

from __future__ import annotations

from django.db import transaction

from tenant_q import audit, tenancy
from tenant_q.brokers import Broker, site_brokers
from tenant_q.brokers.protocol import CANCELLED
from tenant_q.exceptions import TaskCancelled, TaskDeath, TaskTimeout
from tenant_q.lifecycle import aliases
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.cancelling")


def cancel(schema: str, id: str, *, by: str = "") -> bool:
    """Cancel a tenant's task, if it is still queued, delayed or leased.

    Args:
        schema: The tenant's schema.
        id: The id of the task.
        by: Who cancels it. If given, the audit trail has a record, and the failed row names them.

    Returns:
        Whether there was a task to cancel.

    Raises:
        ConfigurationError: The broker cannot cancel.
        BrokerError: The broker does not answer.
        DatabaseAway: The record could not be written, so nothing was cancelled.
    """
    by = one_line(by)[:150]
    broker = _broker_with(schema, id)
    if broker is None and (real := aliases.real_id(schema, id)):
        id, broker = real, _broker_with(schema, real)
    if broker is None:
        return False
    if not by:
        return _cancel(broker, schema, id, "cancelled")
    # The record comes first: without a record there is no cancel.
    with tenancy.detect_outages(), transaction.atomic(using=tenancy.database_alias()):
        audit.record(by, "cancel", schema=schema, target=id, after={"cluster": broker.cluster})
        return _cancel(broker, schema, id, f"cancelled by {by}")


_STILL_TO_BE_RUN = ("queued", "delayed", "leased")


def _broker_with(schema: str, id: str) -> Broker | None:
    return next((one for one in site_brokers() if one.place(schema, id) in _STILL_TO_BE_RUN), None)


def death_of(reason: str) -> TaskDeath:
    """Return the error of a cancelled task, or of one that ignored its timeout, from its give-up reason."""
    cause, _, text = reason.partition(": ")
    return TaskCancelled(text) if cause == CANCELLED else TaskTimeout(reason)


def _cancel(broker: Broker, schema: str, id: str, text: str) -> bool:
    place = broker.cancel(schema, id, f"{CANCELLED}: {text}")
    if place:
        logger.info("A %s package was %s", place, text, event="task.cancelled", extra={"schema": schema, "task_id": id})
    return place is not None
