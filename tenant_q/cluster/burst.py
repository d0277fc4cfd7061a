"""Notice when a cluster that runs until its queues are empty has nothing left to do."""

from __future__ import annotations

from tenant_q.brokers.protocol import Broker
from tenant_q.cluster.children import Children
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.exceptions import BrokerError
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.sentinel")  # part of the sentinel


class Burst:
    """The end of a burst."""

    def __init__(self, broker: Broker, children: Children) -> None:
        self.broker = broker
        self.children = children
        self._quiet_looks = 0

    def is_over(self) -> bool:
        """Return whether the burst is over: nothing can be run, nothing runs, and every schedule was looked at."""
        schedulers = [child for child in self.children.alive if child.role == Scheduler.name]
        is_busy = any(child.slot.running for child in self.children.alive)
        if is_busy or any(child.slot.done == 0 for child in schedulers):
            self._quiet_looks = 0
            return False
        try:
            is_quiet = self.broker.counts().runnable == 0
        except BrokerError:
            is_quiet = False
        # A broker without leases does not count a package that a worker has just received. A second look sees it.
        self._quiet_looks = self._quiet_looks + 1 if is_quiet else 0
        return self._quiet_looks >= 2

    def log_rest(self) -> None:
        """Log how many tasks the burst left because their tenants are paused or not ready."""
        try:
            counts = self.broker.counts()
        except BrokerError:
            return
        if counts.open:
            logger.warning(
                "The burst ended with %s of paused tenants and %s of tenants that are not ready",
                counted(counts.paused, "task"),
                counts.unready,
                event="cluster.burst_ended_early",
            )
