"""Workflow runs and graphs as tables and as JSON, for `msworkflow`. Projects without the app do not import it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from tenant_q.management.console import facts, styled, table
from tenant_q.operations.workflow_runs import STATES, RunCounts
from tenant_q.workflows import Run
from tenant_q.workflows.models import WorkflowStep
from tenant_q.workflows.plan import ON_END, Plan
from tenant_q.workflows.states import ENDED_STEP

Progress = Mapping[str, tuple[int, int]]
_COUNTS = (*STATES, "overdue")
SHOWN = 1000
"""The characters of an input, a configuration or a context that are shown."""


_STYLES = {"succeeded": "green", "failed": "bold red", "cancelling": "yellow", "cancelled": "yellow"}


def _state(state: str | None) -> Any:
    """Return the state of a workflow run or of a step for a table, in its colour."""
    return None if state is None else styled(str(state), _STYLES.get(state))


# Runs


def counts_as_json(schema: str, runs: RunCounts) -> dict[str, Any]:
    """Return the numbers of a tenant's workflow runs as plain data."""
    return {"schema": schema, **{state: runs.of(state) for state in STATES}, "overdue": runs.overdue}


def count_table(counts: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the tenants' workflow runs by state."""
    rows = [(one["schema"], *(one[name] or None for name in _COUNTS)) for one in counts]
    return table(("schema", *_COUNTS), rows, numbers=_COUNTS)


def as_json(run: Run) -> dict[str, Any]:
    """Return a workflow run as plain data, without what other rows have."""
    names = ("created", "started", "ended", "deadline", "by")
    return {
        "schema": run.schema,
        "id": run.id,
        "workflow": run.workflow,
        "state": str(run.state),
        "key": run.key,
        "cluster": run.row.cluster,
        **{name: getattr(run.row, name) for name in names},
        "error": run.error,
    }


def run_table(runs: Sequence[Run], progress: Progress) -> Table:
    """Return a table of a tenant's workflow runs."""
    columns = ("run", "workflow", "key", "state", "steps", "created", "ended", "by")
    rows = [
        (one.id, one.workflow, one.key, _state(one.state), _part(progress.get(one.id)), one.row.created, one.row.ended,
         one.row.by)
        for one in runs
    ]  # fmt: skip
    return table(columns, rows)


def _part(progress: tuple[int, int] | None) -> str | None:
    return None if progress is None else f"{progress[0]}/{progress[1]}"


# One run


def details_as_json(run: Run, items: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return a workflow run with its steps as plain data."""
    ended, every = run.progress
    return as_json(run) | {
        "progress": {"ended": ended, "steps": every},
        "generation": run.row.generation,
        "input": dict(run.input),
        "config": run.row.config,
        "context": dict(run.context),
        "steps": [_step_as_json(step, items.get(step.name)) for step in run.steps],
    }


def _step_as_json(step: WorkflowStep, items: Mapping[str, int] | None) -> dict[str, Any]:
    names = ("name", "state", "attempts", "ready_at", "started", "ended", "wake_at", "error")
    return {name: getattr(step, name) for name in names} | {"task_id": step.task_id, "items": items}


def details(run: Run, items: Mapping[str, Mapping[str, int]]) -> Iterator[RenderableType]:
    """Yield the parts of the screen that shows a workflow run: what it is, and the table of its steps."""
    ended, every = run.progress
    about = {
        "run": f"{run.id} of {run.schema}",
        "workflow": run.workflow,
        "state": _state(run.state),
        "key": run.key,
        "progress": f"{ended} of {every} steps have ended",
        "cluster": run.row.cluster,
        "created": run.row.created,
        "started": run.row.started,
        "ended": run.row.ended,
        "deadline": run.row.deadline,
        "by": run.row.by,
        "error": run.error,
        "input": _json(run.input),
        "config": _json(run.row.config),
        "context": _json(run.context),
    }
    yield facts(about)
    yield ""
    columns = ("step", "state", "items", "attempts", "started", "ended", "error")
    rows = [
        (step.name, _state(step.state), _items(items.get(step.name)), step.attempts or None, step.started, step.ended,
         step.error)
        for step in run.steps
    ]  # fmt: skip
    yield table(columns, rows, numbers=("attempts",))


def _json(value: Any) -> str:
    """Return a value of a workflow run as JSON, of which the beginning is shown if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=dict)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters; --json shows all)"


def _items(counts: Mapping[str, int] | None) -> str | None:
    """Return in words how many items of a workflow's step have ended, and how many of them failed."""
    if not counts:
        return None
    ended = sum(counts.get(state, 0) for state in ENDED_STEP)
    failed = f", {counts['failed']} failed" if counts.get("failed") else ""
    return f"{ended} of {sum(counts.values())}{failed}"


# Graphs


def graph_as_json(plan: Plan, states: Mapping[str, str]) -> dict[str, Any]:
    """Return the graph of a workflow as plain data; the states are those of a run's steps."""
    levels = _levels(plan)
    return {
        "workflow": plan.workflow,
        "version": plan.version,
        "timeout": plan.timeout,
        "retention": plan.retention,
        "steps": [
            {
                "name": step.name,
                "level": levels.get(step.name),
                "after": list(step.after),
                "when": step.when,
                "each": None if step.each is None else ".".join(step.each),
                "at_once": step.at_once if step.each else None,
                "optional": step.optional,
                "state": states.get(step.name),
            }
            for step in plan.by_name.values()
        ],
    }


def graph_table(plan: Plan, states: Mapping[str, str]) -> Table:
    """Return the graph of a workflow as a table. Steps of one level do not depend on each other."""
    columns = ("level", "step", "after", "when", "each", "optional", *(("state",) if states else ()))
    levels = _levels(plan)
    rows = [
        (
            "last" if step.name == ON_END else levels[step.name],
            step.name,
            ", ".join(step.after),
            step.when if step.after else None,
            None if step.each is None else f"{'.'.join(step.each)}, {step.at_once} at once",
            step.optional or None,
            *((_state(states.get(step.name)),) if states else ()),
        )
        for step in sorted(plan.by_name.values(), key=lambda step: levels.get(step.name, len(levels)))
    ]
    return table(columns, rows, numbers=("level",))


def _levels(plan: Plan) -> dict[str, int]:
    """Return the level of each step in the graph of a workflow: one more than the highest of those it depends on."""
    found: dict[str, int] = {}
    for step in plan.steps:
        found[step.name] = 1 + max((found[name] for name in step.after), default=0)
    return found
