"""Keep up due indexes, policies and schedules from code; remove what deleted tenants left, and outcomes grown old."""

from __future__ import annotations

import time
from collections.abc import Callable

from tenant_q import policies, tenancy
from tenant_q.cluster.scheduler_failures import FailureUpkeep
from tenant_q.cluster.scheduler_pruning import Pruning
from tenant_q.cluster.scheduler_session import SchedulerSession
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, ConfigurationError, DatabaseAway
from tenant_q.operations import deleted_tenants
from tenant_q.schedules import code_sync, due_index, index_upkeep
from tenant_q.schedules.schema_indexes import SCHEDULES, SchemaIndex, all_indexes
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.scheduler")

# How often the schemas are compared with the index, and policies applied that the broker has lost.
SLOW_SECONDS = 30.0
# At its start a scheduler compares every schema's schedules with the index: for this long in each tick.
VERIFY_SECONDS = 0.1
# A tick updates stale schemas for about this long, so that due schedules do not wait.
BUSY_SECONDS = 0.5
# Schedules in code that cannot be synchronized, because a module cannot be imported, are tried again after this time.
BROKEN_CODE_SECONDS = 300.0


class Upkeep:
    """The upkeep by one scheduler."""

    def __init__(self, session: SchedulerSession) -> None:
        self.session = session
        self.failures = FailureUpkeep()
        self._pruning = Pruning(session.seen)
        # When each kind of work is due.
        self._due: dict[str, float] = {}
        # Schemas that differ from an index, each with whether it is to be forgotten.
        self._stale: list[tuple[SchemaIndex, str, bool]] = []
        self._to_verify: list[tuple[SchemaIndex, str]] = []
        # The synchronization with the schedules in code that is going on.
        self._sync: code_sync.Sync | None = None
        self._has_synced = False
        self._sync_refused = self._newer = ""

    @property
    def has_to_verify(self) -> bool:
        """Whether the scheduler has schemas left to compare with an index, or with the schedules in code."""
        return bool(self._to_verify or self._sync or self.failures.has_work)

    def compare_again(self) -> None:
        """Have the next upkeep compare all schemas with the due index: the scheduler may have lost notifications."""
        self._due.pop("index", None)

    def work(self) -> bool:
        """Do a part of the scheduler's upkeep.

        Returns:
            Whether schemas are left that the index does not know yet.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """
        self._when_due("held", self._release_held)
        self._when_due("policies", self._apply_policies)
        self._when_due("tenants", self._clear_departed)
        self._when_due("index", self._find_stale)
        self._when_due("outcomes", self._prune)
        self._update_stale()
        if self.session.unsure:
            # Every role that can connect can notify, so ignore schemas that the index does not know.
            known = self.session.unsure & index_upkeep.known_schemas()
            unsure = [(SCHEDULES, schema) for schema in sorted(known)]
            self._to_verify += [one for one in unsure if one not in self._to_verify]
            self.session.unsure.clear()
        self._verify_some()
        self._when_due("failures", self.failures.look)
        _try(self.failures.work, "Could not complete the index of failures")
        self._when_due("code", self._compare_code)
        self._sync_some()
        return bool(self._stale)

    def doubt(self, schema: str, index: SchemaIndex = SCHEDULES) -> None:
        """Let the scheduler compare a due index with the rows of a doubtful schema, and correct it."""
        try:
            if not index_upkeep.errors(schema, index) or not index_upkeep.install(schema, index):
                return
        except tenancy.DATABASE_ERRORS:  # the table is locked or has another shape: logged when it is due
            return
        logger.warning(
            "Corrected the due index, which was wrong about %s",
            schema if index is SCHEDULES else f"{index.what} of {schema}",
            event="due_index.corrected",
            extra={"schema": schema},
        )

    def _when_due(self, what: str, act: Callable[[], None]) -> None:
        if time.monotonic() >= self._due.get(what, 0.0):
            act()
            self._due[what] = max(self._due.get(what, 0.0), time.monotonic() + SLOW_SECONDS)

    def _release_held(self) -> None:
        """Release, in the scheduler's upkeep, held schedules: settings may have changed, failures may be fixed."""
        if "held" not in self._due:
            due_index.release(due_index.UNREADY)
            due_index.release(due_index.FAILED)
        excluded = [tenancy.physical_schema(schema) for schema in conf().excluded_schemas]
        due_index.release(due_index.EXCLUDED, but=excluded)

    def _apply_policies(self) -> None:
        _try(policies.put_in_force_everywhere, "Could not apply the tenants' policies")

    def _clear_departed(self) -> None:
        _try(deleted_tenants.find_and_clear, "Could not remove the rest of deleted tenants")

    def _prune(self) -> None:
        _try(self._pruning.work, "Could not prune old results")

    def _find_stale(self) -> None:
        is_first = "index" not in self._due
        self._stale = [
            (index, schema, is_gone)
            for index in all_indexes()
            for schema, is_gone in index_upkeep.stale_schemas(thorough=is_first, index=index)
        ]
        if self._stale:
            found = counted(len(self._stale), "schema")
            logger.info("Found %s to update in the due index", found, event="due_index.stale")
        if is_first:
            stale = {(index, schema) for index, schema, _ in self._stale}
            known = [(index, schema) for index in all_indexes() for schema in index_upkeep.indexed_schemas(index)]
            self._to_verify = [one for one in known if one not in stale]

    def _compare_code(self) -> None:
        """Find the tenants whose schedules differ from those in code, unless some are still being changed."""
        if self._sync is None:
            sync = code_sync.Sync(retries_conflicts=not self._has_synced)
            _try(lambda: self._plan(sync), "Could not synchronize the schedules in code")

    def _plan(self, sync: code_sync.Sync) -> None:
        try:
            sync.plan()
        except ConfigurationError as error:
            self._due["code"] = time.monotonic() + BROKEN_CODE_SECONDS
            if str(error) != self._sync_refused:
                logger.error("%s", error, event="schedule.code_refused")
            self._sync_refused = str(error)
            return
        self._has_synced, self._sync_refused = True, ""
        if sync.report.newer != self._newer:
            self._newer = sync.report.newer
            if self._newer:
                logger.warning(
                    "Left the schedules to release %s, which is newer than this one, %s",
                    self._newer,
                    sync.release.label,
                    event="schedule.code_older",
                )
        self._sync = None if sync.is_done else sync

    def _sync_some(self) -> None:
        begun = time.monotonic()
        while self._sync is not None and time.monotonic() - begun < BUSY_SECONDS:
            self._step(self._sync)
            if self._sync is not None and self._sync.is_done:
                self._sync = None

    def _step(self, sync: code_sync.Sync) -> None:
        try:
            self.session.seen.update(sync.step())
        except DatabaseAway:
            self._sync = None  # a new one follows
            raise

    def _update_stale(self) -> None:
        begun = time.monotonic()
        while self._stale and time.monotonic() - begun < BUSY_SECONDS:
            index, stale, is_gone = self._stale[-1]
            left = index_upkeep.bring_up_to_date([(stale, is_gone)], index)
            self._stale.pop()
            for schema, reason in left:
                logger.warning(
                    "%s of %s are not in the index yet: %s",
                    index.what.capitalize(),
                    schema,
                    reason,
                    event="due_index.schema_left_out",
                    extra={"schema": schema},
                )

    def _verify_some(self) -> None:
        begun = time.monotonic()
        while self._to_verify and time.monotonic() - begun < VERIFY_SECONDS:
            index, schema = self._to_verify[-1]
            self.doubt(schema, index)
            self.session.seen.add(schema)
            self._to_verify.pop()
            if not self._to_verify:
                logger.info("Verified the due index", event="due_index.verified")


def _try(act: Callable[[], None], failure: str) -> None:
    """Do a part of the scheduler's upkeep on which firing does not depend.

    Whatever fails, such as a missing right, schedules fire.
    """
    try:
        act()
    except (BrokerError, DatabaseAway):
        raise
    except Exception as error:
        is_expected = isinstance(error, (*tenancy.DATABASE_ERRORS, ConfigurationError))
        logger.error("%s: %s", failure, one_line(error), event="due_index.upkeep_failed", exc_info=not is_expected)
