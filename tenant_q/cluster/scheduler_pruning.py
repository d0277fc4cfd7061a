"""Have the scheduler delete the outcomes of tenants as they grow old, also of tenants that save nothing any more.

Workers prune by number, beside saving. To find what is too old a tenant's whole table is read, so one process does it,
and no more often than needed: it remembers for each tenant when the oldest outcome will be too old.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from tenant_q import tenancy
from tenant_q.exceptions import BrokerDefect, BrokerError, DatabaseAway
from tenant_q.lifecycle import prune_results
from tenant_q.lifecycle.prune_results import Outcomes
from tenant_q.lifecycle.retention import NO_KEPT, Retention, policies_that_keep, retention_by, site_keeps
from tenant_q.schedules import index_upkeep
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.scheduler")

# A pass ends after about this long, so that due schedules do not wait.
BUSY_SECONDS = 0.5
# The outcomes of this many tenants are counted in one round trip.
COUNTED_TOGETHER = 10
# A tenant is looked at again when its oldest outcome is too old, but neither earlier nor later than this.
LEAST_SECONDS = 600.0
MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Look:
    """When a tenant is to be looked at (monotonic), unless its retention is another one by then."""

    retention: Retention
    at: float


class Pruning:
    """The pruning by one scheduler of what has exceeded its limits.

    Args:
        seen: The schemas whose tables the scheduler's session knows. Those that are read are added.
    """

    def __init__(self, seen: set[str]) -> None:
        self.seen = seen
        self._looks: dict[str, _Look] = {}
        self._ends = 0.0

    def work(self) -> None:
        """Prune for about `BUSY_SECONDS` those tenants in which something has exceeded its limit since the last look.

        Raises:
            BrokerError: A broker does not answer.
            DatabaseAway: The database does not answer.
        """
        self._ends = time.monotonic() + BUSY_SECONDS
        retentions = _retentions()
        self._looks = {schema: look for schema, look in self._looks.items() if schema in retentions}
        due = [schema for schema, retention in retentions.items() if self._is_due(schema, retention)]
        due.sort(key=lambda schema: self._looks[schema].at if schema in self._looks else 0.0)
        for first in range(0, len(due), COUNTED_TOGETHER):
            if first and time.monotonic() > self._ends:
                return
            self._look({schema: retentions[schema] for schema in due[first : first + COUNTED_TOGETHER]})

    def _is_due(self, schema: str, retention: Retention) -> bool:
        look = self._looks.get(schema)
        return look is None or look.retention != retention or look.at <= time.monotonic()

    def _look(self, retentions: Mapping[str, Retention]) -> None:
        """Count the outcomes of some tenants, one by one after an error, and prune those that exceed a limit."""
        self.seen.update(map(tenancy.physical_schema, retentions))
        try:
            counted = prune_results.count_outcomes(retentions)
        except DatabaseAway:
            raise
        except tenancy.DATABASE_ERRORS as error:
            for schema, retention in retentions.items():
                if len(retentions) > 1:
                    self._look({schema: retention})
                else:
                    self._leave(schema, retention, error)
            return
        for schema, found in counted.items():
            self._prune(schema, retentions[schema], found)

    def _prune(self, schema: str, retention: Retention, found: Sequence[Outcomes]) -> None:
        seconds = _seconds_until_next(retention, found)
        if any(_exceeds(one, retention) for one in found):
            try:
                has_more = prune_results.prune(schema, retention)
                while has_more and time.monotonic() <= self._ends:
                    has_more = prune_results.prune(schema, retention)
                seconds = 0.0 if has_more else LEAST_SECONDS
            except (BrokerError, DatabaseAway):
                raise
            except (*tenancy.DATABASE_ERRORS, BrokerDefect) as error:
                self._leave(schema, retention, error)
                return
        self._looks[schema] = _Look(retention, time.monotonic() + seconds)

    def _leave(self, schema: str, retention: Retention, error: BaseException) -> None:
        self._looks[schema] = _Look(retention, time.monotonic() + MOST_SECONDS)
        logger.warning(
            "Could not prune old results of %s: %s",
            schema,
            error,
            event="result.prune_failed",
            extra={"schema": schema},
        )


def _retentions() -> dict[str, Retention]:
    """Return for the scheduler's pruning how long outcomes are kept, by the schemas of tenants that have limits."""
    by_policy = policies_that_keep()
    if not by_policy and not site_keeps():
        return {}
    schemas = [*tenancy.tenant_names(), *([tenancy.public_schema()] if tenancy.public_has_tasks() else [])]
    known = index_upkeep.known_schemas()
    return {
        schema: retention_by(by_policy.get(schema, NO_KEPT))
        for schema in schemas
        if (site_keeps() or schema in by_policy) and tenancy.physical_schema(schema) in known
    }


def _exceeds(outcomes: Outcomes, retention: Retention) -> bool:
    limits = retention.of(success=outcomes.success)
    is_too_many = limits.rows is not None and outcomes.count > limits.rows
    return is_too_many or (limits.age is not None and _is_before(outcomes.oldest, limits.age))


def _is_before(moment: datetime | None, age: timedelta) -> bool:
    return moment is not None and moment < timezone.now() - max(age, prune_results.spared())


def _seconds_until_next(retention: Retention, found: Sequence[Outcomes]) -> float:
    """Return the seconds until the oldest outcome of a tenant is too old, within the limits for another look."""
    ages = [(one.oldest, retention.of(success=one.success).age) for one in found]
    ends = [(oldest + age - timezone.now()).total_seconds() for oldest, age in ages if oldest and age]
    return min(max(min(ends, default=MOST_SECONDS), LEAST_SECONDS), MOST_SECONDS)
