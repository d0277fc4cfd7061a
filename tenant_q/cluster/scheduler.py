"""The scheduler: a process of its own that turns due schedules of every tenant into tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from django.apps import apps

from tenant_q.cluster.role import Role
from tenant_q.cluster.scheduler_firing import Firing
from tenant_q.cluster.scheduler_session import SchedulerSession
from tenant_q.cluster.scheduler_upkeep import Upkeep
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf

# Notifications announce schedules that are planned meanwhile. A lost one is noticed after this time.
POLL_SECONDS = 30.0
# The pause between two parts of the first comparison of schedules and index.
VERIFY_PAUSE = 0.05


class Scheduler(Role):
    """Sleeps until a schedule is due, or until the database notifies it of an earlier one."""

    name = "scheduler"

    def __init__(self, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self.session = SchedulerSession()
        self.upkeep = Upkeep(self.session)
        self.firing = Firing(slot, self.stopping, self.session, self.upkeep)
        self.repair_roles = _repairs(self.session)
        self.look_at_runs = _looks()

    def tick(self) -> float:
        """Do one tick of the scheduler: some upkeep and repairs, the firing of due schedules, and looks at runs."""
        self.session.replace_when_large()
        if self.session.subscribe():
            self.upkeep.compare_again()
        self.session.has_news = False
        if self.upkeep.work() and self.slot.done == 0:
            return 0.0
        until_repairs = self.repair_roles()
        soonest = self.firing.fire_due()
        if soonest > 0:
            self.slot.count()
        soonest = min(soonest, self.look_at_runs(), until_repairs)
        if self.upkeep.has_to_verify:
            soonest = min(soonest, VERIFY_PAUSE)
        if self.session.unsure or self.session.has_news or self.session.has_marks:
            return 0.0
        return min(soonest, POLL_SECONDS)

    def has_unfinished(self) -> bool:
        """Return whether a scheduler that ticks only once has not yet fired all due schedules."""
        return self.once and not self.stopping and self.slot.done == 0

    def files(self) -> list[Any]:
        """Return the file on which a notification ends a pause of the scheduler."""
        return list(self.session.files())


def _repairs(session: SchedulerSession) -> Callable[[], float]:
    """Return the scheduler's function that repairs tenants' roles, which only sites with roles import."""
    if conf().isolation == "path":
        return lambda: math.inf
    from tenant_q.cluster.scheduler_repairs import Repairs

    return Repairs(session).work


def _looks() -> Callable[[], float]:
    """Return the scheduler's function that looks at runs of workflows, which only projects with the app import."""
    if not apps.is_installed("tenant_q.workflows"):
        return lambda: math.inf
    from tenant_q.workflows.looks import Looks

    return Looks().look
