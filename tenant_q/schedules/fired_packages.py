"""Make the package of a schedule's run, or the failed task that takes its place."""

from __future__ import annotations

from datetime import timedelta

from django_q.models import Schedule

from tenant_q.conf import conf
from tenant_q.exceptions import ScheduleFailed, TenantQError
from tenant_q.package.build import build, deterministic_id
from tenant_q.package.options import take_q_options
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.package.package import SCHEDULE, Package
from tenant_q.schedules import row_options
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.schedules")


def package_of(row: Schedule, schema: str, id: str) -> Package:
    """Return the package of a schedule that fires at its `next_run`.

    Args:
        row: The schedule.
        schema: The tenant.
        id: The id of the package.

    Raises:
        BadSchedule: The arguments of the schedule do not parse.
        EnqueueError: A value does not pickle, or an option is unknown.
    """
    args, kwargs = parse_arguments(row.args, row.kwargs)
    kwargs.pop("schema_name", None)  # the 2020 package left it in the row
    options = take_q_options(kwargs)
    row_options.take_out(options)
    if row.intended_date_kwarg:
        kwargs[row.intended_date_kwarg] = row.next_run.isoformat()
    if row.hook:
        options["hook"] = row.hook
    if row.cluster:
        options["cluster"] = row.cluster
    options.setdefault("cluster", options.pop("broker_name", None))
    options.setdefault("group", row.name or str(row.pk))
    package = build(row.func, args, kwargs | {"q_options": options}, schema=schema, id=id, origin=SCHEDULE)
    package.task["schedule"] = row.name or str(row.pk)
    if conf().schedule_spread:
        spread = _place_in_spread(schema, row)
        package.task["delay"] = package.delay + spread
        if package.option("expires") is not None:
            package.task["expires"] += timedelta(seconds=spread)
    return package


def _place_in_spread(schema: str, row: Schedule) -> float:
    """Return a fired package's delay within `schedule_spread`, which is always the same for the same schedule."""
    place = int(deterministic_id("spread", schema, row.pk)[:8], 16) / 16**8
    return place * conf().schedule_spread


def failed_task(row: Schedule, schema: str, id: str, error: TenantQError) -> Outcome:
    """Log that a schedule could not be fired, and return the failed task that takes the place of its package.

    Args:
        row: The schedule.
        schema: The tenant.
        id: The id of the task.
        error: Why the schedule failed.
    """
    label = f"{row.name!r} (id {row.pk})" if row.name else f"id {row.pk}"
    logger.error(
        "Schedule %s of %s failed: %s",
        label,
        schema,
        error,
        event="schedule.failed",
        extra={"schema": schema, "task_id": id, "func": row.func, "cause": type(error).__name__},
    )
    options = {"task_name": str(row.name or f"schedule {row.pk}")[:100], "group": row.name or str(row.pk)}
    options |= {"unique": None, "expires": None}  # of a declared function
    package = build(row.func.strip() or "?", (), {"q_options": options}, schema=schema, id=id, origin=SCHEDULE)
    package.task["schedule"] = row.name or str(row.pk)
    reason = f"schedule {label}, planned for {row.next_run.isoformat()}: {error}"
    return give_up(package, ScheduleFailed(reason))
