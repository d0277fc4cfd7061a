"""The one way onto the broker: stamp the schema, tell the receivers, sign, push."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_q.signals import pre_enqueue

from tenant_q.brokers import get_broker
from tenant_q.brokers.djangoq import message_of
from tenant_q.labels import get_logger
from tenant_q.package import Package, labels, seal
from tenant_q.tenancy import task_schema

logger = get_logger("tenant_q.enqueue")


def stamp(*, task: dict[str, Any], **_: Any) -> None:
    """Receiver of `pre_enqueue`: every task, also one of plain `async_task`, carries the schema it is for."""
    if "schema_name" not in task:
        task["schema_name"] = task_schema()


def push(packages: Sequence[Package], *, broker: Any = None, once: bool = False) -> None:
    """Put packages on their tenants' queues, in one round trip a thousand.

    Parameters: `broker`, a Django-Q2 broker to use instead of the configured one; `once`, whether their ids are
    deterministic, so that pushing them again does nothing.

    Raises `EnqueueError` when a package does not pickle, and `BrokerError`.
    """
    by_cluster: dict[str | None, list[Package]] = {}
    for package in packages:
        by_cluster.setdefault(package.option("cluster"), []).append(package)
    for cluster, own in by_cluster.items():
        messages = [message_of(package, sealed(package), once=once) for package in own]
        get_broker(cluster, broker).enqueue(messages)
    for package in packages:
        logger.debug("Enqueued %s", package.name, extra=labels(package))


def announce(package: Package) -> None:
    """Send Django-Q2's `pre_enqueue`; its receivers may change the task."""
    pre_enqueue.send(sender="django_q", task=package.task)


def sealed(package: Package) -> str:
    """Sign a package. Raises `EnqueueError` naming what cannot travel."""
    package.task.pop("broker", None)
    return seal(package)
