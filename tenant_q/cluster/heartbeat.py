"""Detect in the parent that its sentinel hangs: it is stopped, or blocked in a call without a time limit.

A cluster whose sentinel hangs renews no leases. So it ends, and the service manager starts another one.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from mmap import mmap

from tenant_q import brokers
from tenant_q.conf import conf

_COUNT = struct.Struct("<Q")
# A step of a round takes much less: a call to the broker two seconds, a slow DNS resolver half a minute.
SILENT_SECONDS = 60.0


class Heartbeat:
    """A counter in memory that parent and sentinel share. The sentinel writes it."""

    def __init__(self) -> None:
        self._memory = mmap(-1, _COUNT.size)

    def beat(self) -> None:
        """Count one heartbeat: the sentinel goes on."""
        self._memory[:] = _COUNT.pack(self.count + 1)

    @property
    def count(self) -> int:
        """The number of heartbeats so far."""
        return int(_COUNT.unpack(self._memory[:])[0])


class Watchdog:
    """Measures in the parent how long a heartbeat has been silent.

    It counts only time in which the parent itself runs: when all processes of a cluster are stopped, or its machine is
    suspended, the sentinel is not to blame. So the time between two looks counts as at most `longest` seconds.

    Args:
        heartbeat: The heartbeat of the sentinel.
        longest: A little more than the seconds between two looks.
        clock: A function that returns seconds.
    """

    def __init__(self, heartbeat: Heartbeat, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.heartbeat = heartbeat
        self.longest = longest
        self.clock = clock
        self.silent = 0.0
        self._count = heartbeat.count
        self._looked = clock()

    def look(self) -> float:
        """Return the seconds for which the heartbeat has been silent."""
        now, count = self.clock(), self.heartbeat.count
        self.silent = 0.0 if count != self._count else self.silent + min(now - self._looked, self.longest)
        self._count, self._looked = count, now
        return self.silent


def longest_silence() -> float:
    """Return the seconds without a heartbeat after which a sentinel counts as hung.

    They are longer than a call to the broker may take with the timeouts that the project sets.
    """
    return max(SILENT_SECONDS, conf().lease, 2 * brokers.longest_call_seconds())
