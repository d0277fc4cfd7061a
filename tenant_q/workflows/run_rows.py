"""Read the rows of runs and of their steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db.models import QuerySet

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError, WorkflowError
from tenant_q.workflows.context import Results
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tenant_q.workflows.plan import ON_END, Plan, known_plan, read_plan
from tenant_q.workflows.states import StepState

LISTED = (
    "id", "workflow", "version", "key", "cluster", "state", "generation", "created", "started", "ended", "deadline",
    "look_at", "error", "by",
)  # fmt: skip
"""The columns of a run in lists, without the plan, the input and the configuration, which may be large."""


@contextmanager
def tables_of(schema: str) -> Iterator[None]:
    """Run a block that reads the workflow tables of a tenant.

    Raises:
        ConfigurationError: The tenant has no such tables.
        DatabaseAway: The database does not answer.
    """
    with explained(schema), tenancy.detect_outages(), tenancy.in_schema(schema):
        yield


@contextmanager
def explained(schema: str) -> Iterator[None]:
    """Raise `ConfigurationError`, which names the way out, if a block finds that a tenant lacks the workflow tables."""
    try:
        yield
    except tenancy.DATABASE_ERRORS as error:
        if getattr(error.__cause__ or error, "sqlstate", None) != "42P01":  # undefined table
            raise
        raise ConfigurationError(
            f"Tenant {schema!r} has no tables of workflows: add 'tenant_q.workflows' to TENANT_APPS, and run "
            "`python manage.py migrate_schemas`."
        ) from error


def runs() -> QuerySet[WorkflowRun]:
    """Return a queryset of the runs of the current tenant, on the tenants' connection."""
    return WorkflowRun._default_manager.using(tenancy.database_alias())


def steps() -> QuerySet[WorkflowStep]:
    """Return a queryset of the steps of the current tenant's runs, on the tenants' connection."""
    return WorkflowStep._default_manager.using(tenancy.database_alias())


def unknown_run(schema: str, id: str) -> WorkflowError:
    """Return the error for a run that a tenant does not have."""
    return WorkflowError(f"Tenant {schema!r} has no workflow run {str(id)[:100]!r}; see `msworkflow list`.")


def get(schema: str, id: str) -> WorkflowRun | None:
    """Return the row of a tenant's run, or None."""
    if "\0" in id:
        return None
    with tables_of(schema):
        return runs().filter(id=id).first()


def forget(schema: str, id: str) -> None:
    """Delete a tenant's run with its steps, whatever its state is."""
    with tables_of(schema):
        runs().filter(id=id).delete()
        steps().filter(run=id).delete()


def newest(schema: str, workflow: str | None, state: str | None, limit: int) -> list[WorkflowRun]:
    """Return the newest runs of a tenant, without the columns that may be large, which are read when they are used."""
    with tables_of(schema):
        found = runs().only(*LISTED)
        if workflow is not None:
            found = found.filter(workflow=workflow)
        if state is not None:
            found = found.filter(state=state)
        return list(found.order_by("-created", "-id")[:limit])


def plan_of(row: WorkflowRun) -> Plan:
    """Return the plan of a run. Raises `WorkflowError` if its row was changed so that it is none any more."""
    known = known_plan(row.version)
    if known is not None:
        return known
    try:
        return read_plan(row.plan)
    except ValueError as error:
        raise WorkflowError(f"Workflow run {row.id}: {error}; cancel it and start another one.") from error


def steps_of(schema: str, row: WorkflowRun) -> list[WorkflowStep]:
    """Return the steps of a run in the order of its plan, without outputs and without items."""
    with tables_of(schema):
        plan = plan_of(row)
        found = {step.name: step for step in steps().filter(run=row.id, index=-1).defer("output", "context", "item")}
    return [found[name] for name in plan.by_name if name in found]


def output_of(schema: str, run: str, name: str) -> Any:
    """Return the output of a step: the list of its items' outputs if it has items. Raises `KeyError` if it has none."""
    with tables_of(schema):
        step = steps().filter(run=run, name=name, index=-1, state=StepState.SUCCEEDED).first()
        if step is None:
            raise KeyError(name)
        if step.at_once is None:
            return step.output
        items = steps().filter(run=run, name=name, index__gte=0).order_by("index")
        return list(items.values_list("output", flat=True))


def names_with_output(schema: str, run: str) -> list[str]:
    """Return the names of the steps of a run that have succeeded."""
    with tables_of(schema):
        found = steps().filter(run=run, index=-1, state=StepState.SUCCEEDED).exclude(name=ON_END)
        return list(found.order_by("ended", "name").values_list("name", flat=True))


def results_of(schema: str, row: WorkflowRun) -> Results:
    """Return the outputs of a run's steps. Each is read when it is used."""
    return Results(
        {},
        load=lambda name: output_of(schema, row.id, name),
        names=lambda: names_with_output(schema, row.id),
    )


def context_of(schema: str, row: WorkflowRun) -> dict[str, Any]:
    """Return the context of a run: its input, and what its steps have set, in the order of the plan."""
    return dict(row.input) | _set_by(schema, row.id, list(plan_of(row).by_name))


def shared_before(schema: str, run: str, name: str) -> Mapping[str, Any]:
    """Return what the steps on which a step depends have set in the context of their run, in the order of the plan.

    For `on_end`, all steps count.
    """
    row = get(schema, run)
    if row is None:
        return {}
    plan = plan_of(row)
    before = {step.name for step in plan.steps} if name == ON_END else plan.before(name)
    return _set_by(schema, run, [step.name for step in plan.steps if step.name in before])


def _set_by(schema: str, run: str, names: list[str]) -> dict[str, Any]:
    with tables_of(schema):
        found = steps().filter(run=run, name__in=names).filter(context__isnull=False).order_by("index")
        rows = list(found.values_list("name", "context"))
    place = {name: number for number, name in enumerate(names)}
    merged: dict[str, Any] = {}
    for _, context in sorted(rows, key=lambda row: place[row[0]]):  # a stable sort: items stay in their order
        merged |= context
    return merged
