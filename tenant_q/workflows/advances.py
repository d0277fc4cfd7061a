"""What is read when runs are advanced, and what comes of it: the steps to push, and the next looks at the runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tenant_q.workflows.decide import Decision, Facts
from tenant_q.workflows.step_packages import ReadyStep
from tenant_q.workflows.transactions import on, transaction

Runs = Mapping[str, Collection[str]]
"""Ids of runs, by the schema names of their tenants."""


@dataclass
class Advanced:
    """What came of advancing runs.

    Attributes:
        ready: The steps to push.
        locked: The runs that stayed locked, by schema.
        ended: The schemas of tenants with a run that has ended, so that a pending one may begin.
        gone: The runs that have no row, by schema.
        looks: Of runs whose look was due and is kept, their ids and its time, by schema. See `plan_looks`.
    """

    ready: list[ReadyStep] = field(default_factory=list)
    locked: dict[str, set[str]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    gone: dict[str, set[str]] = field(default_factory=dict)
    looks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Advancing:
    """A run that is being advanced.

    Attributes:
        schema: The schema of its tenant.
        facts: What is known of it.
        workflow: The path of its workflow.
        cluster: Its cluster.
        is_look_due: Whether the next look at it is due or not planned.
        look_at: When the next look at it is.
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
    look_at: datetime | None
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


# The next looks


def keep_looks(found: Iterable[Advancing]) -> dict[str, list[dict[str, Any]]]:
    """Keep the looks that are due, except those at runs that end. Return them as `Advanced.looks` has them."""
    looks: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        if one.is_look_due and not one.decision.has_ended:
            one.is_look_due = False
            at = None if one.look_at is None else one.look_at.isoformat()
            looks.setdefault(one.schema, []).append({"id": one.facts.id, "look_at": at})
    return looks


def plan_looks(advanced: Advanced) -> None:
    """Plan the next looks at runs whose looks were kept, once their steps are pushed.

    A run whose next look was changed meanwhile is left alone, and so is one that is locked: then the next look is soon.

    Args:
        advanced: What came of advancing them.

    Raises:
        DatabaseError: A tenant's tables cannot be written.
        DatabaseAway: The database does not answer.
    """
    if advanced.looks:
        with transaction(advanced.looks) as open_one:
            open_one.run(
                [on(schema, "workflow_plan_looks", json.dumps(looks)) for schema, looks in advanced.looks.items()],
                last=True,
            )
