"""Decide what follows from the states of a run's steps: which are ready or skipped now, and whether the run has ended.

These functions are pure: they read no table and run no code of the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenant_q.workflows.plan import ALL_OK, ALWAYS, ANY_FAILED, ANY_OK, ON_END, Plan, PlanStep
from tenant_q.workflows.states import ENDED_STEP, RunState, StepState


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a mapping step.

    Attributes:
        ready: How many are ready, at most `at_once`.
        waiting: The places of the next waiting ones, at most `at_once`.
        at_once: The most that are ready at once.
    """

    ready: int
    waiting: tuple[int, ...]
    at_once: int


@dataclass(slots=True)
class Facts:
    """What is known of a run, whose row is locked.

    Attributes:
        id: Its id.
        plan: Its plan.
        state: Its state.
        error: Why it is cancelled or failed.
        has_ended: Whether its last step is over too.
        steps: The state of each step, by name.
        errors: Why steps failed, by name.
        items: The items of the mapping steps, by name.
    """

    id: str
    plan: Plan
    state: RunState
    error: str = ""
    has_ended: bool = False
    steps: dict[str, StepState] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    items: dict[str, Items] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one step, or of one of its items, which are numbered from 0.

    Attributes:
        name: The step.
        was: The state that it must have.
        state: Its new state.
        index: The place of the item; -1 for the step itself.
        error: The reason.
    """

    name: str
    was: StepState
    state: StepState
    index: int = -1
    error: str = ""


@dataclass(slots=True)
class Decision:
    """What follows for a run.

    Attributes:
        changes: The changes of steps and items.
        map: The steps whose items are to be written.
        count: The mapping steps whose items have all ended, so that they are to be counted.
        state: The state of the run.
        error: Why it failed.
        has_ended: Whether it has ended, its last step included.
    """

    changes: list[Change] = field(default_factory=list)
    map: list[PlanStep] = field(default_factory=list)
    count: list[PlanStep] = field(default_factory=list)
    state: RunState = RunState.RUNNING
    error: str = ""
    has_ended: bool = False


def decide(facts: Facts) -> Decision:
    """Decide what follows from the states of a run's steps. If it names steps to map or to count, decide again after.

    Args:
        facts: What is known of the run.

    Returns:
        The decision.
    """
    decision = Decision(state=facts.state, error=facts.error, has_ended=facts.has_ended)
    if facts.has_ended or facts.state == RunState.PENDING:
        return decision
    states = dict(facts.steps)
    if facts.state == RunState.RUNNING:
        for step in facts.plan.steps:
            _decide_step(step, states, facts, decision)
    elif facts.state == RunState.CANCELLING:
        _cancel_mapping(states, facts, decision)
    is_undecided = decision.map or decision.count
    if facts.state in (RunState.RUNNING, RunState.CANCELLING) and not is_undecided and _are_over(facts.plan, states):
        decision.state, decision.error = _end_of(facts, states)
    if decision.state not in (RunState.RUNNING, RunState.CANCELLING):
        _decide_last(states, decision, facts.plan)
    return decision


def _decide_step(step: PlanStep, states: dict[str, StepState], facts: Facts, decision: Decision) -> None:
    state = states[step.name]
    if state == StepState.MAPPING:
        items = facts.items[step.name]
        free = max(0, items.at_once - items.ready)
        decision.changes += [
            Change(step.name, StepState.WAITING, StepState.READY, index) for index in items.waiting[:free]
        ]
        if not items.ready and not items.waiting:
            decision.count.append(step)
    elif state == StepState.WAITING:
        state, reason = state_after(step, {name: states[name] for name in step.after})
        if state == StepState.READY and step.each is not None:
            decision.map.append(step)
        elif state != StepState.WAITING:
            states[step.name] = state
            decision.changes.append(Change(step.name, StepState.WAITING, state, error=reason))


def _cancel_mapping(states: dict[str, StepState], facts: Facts, decision: Decision) -> None:
    """Cancel the mapping steps of which no item is left with a worker."""
    for name, state in states.items():
        if state == StepState.MAPPING and not facts.items[name].ready:
            states[name] = StepState.CANCELLED
            decision.changes.append(Change(name, state, StepState.CANCELLED))


def state_after(step: PlanStep, before: Mapping[str, StepState]) -> tuple[StepState, str]:
    """Return the state of a waiting step that follows from those of the steps it depends on, and the reason for a skip.

    Args:
        step: The step.
        before: The states of the steps in its `after`.
    """
    if not all(state in ENDED_STEP for state in before.values()):
        return StepState.WAITING, ""
    if not before or step.when == ALWAYS:
        return StepState.READY, ""
    # A cancelled step counts as a failed one.
    failed = [name for name, state in before.items() if state in (StepState.FAILED, StepState.CANCELLED)]
    succeeded = [name for name, state in before.items() if state == StepState.SUCCEEDED]
    if step.when == ALL_OK:
        if failed:
            return StepState.SKIPPED, f"{', '.join(failed[:5])} failed"
        return (StepState.READY, "") if succeeded else (StepState.SKIPPED, "all steps before it were skipped")
    if step.when == ANY_OK:
        return (StepState.READY, "") if succeeded else (StepState.SKIPPED, "no step before it succeeded")
    assert step.when == ANY_FAILED
    return (StepState.READY, "") if failed else (StepState.SKIPPED, "no step before it failed")


def _are_over(plan: Plan, states: Mapping[str, StepState]) -> bool:
    return all(states[step.name] in ENDED_STEP for step in plan.steps)


def _end_of(facts: Facts, states: Mapping[str, StepState]) -> tuple[RunState, str]:
    """Return the state of a run whose steps have all ended, and why it failed."""
    if facts.state == RunState.CANCELLING:  # with an error at its deadline, without one by a person
        return (RunState.FAILED, facts.error) if facts.error else (RunState.CANCELLED, "")
    failed = [
        step.name
        for step in facts.plan.steps
        if states[step.name] in (StepState.FAILED, StepState.CANCELLED) and not step.optional
    ]
    if not failed:
        return RunState.SUCCEEDED, ""
    first = failed[0]
    others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return RunState.FAILED, f"step {first} failed{others}: {facts.errors.get(first, '')}".strip(": ")


def _decide_last(states: Mapping[str, StepState], decision: Decision, plan: Plan) -> None:
    """Decide about the step that runs once the state of the run is known."""
    state = states.get(ON_END)
    if plan.on_end is not None and state == StepState.WAITING:
        decision.changes.append(Change(ON_END, StepState.WAITING, StepState.READY))
    elif state is None or state in ENDED_STEP:
        decision.has_ended = True
