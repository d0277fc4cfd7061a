"""Prune old results in the workers, beside saving new ones."""

from __future__ import annotations

import math
import time

from tenant_q import tenancy
from tenant_q.exceptions import BrokerDefect, BrokerError, DatabaseAway
from tenant_q.lifecycle import prune_results
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.worker")

# How often a worker looks for tenants to prune, and how many it prunes then.
PRUNE_SECONDS = 5.0
PRUNED_AT_ONCE = 10


class Pruner:
    """The tenants that a worker saved results of, and whose tables it prunes once these are old enough."""

    def __init__(self) -> None:
        self._noted_at: dict[str, float] = {}
        self._next = 0.0

    def prune_when_due(self, saved: set[str]) -> None:
        """Prune, in the worker, the tenants whose saved results are old enough.

        Args:
            saved: The schemas that results were saved to since the last call. They are removed from the set.

        Raises:
            BrokerError: A broker does not answer.
            DatabaseAway: The database does not answer.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PRUNE_SECONDS
        for schema in list(saved):
            saved.discard(schema)
            self._noted_at.setdefault(schema, now)
        spared = prune_results.spared().total_seconds()
        due = [schema for schema, noted in self._noted_at.items() if time.monotonic() - noted > spared]
        for schema in due[:PRUNED_AT_ONCE]:
            self._prune(schema)

    def _prune(self, schema: str) -> None:
        try:
            has_more = prune_results.prune(schema, by_age=False)  # the scheduler prunes by age
            del self._noted_at[schema]
            if has_more:
                self._noted_at[schema] = -math.inf  # prune it again the next time
        except (BrokerError, DatabaseAway):
            raise
        except (*tenancy.DATABASE_ERRORS, BrokerDefect) as error:
            del self._noted_at[schema]
            logger.warning(
                "Could not prune old results of %s: %s",
                schema,
                error,
                event="result.prune_failed",
                extra={"schema": schema},
            )
