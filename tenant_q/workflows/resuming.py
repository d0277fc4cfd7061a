"""Resume an ended run: which steps run again, and the change of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenant_q.exceptions import WorkflowError
from tenant_q.support.hints import did_you_mean
from tenant_q.workflows.decide import Facts
from tenant_q.workflows.plan import ON_END
from tenant_q.workflows.states import RunState, StepState
from tenant_q.workflows.transactions import Transaction, on

BY_HAND = "skipped by hand"
"""How the reason of a step begins that a person has skipped."""
_UNSUCCESSFUL = (StepState.FAILED, StepState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Resume:
    """What a resume does.

    Attributes:
        names: The steps that run again or are skipped, in the order of the plan.
        mapped: Those of them of which only the items that failed or were cancelled run again.
    """

    names: list[str]
    mapped: list[str]


def plan_resume(facts: Facts, steps: Sequence[str] | None = None) -> Resume:
    """Return what the resume of a run does.

    Args:
        facts: The run.
        steps: The steps to run again; None for those that failed or were cancelled.

    Raises:
        WorkflowError: The run has not ended, has succeeded, or has no such step.
    """
    plan = facts.plan
    if not facts.has_ended or facts.state not in (RunState.FAILED, RunState.CANCELLED):
        state = facts.state if facts.has_ended else f"{facts.state} and has not ended"
        raise WorkflowError(
            f"Workflow run {facts.id} is {state}; only a run that has failed or was cancelled can be resumed."
        )
    known = [step.name for step in plan.steps]
    for name in steps or ():
        if name not in known:
            raise WorkflowError(f"Workflow run {facts.id} has no step {name!r}: {did_you_mean(name, known)}")
    failed = {name for name in known if facts.steps[name] in _UNSUCCESSFUL}
    targets = failed if steps is None else set(steps)
    skipped = {name for name in known if facts.errors.get(name, "").startswith(BY_HAND)} - targets
    wanted = (plan.behind(targets | skipped) - skipped) if steps is None else plan.behind(targets)
    again = targets & failed
    mapped = [
        step.name
        for step in plan.steps
        if step.name in again and step.each is not None and wanted.isdisjoint(plan.before(step.name))
    ]
    return Resume([name for name in known if name in wanted], mapped)


def write(open_one: Transaction, schema: str, facts: Facts, resume: Resume, *, is_limited: bool) -> None:
    """Write what a resume does: the steps wait again, in a new generation of the run.

    Args:
        open_one: The transaction, which holds the lock on the run.
        schema: The schema of the tenant.
        facts: The run.
        resume: What the resume does.
        is_limited: Whether the run waits for its turn among the tenant's open runs.
    """
    state = RunState.PENDING if is_limited else RunState.RUNNING
    (answer,) = open_one.run([on(schema, "workflow_resume_run", state, facts.plan.timeout, facts.id)])
    ((generation,),) = answer.rows
    whole = [name for name in [*resume.names, ON_END] if name not in resume.mapped]
    open_one.run(
        [
            on(schema, "workflow_reset_items", generation, facts.id, resume.mapped),
            on(schema, "workflow_delete_items", facts.id, whole),
            on(schema, "workflow_reset_steps", generation, facts.id, whole),
            on(schema, "workflow_map_again", generation, facts.id, resume.mapped, generation, facts.id, resume.mapped),
        ]
    )
