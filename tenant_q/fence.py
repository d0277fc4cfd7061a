"""The fence in front of a worker's acts: is a lease surely still its own?

A worker that was paused for longer than its lease does not notice, and another worker may have its package by then.
So it compares the time until which its leases are good with a clock. In doubt it queries the broker, which also renews
what the worker still holds. During an outage of the broker there is no answer: then the worker keeps its outcomes and
queries again later.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

from tenant_q import clock
from tenant_q.brokers import uses_redis
from tenant_q.brokers.protocol import Broker, Lease
from tenant_q.conf import conf
from tenant_q.labels import get_logger
from tenant_q.slot import Slot

logger = get_logger("tenant_q.fence")


class Fence:
    """What the worker `key` knows of its leases. Its methods may be called by any thread of the worker."""

    def __init__(self, key: str, broker: Broker, slot: Slot) -> None:
        self.key = key
        self.broker = broker
        self.slot = slot
        self._lock = threading.Lock()
        # When the broker was last queried (or fetched from), until when its leases are good without a renewal, and
        # which leases those are, by id: None for all of the last fetch.
        self._since = self._until = -math.inf
        self._held: Mapping[str, str] | None = None

    def fetched(self, sent: float) -> None:
        """Trust the leases that a fetch brought.

        Parameters: `sent`, the time of `clock.now()` before the fetch was sent.
        """
        with self._lock:
            self._held = None
            self._trust_from(sent)

    def holds(self, lease: Lease) -> bool:
        """Return whether the worker still holds a lease of its last fetch.

        Raises `BrokerError` when that is in doubt and the broker does not answer.
        """
        with self._lock:
            if not self._is_sure():
                self._query()
            return self._held is None or self._held.get(lease.id) == str(lease.token)

    def _is_sure(self) -> bool:
        renewed_since, renewed_until = self.slot.renewed
        return self._since >= renewed_since and clock.now() < max(self._until, renewed_until)

    def _query(self) -> None:
        sent = clock.now()
        self._held = self.broker.renew([self.key], conf().lease).get(self.key, {})
        self._trust_from(sent)
        logger.info("The leases of worker %s may have run out; it still holds %s", self.key, len(self._held))

    def _trust_from(self, sent: float) -> None:
        # Other brokers than Redis have no leases that could run out.
        self._since, self._until = (sent, sent + conf().lease) if uses_redis() else (math.inf, math.inf)
