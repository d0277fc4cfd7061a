"""Read the next runs over all tenants, with what an operator wants to know of their schedules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import ForeignCode
from tenant_q.schedules.index_statements import entries, fetch
from tenant_q.sql import statement


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """The next run of a schedule. The fields from `name` on are None where its row cannot be read.

    Attributes:
        schema: The schema as PostgreSQL names it.
        id: The id of the schedule.
        cluster: The cluster that it names, or empty.
        next_run: When it runs.
        held: Why it does not run on time, or empty.
        name: The name of the schedule.
        func: The path of its function.
        kind: Its type, a value of `Schedule.schedule_type`.
        minutes: The interval of a type in minutes.
        cron: The text of the cron type.
        kwargs: The text of its keyword arguments.
        last: Whether its last task was a success; None without a result.
    """

    schema: str
    id: int
    cluster: str
    next_run: datetime
    held: str
    name: str | None = None
    func: str | None = None
    kind: str | None = None
    minutes: int | None = None
    cron: str | None = None
    kwargs: str | None = None
    last: bool | None = None


_DETAILS = ("name", "func", "kind", "minutes", "cron", "kwargs", "last")


def planned_runs(limit: int, schema: str | None = None, *, held: bool = True) -> list[PlannedRun]:
    """Return the planned runs of all tenants' schedules in all clusters, the earliest first.

    It costs one statement, and one for each schema among them.

    Args:
        limit: The most runs to return.
        schema: A schema as PostgreSQL names it; None for all schemas.
        held: Whether runs of schedules that are held count.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        chosen = entries() if schema is None else entries().filter(schema_name=schema)
        chosen = chosen if held else chosen.filter(held="")
        columns = ("schema_name", "schedule_id", "cluster", "next_run", "held")
        found = [PlannedRun(*row) for row in chosen.order_by("next_run", "pk").values_list(*columns)[:limit]]
    details: dict[tuple[str, int], dict[str, Any]] = {}
    for name in {one.schema for one in found}:
        ids = [one.id for one in found if one.schema == name]
        details |= {(name, id): dict(zip(_DETAILS, row, strict=True)) for id, *row in _details(name, ids)}
    return [replace(one, **details.get((one.schema, one.id), {})) for one in found]


def _details(schema: str, ids: list[int]) -> list[tuple[Any, ...]]:
    query = sql.SQL(statement("due_details")).format(
        schedules=sql.Identifier(schema, "django_q_schedule"),
        tasks=sql.Identifier(schema, tenancy.TASK_TABLE),
        ids=sql.Literal(ids),
    )
    try:
        with tenancy.in_patient_transaction():
            tenancy.require_plain_tables([schema], "django_q_schedule", tenancy.TASK_TABLE)
            return fetch(query)
    except (*tenancy.DATABASE_ERRORS, ForeignCode):  # the schema may be gone, and the index does not know it yet
        return []
