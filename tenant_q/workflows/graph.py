"""Make the plan of a workflow, and check its graph."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from tenant_q.exceptions import WorkflowError
from tenant_q.support.call_checks import short
from tenant_q.support.hints import did_you_mean
from tenant_q.workflows import registry
from tenant_q.workflows.plan import Plan, PlanStep

if TYPE_CHECKING:
    from tenant_q.workflows.step_options import Declared
    from tenant_q.workflows.workflow import Workflow

MOST_STEPS = 1000
"""The most steps that a workflow declares."""


def plan_of(workflow: Workflow) -> Plan:
    """Return the plan of a workflow, whose graph is checked.

    Raises:
        WorkflowError: It has no step or too many, depends on an unknown step, has a cycle, or is not found at its path.
    """
    path, steps = workflow.path, workflow.steps
    if not 0 < len(steps) <= MOST_STEPS:
        raise WorkflowError(f"Workflow {path} has {len(steps)} steps; it must have 1 to {MOST_STEPS}.")
    if not registry.is_at_its_path(workflow):
        raise WorkflowError(f"Workflow {path} is not found at its path; assign it to the name {workflow.name!r}.")
    names = {declared.func: name for name, declared in steps.items()}
    planned = {name: _planned(path, name, declared, steps, names) for name, declared in steps.items()}
    return Plan(
        path,
        tuple(planned[name] for name in _in_order(path, planned)),
        on_end=None if workflow.last is None else workflow.last.options,
        timeout=workflow.timeout,
        retention=workflow.retention,
    )


def _planned(
    path: str, name: str, declared: Declared, steps: Mapping[str, Declared], names: Mapping[Any, str]
) -> PlanStep:
    def named(step: Any) -> str:
        found = step if isinstance(step, str) else names.get(step)
        if found not in steps:
            shown = step if isinstance(step, str) else getattr(step, "__name__", short(step))
            raise WorkflowError(
                f"Step {name!r} of workflow {path} depends on {shown!r}, which is no step of it: "
                f"{did_you_mean(shown, steps)}"
            )
        return str(found)

    after = [named(step) for step in declared.after]
    each = None
    if declared.each is not None:
        source, *keys = declared.each
        each = (named(source), *map(str, keys))
        if declared.after and each[0] not in after:
            raise WorkflowError(
                f"Step {name!r} of workflow {path} takes its items from {each[0]!r}, which is not among the steps in "
                "'after'; add it there, or leave 'after' out."
            )
        after = after or [each[0]]
    return PlanStep(
        name,
        after=tuple(dict.fromkeys(after)),
        when=declared.when,
        each=each,
        at_once=declared.at_once,
        allow_failures=declared.allow_failures,
        optional=declared.optional,
        options=declared.options,
    )


def _in_order(path: str, planned: Mapping[str, PlanStep]) -> list[str]:
    """Return the names of the steps, each behind those it depends on, otherwise as declared."""
    sorter = TopologicalSorter({name: step.after for name, step in planned.items()})
    place = {name: number for number, name in enumerate(planned)}
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise WorkflowError(f"The steps of workflow {path} depend on each other in a circle: {circle}.") from None
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        found += ready
        sorter.done(*ready)
    return found
