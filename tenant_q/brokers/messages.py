"""Build the message that carries a package, and the error for a caller whose message the broker refuses."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q.brokers.protocol import Message, Unique
from tenant_q.exceptions import EnqueueError, EntryRefused, TenantLeaving
from tenant_q.package.options import SITE
from tenant_q.package.package import Package


def message_of(
    package: Package,
    payload: str,
    *,
    delay: float = 0.0,
    once: bool = False,
    follows: str = "",
    needs_alias: bool = False,
) -> Message:
    """Return the message to the broker that carries a sealed package.

    Args:
        package: The package.
        payload: Its signed text.
        delay: When it is due, in seconds from now.
        once: Whether its id is deterministic.
        follows: The id of the package from which it follows, empty for none.
        needs_alias: Whether its id stands for the package that has its unique key, if another one has.
    """
    func, tenant, unique = package.counted_func, package.tenant or "", None
    if "unique" in package.task:
        is_until_start = package.option("unique_until") == "start"
        unique = Unique(package.stored_func, str(package.task["unique"]), is_until_start, needs_alias)
    return Message(
        package.id,
        package.schema,
        func,
        payload,
        delay=delay,
        once=once,
        tenant=tenant,
        follows=follows,
        unique=unique,
        priority=package.priority,
        interval=package.start_interval,
        is_site_rate=package.option("rate_scope") == SITE,
    )


def leaving_of(messages: Sequence[Message], tenant: str | None) -> TenantLeaving:
    """Return the error for a caller whose messages are for a tenant that is being decommissioned.

    Args:
        messages: The messages that were to be enqueued.
        tenant: The key of that tenant.
    """
    message = next((message for message in messages if message.tenant == tenant), messages[0])
    return TenantLeaving(
        f"{message.func} cannot be enqueued: its tenant {message.schema!r} is being decommissioned, and takes no more "
        "tasks."
    )


def refusal_of(messages: Sequence[Message], error: EntryRefused) -> EnqueueError:
    """Return the error for a caller whose messages the broker refuses. It names the largest, probably the cause."""
    largest = max(messages, key=lambda message: len(message.payload))
    size = len(largest.payload)
    return EnqueueError(
        f"{largest.func} cannot be enqueued for {largest.schema}, as a package of {size} bytes: {error}"
    )
