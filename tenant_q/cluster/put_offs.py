"""Put off what a completer cannot complete now: failed attempts, results to save, and hooks to call.

The package that is delivered again carries the outcome of a task that has run, except after a failed attempt.
"""

from __future__ import annotations

from dataclasses import replace

from tenant_q.cluster.finished import Finished
from tenant_q.cluster.lease_returns import Returns, cause_of
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BrokerDefect, EntryRefused, TenantUnavailable
from tenant_q.lifecycle import outcome_log, retries
from tenant_q.lifecycle.retries import Step
from tenant_q.package.outcome import with_outcome
from tenant_q.package.package import Package
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.outbox")


class PutOffs:
    """What one completer puts off. All methods may raise `BrokerError`."""

    def __init__(self, slot: Slot, returns: Returns) -> None:
        self.slot = slot
        self.returns = returns

    def failed(self, finished: Finished) -> Finished | None:
        """Put off a failed package if it has attempts left. No row is saved for it yet.

        Args:
            finished: The failure, not of a step.

        Returns:
            None if it was put off. Otherwise what is to be completed: the failure is final if the broker refuses the
            package.
        """
        outcome, package = finished.outcome, finished.outcome.package
        decision = retries.after_failure(outcome)
        if decision.step is not Step.TRY_AGAIN:
            return finished
        # A cancelled package is put back only so that the next worker gives it up.
        delay = 0.0 if self.slot.cancellation(finished.lease.id) else decision.delay
        try:
            again = decision.counted(finished.original)
            self.returns.put_off(finished.lease, again, delay=delay, seconds=outcome.seconds)
        except (EntryRefused, BrokerDefect) as error:
            logger.error(
                "Could not start %s again: %s",
                package.name,
                error,
                event="task.retry_failed",
                extra=package.log_labels,
            )
            return replace(finished, outcome=replace(outcome, is_final=True))
        outcome_log.log_retry(outcome, delay)
        return None

    def unsaved(self, finished: Finished, error: Exception) -> None:
        """Put off an outcome that could not be saved, or dead-letter its package if that failed too often.

        Args:
            finished: The outcome with its lease.
            error: Why it could not be saved.
        """
        package = finished.outcome.package
        decision = retries.while_unsaved(package, error)
        logger.error(
            "Could not save the result of %s (try %s): %s",
            package.name,
            decision.tries,
            error,
            event="result.save_failed",
            extra=package.log_labels,
        )
        if decision.step is Step.DEAD_LETTER:
            self.returns.dead_letter(finished.lease, package, cause_of(error))
            return
        carried = with_outcome(replace(finished.outcome, package=finished.original), put_off=decision.tries)
        # The acknowledgement charges the worker time, once.
        self.returns.put_off_or_dead_letter(finished.lease, carried, error, delay=decision.delay)
        outcome_log.log_last_attempt(finished.outcome)  # a carried outcome is not logged again

    def uncalled(self, finished: Finished, package: Package, error: TenantUnavailable) -> None:
        """Put off a saved outcome from which a hook follows that could not be called.

        Args:
            finished: The outcome with its lease.
            package: The package whose hook it is: that of the outcome, of its iter, or of the link that could not be
                enqueued after it.
            error: Why the tenant cannot be served.
        """
        decision = retries.while_unavailable(package, error)
        logger.warning(
            "The hook of %s waits for its tenant: %s",
            package.name,
            error,
            event="hook.waits_for_tenant",
            extra=package.log_labels,
        )
        counted = {decision.counter: decision.tries}
        carried = with_outcome(replace(finished.outcome, package=finished.original), **counted)
        self.returns.put_off_or_dead_letter(finished.lease, carried, error, delay=decision.delay)
