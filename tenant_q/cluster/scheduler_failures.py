"""Have the scheduler complete the index of failures, a portion of one schema at a time."""

from __future__ import annotations

import time

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway, ForeignCode
from tenant_q.operations import failure_upkeep
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.scheduler")

# A call ends after about this long, so that due schedules do not wait.
BUSY_SECONDS = 0.1


class FailureUpkeep:
    """What one scheduler does for the index of failures."""

    def __init__(self) -> None:
        self._left: list[str] = []
        # The schemas that could not be completed, each with the reason that was logged.
        self._failed: dict[str, str] = {}

    @property
    def has_work(self) -> bool:
        """Whether the scheduler has schemas left whose failures it is to complete."""
        return bool(self._left)

    def look(self) -> None:
        """Look which schemas have failures to complete. Raises `DatabaseAway`."""
        self._left = failure_upkeep.unfinished()
        self._failed = {schema: reason for schema, reason in self._failed.items() if schema in self._left}

    def work(self) -> None:
        """Complete failures of the found schemas, in turns, for about `BUSY_SECONDS`. Raises `DatabaseAway`."""
        begun = time.monotonic()
        while self._left and time.monotonic() - begun < BUSY_SECONDS:
            schema = self._left.pop(0)
            if self._has_more(schema):
                self._left.append(schema)

    def _has_more(self, schema: str) -> bool:
        try:
            return failure_upkeep.work_on(schema)
        except DatabaseAway:
            raise
        except (ForeignCode, *tenancy.DATABASE_ERRORS) as error:  # locked, for example: the next look finds it
            reason = one_line(error)
            if self._failed.get(schema) != reason:
                self._failed[schema] = reason
                logger.warning(
                    "Could not complete the index of failures of %s: %s",
                    schema,
                    reason,
                    event="failure_index.left",
                    extra={"schema": schema},
                )
            return False
