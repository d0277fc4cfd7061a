"""Check the schedules of all tenants: whether the due index is right about them, and which need attention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.exceptions import ForeignCode
from tenant_q.schedules import catch_up, index_rights, index_upkeep, offered_schedules
from tenant_q.schedules.planned_runs import planned_runs
from tenant_q.support.visible import one_line

AT_ONCE = 100
"""The number of schemas that are compared in one round trip."""
DUE = 1000
"""The number of schedules that are searched for missed runs: those that have been due longest."""


@dataclass(frozen=True)
class Finding:
    """A schema about which the index is wrong.

    Attributes:
        schema: The schema as PostgreSQL names it.
        problem: What is wrong, in words.
        repaired: Whether it is right now.
    """

    schema: str
    problem: str
    repaired: bool


@dataclass(frozen=True)
class Unlisted:
    """A schedule that its tenant's staff could not have made, since what it runs is not offered to them."""

    schema: str
    id: int
    name: str | None
    func: str
    hook: str | None
    reasons: list[str]


@dataclass(frozen=True)
class Behind:
    """A schedule that has many missed runs to make up for. `next_run` is the first of them."""

    schema: str
    id: int
    name: str | None
    func: str | None
    next_run: datetime
    runs: int


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        schemas: The number of schemas that were checked.
        wrong: The schemas about which the index is wrong, or was before the repair.
        unlisted: The schedules that their tenants' staff could not have made.
        behind: The schedules with many missed runs.
    """

    schemas: int
    wrong: list[Finding]
    unlisted: list[Unlisted]
    behind: list[Behind]


def check(schema: str | None, *, repair: bool) -> Report:
    """Check the schedules of all tenants: compare them with the due index, and look for those that need attention.

    Args:
        schema: A schema as PostgreSQL names it; None for all schemas.
        repair: Whether to repair the index.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    schemas = [name for name in index_upkeep.indexed_schemas() if schema in (None, name)]
    wrong = _index_problems(schemas)
    reasons = _repair_index(wrong) if repair else {}
    left = _index_problems(list(wrong)) if repair else wrong
    findings = [
        Finding(name, f"{problem}: {reasons[name]}" if name in reasons else problem, name not in left)
        for name, problem in wrong.items()
    ]
    return Report(len(schemas), findings, _unlisted_schedules(schemas), _schedules_behind(schema))


# The index


def _index_problems(schemas: list[str]) -> dict[str, str]:
    """Return what the check of schedules finds wrong about schemas in the due index, by schema."""
    stale = dict(index_upkeep.stale_schemas(thorough=True))
    found = {}
    for first in range(0, len(schemas), AT_ONCE):
        some = schemas[first : first + AT_ONCE]
        errors = _index_errors([schema for schema in some if not stale.get(schema)])
        for schema in some:
            if problem := _index_problem(stale.get(schema), errors.get(schema, 0)):
                is_missing = stale.get(schema) is False
                found[schema] = problem + (index_rights.needed_grants(schema) if is_missing else "")
    return found


def _index_errors(schemas: list[str]) -> dict[str, int | str]:
    """Return how many entries of the due index the check of schedules finds wrong, by schema, or why it cannot."""
    if not schemas:
        return {}
    try:
        return dict(index_upkeep.errors_of(schemas))
    except tenancy.DATABASE_ERRORS as error:
        if len(schemas) > 1:  # at least one of them cannot be read
            return {schema: count for one in schemas for schema, count in _index_errors([one]).items()}
        return {schemas[0]: f"its table django_q_schedule cannot be read: {one_line(error)}"}


def _index_problem(is_gone: bool | None, errors: int | str) -> str | None:
    """Return in words what the check of schedules finds wrong about a schema; `is_gone` is None for nothing stale."""
    if is_gone:
        return "no tenant has this schema, or its table django_q_schedule is gone, and it is still in the index"
    if isinstance(errors, str):
        return errors
    wrong = "1 schedule is wrong in the index" if errors == 1 else f"{errors} schedules are wrong in the index"
    if is_gone is not None:
        return "not in the index as it is now, or without its triggers" + (f"; {wrong}" if errors else "")
    return wrong if errors else None


def _repair_index(wrong: dict[str, str]) -> dict[str, str]:
    """Repair the due index where the check of schedules found errors. Return why not, by schema, where it fails."""
    gone = dict(index_upkeep.stale_schemas(thorough=True))
    return dict(index_upkeep.bring_up_to_date([(schema, gone.get(schema, False)) for schema in wrong]))


# The schedules


def _unlisted_schedules(schemas: list[str]) -> list[Unlisted]:
    """Return the schedules that a check finds not offered to their tenants' staff, in schemas that can be read."""
    gone = {schema for schema, is_gone in index_upkeep.stale_schemas() if is_gone}
    there = [schema for schema in schemas if schema not in gone | {tenancy.public_schema()}]
    found: list[Unlisted] = []
    for first in range(0, len(there), AT_ONCE):
        for schema, row, reasons in _unlisted_rows(there[first : first + AT_ONCE]):
            found.append(Unlisted(schema, row.pk, row.name, row.func, row.hook, reasons))
    return sorted(found, key=lambda one: (one.schema, one.id))


def _unlisted_rows(schemas: list[str]) -> list[tuple[str, Schedule, list[str]]]:
    try:
        return offered_schedules.unlisted(schemas)
    except (*tenancy.DATABASE_ERRORS, ForeignCode):
        if len(schemas) == 1:
            return []
        return [row for schema in schemas for row in _unlisted_rows([schema])]


def _schedules_behind(schema: str | None) -> list[Behind]:
    """Return the schedules that a check finds to have many missed runs, among those that have been due longest."""
    now = timezone.now()
    found = []
    for one in planned_runs(DUE, schema):
        runs = catch_up.runs_behind(one.kind, one.next_run, now, minutes=one.minutes, cron=one.cron, kwargs=one.kwargs)
        if runs >= catch_up.MANY:
            found.append(Behind(one.schema, one.id, one.name, one.func, one.next_run, runs))
    return found
