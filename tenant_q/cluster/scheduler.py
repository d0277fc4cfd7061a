"""The scheduler: a process of its own that turns due schedules of every tenant into tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tenant_q import policies, tenancy
from tenant_q.cluster.role import Role
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import (
    BrokerError,
    ConfigurationError,
    DatabaseAway,
    EnqueueError,
    TenantUnavailable,
    UnknownTenant,
)
from tenant_q.operations import departures
from tenant_q.schedules import due_index, fire, index_upkeep, schedule_rows
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.scheduler")

# Notifications announce schedules that are planned meanwhile. A lost one is noticed after this time.
POLL_SECONDS = 30.0
# A tenant whose pass failed, or that is not ready, is left alone this long.
HOLD_SECONDS = 30.0
# A schema that is no tenant's is looked at again this often: its tenant may be restored after it.
UNKNOWN_SECONDS = 60.0
# A busy tick ends after about this long, so that nothing else waits.
BUSY_SECONDS = 0.5
# This many tenants are served together; a few are served one by one.
TOGETHER = 100
FEW = 4
# A due schedule that another cluster has locked is tried again after this time, then after longer and longer ones.
AGAIN_SECONDS = 0.1
# After so many rounds in which nothing could be fired, the index is compared with the schedules.
DOUBTFUL_ROUNDS = 4
# How often the schemas are compared with the index, and policies put in force that the broker lost.
SLOW_SECONDS = 30.0
# When a scheduler starts it compares every schema's schedules with the index: for so long, with a pause between.
VERIFY_SECONDS = 0.1
VERIFY_PAUSE = 0.05
# After so many schemas the connection is replaced, for the server keeps something about each table in every session.
TABLES_A_SESSION = 2000


class Scheduler(Role):
    """Sleeps until something is due, or until the database announces an earlier one."""

    name = "scheduler"

    def __init__(self, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self._session: Any = None
        self._told = False
        self._stale: list[tuple[str, bool]] = []
        self._to_verify: list[str] = []
        # The schemas whose entries a trigger could not keep.
        self._unsure: set[str] = set()
        # Whose tables this session knows.
        self._seen: set[str] = set()
        self._due: dict[str, float] = {}
        # A round is over when each schema with due schedules was served once, so that none waits for another's backlog.
        self._served: set[str] = set()
        # Those of a portion that could not be served together.
        self._alone: set[str] = set()
        self._fired = False
        self._vain_rounds = 0
        # What the log has told.
        self._held: set[tuple[str, str]] = set()

    def tick(self) -> float:
        if len(self._seen) >= TABLES_A_SESSION:
            self._replace_session()
        self._listen()
        self._told = False
        if self._work_slowly():
            return 0.0
        soonest = self._fire_due()
        if soonest > 0:
            self.slot.count()
        if self._to_verify:
            soonest = min(soonest, VERIFY_PAUSE)
        if self._unsure:
            return 0.0
        return 0.0 if self._told else min(soonest, POLL_SECONDS)

    def has_unfinished(self) -> bool:
        """Told to look once, it looks until nothing is due."""
        return self.once and not self.stopping and self.slot.done == 0

    def files(self) -> list[Any]:
        """The session on which the database tells."""
        return [self._session.fileno()] if self._session is not None and not self._session.closed else []

    # Firing

    def _fire_due(self) -> float:
        """Serve each schema with due schedules once, for `BUSY_SECONDS` at most. Returns the seconds until the next."""
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
        soonest = next((one.seconds for one in found if one.seconds > 0), POLL_SECONDS)
        return min(soonest, self._end_round()) if self._served else soonest

    def _end_round(self) -> float:
        """All were served; some may be due still. Returns the seconds until the next round."""
        served, self._served, self._alone = self._served, set(), set()
        fired, self._fired = self._fired, False
        self._vain_rounds = 0 if fired else self._vain_rounds + 1
        if fired:
            return 0.0
        if self._vain_rounds == DOUBTFUL_ROUNDS:
            for schema in served:
                self._doubt(schema)
        return AGAIN_SECONDS * 2.0 ** min(self._vain_rounds - 1, 10)

    def _portions(self, schemas: Sequence[str]) -> Iterator[Sequence[str]]:
        """The schemas that are served together, and then, one by one, those that are not served yet."""
        if len(schemas) > FEW and not schedule_rows.has_receivers():
            together = [schema for schema in schemas if schema not in self._alone]
            yield from (together[first : first + TOGETHER] for first in range(0, len(together), TOGETHER))
        yield from ([schema] for schema in schemas if schema not in self._served)

    def _serve(self, some: Sequence[str]) -> None:
        self._seen.update(some)
        if len(some) > 1:
            self._serve_together(some)
        else:
            self._served.update(some)
            self._fired = self._fire(some[0]) or self._fired

    def _serve_together(self, some: Sequence[str]) -> None:
        """One transaction for all. Whatever one of them is the reason for, they are served one by one then."""
        try:
            tenancy.look_up_together(some)
            names = {tenancy.logical_schema(physical): physical for physical in some}
            special = names.keys() & (conf().excluded_schemas | policies.paused())
            served = sorted(names.keys() - special)
            fired = fire.fire_due_together(served) if served else {}
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:  # it is logged when that tenant is served
            logger.info("%s tenants are served one by one: %s", len(some), one_line(error))
            self._alone.update(some)
            return
        self._alone.update(names[schema] for schema in special)
        self._served.update(names[schema] for schema in served)
        self._fired = self._fired or bool(fired)
        for schema, count in fired.items():
            self._tell_fired(schema, count)

    def _verify_some(self) -> None:
        begun = time.monotonic()
        while self._to_verify and time.monotonic() - begun < VERIFY_SECONDS:
            self._doubt(self._to_verify[-1])
            self._seen.add(self._to_verify.pop())
            if not self._to_verify:
                logger.info("The due index is verified")

    def _doubt(self, schema: str) -> None:
        """Put right what the index says of a schema, if it is wrong."""
        try:
            if not index_upkeep.errors(schema) or not index_upkeep.install(schema):
                return
        except tenancy.DATABASE_ERRORS:  # its table is locked or has another shape: logged when it is due
            return
        logger.warning("The due index was wrong about %s and is repaired", schema, extra={"schema": schema})

    def _fire(self, physical: str) -> bool:
        """One tenant's pass; an error in it is that tenant's alone. Returns whether something fired."""
        try:
            schema = tenancy.logical_schema(physical)
            if schema in conf().excluded_schemas:
                due_index.hold(physical, due_index.EXCLUDED, None)
            elif self._is_paused(schema):
                due_index.hold(physical, due_index.PAUSED, None)
            else:
                return self._fire_schedules_of(schema)
        except (BrokerError, DatabaseAway):
            raise
        except UnknownTenant as error:
            self._hold(physical, due_index.UNREADY, UNKNOWN_SECONDS, error)
        except TenantUnavailable as error:
            self._hold(physical, due_index.UNREADY, HOLD_SECONDS, error)
        except Exception as error:  # also one of a project's receiver: it is this tenant's alone
            self._hold(physical, due_index.FAILED, HOLD_SECONDS, error)
        return False

    def _is_paused(self, schema: str) -> bool:
        try:
            return policies.is_paused(schema)
        except tenancy.DATABASE_ERRORS:  # logged when policies are applied
            return False

    def _fire_schedules_of(self, schema: str) -> bool:
        if schedule_rows.has_receivers():
            with tenancy.in_schema(schema):
                fire.begin(schema)
        fired = fire.fire_due(schema)
        self._tell_fired(schema, fired)
        return fired > 0

    def _tell_fired(self, schema: str, count: int) -> None:
        self._held -= {(tenancy.physical_schema(schema), why) for why in (due_index.UNREADY, due_index.FAILED)}
        if count:
            logger.info("Fired %s schedules of %s", count, schema, extra={"schema": schema})

    def _hold(self, physical: str, why: str, seconds: float, error: Exception) -> None:
        due_index.hold(physical, why, seconds)
        if (physical, why) in self._held:
            return  # told already
        self._held.add((physical, why))
        foreseen = isinstance(error, (*tenancy.DATABASE_ERRORS, TenantUnavailable, EnqueueError))
        logger.error(
            "Schedules of %s are put off, for %g s each time: %s",
            physical,
            seconds,
            one_line(error),
            exc_info=not foreseen,
            extra={"schema": physical},
        )

    # Beside it

    def _replace_session(self) -> None:
        """Replace the session. Read the old one to its end once the new one listens, so no notification is lost."""
        self._seen.clear()
        connection = tenancy.tenant_connection()
        before, connection.connection = connection.connection, None
        if before is None:
            return
        try:
            self._listen(after_loss=False)
            before.execute("SELECT 1")
        finally:
            before.close()

    def _listen(self, *, after_loss: bool = True) -> None:
        """Listen for notifications on this connection's session, which is a new one after an outage.

        Parameters: `after_loss`, whether notifications may have been lost. Then all schemas are compared with the
        index again.
        """
        connection = tenancy.tenant_connection()
        connection.ensure_connection()
        if connection.connection is not self._session:
            due_index.subscribe()
            self._session = connection.connection
            self._session.add_notify_handler(self._note)
            if after_loss:
                self._due.pop("index", None)

    def _note(self, notification: Any) -> None:
        if notification.channel == due_index.UNSURE:
            self._unsure.add(notification.payload)
        else:
            self._told = True

    def _work_slowly(self) -> bool:
        """A piece of what keeps index and broker true. Returns whether there is more to do before firing begins."""
        self._when_due("held", self._release_what_was_held)
        self._when_due("policies", self._put_policies_in_force)
        self._when_due("tenants", self._clear_what_was_left)
        self._when_due("index", self._find_stale)
        left: list[tuple[str, str]] = []
        begun = time.monotonic()
        while self._stale and time.monotonic() - begun < BUSY_SECONDS:
            left += index_upkeep.bring_up_to_date(self._stale[-1:])
            self._stale.pop()
        for schema, reason in left:
            logger.warning("Schedules of %s are not in the index yet: %s", schema, reason, extra={"schema": schema})
        if self._unsure:
            # Every role that can connect can notify, so ignore schemas that the index does not know.
            self._to_verify += sorted((self._unsure & index_upkeep.known_schemas()).difference(self._to_verify))
            self._unsure.clear()
        self._verify_some()
        return bool(self._stale) and self.slot.done == 0

    def _release_what_was_held(self) -> None:
        """Start over: the settings may have changed since the previous scheduler, and its failures may be fixed."""
        if "held" not in self._due:
            due_index.release(due_index.UNREADY)
            due_index.release(due_index.FAILED)
        excluded = [tenancy.physical_schema(schema) for schema in conf().excluded_schemas]
        due_index.release(due_index.EXCLUDED, but=excluded)

    def _find_stale(self) -> None:
        is_first = "index" not in self._due
        self._stale = index_upkeep.stale_schemas(thorough=is_first)
        if self._stale:
            logger.info("%s schemas are brought up to date in the due index", len(self._stale))
        if is_first:
            self._to_verify = sorted(set(index_upkeep.indexed_schemas()) - {schema for schema, _ in self._stale})

    def _put_policies_in_force(self) -> None:
        self._try(policies.put_in_force_everywhere, "Policies are not put in force")

    def _clear_what_was_left(self) -> None:
        self._try(departures.find_and_clear, "What deleted tenants have left is not removed")

    def _try(self, act: Callable[[], None], failure: str) -> None:
        """Do what firing does not depend on: whatever fails in it, a right that is missing say, schedules fire."""
        try:
            act()
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            foreseen = isinstance(error, (*tenancy.DATABASE_ERRORS, ConfigurationError))
            logger.error("%s: %s", failure, one_line(error), exc_info=not foreseen)

    def _when_due(self, what: str, act: Callable[[], None]) -> None:
        if time.monotonic() >= self._due.get(what, 0.0):
            act()
            self._due[what] = time.monotonic() + SLOW_SECONDS
