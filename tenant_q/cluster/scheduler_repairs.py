"""Have the scheduler repair the roles of tenants that workers have marked, as soon as it is notified of a mark."""

from __future__ import annotations

import time

from tenant_q.cluster.scheduler_session import SchedulerSession
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, ProvisioningError
from tenant_q.provisioning import repair_marked
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.scheduler")

# The scheduler looks this often for marks of which it was not notified, and tries again what has failed.
LOOK_SECONDS = 30.0
# After an error of the admin's session it tries again after this time.
RETRY_SECONDS = 5.0
# A call ends after about this long, so that due schedules do not wait.
BUSY_SECONDS = 0.5
# A role that is marked again and again is repaired at most this often in this time: the reason may be another one, or a
# task may change its role in a loop.
MOST_REPAIRS = 10
WINDOW_SECONDS = 60.0


class Repairs:
    """The repairs of tenants' roles by one scheduler."""

    def __init__(self, session: SchedulerSession) -> None:
        self.session = session
        self._due = 0.0
        # The schemas that are left alone, each with when that ends.
        self._held: dict[str, float] = {}
        # The number of repairs of each schema since the window began.
        self._repairs: dict[str, int] = {}
        self._window_ends = 0.0
        self._logged = ""

    def work(self) -> float:
        """Repair roles that are marked, for about `BUSY_SECONDS`.

        Returns:
            The seconds until the scheduler is to look for marks again, if it is not notified of one.

        Raises:
            DatabaseAway: The database does not answer.
        """
        is_notified = self.session.has_marks and conf().admin_database
        self.session.has_marks = False
        if is_notified or time.monotonic() >= self._due:
            self._due = time.monotonic() + self._repair()
        return max(self._due - time.monotonic(), 0.0)

    def _repair(self) -> float:
        """Repair marked roles. Return the seconds until the next look."""
        self._begin_window()
        try:
            done = repair_marked(BUSY_SECONDS, but=self._held)
        except (ProvisioningError, ConfigurationError) as error:
            self._log(str(error))
            return RETRY_SECONDS
        for schema, reason in done.failed.items():
            self._held[schema] = time.monotonic() + LOOK_SECONDS
            self._log(f"{schema}: {reason}", schema)
        for schema in done.repaired:
            self._logged = ""
            self._repairs[schema] = self._repairs.get(schema, 0) + 1
            if self._repairs[schema] >= MOST_REPAIRS:
                self._held[schema] = self._window_ends
        if not done.is_complete:
            return 0.0
        ends = [end - time.monotonic() for end in self._held.values()]
        return max(min([LOOK_SECONDS, *ends]), 0.0)

    def _begin_window(self) -> None:
        """Forget which schemas were left alone, and how often roles were repaired, once the time for it is over."""
        now = time.monotonic()
        self._held = {schema: end for schema, end in self._held.items() if end > now}
        if now >= self._window_ends:
            self._repairs, self._window_ends = {}, now + WINDOW_SECONDS

    def _log(self, problem: str, schema: str | None = None) -> None:
        if problem != self._logged:
            self._logged = problem
            extra = {"schema": schema} if schema else {}
            logger.error("Could not repair tenants' roles: %s", problem, event="tenant_role.repair_failed", extra=extra)
