"""Count the steps and items of runs, for lists and pages. Each function costs one statement, however many runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db.models import Count, Q

from tenant_q.workflows import run_rows
from tenant_q.workflows.plan import ON_END
from tenant_q.workflows.states import ENDED_STEP


def progress_of(schema: str, runs: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Return the progress of runs by id: the number of steps that have ended, and of all. `on_end` does not count.

    Args:
        schema: The schema of the tenant.
        runs: The ids of the runs.

    Raises:
        ConfigurationError: The tenant has no tables of workflows.
        DatabaseAway: The database cannot be reached.
    """
    with run_rows.tables_of(schema):
        steps = run_rows.steps().filter(run__in=runs, index=-1)
        found = steps.exclude(name=ON_END).values_list("run").order_by()
        counted = found.annotate(ended=Count("index", filter=Q(state__in=ENDED_STEP)), every=Count("index"))
        return {run: (ended, every) for run, ended, every in counted}


def items_of(schema: str, run: str) -> Mapping[str, Mapping[str, int]]:
    """Return for each mapping step of a run, by its name, the number of its items in each state.

    Args:
        schema: The schema of the tenant.
        run: The id of the run.

    Raises:
        ConfigurationError: The tenant has no tables of workflows.
        DatabaseAway: The database cannot be reached.
    """
    counted: dict[str, dict[str, int]] = {}
    with run_rows.tables_of(schema):
        items = run_rows.steps().filter(run=run, index__gte=0)
        for name, state, count in items.values_list("name", "state").order_by().annotate(Count("index")):
            counted.setdefault(name, {})[state] = count
    return counted
