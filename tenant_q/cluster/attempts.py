"""Make one attempt at a task: start it under its lease, interrupt it on a cancel, and return its outcome."""

from __future__ import annotations

from tenant_q.cluster.fence import Fence
from tenant_q.cluster.interrupt import Interrupt
from tenant_q.cluster.lifespan import Lifespan
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.exceptions import LeaseLost
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.lifecycle.execute import execute
from tenant_q.lifecycle.known_outcomes import stopped_outcome
from tenant_q.package.outcome import Outcome
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.worker")


class Recalled(Exception):
    """The sentinel has recalled the rest of the batch before the task was started."""


class Attempts:
    """The attempts of one worker. While a task runs, the sentinel sees it in shared memory."""

    def __init__(self, slot: Slot, fence: Fence, stopping: StopFlag, lifespan: Lifespan) -> None:
        self.slot = slot
        self.fence = fence
        self.stopping = stopping
        self.lifespan = lifespan
        self.interrupt = Interrupt(slot)

    def begin_batch(self) -> None:
        """Prepare the attempts at a batch: handle signals again, as earlier tasks may have changed the handlers."""
        self.interrupt.take_signal()
        self.stopping.take_signals()

    def run(self, delivery: Delivery, timeout: float | None) -> Outcome:
        """Make an attempt at the task of a delivery, in its tenant's schema, which must be current.

        Args:
            delivery: The delivery, the next one of the planned batch.
            timeout: The seconds that the task may run, or None without a limit.

        Returns:
            The outcome, which is a failure if the task was cancelled before its start.

        Raises:
            Recalled: The delivery is no longer this worker's, and was not started.
            LeaseLost: The lease ran out, so another worker may have the package.
            TakenBack: A transactional task was rolled back, and is to be run again.
            BrokerError: Whether the lease is still held is in doubt, and the broker does not answer.
        """
        lease, package = delivery.lease, delivery.package
        if not self.fence.holds(lease):
            self.slot.skip()
            raise LeaseLost(f"The lease of {lease.id} ran out before {package.func_name} was started.")
        log_labels = package.log_labels
        if not self.slot.start(log_labels, timeout):
            raise Recalled
        if reason := self.slot.cancellation(package.id):
            self.slot.leave()
            return stopped_outcome(delivery, reason)
        logger.debug("Running %s", package.name, event="task.started", extra=log_labels)
        seconds = 0.0
        try:
            if package.option("unique_until") == "start":
                self.fence.broker.release_unique(self.fence.key, lease)
            outcome = execute(
                package,
                attempt=delivery.attempt,
                during=self.interrupt.armed(package.id),
                before_commit=lambda: self.fence.confirm(delivery),
            )
            seconds = outcome.seconds
        finally:
            self.slot.finish()  # now: a hook that waits for a server must not count against the task's timeout
            self.stopping.take_signals()
            self.lifespan.count_task(seconds)
        return outcome
