"""The scheduler: a process of its own that turns due schedules of every tenant into tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from django.utils import timezone

from tenant_q import enqueue, schedules, tenancy
from tenant_q.exceptions import BrokerError, DatabaseAway, EnqueueError, TenantUnavailable
from tenant_q.labels import get_logger
from tenant_q.package import Package
from tenant_q.role import Role, Slot

logger = get_logger("tenant_q.scheduler")

# A schedule that is added or changed is seen after this long at most.
POLL_SECONDS = 1.0
# A tenant whose pass failed is left alone this long.
HOLD_SECONDS = 30.0


class Scheduler(Role):
    """Sleeps until the next planned time of any tenant, or `POLL_SECONDS`."""

    name = "scheduler"

    def __init__(self, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self._held: dict[str, float] = {}

    def tick(self) -> float:
        due = schedules.next_runs(self._served())
        now = timezone.now()
        for one in sorted(due, key=lambda due: due.next_run):
            if one.next_run <= now and not self.stopping:
                self._fire(one.schema)
        self.slot.count()
        waits = [(one.next_run - timezone.now()).total_seconds() for one in due if one.next_run > now]
        return max(0.0, min([POLL_SECONDS, *waits]))

    def _served(self) -> list[str]:
        """The tenants to serve now: those not excluded, and not held back after an error."""
        now = time.monotonic()
        self._held = {schema: until for schema, until in self._held.items() if until > now}
        return [schema for schema in tenancy.tenants_to_schedule() if schema not in self._held]

    def _fire(self, schema: str) -> None:
        """One tenant's pass; an error in it is that tenant's alone."""
        try:
            fired = schedules.fire_due(schema, push)
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:  # also one of a project's receiver: it is this tenant's alone
            self._held[schema] = time.monotonic() + HOLD_SECONDS
            foreseen = isinstance(error, (*tenancy.DATABASE_ERRORS, TenantUnavailable, EnqueueError))
            logger.error(
                "Schedules of %s are put off for %g s: %s",
                schema,
                HOLD_SECONDS,
                error,
                exc_info=not foreseen,
                extra={"schema": schema},
            )
        else:
            logger.info("Fired %s schedules of %s", fired, schema, extra={"schema": schema})


def push(packages: Sequence[Package]) -> None:
    """Put fires on the broker; their ids are known there, so the same fire twice is one task."""
    for package in packages:
        enqueue.announce(package)
    enqueue.push(packages, once=True)
