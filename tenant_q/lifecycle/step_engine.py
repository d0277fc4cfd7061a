"""What runs the steps of workflows, if the project has the app `tenant_q.workflows`.

The app registers itself, so that processes of projects without it never import it. A step is an ordinary package with
`STEP` in it. What differs from a task is here: a step is loaded before it runs, its end is a change of its own row
instead of a row of a task, and then its run is advanced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.lifecycle.retries import Decision
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package

STEP_FUNCTIONS = "tenant_q.workflows.step"
"""Where the functions of steps would be. A worker without workflows finds none there, and runs no code of a project."""
STEP = "step"
"""The key of a package that has the place of its step: run, name, index and generation."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a delivered step instead of a run: it has an outcome, or its package is put off.

    Attributes:
        outcome: Its outcome.
        again: The package to deliver again.
        error: Why it is put off.
        delay: For how many seconds.
    """

    outcome: Outcome | None = None
    again: Package | None = None
    error: Exception | None = None
    delay: float = 0.0


@dataclass
class StepsSettled:
    """What came of settling the outcomes of steps.

    Attributes:
        retried: What was decided about the steps that start again, by the ids of their packages.
        dropped: The keys of packages whose steps had ended before, so that their outcomes were dropped.
        unsaved: The errors of outcomes that could not be saved, by the keys of their packages.
        runs: The runs to advance, by schema.
    """

    retried: dict[str, Decision] = field(default_factory=dict)
    dropped: set[tuple[str, str]] = field(default_factory=set)
    unsaved: dict[tuple[str, str], Exception] = field(default_factory=dict)
    runs: dict[str, set[str]] = field(default_factory=dict)


class StepEngine(Protocol):
    """The engine of workflows."""

    def load(self, schema: str, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Load the steps that a worker is about to run, with two statements in one round trip.

        Args:
            schema: The schema of their tenant.
            deliveries: The deliveries of steps.

        Returns:
            The deliveries, with the number of failed attempts that the row of each step has.

        Raises:
            TenantBusy: The tables of the tenant's workflows stay locked.
            TenantBroken: They cannot be read.
            DatabaseAway: The database does not answer.
        """

    def verdict(self, delivery: Delivery) -> Verdict | None:
        """Return what becomes of a delivered step that is not to be run; None if it is."""

    def runner(self, package: Package) -> Callable[..., Any]:
        """Return what runs a loaded step. Raises `UnknownFunction`."""

    def end_in_transaction(self, outcome: Outcome) -> None:
        """Save the end of a transactional step in the open transaction.

        Raises:
            StepGone: It is not ready any more.
            ValueRefused: PostgreSQL refuses its output.
        """

    def settle(self, outcomes: Sequence[Outcome]) -> StepsSettled:
        """Save the ends of steps, in one round trip and one commit. Raises `DatabaseAway`."""

    def advance(
        self, runs: Mapping[str, Collection[str]], again: Mapping[str, Collection[str]]
    ) -> tuple[list[Package], dict[str, set[str]]]:
        """Advance runs.

        Args:
            runs: The ids of the runs, by schema.
            again: Those of which all ready steps are pushed again.

        Returns:
            The packages of the steps to push, and the runs that stayed locked, by schema.

        Raises:
            DatabaseAway: The database does not answer.
        """

    def push(self, packages: Sequence[Package]) -> None:
        """Push the packages of ready steps. One that cannot be pushed, as its tenant is gone, is logged.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """


_engines: list[StepEngine] = []


def register(engine: StepEngine) -> None:
    """Register the engine of workflows."""
    _engines[:] = [engine]


def engine_for(package: Package) -> StepEngine | None:
    """Return the engine of workflows if a package is a step; None for tasks, and in projects without workflows."""
    return _engines[0] if _engines and STEP in package.task else None
