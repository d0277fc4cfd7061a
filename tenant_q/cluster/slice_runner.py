"""Run one tenant's slice of a batch in its schema, and pass on what comes of each delivery.

A delivery gets an outcome, which the completer saves; or it is put off, dead-lettered or dropped. What is left of the
slice stays in its list, and the worker gives it back.
"""

from __future__ import annotations

import time

from tenant_q import tenancy
from tenant_q.cluster.admission import Admission
from tenant_q.cluster.attempts import Attempts, Recalled
from tenant_q.cluster.completer import Completer
from tenant_q.cluster.lease_returns import Returns, cause_of
from tenant_q.cluster.lifespan import Lifespan
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.slices import Slice
from tenant_q.exceptions import (
    DatabaseAway,
    LeaseLost,
    StepGone,
    TakenBack,
    TenantBroken,
    TenantBusy,
    TenantReplaced,
    TenantUnavailable,
)
from tenant_q.lifecycle import known_outcomes, retries, step_engine
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.lifecycle.retries import Step
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.package import declarations
from tenant_q.package.outcome import Outcome, give_up, without_effect
from tenant_q.scrubbing import serving, sessions
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.worker")

# A step that was loaded longer ago than this is loaded again before it starts: its run may have been cancelled.
LOADED_SECONDS = 0.1


class SliceRunner:
    """Runs the slices of a worker's batches, one after another."""

    def __init__(
        self,
        slot: Slot,
        admission: Admission,
        attempts: Attempts,
        completer: Completer,
        returns: Returns,
        lifespan: Lifespan,
    ) -> None:
        self.slot = slot
        self.admission = admission
        self.attempts = attempts
        self.completer = completer
        self.returns = returns
        self.lifespan = lifespan
        self._loaded_at = 0.0

    def run(self, one: Slice) -> None:
        """Run the deliveries of a slice, or put them off if its tenant cannot be served.

        Args:
            one: The slice. The deliveries that are left in it afterwards were not started.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """
        try:
            with serving.serving(one.schema, one.tenant):
                self._run_in_schema(one)
        except TenantReplaced as error:
            self.admission.refuse_all(one.waiting, error)
        except TenantUnavailable as error:
            self._put_off_all(one.waiting, error)
        except tenancy.DATABASE_ERRORS as error:  # it concerns this tenant alone
            self._put_off_all(one.waiting, TenantBroken(f"{type(error).__name__}: {one_line(error)}"))

    def _run_in_schema(self, one: Slice) -> None:
        waiting = one.waiting
        self.admission.refuse_older(one.schema, waiting)
        earlier = known_outcomes.earlier_successes([delivery for delivery in waiting if not _is_step(delivery)])
        self._load_steps(one)
        sessions.watch()
        is_last = not waiting or self.lifespan.makes_way()
        try:
            while not is_last:
                self._complete_when_due(one)
                try:
                    self._run_delivery(waiting[0], earlier)
                except Recalled:
                    break
                package = waiting.pop(0).package
                is_last = not waiting or self.lifespan.makes_way()
                serving.clean_up(one.schema, package, is_last=is_last)
        finally:
            if not is_last:  # the clean-up after the last task was only one between tasks of this tenant
                sessions.clean_up()

    def _load_steps(self, one: Slice) -> None:
        """Load the steps of workflows in a slice at once, unless the worker has it already."""
        steps = [delivery for delivery in one.waiting if _is_step(delivery)]
        engine = step_engine.engine_for(steps[0].package) if steps else None
        self._loaded_at = time.monotonic()
        if engine is None:
            return
        try:
            with tenancy.as_owner():
                loaded = {delivery.lease.id: delivery for delivery in engine.load(one.schema, steps)}
        except (TenantBusy, TenantBroken) as error:  # the tasks of the tenant run all the same
            one.waiting[:] = [delivery for delivery in one.waiting if not _is_step(delivery)]
            self._put_off_all(steps, error)
            return
        one.waiting[:] = [loaded.get(delivery.lease.id, delivery) for delivery in one.waiting]

    def _complete_when_due(self, one: Slice) -> None:
        """Pause the running of a slice to complete the outcomes that are due, and enter its schema again."""
        if self.completer.is_due():
            sessions.clean_up()
            tenancy.leave()
            self.completer.finish()
            serving.begin(one.schema, one.tenant)
            self._load_steps(one)
            sessions.watch()
        elif time.monotonic() - self._loaded_at > LOADED_SECONDS and any(map(_is_step, one.waiting)):
            self._load_steps(one)

    def _run_delivery(self, delivery: Delivery, earlier: dict[str, Outcome]) -> None:
        try:
            outcome = self._outcome_of(delivery, earlier)
        except TakenBack as error:
            self._put_off(delivery, error.why, was_started=True)
        except StepGone as error:
            logger.info(
                "Dropped the work of a step: %s", error, event="workflow.dropped", extra=delivery.package.log_labels
            )
            self.completer.add(delivery.lease, without_effect(delivery.package))
        except LeaseLost:
            logger.warning(
                "The lease of %s ran out; dropped its package, which is delivered again",
                delivery.lease.id,
                event="lease.expired",
                extra=delivery.package.log_labels,
            )
        else:
            if outcome is not None:
                self.completer.add(delivery.lease, outcome)

    def _outcome_of(self, delivery: Delivery, earlier: dict[str, Outcome]) -> Outcome | None:
        """Run a delivery of the slice, or return the outcome that it has already. Raises as `Attempts.run`.

        Returns:
            The outcome; None if the delivery was put off.
        """
        package, timeout = delivery.package, None
        verdict = engine.verdict(delivery) if (engine := step_engine.engine_for(package)) is not None else None
        if verdict is not None and verdict.again is not None:
            self.slot.skip()
            error = verdict.error or TenantBusy("it is to start later")
            self.returns.put_off_or_dead_letter(delivery.lease, verdict.again, error, delay=verdict.delay)
            return None
        outcome = verdict.outcome if verdict is not None else known_outcomes.known_outcome(delivery, earlier)
        if outcome is None:
            try:
                whole = declarations.complete(package)
                outcome = known_outcomes.expired_outcome(delivery, whole)
                if outcome is None:
                    serving.follow_options(package)
                    timeout = timeout_of(whole)
            except (TenantUnavailable, DatabaseAway):
                raise
            except Exception as error:  # Django-Q2's own `async_task` checks no option
                outcome = give_up(package, error)
        if outcome is not None:
            self.slot.skip()
            return outcome
        self.completer.complete_meanwhile()
        return self.attempts.run(delivery, timeout)

    def _put_off_all(self, waiting: list[Delivery], error: Exception) -> None:
        self.slot.skip(len(waiting))
        while waiting:
            self._put_off(waiting.pop(0), error)

    def _put_off(self, delivery: Delivery, error: Exception, *, was_started: bool = False) -> None:
        """Put off a package of a slice whose tenant cannot be served, or end it if it was put off too often.

        Args:
            delivery: The delivery.
            error: Why it is put off.
            was_started: Whether its task was started, and is as if it had not run. Then it does not expire any more.
        """
        lease, package = delivery.lease, delivery.package
        decision = retries.while_unavailable(package, error)
        if decision.step is Step.GIVE_UP:
            self.completer.add(lease, give_up(package, error, attempt=package.failures + decision.tries))
        elif decision.step is Step.DEAD_LETTER:
            self.returns.dead_letter(lease, package, cause_of(error))
        else:
            if decision.tries == 1:
                logger.warning(
                    "Package %s waits for its tenant: %s",
                    lease.id,
                    error,
                    event="package.waits_for_tenant",
                    extra=package.log_labels,
                )
            again = decision.counted(delivery.original)
            if was_started:
                again.task["was_started"] = True
            is_unready = isinstance(error, TenantUnavailable)
            self.returns.put_off_or_dead_letter(lease, again, error, delay=decision.delay, unready=is_unready)


def _is_step(delivery: Delivery) -> bool:
    return step_engine.engine_for(delivery.package) is not None
