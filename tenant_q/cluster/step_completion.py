"""Complete the steps of workflows that a worker has run: save their ends, advance their runs, push what is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tenant_q.brokers.protocol import Broker
from tenant_q.cluster.finished import Finished, is_step
from tenant_q.cluster.lease_returns import Returns
from tenant_q.exceptions import TenantBusy
from tenant_q.lifecycle import outcome_log, step_engine
from tenant_q.lifecycle.step_engine import STEP, StepEngine
from tenant_q.package.package import Package

# A step whose run stayed locked is delivered again after this time, to advance the run then.
LOCKED_SECONDS = 1.0


class StepCompletion:
    """The steps of one completer, which calls it."""

    def __init__(self, broker: Broker, returns: Returns) -> None:
        self.broker = broker
        self.returns = returns
        # The runs to advance by schema, those of which all ready steps are pushed again, and the packages to push.
        self._runs: dict[str, set[str]] = {}
        self._again: dict[str, set[str]] = {}
        self._packages: list[Package] = []

    def is_empty(self) -> bool:
        """Return whether no run is left to advance, and no step to push."""
        return not (self._runs or self._packages)

    def settle(
        self, finished: Sequence[Finished], put_off_unsaved: Callable[[Finished, Exception], None]
    ) -> list[Finished]:
        """Settle the outcomes of steps.

        Args:
            finished: The steps.
            put_off_unsaved: Called for each that could not be saved, with the error.

        Returns:
            Those to acknowledge when their runs are advanced.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """
        settled = _engine(finished).settle([one.outcome for one in finished])
        kept = []
        for one in finished:
            package = one.outcome.package
            decision = settled.retried.get(package.id)
            if (error := settled.unsaved.get(package.key)) is not None:
                put_off_unsaved(one, error)
            elif decision is not None:
                self._put_back(one, decision.counted(one.original), decision.delay)
            else:
                kept.append(one)
                run = package.task[STEP]["run"]
                self._runs.setdefault(package.schema, set()).add(run)
                # An earlier delivery may have ended the step and pushed nothing.
                if one.outcome.is_saved or package.key in settled.dropped or one.lease.is_redelivered:
                    self._again.setdefault(package.schema, set()).add(run)
        return kept

    def _put_back(self, one: Finished, again: Package, delay: float) -> None:
        """Put a step back that starts again. If the broker refuses the package, the scheduler pushes it anew."""
        error = one.outcome.error if isinstance(one.outcome.error, Exception) else TenantBusy("it is tried again")
        self.returns.put_off_or_dead_letter(one.lease, again, error, delay=delay)
        outcome_log.log_retry(one.outcome, delay)

    def advance(self, unacknowledged: Sequence[Finished]) -> list[Finished]:
        """Advance the runs of settled steps, and push the steps that are ready now.

        Args:
            unacknowledged: All that is to be acknowledged.

        Returns:
            Those to acknowledge. The steps whose runs stayed locked are put off.

        Raises:
            BrokerError: The broker does not answer. The next call continues.
            DatabaseAway: The database does not answer. The next call continues.
        """
        left = list(unacknowledged)
        if self._runs:
            steps = [one for one in left if is_step(one)]
            packages, locked = _engine(steps).advance(self._runs, self._again) if steps else ([], {})
            self._packages += packages
            if locked:
                left = self._put_off_locked(left, locked)
            self._runs, self._again = {}, {}
        if self._packages:
            self._push()
        return left

    def _push(self) -> None:
        engine = step_engine.engine_for(self._packages[0])
        assert engine is not None
        engine.push(self._packages)
        self._packages = []

    def _put_off_locked(self, finished: Sequence[Finished], locked: dict[str, set[str]]) -> list[Finished]:
        left = []
        for one in finished:
            package = one.outcome.package
            if is_step(one) and package.task[STEP]["run"] in locked.get(package.schema, ()):
                error = TenantBusy("its run stays locked")
                self.returns.put_off_or_dead_letter(one.lease, one.original, error, delay=LOCKED_SECONDS)
            else:
                left.append(one)
        return left


def _engine(steps: Sequence[Finished]) -> StepEngine:
    engine = step_engine.engine_for(steps[0].outcome.package)
    assert engine is not None
    return engine
