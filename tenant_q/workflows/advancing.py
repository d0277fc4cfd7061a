"""Advance runs: find out from the rows which steps are ready, skipped or ended, and write that down.

Anyone may advance a run at any time and any number of times. The lock on the run's row makes one transaction of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows import items as map_items
from tenant_q.workflows.decide import Facts, decide
from tenant_q.workflows.locked_runs import Advancing, Runs, read
from tenant_q.workflows.step_packages import ReadyStep
from tenant_q.workflows.transactions import Statement, Transaction, is_lock_timeout, on, transaction

logger = get_logger("tenant_q.workflows")

LOCK_MS = 250
"""The longest wait for a locked run, in milliseconds: the other runs of a batch wait meanwhile."""
SHORT_LOCK_MS = 5
"""The longest wait for a locked run of a tenant of which another run was waited for in vain, in milliseconds."""


@dataclass
class Advanced:
    """What came of advancing runs.

    Attributes:
        ready: The steps to push.
        locked: The runs that stayed locked, by schema.
        ended: The schemas of tenants with a run that has ended, so that a pending one may begin.
        gone: The runs that have no row, by schema.
        early: The runs whose next look is not due yet, by schema.
        looks: Of runs whose look was due and is kept, their ids and its time, by schema. See `plan_looks`.
    """

    ready: list[ReadyStep] = field(default_factory=list)
    locked: dict[str, set[str]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    gone: dict[str, set[str]] = field(default_factory=dict)
    early: dict[str, set[str]] = field(default_factory=dict)
    looks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, other: Advanced) -> None:
        """Add what came of advancing other runs."""
        self.ready += other.ready
        self.ended |= other.ended
        for own, more in ((self.locked, other.locked), (self.gone, other.gone), (self.early, other.early)):
            for schema, ids in more.items():
                own.setdefault(schema, set()).update(ids)
        for schema, looks in other.looks.items():
            self.looks.setdefault(schema, []).extend(looks)


def advance(runs: Runs, *, again: Runs | None = None, keeps_looks: bool = False) -> Advanced:
    """Advance runs of any tenants, in one transaction, or one by one if one of them is locked or broken.

    Args:
        runs: The runs.
        again: Those of which all ready steps are to be pushed again, not only the new ones.
        keeps_looks: Whether looks that are due stay so until the caller has pushed and calls `plan_looks`. A caller
            needs this that no redelivery would repeat if it were killed before its push.

    Returns:
        The steps to push, and the runs that stayed locked.

    Raises:
        DatabaseAway: The database does not answer.
    """
    wanted = {schema: sorted(ids) for schema, ids in sorted(runs.items()) if ids}
    whole = again or {}
    if not wanted:
        return Advanced()
    try:
        return tenancy.retry_conflicts(lambda: _advance_together(wanted, whole, keeps_looks, LOCK_MS))
    except DatabaseAway:
        raise
    except Exception as error:  # a locked run, a broken tenant: the others go on
        if sum(map(len, wanted.values())) == 1:
            ((schema, (id,)),) = wanted.items()
            return _leave(schema, id, error)
        return _advance_one_by_one(wanted, whole, keeps_looks)


def _advance_one_by_one(runs: Runs, again: Runs, keeps_looks: bool) -> Advanced:
    """Advance runs one by one. Of the locked ones of a tenant, only the first is waited for."""
    together = Advanced()
    for schema, ids in runs.items():
        lock_ms = LOCK_MS
        for id in ids:
            try:
                together.add(_advance_together({schema: [id]}, again, keeps_looks, lock_ms))
            except DatabaseAway:
                raise
            except Exception as error:
                lock_ms = SHORT_LOCK_MS if is_lock_timeout(error) else lock_ms
                together.add(_leave(schema, id, error))
    return together


def _leave(schema: str, id: str, error: Exception) -> Advanced:
    """Log that a run cannot be advanced now, and leave it to its package or to the scheduler."""
    logger.warning(
        "Could not advance workflow run %s: %s",
        id,
        one_line(error),
        event="workflow.advance_failed",
        extra={"schema": schema, "task_id": id},
    )
    return Advanced(locked={schema: {id}})


def _advance_together(runs: Runs, again: Runs, keeps_looks: bool, lock_ms: int) -> Advanced:
    with transaction(runs, lock_ms=lock_ms) as open_one:
        found = read(open_one, runs)
        for one in found:
            _decide(open_one, one)
        is_early = {(one.schema, one.facts.id): not one.is_look_due for one in found}
        looks = _keep_looks(found) if keeps_looks else {}
        advanced = _write(open_one, found, again)
    advanced.looks = looks
    for schema, ids in runs.items():
        if gone := set(ids).difference(one.facts.id for one in found if one.schema == schema):
            advanced.gone[schema] = gone
        if early := {id for id in ids if is_early.get((schema, id))}:
            advanced.early[schema] = early
    return advanced


def _keep_looks(found: Iterable[Advancing]) -> dict[str, list[dict[str, Any]]]:
    """Keep the looks that are due, except those at runs that end, and return them."""
    looks: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        if one.is_look_due and not one.decision.has_ended:
            one.is_look_due = False
            looks.setdefault(one.schema, []).append({"id": one.facts.id, "look_at": one.look_at})
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


# Decide


def _decide(open_one: Transaction, one: Advancing) -> None:
    """Decide what follows for a run, and write the items of steps whose sources have ended."""
    facts = one.facts
    one.decision = decide(facts)
    while one.decision.map or one.decision.count:
        for step in one.decision.map:
            mapped = map_items.expand(open_one, one.schema, facts.id, step, one.generations[step.name], one.most_items)
            _note(facts, step.name, mapped)
            if mapped.items is not None:
                facts.items[step.name] = mapped.items
                one.ready += [
                    found
                    for index in range(mapped.items.ready)
                    if (found := one.ready_step(step.name, index, one.generations[step.name]))
                ]
        for step in one.decision.count:
            _note(facts, step.name, map_items.end(open_one, one.schema, facts.id, step))
        one.decision = decide(facts)


def _note(facts: Facts, name: str, mapped: map_items.Mapped) -> None:
    facts.steps[name] = mapped.state
    if mapped.error:
        facts.errors[name] = mapped.error


# Write


def _write(open_one: Transaction, found: Iterable[Advancing], again: Runs) -> Advanced:
    """Write what was decided, commit, and return the steps to push."""
    runs = {(one.schema, one.facts.id): one for one in found}
    planned = [
        (schema, statement)
        for schema in dict.fromkeys(one.schema for one in runs.values())
        for statement in _changes(schema, [one for one in runs.values() if one.schema == schema], again)
    ]
    answers = open_one.run([statement for _, statement in planned], last=True)
    advanced = Advanced(ready=[step for one in runs.values() for step in one.ready])
    for (schema, _), answer in zip(planned, answers, strict=True):
        for run, name, index, generation, attempts, delay in answer.rows:
            one = runs[schema, run]
            step = one.ready_step(name, index, generation, attempts=attempts, delay=max(0.0, delay or 0.0))
            advanced.ready += [step] if step is not None else []
    advanced.ready = list({(step.schema, step.run, step.name, step.index): step for step in advanced.ready}.values())
    advanced.ended = {one.schema for one in runs.values() if one.decision.has_ended and not one.facts.has_ended}
    return advanced


def _changes(schema: str, own: list[Advancing], again: Runs) -> list[Statement]:
    """Return the statements that write what was decided about runs of a tenant. The rows that they return are ready."""
    steps = [
        {
            "run": one.facts.id,
            "name": change.name,
            "index": change.index,
            "was": change.was,
            "state": change.state,
            "error": change.error,
        }
        for one in own
        for change in one.decision.changes
    ]
    runs = [change for one in own if (change := _run_change(one)) is not None]
    everything = sorted({one.facts.id for one in own}.intersection(again.get(schema, ())))
    statements = [on(schema, "workflow_set_steps", json.dumps(steps))] if steps else []
    statements += [on(schema, "workflow_set_runs", json.dumps(runs))] if runs else []
    statements += [on(schema, "workflow_ready", everything)] if everything else []
    return statements


def _run_change(one: Advancing) -> dict[str, Any] | None:
    """Return the change of a run's row; None if it stays as it is."""
    facts, decision = one.facts, one.decision
    ends = decision.has_ended and not facts.has_ended
    # The looks of open runs are the scheduler's: a busy run would never have one otherwise.
    is_without_look = one.look_at is None and not facts.has_ended
    if decision.state == facts.state and not ends and not is_without_look:
        return None
    return {
        "id": facts.id,
        "state": decision.state,
        "error": decision.error,
        "has_ended": decision.has_ended,
        "is_kept": not is_without_look,
        "look": facts.plan.retention,
    }
