"""Publish the status of a cluster.

The sentinel publishes it every second. Django-Q2's `qinfo` and `qmonitor` read it too, so it is an instance of
Django-Q2's class, with the values of tenant_q in one more attribute.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.utils import timezone
from django_q.signing import SignedPackage
from django_q.status import Stat

from tenant_q import __version__
from tenant_q.brokers.protocol import Broker
from tenant_q.conf import conf
from tenant_q.operations.status import STAT_SECONDS, ClusterState, Death, Process


class ClusterStat(Stat):  # type: ignore[misc]
    """The status of a cluster as it is published, in the attributes of Django-Q2's class and in `tenant_q`."""

    def __init__(
        self,
        *,
        cluster_id: uuid.UUID,
        parent: int,
        started: datetime,
        state: ClusterState,
        workers_wanted: int,
        has_scheduler: bool,
        processes: Sequence[Process],
        reincarnations: int,
        deaths: Sequence[Death] = (),
        trouble: str = "",
    ) -> None:
        self.cluster_id = cluster_id
        self.pid = parent
        self.sentinel = os.getpid()
        self.tob = started
        self.status = state.as_in_django_q
        self.workers = [process.pid for process in processes if process.role == "worker"]
        self.reincarnations = reincarnations
        self.host = socket.gethostname()
        self.timestamp = timezone.now()
        # There is no pusher and no monitor process, and so no queue inside the cluster.
        self.pusher = self.monitor = 0
        self.task_q_size = self.done_q_size = 0
        # Plain types, so that other versions of tenant_q can read them.
        self.tenant_q: dict[str, Any] = {
            "name": conf().cluster,
            "version": __version__,
            "state": str(state),
            "workers": workers_wanted,
            "has_scheduler": has_scheduler,
            "processes": [asdict(process) for process in processes],
            "deaths": [asdict(death) for death in deaths],
            "trouble": trouble,
        }

    def publish(self, broker: Broker) -> None:
        """Publish the status of this cluster for `STAT_SECONDS`. Raises `BrokerError`."""
        broker.set_stat(self.key, SignedPackage.dumps(self._as_in_django_q, True), STAT_SECONDS)
        if self.tenant_q["state"] == ClusterState.STOPPED and not self.tenant_q["trouble"]:
            broker.forget_stats([self.key])  # a cluster that stopped in order is not shown as gone

    @property
    def _as_in_django_q(self) -> Stat:
        """The published status in Django-Q2's class, so that its pickle names no module of tenant_q, which may move."""
        stat = Stat.__new__(Stat)
        vars(stat).update(vars(self), broker=None)  # Django-Q2's class needs a broker in order to be pickled
        return stat
