"""Decide how long a worker goes on: with its batch, and as a process."""

from __future__ import annotations

import math
import resource
import sys

from tenant_q.brokers.protocol import BATCH_SECONDS, Broker
from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.conf import conf
from tenant_q.scrubbing import process_state
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.worker")

# A worker does not go on with a batch whose tasks have run for this many seconds: it gives the rest back.
LONGEST_BATCH = 2 * BATCH_SECONDS


class Lifespan:
    """The lifespan of the worker `key`. It sets the flag `stopping` when a fresh process is to take its place.

    `started` is the number of tasks that the worker has started.
    """

    def __init__(self, key: str, broker: Broker, stopping: StopFlag) -> None:
        self.key = key
        self.stopping = stopping
        self.started = 0
        # A broker without leases appends what is given back to its one queue.
        self.longest_batch = LONGEST_BATCH if broker.supports_leases else math.inf
        self._batch_seconds = 0.0

    def begin_batch(self) -> None:
        """Start to measure how long a batch takes of the worker's lifespan."""
        self._batch_seconds = 0.0

    def count_task(self, seconds: float) -> None:
        """Count towards the worker's lifespan a task that has ended.

        After `recycle` tasks, or with a peak memory of `max_rss` kB, the worker stops.

        Args:
            seconds: How long it ran.
        """
        self.started += 1
        self._batch_seconds += seconds
        settings = conf()
        if self.started >= settings.recycle or (settings.max_rss and _peak_memory() >= settings.max_rss):
            after = counted(self.started, "task")
            logger.info("Recycled worker %s after %s", self.key, after, event="worker.recycled")
            self.stopping.set()

    def leave_if_spoiled(self) -> None:
        """End the worker's lifespan if a task changed something in its process that cannot be restored."""
        if process_state.is_spoiled() and not self.stopping:
            self.stopping.set()

    def makes_way(self) -> bool:
        """Return whether the rest of a batch goes to other workers: the lifespan ends, or the batch takes long."""
        return bool(self.stopping) or process_state.is_spoiled() or self._batch_seconds > self.longest_batch


def _peak_memory() -> int:
    """Return the peak memory of the worker, which limits its lifespan, in kB."""
    # ru_maxrss is in kB on Linux, in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
