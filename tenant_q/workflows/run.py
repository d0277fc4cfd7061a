"""A run of a workflow, as callers see it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tenant_q import tenancy
from tenant_q.workflows import control, run_rows
from tenant_q.workflows.context import Results
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tenant_q.workflows.plan import ON_END, Plan
from tenant_q.workflows.states import ENDED_STEP, RunState

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5


class Run:
    """A run of a workflow. Its attributes are those of the moment when it was read; `refresh` reads them again.

    Attributes:
        row: Its row.
        schema: The schema of the tenant.
    """

    def __init__(self, row: WorkflowRun, schema: str) -> None:
        self.row = row
        self.schema = schema
        self._steps: list[WorkflowStep] | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.workflow}: {self.state}>"

    @classmethod
    def get(cls, id: str, *, schema_name: str | None = None) -> Run:
        """Return a run of a tenant.

        Args:
            id: The id of the run.
            schema_name: The schema of the tenant; None for the current one.

        Raises:
            WorkflowError: The tenant has no such run.
            NoTenant: No tenant is current and none is named.
        """
        schema = tenancy.task_schema(schema_name)
        row = run_rows.get(schema, id)
        if row is None:
            raise run_rows.unknown_run(schema, id)
        return cls(row, schema)

    @classmethod
    def of(
        cls,
        workflow: str | None = None,
        *,
        state: str | None = None,
        limit: int = 100,
        schema_name: str | None = None,
    ) -> Sequence[Run]:
        """Return runs of a tenant, the newest first.

        Args:
            workflow: The path of their workflow; None for all.
            state: Their state; None for any.
            limit: The most runs.
            schema_name: The schema of the tenant; None for the current one.
        """
        schema = tenancy.task_schema(schema_name)
        return [cls(row, schema) for row in run_rows.newest(schema, workflow, state, limit)]

    # What it is

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.row.id

    @property
    def workflow(self) -> str:
        """The path of the run's workflow."""
        return self.row.workflow

    @property
    def key(self) -> str | None:
        """The key with which the run was started, or None."""
        return self.row.key

    @property
    def state(self) -> RunState:
        """The state of the run."""
        return RunState(self.row.state)

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, its `on_end` step included."""
        return self.row.ended is not None

    @property
    def input(self) -> Mapping[str, Any]:
        """The input of the run."""
        found: Mapping[str, Any] = self.row.input
        return found

    @property
    def error(self) -> str:
        """Why the run failed; empty if it did not."""
        return self.row.error

    @property
    def plan(self) -> Plan:
        """The plan of the run, frozen when it started."""
        return run_rows.plan_of(self.row)

    @property
    def steps(self) -> Sequence[WorkflowStep]:
        """The rows of the run's steps in the order of the plan, without outputs and without items."""
        if self._steps is None:
            self._steps = run_rows.steps_of(self.schema, self.row)
        return self._steps

    @property
    def progress(self) -> tuple[int, int]:
        """The number of steps of the run that have ended, and of all its steps. `on_end` does not count."""
        counted = [step for step in self.steps if step.name != ON_END]
        return sum(step.state in ENDED_STEP for step in counted), len(counted)

    @property
    def results(self) -> Results:
        """The outputs of the steps of the run that have succeeded, by name. Each is loaded when it is used."""
        return run_rows.results_of(self.schema, self.row)

    @property
    def context(self) -> Mapping[str, Any]:
        """The context of the run: its input, and what its steps have set, in the order of the plan."""
        return run_rows.context_of(self.schema, self.row)

    # What happens to it

    def refresh(self) -> Run:
        """Read the run again, and return it. Raises `WorkflowError` if it was deleted."""
        fresh = Run.get(self.id, schema_name=self.schema)
        self.row, self._steps = fresh.row, None
        return self

    def wait(self, milliseconds: float = -1) -> bool:
        """Wait until the run has ended, its `on_end` step included.

        Args:
            milliseconds: The longest wait; negative for no limit.

        Returns:
            Whether it has ended.
        """
        begun, pause = time.monotonic(), _FIRST_PAUSE
        while not self.refresh().has_ended:
            left = milliseconds / 1000 - (time.monotonic() - begun)
            if milliseconds >= 0 and left <= 0:
                return False
            time.sleep(min(pause, left) if milliseconds >= 0 else pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        return True

    def cancel(self, *, by: str = "") -> bool:
        """Cancel the run. Steps that run are interrupted, the others are not started.

        Args:
            by: Who cancels it, for the audit trail.

        Returns:
            Whether there was something to cancel.

        Raises:
            BrokerError: The broker does not answer. The run is cancelled all the same, a little later.
        """
        return control.cancel(self.schema, self.id, by=by)

    def preview_resume(self, steps: Sequence[str] | None = None) -> list[str]:
        """Return the steps that `resume` would run again, or skip, in the order of the plan. Raises as `resume`."""
        return control.preview_resume(self.schema, self.id, steps)

    def resume(self, steps: Sequence[str] | None = None, *, by: str = "") -> Run:
        """Run the failed and cancelled steps again, and all that depend on them. The others keep their outputs.

        The plan stays as it was when the run started; the functions are those of today's code.

        Args:
            steps: The steps to run again; None for those that failed or were cancelled.
            by: Who resumes it, for the audit trail.

        Returns:
            The run, read again.

        Raises:
            WorkflowError: The run has not ended, has succeeded, or has no such step.
        """
        control.resume(self.schema, self.id, steps, by=by)
        return self.refresh()

    def skip(self, step: str, *, by: str = "", why: str = "") -> Run:
        """Skip a step that waits, or a failed one of an ended run, which counts as skipped when the run is resumed.

        Args:
            step: The name of the step.
            by: Who skips it, for the audit trail.
            why: The reason.

        Returns:
            The run, read again.

        Raises:
            WorkflowError: The run has no such step, or the step is in another state.
        """
        control.skip(self.schema, self.id, step, by=by, why=why)
        return self.refresh()
