"""Fire the due schedules of all tenants, in rounds, so that no tenant waits for another one's backlog.

A round is over when each schema with due schedules was served once. Many schemas are served together, in one
transaction; if one of them fails, all of these are served one by one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from tenant_q import policies, tenancy
from tenant_q.cluster.scheduler_session import SchedulerSession
from tenant_q.cluster.scheduler_upkeep import Upkeep
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, DatabaseAway, EnqueueError, TenantLeaving, TenantUnavailable, UnknownTenant
from tenant_q.schedules import due_index, fire, schedule_rows
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.scheduler")

# A tenant whose schedules cannot be fired, or that is not ready, is tried again after this time.
HOLD_SECONDS = 30.0
# A schema without a tenant is tried again after this time: its tenant may be restored after it.
UNKNOWN_SECONDS = 60.0
# A call ends after about this long, so that nothing else waits.
BUSY_SECONDS = 0.5
# This many tenants are served together; a few are served one by one.
TOGETHER = 100
FEW = 4
# A due schedule that another cluster has locked is tried again after this time, then after longer and longer ones.
AGAIN_SECONDS = 0.1
# After this many rounds in which nothing could be fired, the index is compared with the schedules.
DOUBTFUL_ROUNDS = 4


class Firing:
    """The rounds of firing by one scheduler."""

    def __init__(self, slot: Slot, stopping: StopFlag, session: SchedulerSession, upkeep: Upkeep) -> None:
        self.slot = slot
        self.stopping = stopping
        self.session = session
        self.upkeep = upkeep
        # The schemas that were served in this round, and those that could not be served together.
        self._served: set[str] = set()
        self._alone: set[str] = set()
        # Whether a schedule was fired in this round, and the number of rounds since one was.
        self._fired = False
        self._vain_rounds = 0
        # The schemas whose schedules are held, with the reasons: each is logged once.
        self._held: set[tuple[str, str]] = set()

    def fire_due(self) -> float:
        """Go on with a round of firing, in which each schema with due schedules is served once.

        A call takes at most about `BUSY_SECONDS`.

        Returns:
            The seconds until the next call: 0 if the round is not over, infinite if nothing is planned.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """
        begun = time.monotonic()
        found = due_index.look(but=self._served)
        due = [one for one in found if one.seconds <= 0]
        self.slot.report_lateness(max((-one.seconds for one in due), default=0.0))
        for some in self._portions([one.schema for one in due]):
            self._serve(some)
            if self.stopping or time.monotonic() - begun > BUSY_SECONDS:
                break
        if not self._served.issuperset(one.schema for one in due):
            return 0.0
        if sum(one.count for one in due) >= due_index.LOOK:
            return 0.0  # there may be more
        soonest = next((one.seconds for one in found if one.seconds > 0), math.inf)
        return min(soonest, self._end_round()) if self._served else soonest

    def _end_round(self) -> float:
        """End a round of firing. Return the seconds until the next begins; some schedules may still be due."""
        served, self._served, self._alone = self._served, set(), set()
        fired, self._fired = self._fired, False
        self._vain_rounds = 0 if fired else self._vain_rounds + 1
        if fired:
            return 0.0
        if self._vain_rounds == DOUBTFUL_ROUNDS:
            for schema in served:
                self.upkeep.doubt(schema)
        return AGAIN_SECONDS * 2.0 ** min(self._vain_rounds - 1, 10)

    def _portions(self, schemas: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yield the schemas that a round of firing serves together, then, one by one, those not served yet."""
        if len(schemas) > FEW and not schedule_rows.has_receivers():
            together = [schema for schema in schemas if schema not in self._alone]
            yield from (together[first : first + TOGETHER] for first in range(0, len(together), TOGETHER))
        yield from ([schema] for schema in schemas if schema not in self._served)

    def _serve(self, some: Sequence[str]) -> None:
        self.session.seen.update(some)
        if len(some) > 1:
            self._serve_together(some)
        else:
            self._served.update(some)
            self._fired = self._serve_alone(some[0]) or self._fired

    def _serve_together(self, some: Sequence[str]) -> None:
        """Fire the schedules of many schemas in one transaction of a round.

        If that fails, they are served one by one later in the round.
        """
        try:
            tenancy.look_up_together(some)
            names = {tenancy.logical_schema(physical): physical for physical in some}
            special = names.keys() & (conf().excluded_schemas | policies.paused())
            served = sorted(names.keys() - special)
            fired = fire.fire_due_together(served) if served else {}
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:  # it is logged when that tenant is served
            logger.info(
                "Serving %s one by one: %s",
                counted(len(some), "tenant"),
                one_line(error),
                event="schedule.tenants_one_by_one",
            )
            self._alone.update(some)
            return
        self._alone.update(names[schema] for schema in special)
        self._served.update(names[schema] for schema in served)
        self._fired = self._fired or bool(fired)
        for schema, count in fired.items():
            self._log_fired(schema, count)

    def _serve_alone(self, physical: str) -> bool:
        """Fire the schedules of one schema in a round, and return whether any was fired.

        An error in it concerns this tenant alone.
        """
        try:
            schema = tenancy.logical_schema(physical)
            if schema in conf().excluded_schemas:
                due_index.hold(physical, due_index.EXCLUDED, None)
            elif _is_paused(schema):
                due_index.hold(physical, due_index.PAUSED, None)
            else:
                return self._fire_schedules_of(schema)
        except (BrokerError, DatabaseAway):
            raise
        except UnknownTenant as error:
            self._hold(physical, due_index.UNREADY, UNKNOWN_SECONDS, error)
        except (TenantUnavailable, TenantLeaving) as error:
            self._hold(physical, due_index.UNREADY, HOLD_SECONDS, error)
        except Exception as error:  # including an error of the project's receivers
            self._hold(physical, due_index.FAILED, HOLD_SECONDS, error)
        return False

    def _fire_schedules_of(self, schema: str) -> bool:
        if schedule_rows.has_receivers():
            with tenancy.in_schema(schema):
                fire.begin(schema)
        fired = fire.fire_due(schema)
        self._log_fired(schema, fired)
        return fired > 0

    def _log_fired(self, schema: str, count: int) -> None:
        self._held -= {(tenancy.physical_schema(schema), why) for why in (due_index.UNREADY, due_index.FAILED)}
        if count:
            fired = counted(count, "schedule")
            logger.info("Fired %s of %s", fired, schema, event="schedule.fired", extra={"schema": schema})

    def _hold(self, physical: str, why: str, seconds: float, error: Exception) -> None:
        due_index.hold(physical, why, seconds)
        if (physical, why) in self._held:
            return
        self._held.add((physical, why))
        is_expected = isinstance(error, (*tenancy.DATABASE_ERRORS, TenantUnavailable, EnqueueError))
        logger.error(
            "Schedules of %s are put off, for %g s each time: %s",
            physical,
            seconds,
            one_line(error),
            event="schedule.put_off",
            exc_info=not is_expected,
            extra={"schema": physical},
        )


def _is_paused(schema: str) -> bool:
    try:
        return policies.is_paused(schema)
    except tenancy.DATABASE_ERRORS:  # logged when policies are applied
        return False
