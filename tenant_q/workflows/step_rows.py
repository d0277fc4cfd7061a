"""Load the rows of steps before they run, and write their ends. A tenant's schema need not be current."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tenant_q import tenancy
from tenant_q.exceptions import TenantBroken, TenantBusy
from tenant_q.lifecycle.step_engine import STEP
from tenant_q.package.package import Package
from tenant_q.support.visible import one_line
from tenant_q.workflows.states import StepState
from tenant_q.workflows.transactions import Transaction, is_lock_timeout, on, transaction

LARGEST_INPUT = 64 * 1024
"""The largest output that is read together with the step that depends on it, in bytes of its JSON."""

# The run, the name and the index of a step.
Place = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class LoadedStep:
    """A step as it was loaded, with what it needs of its run.

    Attributes:
        state: The state of the step.
        generation: Its generation.
        item: Its item, or None.
        attempts: How many attempts have failed.
        delay: The seconds until it may start; None for at once.
        workflow: The path of the workflow.
        run_state: The state of the run.
        input: The input of the run.
        config: The configuration of the tenant, as the run keeps it.
        error: Why the run failed.
        inputs: The outputs of steps on which it depends, by name, as far as they are loaded.
    """

    state: str
    generation: int
    item: Any
    attempts: int
    delay: float | None
    workflow: str
    run_state: str
    input: Mapping[str, Any]
    config: Mapping[str, Any]
    error: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepEnd:
    """The end of one start of a step.

    Attributes:
        state: The state of the step: ended, or ready if it starts again.
        output: Its output as JSON, or None.
        context: What it set in the context, as JSON, or None.
        error: Why it failed.
    """

    state: StepState
    output: str | None = None
    context: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class EndedStep:
    """A step whose end is to be written.

    Attributes:
        package: Its package.
        end: Its end.
        attempts: How many attempts have failed.
        started: When it started.
        ended: When it ended.
        delay: The seconds until it starts again; None if it does not.
        has_row: Whether a failed row of a task with the id of the package exists, or is written together with the end.
    """

    package: Package
    end: StepEnd
    attempts: int
    started: datetime
    ended: datetime
    delay: float | None = None
    has_row: bool = False


def place_of(package: Package) -> Place:
    """Return the place of a package's step."""
    step = package.task[STEP]
    return str(step["run"]), str(step["name"]), int(step["index"])


def load(schema: str, packages: Sequence[Package]) -> dict[str, LoadedStep]:
    """Load steps of a tenant, by the ids of their packages. Those that have no rows are left out.

    It costs one round trip.

    Args:
        schema: The schema name of the tenant.
        packages: The packages of the steps.

    Raises:
        TenantBusy: The tenant's tables stay locked.
        TenantBroken: The tables cannot be read.
        DatabaseAway: The database does not answer.
    """
    by_place = {place_of(package): package for package in packages}
    asked = json.dumps([{"run": run, "name": name, "index": index} for run, name, index in by_place])
    sources = {(place[0], name) for place, package in by_place.items() for name in package.task[STEP]["inputs"]}
    inputs = json.dumps([{"run": run, "name": name} for run, name in sorted(sources)])
    statements = [on(schema, "workflow_load_steps", asked)]
    if sources:
        statements.append(on(schema, "workflow_load_inputs", inputs, LARGEST_INPUT))
    try:
        with transaction([schema]) as open_one:
            steps, *others = open_one.run(statements, last=True)
    except tenancy.DATABASE_ERRORS as error:
        why = f"The workflow steps of {schema!r} cannot be read: {one_line(error)}; it is tried again."
        raise (TenantBusy if is_lock_timeout(error) else TenantBroken)(why) from error
    outputs: dict[str, dict[str, Any]] = {}
    for run, name, output in others[0].rows if others else ():
        outputs.setdefault(run, {})[name] = _parsed(output)
    found = {}
    for run, step, index, state, generation, item, attempts, delay, workflow, *of_run in steps.rows:
        package = by_place[run, step, index]
        wanted = package.task[STEP]["inputs"]
        own = {name: output for name, output in outputs.get(run, {}).items() if name in wanted}
        run_state, input, config, why = of_run
        found[package.id] = LoadedStep(
            state,
            generation,
            _parsed(item),
            attempts,
            delay,
            workflow,
            run_state,
            _parsed(input),
            _parsed(config),
            why,
            own,
        )
    return found


def _parsed(stored: str | None) -> Any:
    """Return a value of a column of JSON, which Django's connections hand out as text."""
    return None if stored is None else json.loads(stored)


def end_together(open_one: Transaction, ended: Mapping[str, Sequence[EndedStep]], *, last: bool) -> set[str]:
    """Write the ends of steps of several tenants, in one round trip.

    Args:
        open_one: The transaction.
        ended: The steps, by schema.
        last: Whether the transaction is committed after that.

    Returns:
        The ids of the packages whose steps were changed. The others are not ready any more.
    """
    statements = [on(schema, "workflow_end_steps", _records(own)) for schema, own in ended.items()]
    changed: set[str] = set()
    for own, answer in zip(ended.values(), open_one.run(statements, last=last), strict=True):
        written = set(answer.rows)
        changed |= {one.package.id for one in own if place_of(one.package) in written}
    return changed


def end_in_task(schema: str, ended: EndedStep) -> bool:
    """Write the end of a step in the transaction of its task, which is open. Return whether it was still ready."""
    text, parameters = on(schema, "workflow_end_steps", _records([ended]))
    with tenancy.raw_cursor() as cursor:
        cursor.execute(text, parameters)
        return cursor.rowcount == 1


def _records(ended: Sequence[EndedStep]) -> str:
    """Return the JSON array of a statement. Outputs are JSON already, and are not parsed again."""
    return "[" + ",".join(map(_record, ended)) + "]"


def _record(one: EndedStep) -> str:
    run, name, index = place_of(one.package)
    is_over = one.end.state != StepState.READY
    fields = {
        "run": run,
        "name": name,
        "index": index,
        "generation": one.package.task[STEP]["generation"],
        "state": one.end.state,
        "attempts": one.attempts,
        "error": one.end.error,
        "task_id": one.package.id if one.has_row else None,
        "delay": one.delay,
        "started": one.started.isoformat(),
        "ended": one.ended.isoformat() if is_over else None,
    }
    text = json.dumps(fields)
    return f'{text[:-1]},"output":{one.end.output or "null"},"context":{one.end.context or "null"}}}'
