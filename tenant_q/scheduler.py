"""The scheduler: a process of its own that turns due schedules of every tenant into tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from django.utils import timezone

from tenant_q import enqueue, policies, schedules, tenancy
from tenant_q.exceptions import (
    BrokerError,
    ConfigurationError,
    DatabaseAway,
    EnqueueError,
    TenantNotReady,
    TenantUnavailable,
)
from tenant_q.labels import get_logger
from tenant_q.package import Package
from tenant_q.role import Role
from tenant_q.slot import Slot

logger = get_logger("tenant_q.scheduler")

# A schedule that is added or changed is seen after this long at most.
POLL_SECONDS = 1.0
# A tenant whose pass failed is left alone this long.
HOLD_SECONDS = 30.0
# A policy that was changed past the ORM, or that the broker lost, is in force again after this long at most.
POLICY_SECONDS = 30.0


class Scheduler(Role):
    """Sleeps until the next planned time of any tenant, or `POLL_SECONDS`."""

    name = "scheduler"

    def __init__(self, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self._held: dict[str, float] = {}
        self._all_held = 0.0
        self._next_policies = 0.0

    def tick(self) -> float:
        self._put_policies_in_force_when_due()
        due = schedules.next_runs(self._served())
        now = timezone.now()
        for one in sorted(due, key=lambda due: due.next_run):
            if one.next_run <= now and not self.stopping:
                self._fire(one.schema)
        self.slot.count()
        waits = [(one.next_run - timezone.now()).total_seconds() for one in due if one.next_run > now]
        return max(0.0, min([POLL_SECONDS, *waits]))

    def _put_policies_in_force_when_due(self) -> None:
        if time.monotonic() < self._next_policies:
            return
        try:
            policies.put_in_force_everywhere()
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:  # a table that is not migrated, say: schedules fire all the same
            foreseen = isinstance(error, (*tenancy.DATABASE_ERRORS, ConfigurationError))
            logger.error("Policies are not put in force: %s", " ".join(str(error).split()), exc_info=not foreseen)
        self._next_policies = time.monotonic() + POLICY_SECONDS

    def _served(self) -> list[str]:
        """The tenants to serve now: those not excluded, and not held back after an error."""
        now = time.monotonic()
        self._held = {schema: until for schema, until in self._held.items() if until > now}
        if now < self._all_held:
            return []
        try:
            return [schema for schema in tenancy.tenants_to_schedule() if schema not in self._held]
        except TenantNotReady as error:  # the project's own function fails
            self._all_held = now + HOLD_SECONDS
            logger.error("All schedules are put off for %g s: %s", HOLD_SECONDS, error)
            return []

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
