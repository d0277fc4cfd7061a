"""Push packages onto the queues: add the tenant, call the receivers and sign, at once or on commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from django_q.signals import pre_enqueue

from tenant_q.brokers import get_broker, strays, uses_redis
from tenant_q.brokers.messages import message_of, refusal_of
from tenant_q.brokers.protocol import Message
from tenant_q.conf import conf
from tenant_q.exceptions import EnqueueError, EntryRefused, TenantDeleted
from tenant_q.package import declarations, enqueueing
from tenant_q.package.envelope import seal
from tenant_q.package.misplaced import refuse_misplaced
from tenant_q.package.options import fill_defaults, refuse_wrong_values
from tenant_q.package.package import CODE, Package
from tenant_q.support.forks import no_return
from tenant_q.support.log_labels import get_logger
from tenant_q.support.receivers import has_receivers
from tenant_q.tenancy import (
    acting_as,
    current_key,
    find_key,
    on_commit,
    refresh_tenant,
    require_authorized,
    task_schema,
)

logger = get_logger("tenant_q.enqueue")

# Options that other brokers would ignore: Django-Q2 hands its own tasks to them directly.
_NEED_REDIS = ("unique", "priority", "rate")


def stamp(*, task: dict[str, Any], **_: Any) -> None:
    """Add schema, tenant, origin and declared options to a task that Django-Q2's own `async_task` is about to push.

    It receives Django-Q2's signal `pre_enqueue`.
    """
    if "schema_name" not in task:
        task["schema_name"] = task_schema()
    if "tenant" not in task:
        task["tenant"] = current_key(task["schema_name"])
    task.setdefault("origin", CODE)
    _declare(task)


def _declare(task: dict[str, Any]) -> None:
    """Add the options that the function of a task declares. Raises `EnqueueError` if the call's contradict them."""
    declaration = declarations.find(task["func"])
    if declaration is not None:
        task["func"] = declaration.name
        refuse_misplaced(declaration.func, task["kwargs"])
        own = declaration.options
        if conf().cached and task.get("cached") == conf().cached and ("cached" in own or own.get("transactional")):
            del task["cached"]  # Django-Q2 has filled it from the settings, over which the declaration wins
        fill_defaults(task, own)
        refuse_wrong_values(task)
        enqueueing.settle(task)
        used = next((option for option in _NEED_REDIS if task.get(option)), None)
        if used and not task.get("sync") and not uses_redis():
            raise EnqueueError(
                f"{declaration.name} declares the option '{used}', which needs a broker on Redis; leave it out, or set "
                "Q_CLUSTER['redis']."
            )


_NOTHING: Mapping[str, str] = {}


def push(
    packages: Sequence[Package],
    *,
    broker: Any = None,
    once: bool = False,
    limited: bool = False,
    follows: Mapping[str, str] = _NOTHING,
) -> Mapping[str, str]:
    """Push packages onto the queues of their tenants, with one round trip for each thousand and each unique one.

    Args:
        packages: The packages.
        broker: A broker of Django-Q2 to use instead of the configured one.
        once: Whether their ids are deterministic, so that pushing them again does nothing.
        limited: Whether the tenant's limit `max_queued` applies.
        follows: The ids of packages, each with the id of the package that it follows.

    Returns:
        The ids of packages that are not enqueued, because another one has their unique key, each with the id of that.

    Raises:
        EnqueueError: A package does not pickle.
        QueueFull: The tenant's queue has no room.
        TenantLeaving: The tenant is being decommissioned.
        UnknownTenant: No tenant has the schema name.
        BrokerError: The broker does not answer.
    """
    looked_up = _add_keys(packages)
    messages = partial(_messages, once=once, follows=follows)
    return _send(packages, messages(packages), looked_up, messages, broker=broker, limited=limited)


def push_on_commit(packages: Sequence[Package], *, broker: Any = None, once: bool = False) -> None:
    """Push packages onto their tenants' queues when the open transaction of the tenants' connection commits.

    If none is open, they are pushed at once; if it rolls back, never. A package whose unique key another one has by
    then is not enqueued, and its id stands for that one.

    Args:
        packages: The packages.
        broker: A broker of Django-Q2 to use instead of the configured one.
        once: Whether their ids are deterministic, so that pushing them again does nothing.

    Raises:
        EnqueueError: A package does not pickle. Other errors of `push` are raised by the commit, after it has taken
            place.
    """
    looked_up = _add_keys(packages)
    anew = partial(_messages, once=once, needs_alias=True)
    on_commit(partial(_send, packages, anew(packages), looked_up, anew, broker=broker, limited=True))


def announce(packages: Sequence[Package]) -> None:
    """Send `pre_enqueue` for each package to push, if the project has receivers, which may change the task."""
    if has_own_receivers():  # our own receiver is not needed: packages have their schema already
        with no_return():
            for package in packages:
                schema = package.schema
                with acting_as(schema):
                    pre_enqueue.send(sender="django_q", task=package.task)
                if package.task.get("schema_name") != schema:
                    require_authorized(package.schema)
                    package.task.pop("tenant", None)


def has_own_receivers() -> bool:
    """Return whether the project has receivers of `pre_enqueue`, which are called before each push."""
    return has_receivers(pre_enqueue, sender="django_q", besides=stamp)


def sealed(package: Package) -> str:
    """Return the text with which a package is pushed: signed, with the key of its tenant.

    Raises:
        EnqueueError: A value does not pickle; the message names it.
        UnknownTenant: No tenant has the schema name.
    """
    package.task.pop("broker", None)
    if package.tenant is None:
        _add_keys([package])
    return seal(package, most_bytes=conf().max_bytes)


def _add_keys(packages: Sequence[Package]) -> list[Package]:
    """Add to each package to push the key of its tenant, unless it has one. Raises `UnknownTenant`.

    Returns:
        The packages whose tenant was found in a cache, by its name.
    """
    looked_up = []
    found: dict[str, tuple[str, bool]] = {}
    for package in packages:
        if package.tenant is None:
            schema = package.schema
            if schema not in found:
                found[schema] = find_key(schema)
            package.task["tenant"], is_looked_up = found[schema]
            if is_looked_up:
                looked_up.append(package)
    return looked_up


def _messages(
    packages: Sequence[Package], *, once: bool, follows: Mapping[str, str] = _NOTHING, needs_alias: bool = False
) -> dict[str | None, list[Message]]:
    """Return the messages that push the packages, by cluster."""
    by_cluster: dict[str | None, list[Message]] = {}
    for package in packages:
        source = follows.get(package.id, "")
        payload, delay = sealed(package), package.delay
        message = message_of(package, payload, delay=delay, once=once, follows=source, needs_alias=needs_alias)
        by_cluster.setdefault(package.option("cluster"), []).append(message)
    return by_cluster


def _send(
    packages: Sequence[Package],
    messages: dict[str | None, list[Message]],
    looked_up: Sequence[Package],
    anew: Callable[[Sequence[Package]], dict[str | None, list[Message]]],
    *,
    broker: Any,
    limited: bool,
) -> dict[str, str]:
    try:
        joined = _hand_over(messages, broker=broker, limited=limited)
    except TenantDeleted as error:
        if not _add_keys_anew(looked_up):
            raise _deleted(packages, error) from error
        joined = _hand_over(anew(packages), broker=broker, limited=limited)
    if logger.isEnabledFor(logging.DEBUG):  # otherwise it would be a tenth of the cost of a thousand packages
        for package in packages:
            if package.id in joined:
                logger.debug("%s waits or runs already", package.name, event="task.joined", extra=package.log_labels)
            else:
                logger.debug("Enqueued %s", package.name, event="task.enqueued", extra=package.log_labels)
    return joined


def _hand_over(messages: dict[str | None, list[Message]], *, broker: Any, limited: bool) -> dict[str, str]:
    """Have brokers enqueue messages.

    Returns:
        The ids of those that are not enqueued, because another package has their unique key, with the id of that.
    """
    joined: dict[str, str] = {}
    for cluster, own in messages.items():
        queue = get_broker(cluster, broker)
        unique = [message for message in own if message.unique is not None]
        plain = [message for message in own if message.unique is None] if unique else own
        try:
            if plain:
                queue.enqueue(plain, limited=limited)
            holders = {message.id: queue.enqueue_unique(message, limited=limited) for message in unique}
        except EntryRefused as error:
            raise refusal_of(own, error) from error
        joined |= {id: holder for id, holder in holders.items() if holder != id}
        strays.note(queue)
    return joined


def _add_keys_anew(looked_up: Sequence[Package]) -> bool:
    """Look up again the tenants of packages that could not be pushed. Return whether a key has changed.

    Raises `UnknownTenant` if no tenant has the name any more.

    Args:
        looked_up: The packages whose keys came from a cache.
    """
    before = [package.task["tenant"] for package in looked_up]
    for package in looked_up:
        refresh_tenant(package.schema, 0)
        package.task["tenant"] = current_key(package.schema)
    return before != [package.task["tenant"] for package in looked_up]


def _deleted(packages: Sequence[Package], error: TenantDeleted) -> TenantDeleted:
    package = next((package for package in packages if package.tenant == str(error)), packages[0])
    return TenantDeleted(
        f"{package.func_name} cannot be enqueued: its tenant {package.schema!r} (key {package.tenant}) was deleted; "
        "load the tenant that has this schema now."
    )
