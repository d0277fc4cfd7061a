"""The clock that leases are compared with: it never goes back, and goes on while the machine is suspended."""

from __future__ import annotations

import time

# Linux stops CLOCK_MONOTONIC during a suspend; other systems have no CLOCK_BOOTTIME and let CLOCK_MONOTONIC go on.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Return the seconds since some moment that is the same for all processes of the machine."""
    return time.clock_gettime(_CLOCK)
