"""The tasks of `make bench`, the same for every contender."""

from __future__ import annotations

import os
import time


def nothing() -> None:
    """The no-op task."""


def one_ms() -> None:
    """Waits a millisecond, as for an answer over the network."""
    time.sleep(0.001)


def start(at: float) -> tuple[float, float]:
    """When it was enqueued, and when it was started, by the clock of this machine."""
    return at, time.time()


def sized(size: int) -> bytes:
    """A result of so many bytes, which cannot be compressed."""
    return os.urandom(size)
