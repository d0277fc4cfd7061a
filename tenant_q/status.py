"""The cluster's status as Django-Q2's `qinfo` and `qmonitor` read it."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone
from django_q.conf import Conf
from django_q.signing import SignedPackage
from django_q.status import Stat

from tenant_q.brokers.protocol import Broker

# A status that is not refreshed is gone after this long.
STAT_SECONDS = 3


class ClusterStat(Stat):  # type: ignore[misc]
    """One moment of a cluster. `workers` are the workers' real process ids; busy is "Working"."""

    def __init__(
        self,
        *,
        cluster_id: uuid.UUID,
        parent: int,
        started: datetime,
        state: Any,
        workers: Sequence[int],
        reincarnations: int,
    ) -> None:
        self.cluster_id = cluster_id
        self.pid = parent
        self.sentinel = os.getpid()
        self.tob = started
        self.status = state
        self.workers = list(workers)
        self.reincarnations = reincarnations
        self.host = socket.gethostname()
        self.timestamp = timezone.now()
        # There is no pusher and no monitor process, and so no queue inside the cluster.
        self.pusher = self.monitor = 0
        self.task_q_size = self.done_q_size = 0

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def publish(self, broker: Broker) -> None:
        """Show this status for `STAT_SECONDS`. Raises `BrokerError`."""
        broker.set_stat(self.key, SignedPackage.dumps(self, True), STAT_SECONDS)


STARTING, IDLE, WORKING, STOPPING, STOPPED = Conf.STARTING, Conf.IDLE, Conf.WORKING, Conf.STOPPING, Conf.STOPPED
