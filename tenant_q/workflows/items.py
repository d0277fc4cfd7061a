"""The items of a step that runs once for each: write them, and end the step when they have ended.

PostgreSQL takes the items from the output that has them, so they do not pass through this process.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenant_q.exceptions import ItemsRefused
from tenant_q.workflows.decide import Items
from tenant_q.workflows.plan import PlanStep
from tenant_q.workflows.states import StepState
from tenant_q.workflows.step_options import MOST_ITEMS
from tenant_q.workflows.transactions import Transaction, on

MOST_OUTPUT_BYTES = 16 * 1024 * 1024
"""The most bytes of the outputs of one step's items together, as JSON."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """The state of a step with items.

    Attributes:
        state: The state.
        items: Its items, if it waits for them.
        error: Why it failed.
    """

    state: StepState
    items: Items | None = None
    error: str = ""


def expand(open_one: Transaction, schema: str, run: str, step: PlanStep, generation: int, most_items: int) -> Mapped:
    """Write the items of a step, the first of them ready, or end the step if it has none or they are refused.

    Args:
        open_one: The transaction, which holds the lock on the run.
        schema: The schema of the tenant.
        run: The id of the run.
        step: The step.
        generation: Its generation.
        most_items: The most items that the tenant may have.
    """
    source, *keys = step.each or ("",)
    path = "{" + ",".join(f'"{_escaped(key)}"' for key in keys) + "}"
    place = (path, run, source, path, run, source)
    (answer,) = open_one.run([on(schema, "workflow_items_source", *place)])
    kind, count = answer.rows[0] if answer.rows else (None, None)
    where = ".".join((source, *keys))
    if kind != "array":
        error = f"{ItemsRefused.__name__}: {where} is {kind or 'missing'}; return a list there."
        return _set(open_one, schema, run, step.name, StepState.WAITING, Mapped(StepState.FAILED, error=error))
    if count > min(most_items, MOST_ITEMS):
        error = (
            f"{ItemsRefused.__name__}: {where} has {count} items, and at most {min(most_items, MOST_ITEMS)} are run; "
            "group them."
        )
        return _set(open_one, schema, run, step.name, StepState.WAITING, Mapped(StepState.FAILED, error=error))
    if count == 0:
        return _set(open_one, schema, run, step.name, StepState.WAITING, Mapped(StepState.SUCCEEDED), is_mapped=True)
    most = step.at_once
    values = (most, run, step.name, *place, run, step.name, generation, most, most)
    open_one.run([on(schema, "workflow_add_items", *values)])
    return Mapped(StepState.MAPPING, Items(min(count, most), tuple(range(most, min(count, 2 * most))), most))


def end(open_one: Transaction, schema: str, run: str, step: PlanStep) -> Mapped:
    """End a step whose items have all ended.

    Args:
        open_one: The transaction, which holds the lock on the run.
        schema: The schema of the tenant.
        run: The id of the run.
        step: The step.
    """
    values = (run, step.name, MOST_OUTPUT_BYTES, run, step.name)
    (answer,) = open_one.run([on(schema, "workflow_count_items", *values)])
    failed, cancelled, size, first = answer.rows[0]
    if failed + cancelled > step.allow_failures:
        found = Mapped(StepState.FAILED, error=_failed_items(failed + cancelled, first))
    elif size > MOST_OUTPUT_BYTES:
        error = f"the outputs of its items take {size} bytes together, and at most {MOST_OUTPUT_BYTES} are kept"
        found = Mapped(StepState.FAILED, error=f"{ItemsRefused.__name__}: {error}; return less.")
    else:
        found = Mapped(StepState.SUCCEEDED)
    return _set(open_one, schema, run, step.name, StepState.MAPPING, found)


def _failed_items(count: int, first: str | None) -> str:
    return f"{count} item{'' if count == 1 else 's'} failed: {first or 'cancelled'}"


def _set(
    open_one: Transaction,
    schema: str,
    run: str,
    name: str,
    was: StepState,
    found: Mapped,
    *,
    is_mapped: bool = False,
) -> Mapped:
    at_once = 1 if is_mapped else None  # a step with items has it, also without any
    values = (found.state, found.error, at_once, run, name, was)
    open_one.run([on(schema, "workflow_end_mapping", *values)])
    return found


def _escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace('"', '\\"')
