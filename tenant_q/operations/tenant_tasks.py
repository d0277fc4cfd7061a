"""Read which tasks of one tenant the operators' counts count: those in the broker, and those that have ended lately.

No argument, result or name that a tenant gave to a task is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from tenant_q import tenancy
from tenant_q.brokers import site_brokers
from tenant_q.brokers.loads import PERIOD_SECONDS, PERIODS
from tenant_q.brokers.protocol import CANCELLED
from tenant_q.lifecycle import task_rows
from tenant_q.support import moments

PLACES = ("leased", "queued", "delayed")
"""The places of packages in the broker, in the order of the lists."""
HOUR_SECONDS = PERIODS * PERIOD_SECONDS + PERIOD_SECONDS
"""The longest time in seconds that the counts of the last hour reach back."""


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task of a tenant that runs, or waits in the broker.

    Attributes:
        id: Its id.
        func: The name of its function.
        place: "leased", "queued" or "delayed".
        due: When a delayed one is due; None for the others.
        is_cancelled: Whether it is to be cancelled instead of run.
    """

    id: str
    func: str
    place: str
    due: datetime | None
    is_cancelled: bool


@dataclass(frozen=True, slots=True)
class DoneTask:
    """A task of a tenant that has succeeded.

    Attributes:
        id: Its id.
        func: The name of its function.
        stopped: When it ended.
        seconds: How long it ran.
    """

    id: str
    func: str
    stopped: datetime
    seconds: float


def open_tasks(schema: str, place: str = "", *, limit: int) -> list[OpenTask]:
    """Return a tenant's first tasks in the brokers of the site: leased, then queued, then delayed ones.

    Args:
        schema: The schema of the tenant.
        place: The only place to list; empty for all.
        limit: The most tasks.

    Raises:
        BrokerError: A broker cannot be reached.
        ConfigurationError: The broker has one queue for all tenants.
    """
    found = [live for broker in site_brokers() for live in broker.live(schema, limit=limit, place=place)]
    found.sort(key=lambda live: PLACES.index(live.place))
    return [
        OpenTask(
            live.id,
            live.func,
            live.place,
            moments.at(live.at) if live.at is not None else None,
            (live.give_up_reason or "").startswith(CANCELLED),
        )
        for live in found[:limit]
    ]


def done_tasks(schema: str, *, limit: int) -> list[DoneTask]:
    """Return a tenant's successes of the last hour, the latest first, from the rows that are kept.

    Args:
        schema: The schema of the tenant.
        limit: The most tasks.

    Raises:
        TenantUnavailable: The tenant's schema cannot be entered.
        DatabaseAway: The database cannot be reached.
    """
    since = timezone.now() - timedelta(seconds=HOUR_SECONDS)
    with (
        tenancy.detect_outages(),
        tenancy.in_verified_schema(schema),
        transaction.atomic(using=tenancy.database_alias()),
    ):
        tenancy.require_plain_tables([schema], tenancy.TASK_TABLE)
        rows = task_rows.rows().filter(success=True, stopped__gte=since).order_by("-stopped")
        found = list(rows.values_list("id", "func", "started", "stopped")[:limit])
    return [DoneTask(id, func, stopped, (stopped - started).total_seconds()) for id, func, started, stopped in found]
