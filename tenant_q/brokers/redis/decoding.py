"""Decode the answers of the Redis broker's scripts."""

from __future__ import annotations

from collections.abc import Sequence


def text(found: bytes) -> str | None:
    """Return a text; None if it is empty."""
    return found.decode() or None


def shown(found: bytes) -> str:
    """Return a text of which bytes that are no text are replaced."""
    return found.decode(errors="replace")


def pairs(found: Sequence[bytes]) -> dict[str, str]:
    """Return names and values that follow each other as a mapping."""
    return {shown(name): shown(value) for name, value in zip(found[::2], found[1::2], strict=True)}


def schemas(owners: Sequence[bytes]) -> dict[str, str]:
    """Return the schemas of queues, by the queues' names, from the hash of their owners."""
    by_queue = zip(owners[::2], owners[1::2], strict=True)
    return {queue.decode(): owner.decode().partition("\n")[2] for queue, owner in by_queue}
