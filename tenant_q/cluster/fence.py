"""Check that a worker still holds a lease before it acts on it.

A worker that was paused for longer than its lease does not notice it, and another worker may have its package by then.
So the worker compares the deadline of its leases with a clock. In doubt it queries the broker, which also renews the
leases that the worker still holds. During an outage of the broker there is no answer: the worker keeps its outcomes
and queries again later.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping

from tenant_q.brokers.protocol import Broker, Lease
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, LeaseLost, TakenBack
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.support import clock
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.fence")

# How long a transactional task whose lease is in doubt waits for the broker before its commit, and between two queries.
LONGEST_DOUBT = 120.0
DOUBT_PAUSE = 0.2


class Fence:
    """The leases of the worker `key`, as far as the worker knows. Any thread of the worker may call its methods."""

    def __init__(self, key: str, broker: Broker, slot: Slot) -> None:
        self.key = key
        self.broker = broker
        self.slot = slot
        self._lock = threading.Lock()
        # The time of the last query or fetch, the deadline of its leases without a renewal, and these leases by id;
        # None stands for all leases of the last fetch.
        self._since = self._until = -math.inf
        self._held: Mapping[str, str] | None = None

    def fetched(self, sent: float) -> None:
        """Have the fence trust the leases of a fetch.

        Args:
            sent: The value of `clock.now()` before the fetch was sent.
        """
        with self._lock:
            self._held = None
            self._trust_from(sent)

    def holds(self, lease: Lease) -> bool:
        """Return whether a lease passes the fence: the worker still holds it. Raises as `lost`."""
        return not self.lost([lease])

    def confirm(self, delivery: Delivery) -> None:
        """Stop a transactional task at the fence before its commit, until its lease is sure.

        It waits for the broker, so that a short outage does not make the task run again.

        Args:
            delivery: The delivery whose task has just run.

        Raises:
            LeaseLost: The worker no longer holds the lease.
            TakenBack: The broker has not answered for `LONGEST_DOUBT` seconds.
        """
        func_name, deadline = delivery.package.func_name, time.monotonic() + LONGEST_DOUBT
        while True:
            try:
                if self.holds(delivery.lease):
                    return
                raise LeaseLost(f"{func_name} is rolled back: its worker no longer holds the lease")
            except BrokerError as error:
                if time.monotonic() > deadline:
                    raise TakenBack(f"{func_name} is rolled back: {error}", error) from error
            self.slot.occupy(delivery.package.log_labels, None)  # the task has ended, so its timeout no longer applies
            time.sleep(DOUBT_PAUSE)

    def lost(self, leases: Collection[Lease]) -> set[str]:
        """Return the ids of the leases that do not pass the fence: the worker no longer holds them.

        Args:
            leases: Leases of the last fetch.

        Raises:
            BrokerError: It is in doubt, and the broker does not answer.
        """
        if not leases:
            return set()
        with self._lock:
            if not self._is_sure():
                self._query()
            held = self._held
            return set() if held is None else {one.id for one in leases if held.get(one.id) != str(one.token)}

    def _is_sure(self) -> bool:
        renewed_since, renewed_until = self.slot.renewed
        return self._since >= renewed_since and clock.now() < max(self._until, renewed_until)

    def _query(self) -> None:
        sent = clock.now()
        self._held = self.broker.renew([self.key], conf().lease).get(self.key, {})
        self._trust_from(sent)
        logger.info(
            "The leases of worker %s were in doubt; it still holds %s", self.key, len(self._held), event="lease.doubted"
        )

    def _trust_from(self, sent: float) -> None:
        # Without leases, none runs out.
        self._since, self._until = (sent, sent + conf().lease) if self.broker.supports_leases else (math.inf, math.inf)
