"""End what purged packages belong to: their iters and chains as failed, and the steps of workflows as cancelled.

A purged package is a dead letter until this is done, so that a purge that is interrupted loses nothing: it is repeated.
What is to be queued, because only a worker may call a project's hooks, comes last: a purge that still goes on would
take it off again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenant_q.brokers.protocol import Broker, Dead
from tenant_q.exceptions import BadPackage, TaskPurged
from tenant_q.lifecycle import iters, push, settle, step_engine
from tenant_q.lifecycle.step_engine import STEP, StepEngine
from tenant_q.package.envelope import Found, open_package, seal
from tenant_q.package.outcome import Outcome, give_up, with_outcome
from tenant_q.package.package import Package
from tenant_q.package.signing import peek
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.purging")

# Only a package with one of these keys is more than a task of its own. To find them costs a tenth of opening it.
_OUTCOME = "outcome"
_MARKS = tuple(mark.encode() for mark in (_OUTCOME, "iter_count", "chain", STEP))


class Aftermath:
    """What follows from the purge of one tenant's packages in one cluster.

    Args:
        broker: The broker of the cluster.
        schema: The schema of the tenant.
        tenant: The key of the tenant; None if it is gone, so that nothing follows.
        cause: The cause that the failed rows name.
    """

    def __init__(self, broker: Broker, schema: str, tenant: str | None, cause: TaskPurged) -> None:
        self.broker = broker
        self.schema = schema
        self.tenant = tenant
        self.cause = cause
        self.ended = 0
        self.unsaved: dict[str, Exception] = {}
        self._iters: set[str] = set()
        # What is queued at the end: dead letters with their new payloads, the packages of iters, and steps.
        self._kept: dict[str, str] = {}
        self._wholes: list[Package] = []
        self._runs: set[str] = set()
        self._engine: StepEngine | None = None

    def settle(self, taken: Sequence[Dead]) -> list[str]:
        """Settle what follows from purged packages.

        Args:
            taken: The packages, which are dead letters.

        Returns:
            The ids of those to forget now. The others are queued again, or could not be settled.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """
        found = {dead.id: package for dead in taken if (package := self._opened(dead)) is not None}
        carried = [id for id, package in found.items() if _OUTCOME in package.task]
        steps = {id: package for id, package in found.items() if _is_step(package)}
        others = {id: package for id, package in found.items() if id not in steps and id not in carried}
        self._kept |= dict.fromkeys(carried, "")  # these tasks have run, and their results are not saved yet
        self._end_steps(steps)
        self._end_wholes(others)
        return [dead.id for dead in taken if dead.id not in self._kept and dead.id not in self.unsaved]

    def _opened(self, dead: Dead) -> Package | None:
        """Return a purged package if more than itself depends on it, or if it has run already."""
        if self.tenant is None:
            return None
        try:
            pickled = peek(dead.payload)
            if not any(mark in pickled for mark in _MARKS):
                return None
            package = open_package(dead.payload, Found(dead.id, self.schema, self.tenant))
        except ValueError:
            return None
        except BadPackage as error:
            if error.package is None:
                return None
            package = error.package
        is_more = _OUTCOME in package.task or package.is_iter_part or package.task.get("chain") is not None
        return package if is_more or _is_step(package) else None

    def _end_steps(self, steps: dict[str, Package]) -> None:
        if not steps:
            return
        self._engine = step_engine.engine_for(next(iter(steps.values())))
        assert self._engine is not None
        settled = self._engine.settle([give_up(package, self.cause) for package in steps.values()])
        self._note_unsaved({id: error for (_, id), error in settled.unsaved.items()})
        self._runs |= settled.runs.get(self.schema, set())

    def _end_wholes(self, packages: dict[str, Package]) -> None:
        """End the chains of links, and the iters of parts, as failed."""
        ends: dict[str, Outcome] = {}
        sources: dict[str, list[str]] = {}
        for id, package in packages.items():
            whole = iters.whole_of(package) if package.is_iter_part else package
            sources.setdefault(whole.id, []).append(id)
            if whole.id not in self._iters:
                ends[whole.id] = give_up(whole, self.cause)
        settlement = settle.settle(list(ends.values()), self.broker)
        unsaved = {id: error for (_, id), error in settlement.unsaved.items()}
        self._note_unsaved({id: error for whole, error in unsaved.items() for id in sources[whole]})
        for id, outcome in ends.items():
            if id not in unsaved:
                self.ended += 1
                if id not in packages:
                    self._iters.add(id)
                    self.broker.drop_group(self.schema, id, tenant=outcome.package.tenant)
        for call in settlement.to_call:
            self._carry(call.outcome, is_link=call.outcome.package.id in packages)

    def _carry(self, outcome: Outcome, *, is_link: bool) -> None:
        """Have a worker call the hook of a chain or an iter: its package is queued with its outcome."""
        package = with_outcome(outcome)
        if is_link:
            self._kept[package.id] = seal(package)
        else:
            self._wholes.append(package)

    def _note_unsaved(self, errors: Mapping[str, Exception]) -> None:
        for id, error in errors.items():
            labels = {"schema": self.schema, "task_id": id}
            logger.error(
                "Could not save what follows from the purge of %s: %s", id, error, event="purge.unsaved", extra=labels
            )
        self.unsaved |= errors

    def finish(self) -> None:
        """Queue what follows from the purge: what only workers may do, and the steps that are ready now.

        Raises as `settle`.
        """
        if self._wholes:
            push.push(self._wholes, once=True)
        if self._kept:
            self.broker.retry_dead(self._kept)
        if self._runs and self._engine is not None:
            ready, _ = self._engine.advance({self.schema: self._runs}, {})  # the scheduler looks at locked runs again
            self._engine.push(ready)


def _is_step(package: Package) -> bool:
    return step_engine.engine_for(package) is not None
