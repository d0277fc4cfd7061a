"""What follows from the states of a run's steps: as tables, and for graphs and outcomes at random."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_q.workflows.decide import Decision, Facts, Items, decide, state_after
from tenant_q.workflows.plan import ALL_OK, ALWAYS, ANY_FAILED, ANY_OK, ON_END, WHEN, Plan, PlanStep
from tenant_q.workflows.states import ENDED_STEP, RunState, StepState

OK, FAILED, SKIPPED, CANCELLED = StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED
READY, WAITING, MAPPING = StepState.READY, StepState.WAITING, StepState.MAPPING


@pytest.mark.parametrize(
    ("before", "all_ok", "any_ok", "any_failed"),
    [
        ([], READY, READY, READY),
        ([OK], READY, READY, SKIPPED),
        ([FAILED], SKIPPED, SKIPPED, READY),
        ([CANCELLED], SKIPPED, SKIPPED, READY),
        ([SKIPPED], SKIPPED, SKIPPED, SKIPPED),
        ([SKIPPED, SKIPPED], SKIPPED, SKIPPED, SKIPPED),
        ([OK, OK], READY, READY, SKIPPED),
        ([OK, SKIPPED], READY, READY, SKIPPED),
        ([OK, FAILED], SKIPPED, READY, READY),
        ([FAILED, SKIPPED], SKIPPED, SKIPPED, READY),
        ([OK, WAITING], WAITING, WAITING, WAITING),
        ([FAILED, READY], WAITING, WAITING, WAITING),
        ([FAILED, MAPPING], WAITING, WAITING, WAITING),
    ],
)
def test_when(before, all_ok, any_ok, any_failed):
    states = {f"s{place}": state for place, state in enumerate(before)}
    wanted = {ALL_OK: all_ok, ANY_OK: any_ok, ANY_FAILED: any_failed}
    wanted[ALWAYS] = WAITING if WAITING in (all_ok, any_ok) else READY
    found = {when: state_after(PlanStep("s", after=tuple(states), when=when), states)[0] for when in WHEN}
    assert found == wanted


@pytest.mark.parametrize(
    ("when", "before", "reason"),
    [
        (ALL_OK, [FAILED, OK, CANCELLED], "s0, s2 failed"),
        (ALL_OK, [SKIPPED], "all steps before it were skipped"),
        (ANY_OK, [SKIPPED, FAILED], "no step before it succeeded"),
        (ANY_FAILED, [OK, SKIPPED], "no step before it failed"),
    ],
)
def test_a_skipped_step_has_a_reason(when, before, reason):
    states = {f"s{place}": state for place, state in enumerate(before)}
    assert state_after(PlanStep("s", after=tuple(states), when=when), states) == (SKIPPED, reason)


@pytest.mark.parametrize(
    ("state", "error", "steps", "end"),
    [
        (RunState.RUNNING, "", [OK, OK], (RunState.SUCCEEDED, "")),
        (RunState.RUNNING, "", [OK, SKIPPED], (RunState.SUCCEEDED, "")),
        (RunState.RUNNING, "", [OK, FAILED], (RunState.FAILED, "step s1 failed: E")),
        (RunState.RUNNING, "", [CANCELLED, FAILED], (RunState.FAILED, "step s0 failed, and 1 more: E")),
        (RunState.RUNNING, "", [OK, READY], (RunState.RUNNING, "")),
        (RunState.CANCELLING, "", [OK, CANCELLED], (RunState.CANCELLED, "")),
        (RunState.CANCELLING, "RunTimeout: late", [OK, CANCELLED], (RunState.FAILED, "RunTimeout: late")),
        (RunState.CANCELLING, "", [OK, READY], (RunState.CANCELLING, "")),
        (RunState.PENDING, "", [WAITING, WAITING], (RunState.PENDING, "")),
    ],
)
def test_the_end_of_a_run(state, error, steps, end):
    plan = Plan("w", tuple(PlanStep(f"s{place}") for place in range(len(steps))))
    found = {f"s{place}": one for place, one in enumerate(steps)}
    decision = decide(Facts("r", plan, state, error, steps=found, errors=dict.fromkeys(found, "E")))
    assert (decision.state, decision.error) == end
    assert decision.changes == []


def test_a_failed_step_that_is_optional_fails_no_run():
    plan = Plan("w", (PlanStep("s0", optional=True), PlanStep("s1")))
    decision = decide(Facts("r", plan, RunState.RUNNING, steps={"s0": FAILED, "s1": OK}))
    assert decision.state == RunState.SUCCEEDED


@pytest.mark.parametrize(("ready", "state"), [(1, RunState.CANCELLING), (0, RunState.CANCELLED)])
def test_a_cancelled_run_waits_for_the_items_that_still_run(ready, state):
    plan = Plan("w", (PlanStep("s0"), PlanStep("s1", after=("s0",), each=("s0",))))
    facts = Facts("r", plan, RunState.CANCELLING, steps={"s0": OK, "s1": MAPPING}, items={"s1": Items(ready, (), 2)})
    decision = decide(facts)
    assert decision.state == state
    assert [(change.name, change.state) for change in decision.changes] == ([] if ready else [("s1", CANCELLED)])


def test_nothing_follows_for_a_run_that_has_ended():
    plan = Plan("w", (PlanStep("s0"),), on_end={})
    steps = {"s0": WAITING, ON_END: WAITING}
    decision = decide(Facts("r", plan, RunState.FAILED, "e", has_ended=True, steps=steps))
    assert decision == Decision(state=RunState.FAILED, error="e", has_ended=True)


# Driven to the end


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan of up to 12 steps, each behind any of the earlier ones."""
    steps: list[PlanStep] = []
    for place in range(draw(st.integers(1, 12))):
        names = [step.name for step in steps]
        after = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=4))) if names else ()
        is_map = bool(after) and draw(st.booleans())
        steps.append(
            PlanStep(
                f"s{place}",
                after=after,
                when=draw(st.sampled_from(WHEN)),
                each=(after[0],) if is_map else None,
                at_once=draw(st.integers(1, 3)),
                allow_failures=draw(st.integers(0, 2)),
                optional=draw(st.booleans()),
            )
        )
    return Plan("w", tuple(steps), on_end=draw(st.sampled_from([None, {}])))


@dataclass
class Model:
    """The rows of a run, with what PostgreSQL does to them done in plain Python."""

    plan: Plan
    chance: random.Random
    facts: Facts
    rows: dict[str, list[StepState]] = field(default_factory=dict)
    made_ready: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, chance: random.Random) -> Model:
        steps = {name: READY if name != ON_END and not step.after else WAITING for name, step in plan.by_name.items()}
        model = cls(plan, chance, Facts("r", plan, RunState.RUNNING, steps=steps))
        model.made_ready += [(name, -1) for name, state in steps.items() if state == READY]
        return model

    def advance(self) -> None:
        decision = decide(self._read())
        while decision.map or decision.count:
            for step in decision.map:
                self._expand(step, decision)
            for step in decision.count:
                bad = sum(state in (FAILED, CANCELLED) for state in self.rows[step.name])
                self.facts.steps[step.name] = FAILED if bad > step.allow_failures else OK
            decision = decide(self._read())
        for change in decision.changes:
            self._change(change.name, change.index, change.was, change.state)
        self.facts.state, self.facts.error = decision.state, decision.error
        self.facts.has_ended = decision.has_ended

    def _read(self) -> Facts:
        for name, rows in self.rows.items():
            at_once = self.plan.by_name[name].at_once
            waiting = [index for index, state in enumerate(rows) if state == WAITING]
            self.facts.items[name] = Items(rows.count(READY), tuple(waiting[:at_once]), at_once)
        return self.facts

    def _expand(self, step: PlanStep, decision: Decision) -> None:
        skipped = {change.name for change in decision.changes if change.state == SKIPPED}  # written in the same commit
        assert all(self.facts.steps[name] in ENDED_STEP or name in skipped for name in step.after)
        if self.facts.steps[step.each[0]] != OK:  # there is no output to take items from
            self.facts.steps[step.name] = FAILED
            return
        count = self.chance.randrange(6)
        self.facts.steps[step.name] = MAPPING if count else OK
        if count:
            self.rows[step.name] = [READY if index < step.at_once else WAITING for index in range(count)]
            self.made_ready += [(step.name, index) for index in range(min(count, step.at_once))]

    def _change(self, name: str, index: int, was: StepState, state: StepState) -> None:
        if index < 0:
            assert self.facts.steps[name] == was
            self.facts.steps[name] = state
        else:
            assert self.rows[name][index] == was
            self.rows[name][index] = state
        if state == READY:
            self.made_ready.append((name, index))
            self._check_dependencies(name)

    def _check_dependencies(self, name: str) -> None:
        before = (
            self.plan.steps if name == ON_END else [self.plan.by_name[one] for one in self.plan.by_name[name].after]
        )
        assert all(self.facts.steps[step.name] in ENDED_STEP for step in before)

    def ready(self) -> list[tuple[str, int]]:
        found = [(name, -1) for name, state in self.facts.steps.items() if state == READY]
        return found + [(name, i) for name, rows in self.rows.items() for i, state in enumerate(rows) if state == READY]

    def end_some(self) -> None:
        """Some ready steps and items end, in any order."""
        ready = self.ready()
        for name, index in self.chance.sample(ready, self.chance.randint(1, len(ready))):
            self._change(name, index, READY, self.chance.choice([OK, OK, FAILED, SKIPPED, CANCELLED]))

    def cancel(self) -> None:
        """What `control.begin_cancel` writes."""
        self.facts.state = RunState.CANCELLING
        for name, state in self.facts.steps.items():
            if name != ON_END and state == WAITING:
                self.facts.steps[name] = CANCELLED
        self.rows = {name: [CANCELLED if s == WAITING else s for s in rows] for name, rows in self.rows.items()}


@given(plans(), st.integers(0, 2**32), st.none() | st.integers(0, 8))
@settings(max_examples=400, deadline=None)
def test_every_run_ends_as_it_should(plan, seed, cancelled_in):
    model = Model.of(plan, random.Random(seed))
    most = 10 * (len(plan.steps) + 2)
    for turn in range(most):
        if turn == cancelled_in and model.facts.state == RunState.RUNNING:
            model.cancel()
        model.advance()
        before = (dict(model.facts.steps), [*model.made_ready])
        model.advance()
        assert before == (model.facts.steps, model.made_ready), "to advance again changes nothing"
        for name, rows in model.rows.items():
            assert rows.count(READY) <= plan.by_name[name].at_once
        if model.facts.has_ended:
            break
        model.end_some()
    facts, steps = model.facts, model.facts.steps
    assert facts.has_ended, f"no end after {most} turns: {steps}"
    assert len(model.made_ready) == len(set(model.made_ready)), "each step becomes ready once"
    assert model.ready() == []
    assert all(steps[step.name] in ENDED_STEP for step in plan.steps)
    failed = [step for step in plan.steps if steps[step.name] in (FAILED, CANCELLED) and not step.optional]
    if cancelled_in is not None and facts.state == RunState.CANCELLED:
        assert facts.error == ""
    else:
        assert facts.state == (RunState.FAILED if failed else RunState.SUCCEEDED)
        assert facts.error == "" or failed[0].name in facts.error
    assert ((ON_END, -1) in model.made_ready) == (plan.on_end is not None), "on_end always runs"
