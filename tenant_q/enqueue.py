"""The one way onto the broker: stamp the schema, tell the receivers, sign, push, at once or on commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.db import transaction
from django_q.signals import pre_enqueue

from tenant_q.brokers import get_broker
from tenant_q.brokers.djangoq import message_of
from tenant_q.brokers.protocol import Message
from tenant_q.envelope import seal
from tenant_q.forks import no_return
from tenant_q.labels import get_logger
from tenant_q.package import Package, labels
from tenant_q.receivers import has_receivers
from tenant_q.tenancy import database_alias, task_schema

logger = get_logger("tenant_q.enqueue")


def stamp(*, task: dict[str, Any], **_: Any) -> None:
    """Receiver of `pre_enqueue`: every task, also one of plain `async_task`, carries the schema it is for."""
    if "schema_name" not in task:
        task["schema_name"] = task_schema()


def push(packages: Sequence[Package], *, broker: Any = None, once: bool = False, limited: bool = False) -> None:
    """Put packages on their tenants' queues, in one round trip a thousand.

    Parameters: `broker`, a Django-Q2 broker to use instead of the configured one; `once`, whether their ids are
    deterministic, so that pushing them again does nothing; `limited`, whether their tenant's `max_queued` counts.

    Raises `EnqueueError` when a package does not pickle, `QueueFull` where there is no room, and `BrokerError`.
    """
    _send(_messages(packages, once=once), packages, broker=broker, limited=limited)


def push_on_commit(packages: Sequence[Package], *, broker: Any = None, once: bool = False) -> None:
    """Put packages on their tenants' queues when the transaction commits that is open on the tenants' connection.

    At once where none is open, and not at all where it rolls back. What does not pickle is told now; what `push`
    raises besides is raised by the commit, which has taken place then.
    """
    messages = _messages(packages, once=once)
    on_commit(partial(_send, messages, packages, broker=broker, limited=True))


def on_commit(act: Callable[[], Any]) -> None:
    """Call `act` when the transaction commits that is open on the tenants' connection; at once where none is."""
    transaction.on_commit(act, using=database_alias())


def announce(packages: Sequence[Package]) -> None:
    """Send Django-Q2's `pre_enqueue` for each, if the project listens; its receivers may change the task."""
    if has_listeners():  # packages have their schema already
        with no_return():
            for package in packages:
                pre_enqueue.send(sender="django_q", task=package.task)


def has_listeners() -> bool:
    """Whether the project listens to Django-Q2's `pre_enqueue`."""
    return has_receivers(pre_enqueue, sender="django_q", besides=stamp)


def sealed(package: Package) -> str:
    """Sign a package. Raises `EnqueueError` naming what cannot travel."""
    package.task.pop("broker", None)
    return seal(package)


def _messages(packages: Sequence[Package], *, once: bool) -> dict[str | None, list[Message]]:
    """The messages that carry the packages, by cluster."""
    by_cluster: dict[str | None, list[Message]] = {}
    for package in packages:
        message = message_of(package, sealed(package), delay=package.delay, once=once)
        by_cluster.setdefault(package.option("cluster"), []).append(message)
    return by_cluster


def _send(
    messages: dict[str | None, list[Message]], packages: Sequence[Package], *, broker: Any, limited: bool
) -> None:
    for cluster, own in messages.items():
        get_broker(cluster, broker).enqueue(own, limited=limited)
    if logger.isEnabledFor(logging.DEBUG):  # else it were a tenth of a thousand's cost
        for package in packages:
            logger.debug("Enqueued %s", package.name, extra=labels(package))
