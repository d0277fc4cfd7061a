"""Build the message that carries a package, and the error for a caller whose message the broker refuses."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q.brokers.protocol import Message
from tenant_q.exceptions import EnqueueError, EntryRefused
from tenant_q.package.package import Package


def message_of(package: Package, payload: str, *, delay: float = 0.0, once: bool = False, follows: str = "") -> Message:
    """Return the message to the broker that carries a sealed package."""
    func, tenant = package.counted_func, package.tenant or ""
    return Message(package.id, package.schema, func, payload, delay=delay, once=once, tenant=tenant, follows=follows)


def refusal_of(messages: Sequence[Message], error: EntryRefused) -> EnqueueError:
    """Return the error for a caller whose messages the broker refuses. It names the largest, probably the cause."""
    largest = max(messages, key=lambda message: len(message.payload))
    size = len(largest.payload)
    return EnqueueError(
        f"{largest.func} cannot be enqueued for {largest.schema}, as a package of {size} bytes: {error}"
    )
