"""The clock for leases: it never goes back, and counts the time for which the machine is suspended."""

from __future__ import annotations

import time

# CLOCK_MONOTONIC stops during a suspend on Linux. Other systems have no CLOCK_BOOTTIME, and CLOCK_MONOTONIC goes on.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Read the clock for leases: the seconds since a fixed moment that all processes of the machine share."""
    return time.clock_gettime(_CLOCK)
