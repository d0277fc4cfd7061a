"""Count the workflow runs of all tenants, from the index in the public schema: no tenant's schema is read.

Each function costs one statement, and none where the app of workflows is not installed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Min, Q
from django.db.models.functions import Now

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway
from tenant_q.models import DueWorkflow
from tenant_q.support import workflows_app

OPEN = ("pending", "running", "cancelling")
"""The states of a run that is not decided yet."""
STATES = (*OPEN, "succeeded", "failed", "cancelled")
OVERDUE_SECONDS = 180.0
"""An open run is overdue when its look is due for longer than this: two looks, a minute apart, and a minute's delay."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    """The workflow runs of a tenant that are kept.

    Attributes:
        states: The number of runs by state; a state that none has is left out.
        overdue: The number of open runs whose look is overdue.
    """

    states: Mapping[str, int]
    overdue: int = 0

    @property
    def open(self) -> int:
        """The number of workflow runs that are not decided yet."""
        return sum(self.states.get(state, 0) for state in OPEN)

    def of(self, state: str) -> int:
        """Return the number of workflow runs with a state."""
        return self.states.get(state, 0)

    def __add__(self, other: RunCounts) -> RunCounts:
        return RunCounts(Counter(self.states) + Counter(other.states), self.overdue + other.overdue)


NO_RUNS = RunCounts({})


@dataclass(frozen=True, slots=True)
class Overdue:
    """The overdue workflow runs of a cluster, and since when the first of them is due."""

    cluster: str
    count: int
    since: datetime


def count_runs() -> dict[str, RunCounts]:
    """Count the workflow runs of each schema, as PostgreSQL names it; schemas without a run are left out.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    if not workflows_app.is_installed():
        return {}
    counted: dict[str, dict[str, int]] = {}
    overdue: Counter[str] = Counter()
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        columns = _entries().values_list("schema_name", "state")
        found = columns.annotate(count=Count("run"), late=Count("run", filter=_is_overdue())).order_by()
        for schema, state, count, late in found:
            counted.setdefault(schema, {})[state] = count
            overdue[schema] += late
    return {schema: RunCounts(states, overdue[schema]) for schema, states in counted.items()}


def overdue_runs() -> list[Overdue]:
    """Return the clusters that have overdue workflow runs. The list is empty if the index is not migrated.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    if not workflows_app.is_installed():
        return []
    try:
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            found = _entries().filter(_is_overdue()).values_list("cluster")
            return [Overdue(*row) for row in found.annotate(Count("run"), Min("due")).order_by("cluster")]
    except DatabaseAway:
        raise
    except tenancy.DATABASE_ERRORS:
        return []


def indexed_runs(schema: str, state: str = "", *, limit: int) -> list[DueWorkflow]:
    """Return a tenant's workflow runs from the index: open ones first, of these the ones that are due first.

    Args:
        schema: The schema of the tenant.
        state: A state, "open" or "overdue"; empty for all.
        limit: The most runs.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    chosen = {"open": Q(state__in=OPEN), "overdue": _is_overdue()}.get(state, Q(state=state) if state else Q())
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        rows = _entries().filter(chosen, schema_name=tenancy.physical_schema(schema))
        return list(rows.order_by(F("due").asc(nulls_last=True), "run")[:limit])


def schemas_of(run: str) -> list[str]:
    """Return the schemas that have the workflow run with an id, as PostgreSQL names them. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return list(_entries().filter(run=run).order_by("schema_name").values_list("schema_name", flat=True))


def _entries() -> Any:
    return DueWorkflow.objects.using(tenancy.database_alias())


def _is_overdue() -> Q:
    return Q(state__in=OPEN, due__lt=Now() - timedelta(seconds=OVERDUE_SECONDS))
