"""The due index of workflow runs: find the runs of all tenants that the scheduler looks at, with one statement.

The table is `DueWorkflow`, in the public schema. Triggers on each tenant's runs keep it up to date, whoever writes
them; `sql/run_index.sql` says how. The scheduler's upkeep finds schemas that are new, restored, renamed or dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from psycopg import sql

from tenant_q import tenancy
from tenant_q.models import BrokerEpoch, DueWorkflow, IndexedRuns
from tenant_q.schedules import index_upkeep
from tenant_q.schedules.index_statements import fetch, in_public
from tenant_q.schedules.schema_indexes import SchemaIndex, register
from tenant_q.sql import statement
from tenant_q.workflows.states import OPEN_RUN

LOOK = 500
"""The most due runs of a cluster that `look` reads."""
SPREAD_SECONDS = 30.0
"""The time over which `make_all_due` spreads the runs that are not due at once."""
AT_ONCE = 500
"""The number of runs that `make_all_due` makes due at once."""


def _tenants_among(schemas: Collection[str]) -> set[str]:
    """Return which of these PostgreSQL schemas belong to a tenant, with one statement. Raises `DatabaseAway`."""
    wanted = set(schemas) - {tenancy.public_schema()}
    return set(tenancy.keys_of_physical(sorted(wanted))) if wanted else set()


RUNS = SchemaIndex(
    what="workflow runs",
    app="tenant_q.workflows",
    table="tenant_q_workflows_run",
    entries=DueWorkflow._meta.db_table,
    known=IndexedRuns._meta.db_table,
    trigger="tenant_q_index_run",
    install_triggers="tenant_q_install_run_triggers",
    install="tenant_q_install_runs",
    forget="tenant_q_forget_runs",
    stale="tenant_q_stale_run_schemas",
    errors="tenant_q_run_errors",
    tenants_among=_tenants_among,
    others=(BrokerEpoch._meta.db_table,),
)
register(RUNS)


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run that the scheduler looks at now.

    Attributes:
        schema: The tenant's schema as PostgreSQL names it.
        run: The id of the run.
        state: Its state; a run that has ended is due when it is to be deleted.
        late: The seconds for which it has been due.
    """

    schema: str
    run: str
    state: str
    late: float


@dataclass(frozen=True, slots=True)
class Look:
    """What a look into the due index of runs has found.

    Attributes:
        due: The due runs, the longest due first: at most as many of each cluster as the limit said.
        is_any_open: Whether any run is open, due or not.
        next_seconds: The seconds until the next run is due that is not due yet; None if there is none.
    """

    due: tuple[DueRun, ...]
    is_any_open: bool
    next_seconds: float | None


# Schemas come and go


def install_where_migrated(*, app_config: Any, using: str, **_: Any) -> None:
    """Receive `post_migrate`: put the migrated schema into the index of runs, if both have their tables."""
    index_upkeep.install_migrated(app_config.name, using, RUNS)


def install(schema: str) -> bool:
    """Put a schema's runs into the index of runs, as `index_upkeep.install` does."""
    return index_upkeep.install(schema, RUNS)


def forget(schema: str) -> None:
    """Take a schema that is gone out of the index of runs. Raises `DatabaseAway`."""
    index_upkeep.forget(schema, RUNS)


def stale_schemas() -> list[tuple[str, bool]]:
    """Return the schemas that differ from the index of runs, as `index_upkeep.stale_schemas` does."""
    return index_upkeep.stale_schemas(index=RUNS)


def bring_up_to_date(stale: Sequence[tuple[str, bool]]) -> list[tuple[str, str]]:
    """Put stale schemas into the index of runs, or take them out, as `index_upkeep.bring_up_to_date` does."""
    return index_upkeep.bring_up_to_date(stale, RUNS)


def errors(schema: str) -> int:
    """Return the number of a schema's runs that are wrong in the index of runs, as `index_upkeep.errors` does."""
    return index_upkeep.errors(schema, RUNS)


# Read


def look(clusters: Sequence[str], limit: int = LOOK) -> Look:
    """Look into the due index of runs, with one statement.

    Args:
        clusters: The clusters whose runs the caller drives.
        limit: The most due runs to read of each cluster.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    rows = fetch(look_query(clusters, limit))
    found = [(schema, run, state, seconds) for _, schema, run, state, seconds in rows if schema is not None]
    return Look(
        due=tuple(DueRun(schema, run, state, -seconds) for schema, run, state, seconds in found if seconds <= 0),
        is_any_open=rows[0][0],
        next_seconds=min((seconds for *_, seconds in found if seconds > 0), default=None),
    )


def look_query(clusters: Sequence[str], limit: int = LOOK) -> sql.Composed:
    """Return the statement with which `look` reads the due index of runs."""
    return sql.SQL(statement("due_runs")).format(limit=sql.Literal(limit), **_parameters(clusters))


# Change. Each of these leaves out entries that are locked: a transaction of the tenant writes to them, and waiting for
# it could end in a deadlock.


def remove(schema: str, run: str) -> None:
    """Remove the entry of a run that is gone. An entry that is not due is a new one, and stays.

    Raises:
        DatabaseAway: The database cannot be reached.
    """

    def act() -> None:
        with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=tenancy.database_alias()):
            free = entries().select_for_update(skip_locked=True).filter(schema_name=schema, run=run, due__lte=Now())
            entries().filter(schema_name=schema, run__in=list(free.values_list("run", flat=True))).delete()

    tenancy.retry_conflicts(act)


def put_off(schema: str, runs: Collection[str], seconds: float) -> None:
    """Hold due runs of a tenant that cannot be served back in the index. The tenant's table is not touched.

    A run is released early when its row gets another moment of its next look.

    Args:
        schema: The schema as PostgreSQL names it.
        runs: The ids of the runs.
        seconds: How long they are held.

    Raises:
        DatabaseAway: The database cannot be reached.
    """

    def act() -> None:
        with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=tenancy.database_alias()):
            free = (
                entries().select_for_update(skip_locked=True).filter(schema_name=schema, run__in=runs, due__lte=Now())
            )
            held = entries().filter(schema_name=schema, run__in=list(free.values_list("run", flat=True)))
            held.update(due=Now() + timedelta(seconds=seconds))

    tenancy.retry_conflicts(act)


def settle(schema: str, runs: Collection[str]) -> None:
    """Let runs that were looked at be due again when their rows say so.

    Their entries are due still if the rows did not change: they were made due because the broker lost data. An entry
    whose row is due stays due.

    Args:
        schema: The schema as PostgreSQL names it.
        runs: The ids of the runs.

    Raises:
        DatabaseAway: The database cannot be reached.
    """

    def act() -> None:
        with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=tenancy.database_alias()):
            early = Q(look_at__isnull=True) | Q(look_at__gt=Now())
            free = (
                entries()
                .select_for_update(skip_locked=True)
                .filter(early, schema_name=schema, run__in=runs, due__lte=Now())
            )
            if found := list(free.values_list("run", flat=True)):
                entries().filter(schema_name=schema, run__in=found).update(due=F("look_at"))

    tenancy.retry_conflicts(act)


def make_all_due(
    clusters: Sequence[str], spread: float = SPREAD_SECONDS, at_once: int = AT_ONCE
) -> tuple[int, list[tuple[str, str]]]:
    """Make all open runs of some clusters due, in turns of the tenants, with one statement.

    A second scheduler that does the same changes nothing.

    Args:
        clusters: The clusters.
        spread: The seconds over which those are spread that are not due at once.
        at_once: How many are due at once.

    Returns:
        The number of entries that were changed, and those that were locked: schema and run, for `make_due`.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    query = sql.SQL(statement("all_runs_due")).format(
        spread=sql.Literal(float(spread)), at_once=sql.Literal(at_once), **_parameters(clusters)
    )
    (_, _, changed), *locked = tenancy.retry_conflicts(lambda: fetch(query))
    return changed, [(schema, run) for schema, run, _ in locked]


def make_due(runs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Make some runs due now, each given by its schema and id.

    Returns:
        Those whose entries were locked.

    Raises:
        DatabaseAway: The database cannot be reached.
    """

    def act() -> list[tuple[str, str]]:
        with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=tenancy.database_alias()):
            there = set(entries().filter(pk__in=runs).values_list("schema_name", "run"))
            rows = entries().select_for_update(skip_locked=True).filter(pk__in=runs)
            free = list(rows.values_list("schema_name", "run"))
            if free:
                entries().filter(pk__in=free).exclude(due__lte=Now()).update(due=Now())
            return sorted(there.difference(free))

    return tenancy.retry_conflicts(act)


def entries() -> Any:
    """Return a queryset of the entries of the index of runs, on the tenants' connection."""
    return DueWorkflow.objects.using(tenancy.database_alias())


def _parameters(clusters: Sequence[str]) -> dict[str, sql.Composable]:
    return {
        "table": in_public(RUNS.entries),
        "clusters": sql.Literal(list(clusters)),
        "open": sql.Literal([state.value for state in OPEN_RUN]),
    }
