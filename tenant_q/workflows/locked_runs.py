"""Lock runs, and read from their rows what decides how they go on."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tenant_q.support.log_labels import get_logger
from tenant_q.workflows.decide import Decision, Facts, Items
from tenant_q.workflows.plan import Plan, known_plan, read_plan
from tenant_q.workflows.states import RunState, StepState
from tenant_q.workflows.step_options import MOST_ITEMS
from tenant_q.workflows.step_packages import ReadyStep
from tenant_q.workflows.transactions import Transaction, on

logger = get_logger("tenant_q.workflows")

UNREADABLE_SECONDS = 90 * 86400.0
"""A run whose plan cannot be read is kept for this time."""

Runs = Mapping[str, Collection[str]]
"""Ids of runs, by the schema names of their tenants."""


@dataclass
class Advancing:
    """A run that is being advanced.

    Attributes:
        schema: The schema of its tenant.
        facts: What is known of it.
        workflow: The path of its workflow.
        cluster: Its cluster.
        is_look_due: Whether the next look at it is due or not planned.
        look_at: When the next look at it is, as PostgreSQL writes it in JSON.
        most_items: The most items of a step.
        generations: The generation of each step.
        is_late: Whether its deadline has passed.
        decision: What follows for it.
        ready: The items that are ready because they were just written.
    """

    schema: str
    facts: Facts
    workflow: str
    cluster: str
    is_look_due: bool
    look_at: str | None
    most_items: int
    generations: dict[str, int]
    is_late: bool
    decision: Decision = field(default_factory=Decision)
    ready: list[ReadyStep] = field(default_factory=list)

    def ready_step(self, name: str, index: int, generation: int, **state: Any) -> ReadyStep | None:
        """Return a ready step of the run; None if its plan has no such step."""
        step = self.facts.plan.by_name.get(name)
        if step is None:
            return None
        return ReadyStep(
            schema=self.schema,
            workflow=self.workflow,
            run=self.facts.id,
            name=name,
            index=index,
            generation=generation,
            cluster=self.cluster,
            options=step.options,
            inputs=step.after,
            **state,
        )


def read(open_one: Transaction, runs: Runs) -> list[Advancing]:
    """Lock runs, and read what decides about them. Runs that are gone are left out."""
    statements = [
        on(schema, name, list(ids))
        for schema, ids in runs.items()
        for name in ("workflow_lock_runs", "workflow_steps", "workflow_items")
    ]
    answers = open_one.run(statements)
    found: list[Advancing] = []
    for place, schema in enumerate(runs):
        rows, steps, items = (answer.rows for answer in answers[3 * place : 3 * place + 3])
        plans = _plans_of(open_one, schema, rows)
        for id, version, state, cluster, error, has_ended, is_look_due, most, workflow, is_late, look_at in rows:
            own = {name: (state, generation, reason) for run, name, state, generation, reason in steps if run == id}
            try:
                facts = _facts_of(id, plans[version], RunState(state), error, has_ended, own)
            except ValueError as unreadable:
                if not has_ended:
                    _fail_unreadable(open_one, schema, id, str(unreadable))
                    is_look_due = False
                facts = Facts(id, Plan(workflow, ()), RunState.FAILED, has_ended=True)
            facts.items = {
                name: Items(int(ready), tuple(waiting), int(at_once))
                for run, name, at_once, ready, waiting in items
                if run == id
            }
            found.append(
                Advancing(
                    schema=schema,
                    facts=facts,
                    workflow=workflow,
                    cluster=cluster,
                    is_look_due=is_look_due,
                    look_at=look_at,
                    most_items=_most_items(most),
                    generations={name: generation for name, (_, generation, _) in own.items()},
                    is_late=is_late,
                )
            )
    return found


def _most_items(text: str | None) -> int:
    """Return the most items of a step by the frozen configuration of a run, a row that its tenant can change.

    Args:
        text: Its `max_items` as PostgreSQL writes a JSON value; None without one.
    """
    number = re.fullmatch(r"([0-9]{1,9})(\.0+)?", text or "")
    return int(number[1]) if number else MOST_ITEMS


def _facts_of(
    id: str,
    plan: Plan | str,
    state: RunState,
    error: str,
    has_ended: bool,
    steps: Mapping[str, tuple[str, int, str]],
) -> Facts:
    """Return what is known of a run. Raises `ValueError` if a tenant's role has changed its rows beyond reading."""
    if isinstance(plan, str):
        raise ValueError(plan)
    if missing := plan.by_name.keys() - steps.keys():
        raise ValueError(f"its steps {', '.join(sorted(missing)[:5])} have no rows")
    states = {name: StepState(found) for name, (found, _, _) in steps.items()}
    errors = {name: reason for name, (_, _, reason) in steps.items() if reason}
    return Facts(id, plan, state, error, has_ended, states, errors)


def _plans_of(open_one: Transaction, schema: str, rows: list[tuple[Any, ...]]) -> dict[str, Plan | str]:
    """Return the plans of locked runs by their hashes, or why they cannot be read. Known plans are not read again."""
    versions = {row[0]: row[1] for row in rows}
    plans: dict[str, Plan | str] = {
        version: plan for version in versions.values() if (plan := known_plan(version)) is not None
    }
    unknown = [id for id, version in versions.items() if version not in plans]
    if unknown:
        (answer,) = open_one.run([on(schema, "workflow_plans", unknown)])
        for id, stored in answer.rows:
            try:
                plans[versions[id]] = read_plan(stored)
            except ValueError as error:
                plans[versions[id]] = str(error)
    return plans


def _fail_unreadable(open_one: Transaction, schema: str, id: str, reason: str) -> None:
    """End a run whose plan cannot be read, as failed: a tenant's role has changed its row."""
    logger.error(
        "Failed workflow run %s: %s", id, reason, event="workflow.unreadable", extra={"schema": schema, "task_id": id}
    )
    change = {"id": id, "state": RunState.FAILED, "error": reason, "has_ended": True, "look": UNREADABLE_SECONDS}
    open_one.run([on(schema, "workflow_set_runs", json.dumps([change]))])
