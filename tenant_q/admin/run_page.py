"""What the admin's page of a workflow run shows, read with a fixed number of statements.

The values of a run come from the tenant: each is cut, and a large one is not read at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, F, When
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenant_q import tenancy
from tenant_q.admin.run_values import READ_BYTES, SHORT, cut, in_short, size_of, start_of, with_starts
from tenant_q.admin.values import LONGEST
from tenant_q.brokers import get_broker
from tenant_q.exceptions import TenantQError
from tenant_q.lifecycle import task_rows
from tenant_q.support.durations import duration
from tenant_q.support.visible import visible, visible_lines
from tenant_q.workflows import run_counts
from tenant_q.workflows.drawing import LABELS
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tenant_q.workflows.plan import ON_END, Plan, read_plan
from tenant_q.workflows.states import ENDED_STEP, OPEN_RUN, RunState, StepState
from tenant_q.workflows.step_packages import package_id

MOST_ASKED = 10
"""The most ready steps of a run that the broker is asked about."""
_PLACES = {"leased": gettext_lazy("running"), "queued": gettext_lazy("queued"), "delayed": gettext_lazy("delayed")}
MOST_STEPS = 1000
"""The most steps that are listed."""
_MOST_SET = 200
_STEP_STYLES: Mapping[str, str] = {
    StepState.READY: "tenant-q-busy",
    StepState.MAPPING: "tenant-q-busy",
    StepState.PARKED: "tenant-q-warn",
    StepState.SUCCEEDED: "tenant-q-good",
    StepState.FAILED: "tenant-q-bad",
    StepState.CANCELLED: "tenant-q-warn",
}


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step, or an item of one, as the page of a run shows it.

    Attributes:
        name: Its name.
        index: The place of the item; -1 for a step.
        state: Its state in words.
        style: The CSS class of its state.
        failures: The number of its attempts that have failed.
        started: When it started, or None.
        took: How long it took, or has taken.
        wake_at: When it starts again after a failure, or None.
        error: The start of its error.
        task_id: The id of the failed task, if there is such a row; else empty.
        output: The start of its output, or None.
        item: The start of the item, or None.
        has_items: Whether it runs once for each item.
        can_be_skipped: Whether it may be skipped now.
    """

    name: str
    index: int
    state: Any
    style: str
    failures: int
    started: datetime | None
    took: str
    wake_at: datetime | None
    error: str
    task_id: str
    output: str | None
    item: str | None
    has_items: bool
    can_be_skipped: bool


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its page shows it.

    Attributes:
        plan: Its plan; None if that cannot be read, and `problem` says why.
        states: The states of its steps, by name.
        notes: Words in place of a state, for steps with items.
        steps: Its steps, in the order of the plan.
        progress: How many of its steps have ended, and how many there are.
    """

    plan: Plan | None
    problem: str
    states: Mapping[str, str]
    notes: Mapping[str, str]
    steps: Sequence[StepRow]
    progress: tuple[int, int]


def steps() -> Any:
    """Return a queryset of the step rows of the current tenant's runs, whatever the project's routers say."""
    return WorkflowStep.objects.using(tenancy.database_alias())


def read_run(row: WorkflowRun) -> RunView:
    """Read what the page of a run shows of its steps."""
    plan, problem = plan_of(row)
    found = list(with_starts(steps().filter(run=row.pk, index=-1), "output")[: MOST_STEPS + 1])
    if plan is not None:
        place = {name: number for number, name in enumerate(plan.by_name)}
        found.sort(key=lambda step: place.get(step.name, len(place)))
    items = run_counts.items_of(tenancy.current_schema(), row.pk)
    places = _places(row, found)
    failed = existing_tasks(found)
    counted = [step for step in found if step.name != ON_END]
    return RunView(
        plan,
        problem,
        {step.name: step.state for step in found},
        {step.name: _items_note(step.state, items[step.name]) for step in found if step.name in items}
        | {name: str(words) for name, words in places.items()},
        [as_step_row(row, step, failed, items.get(step.name), place=places.get(step.name)) for step in found],
        (sum(step.state in ENDED_STEP for step in counted), len(counted)),
    )


def _places(run: WorkflowRun, found: Iterable[Any]) -> Mapping[str, Any]:
    """Return in words where the broker has the first ready steps of a run. Nothing if it does not answer."""
    ready = [step for step in found if step.state == StepState.READY][:MOST_ASKED]
    schema = tenancy.current_schema()
    places: dict[str, Any] = {}
    try:
        for step in ready:
            id = package_id(schema, run.pk, step.name, step.index, step.generation)
            live = get_broker(run.cluster).find(schema, id)
            if live is not None and live.place in _PLACES:
                places[step.name] = _PLACES[live.place]
    except TenantQError:
        return {}
    return places


def plan_of(row: WorkflowRun) -> tuple[Plan | None, str]:
    """Return the plan of a run, or None and why it cannot be read."""
    try:
        return read_plan(row.plan), ""
    except ValueError as error:
        return None, visible(str(error))[:SHORT]


def items_of(run: str, name: str, state: str = "") -> Any:
    """Return a queryset of the items of a step, in their order, with the starts of their items and outputs."""
    rows = steps().filter(run=run, name=name, index__gte=0).order_by("index")
    return with_starts(rows.filter(state=state) if state else rows, "output", "item")


def step_of(run: str, name: str, index: int) -> Any:
    """Return the row of a step or of an item, with the starts of its values; None if there is none."""
    rows = steps().filter(run=run, name=name, index=index).defer("output", "context", "item")
    starts = {f"start_of_{column}": start_of(column, LONGEST) for column in ("output", "context", "item")}
    return rows.annotate(**starts).first()


def as_step_row(
    run: WorkflowRun,
    step: Any,
    failed: set[str],
    items: Mapping[str, int] | None = None,
    *,
    place: Any = None,
    short: int = SHORT,
) -> StepRow:
    """Return a step, or an item, as the page shows it.

    Args:
        run: The run.
        step: The row, with the starts of its values.
        failed: The ids of the tasks that have a row.
        items: How many of its items are in which state; None for one without items.
        place: Where the broker has it, in words, or None.
        short: The most characters of its error.
    """
    words = _items_note(step.state, items) if items else place or LABELS.get(step.state, visible(step.state))
    return StepRow(
        name=step.name,
        index=step.index,
        state=words,
        style=_STEP_STYLES.get(step.state, "tenant-q-soft"),
        failures=step.attempts,
        started=step.started,
        took=taken(step.started, step.ended, is_open=step.state in (StepState.READY, StepState.MAPPING)),
        wake_at=step.wake_at if step.state == StepState.READY else None,
        error=cut(visible_lines(step.error), short),
        task_id=step.task_id if step.task_id in failed else "",
        output=in_short(step, "output"),
        item=in_short(step, "item"),
        has_items=items is not None,
        can_be_skipped=step.index == -1 and can_be_skipped(run, step),
    )


def can_be_skipped(run: WorkflowRun, step: Any) -> bool:
    """Return whether a step may be skipped: one that waits, or a failed or cancelled one of an ended run."""
    if step.name == ON_END:
        return False
    if run.state in OPEN_RUN:
        return run.state != RunState.CANCELLING and step.state in (StepState.WAITING, StepState.PARKED)
    return can_be_resumed(run) and step.state in (StepState.FAILED, StepState.CANCELLED)


def can_be_resumed(run: WorkflowRun) -> bool:
    """Return whether a run may be resumed: it has ended, and has not succeeded."""
    return run.ended is not None and run.state in (RunState.FAILED, RunState.CANCELLED)


def can_be_cancelled(run: WorkflowRun) -> bool:
    """Return whether a run may be cancelled: it is open, and not being cancelled."""
    return run.state in OPEN_RUN and run.state != RunState.CANCELLING


def existing_tasks(rows: Iterable[Any]) -> set[str]:
    """Return which of the failed tasks of steps have a row, which links may lead to."""
    ids = {row.task_id for row in rows if row.task_id}
    return set(task_rows.rows().filter(id__in=ids, success=False).values_list("id", flat=True)) if ids else set()


def taken(started: datetime | None, ended: datetime | None, *, is_open: bool = True) -> str:
    """Return how long something took, or has taken so far if it is open."""
    if started is None or (ended is None and not is_open):
        return "-"
    return duration(((ended or timezone.now()) - started).total_seconds())


def context_of(row: WorkflowRun, plan: Plan | None) -> tuple[Mapping[str, Any], bool]:
    """Return the start of the context of a run: its input, and what steps have set, in the order of the plan.

    Returns:
        The context, and whether a part of it is left out, because it is large.
    """
    place = {name: number for number, name in enumerate(plan.by_name)} if plan else {}
    rows = steps().filter(run=row.pk, context__isnull=False).annotate(size=size_of("context")).order_by("name", "index")
    small = Case(When(size__lte=READ_BYTES, then=F("context")))
    found = list(rows.annotate(small=small).values_list("name", "index", "small")[: _MOST_SET + 1])
    merged = dict(row.input) if isinstance(row.input, dict) else {}
    for _name, _index, values in sorted(found[:_MOST_SET], key=lambda one: (place.get(one[0], len(place)), one[1])):
        merged |= values if isinstance(values, dict) else {}
    return merged, len(found) > _MOST_SET or any(values is None for _name, _index, values in found)


def _items_note(state: str, items: Mapping[str, int]) -> str:
    """Return the state of a step with items in words: how many have ended, and how many failed."""
    done = sum(items.get(ended, 0) for ended in ENDED_STEP)
    note = _("%(done)s of %(all)s") % {"done": done, "all": sum(items.values())}
    if failed := items.get(StepState.FAILED):
        note += _(", %(count)s failed") % {"count": failed}
    return note if state == StepState.MAPPING else f"{LABELS.get(state, visible(state))}: {note}"
