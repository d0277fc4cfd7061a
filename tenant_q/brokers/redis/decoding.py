"""Decode the answers of the Redis broker's scripts."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q.brokers.protocol.packages import Live


def text(found: bytes) -> str | None:
    """Decode a text from Redis; None if it is empty."""
    return found.decode() or None


def shown(found: bytes) -> str:
    """Decode a text from Redis, and replace bytes that are no text."""
    return found.decode(errors="replace")


def pairs(found: Sequence[bytes]) -> dict[str, str]:
    """Decode names and values from Redis, which follow each other, to a mapping."""
    return {shown(name): shown(value) for name, value in zip(found[::2], found[1::2], strict=True)}


def schemas(owners: Sequence[bytes]) -> dict[str, str]:
    """Decode the schemas of queues from Redis' hash of their owners, by the queues' names."""
    by_queue = zip(owners[::2], owners[1::2], strict=True)
    return {queue.decode(): owner.decode().partition("\n")[2] for queue, owner in by_queue}


def live_of(id: bytes, place: bytes, due: bytes, reason: bytes, message: bytes, starts: bytes) -> Live:
    """Decode a package from Redis that is still to be run, or is being run."""
    schema, func, _, payload = shown(message).split("\n", 3)
    at = float(due) / 1000 if due else None
    return Live(shown(id), schema, func, place.decode(), at, payload, text(reason), int(starts or 0))
