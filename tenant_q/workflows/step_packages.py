"""Build the packages of ready steps. A step's package is an ordinary one, with the place of the step in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenant_q import tenancy
from tenant_q.exceptions import EnqueueError, TenantUnavailable
from tenant_q.lifecycle.step_engine import STEP, STEP_FUNCTIONS
from tenant_q.package.build import build_call, deterministic_id
from tenant_q.package.functions import LONGEST_NAME
from tenant_q.package.package import CODE, Package
from tenant_q.support.log_labels import get_logger
from tenant_q.workflows import registry
from tenant_q.workflows.task_options import CODE_OPTIONS

logger = get_logger("tenant_q.workflows")

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
        options: The options of its task, as the plan of the run has them.
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
        """The id of the step's package, which is the same whenever it is pushed. Raises `UnknownTenant`."""
        return package_id(self.schema, self.run, self.name, self.index, self.generation)


def package_id(schema: str, run: str, name: str, index: int, generation: int) -> str:
    """Return the id of a step's package. It has the key of the tenant, whose schema may be renamed meanwhile.

    Raises:
        UnknownTenant: No tenant has the schema name.
    """
    return deterministic_id("step", tenancy.current_key(schema) or schema, run, name, index, generation)


def packages_of(ready: Sequence[ReadyStep]) -> list[Package]:
    """Return the packages of ready steps. A step that has none, because its tenant is gone, is logged and left out."""
    packages = []
    for step in ready:
        try:
            packages.append(_package_of(step))
        except (TenantUnavailable, EnqueueError) as error:
            log_unpushed(step.name, error, {"schema": step.schema, "task_id": step.run, "func": step.workflow})
    return packages


def log_unpushed(name: str, error: Exception, labels: Mapping[str, str]) -> None:
    """Log that a step cannot be pushed. The scheduler looks at its run again."""
    logger.error("Could not push step %s: %s", name, error, event="workflow.step_not_pushed", extra=labels)


def _package_of(step: ReadyStep) -> Package:
    func = f"{STEP_FUNCTIONS}.{step.workflow}.{step.name}"[:LONGEST_NAME]
    label = f"{step.workflow.rpartition('.')[2]}.{step.name}" + (f"[{step.index}]" if step.index >= 0 else "")
    options = {"task_name": label[-100:], "group": step.run, "cluster": step.cluster, **_options_of(step)}
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


def _options_of(step: ReadyStep) -> dict[str, Any]:
    workflow = registry.find(step.workflow)
    declared = workflow.declared(step.name) if workflow is not None else None
    options = {name: value for name, value in step.options.items() if name not in CODE_OPTIONS}
    if declared is not None:
        options |= {name: value for name, value in declared.options.items() if name in CODE_OPTIONS}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
