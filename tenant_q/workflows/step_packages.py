"""Build the packages of ready steps. A step's package is an ordinary one, with the place of the step in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenant_q.lifecycle.step_engine import STEP
from tenant_q.package.build import build_call, deterministic_id
from tenant_q.package.functions import LONGEST_NAME
from tenant_q.package.package import CODE, Package

STEP_FUNCTIONS = "tenant_q.workflows.step"
"""Where the functions of steps would be. A worker of a release without workflows finds none there, and runs nothing."""


@dataclass(frozen=True, slots=True)
class ReadyStep:
    """A step that is ready, so that it has a package.

    Attributes:
        schema: The schema of the tenant.
        workflow: The path of the workflow.
        run: The id of the run.
        name: The name of the step.
        index: The place of its item; -1 without items.
        generation: The generation of the step.
        cluster: The cluster of the run.
        options: The options of its task.
        inputs: The steps it depends on.
        attempts: How many attempts have failed.
        delay: The seconds until it may start.
        tenant: The key of the tenant, or None.
    """

    schema: str
    workflow: str
    run: str
    name: str
    index: int
    generation: int
    cluster: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    attempts: int = 0
    delay: float = 0.0
    tenant: str | None = None

    @property
    def id(self) -> str:
        """The id of the step's package, which is the same whenever it is pushed."""
        return package_id(self.schema, self.run, self.name, self.index, self.generation)


def package_id(schema: str, run: str, name: str, index: int, generation: int) -> str:
    """Return the id of a step's package."""
    return deterministic_id("step", schema, run, name, index, generation)


def packages_of(ready: Sequence[ReadyStep]) -> list[Package]:
    """Return the packages of ready steps."""
    return [_package_of(step) for step in ready]


def _package_of(step: ReadyStep) -> Package:
    func = f"{STEP_FUNCTIONS}.{step.workflow}.{step.name}"[:LONGEST_NAME]
    label = f"{step.workflow.rpartition('.')[2]}.{step.name}" + (f"[{step.index}]" if step.index >= 0 else "")
    options = {"task_name": label[-100:], "group": step.run, "cluster": step.cluster, **step.options}
    for name in ("retry_on", "no_retry_on", "databases"):
        if name in options:
            options[name] = tuple(options[name])
    if step.delay > 0:
        options["delay"] = step.delay
    package = build_call(func, (), {}, options, schema=step.schema, id=step.id, origin=CODE, tenant=step.tenant)
    package.task["sync"] = package.task["cached"] = False
    package.task[STEP] = {
        "run": step.run,
        "name": step.name,
        "index": step.index,
        "generation": step.generation,
        "workflow": step.workflow,
        "inputs": step.inputs,
    }
    if step.attempts:
        package.task["failures"] = step.attempts
    return package
