"""Read the status of clusters, which `published_status` publishes.

The commands, the admin and the metrics read it. A status that is not published again expires after `STAT_SECONDS`. The
last status of a cluster is kept for longer, so that a cluster that was killed is shown as gone.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from django.utils.encoding import force_str
from django_q.conf import Conf
from django_q.signing import BadSignature
from django_q.status import Stat

from tenant_q.brokers.protocol import Broker
from tenant_q.package.signing import unsign
from tenant_q.support import moments
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import visible

logger = get_logger("tenant_q.status")

STAT_SECONDS = 3
"""A status that is not published again expires after this time."""
GONE_SECONDS = 600
"""A cluster that did not stop in order is shown as gone for this time."""
DEATHS_REPORTED = 5
"""The number of deaths of processes in a status, the latest ones."""


class ClusterState(StrEnum):
    """The state of a cluster."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    STOPPING = "stopping"
    STOPPED = "stopped"

    @property
    def as_in_django_q(self) -> Any:
        """The name of a cluster's state in `qinfo` and `qmonitor`."""
        return getattr(Conf, self.name)


@dataclass(frozen=True, slots=True)
class Process:
    """A worker, the scheduler or the exporter of a cluster, at the moment of the status.

    Attributes:
        role: "worker", "scheduler" or "exporter".
        pid: The id of the process.
        key: The name by which the broker knows it.
        done: The number of tasks or ticks that it has completed.
        silent: The seconds since its last sign of life.
        task_id: The task that it runs; None if it runs nothing, as are `schema` and `func`.
        schema: The tenant of the task.
        func: The path of the task's function.
        seconds: How long the task has run.
        late: How many seconds the scheduler was behind when it last read the due index.
    """

    role: str
    pid: int
    key: str
    done: int = 0
    silent: float = 0.0
    task_id: str | None = None
    schema: str | None = None
    func: str | None = None
    seconds: float = 0.0
    late: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a process of a cluster runs a task, by the cluster's status."""
        return self.task_id is not None


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended unexpectedly.

    Attributes:
        at: When it ended, in seconds since the epoch.
        role: As in `Process`, as are `pid`, `task_id`, `schema` and `func`.
        pid: The id of the process.
        how: How it ended, in words: "was killed by SIGKILL", for example.
        task_id: The task that it ran.
        schema: The tenant of the task.
        func: The path of the task's function.
    """

    at: float
    role: str
    pid: int
    how: str
    task_id: str | None = None
    schema: str | None = None
    func: str | None = None

    @property
    def moment(self) -> datetime:
        """When the process of a cluster ended, by the cluster's status."""
        return moments.at(self.at)


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The last status of a cluster.

    Attributes:
        id: A UUID of this run of the cluster.
        name: The name of the cluster.
        host: The host that it runs on.
        version: The version of tenant_q.
        parent: The id of the parent process.
        sentinel: The id of the sentinel process.
        started: When the cluster started.
        seen: When the status was published.
        state: The state of the cluster.
        is_gone: Whether it has stopped publishing without having stopped in order.
        trouble: Why it is gone, or what is wrong with it, in a few words; or empty.
        workers: The number of workers that it should have.
        has_scheduler: Whether it should have a scheduler.
        restarts: The number of processes that died and were replaced.
        processes: The processes that run.
        deaths: The latest deaths of processes.
        is_ours: False for a `qcluster` of Django-Q2, which publishes less and serves no tenants.
    """

    id: str
    name: str
    host: str
    version: str
    parent: int
    sentinel: int
    started: datetime
    seen: datetime
    state: ClusterState
    is_gone: bool
    trouble: str
    workers: int
    has_scheduler: bool
    restarts: int
    processes: tuple[Process, ...]
    deaths: tuple[Death, ...]
    is_ours: bool = True

    def of_role(self, role: str) -> list[Process]:
        """Return the processes of one role from a cluster's status."""
        return [process for process in self.processes if process.role == role]


_T = TypeVar("_T", Process, Death)


def clusters(broker: Broker) -> list[ClusterStatus]:
    """Return the status of the site's clusters that run or went recently, by name and start. Raises `BrokerError`."""
    live = {stat.key: stat for stat in _opened_statuses(broker.get_stats(f"{Conf.Q_STAT}:*"))}
    gone = {stat.key: stat for stat in _opened_statuses(broker.last_stats()) if stat.key not in live}
    old = [key for key, stat in gone.items() if _is_old(stat)]
    if old:
        broker.forget_stats(old)
    found = [_cluster(stat, is_gone=False) for stat in live.values()]
    # A qcluster leaves its last status behind, even if it stopped in order.
    found += [_cluster(stat, is_gone=True) for key, stat in gone.items() if key not in old and _is_ours(stat)]
    return sorted(found, key=lambda cluster: (cluster.name, cluster.started, cluster.id))


def forget_old(broker: Broker) -> None:
    """Delete the status of clusters that have been gone for longer than `GONE_SECONDS`. Raises `BrokerError`."""
    broker.forget_stats([stat.key for stat in _opened_statuses(broker.last_stats()) if _is_old(stat)])


def _is_old(stat: Any) -> bool:
    return age(stat.timestamp) > GONE_SECONDS


def _opened_statuses(packed: Iterable[Any]) -> Iterator[Any]:
    """Yield the statuses of clusters that open; skip those signed with another key or by another program."""
    for one in packed:
        try:
            stat = _Unpickler(io.BytesIO(unsign(force_str(one)))).load()
        except (BadSignature, AttributeError, ImportError, ValueError, pickle.UnpicklingError) as error:
            logger.debug("Skipped a status that does not open: %s", error, event="status.skipped")
            continue
        if isinstance(stat, Stat):
            yield stat


class _Unpickler(pickle.Unpickler):
    """An unpickler that also opens the status of earlier versions, an instance of `tenant_q.status.ClusterStat`."""

    def find_class(self, module: str, name: str) -> Any:
        return Stat if (module, name) == ("tenant_q.status", "ClusterStat") else super().find_class(module, name)


def _is_ours(stat: Any) -> bool:
    return "tenant_q" in vars(stat)


def _cluster(stat: Any, *, is_gone: bool) -> ClusterStatus:
    ours: Mapping[str, Any] = vars(stat).get("tenant_q", {})
    trouble = ours.get("trouble", "")
    if is_gone and not trouble:
        trouble = "its sentinel publishes no status any more"
    return ClusterStatus(
        id=str(stat.cluster_id),
        name=ours.get("name", "qcluster"),
        host=stat.host,
        version=ours.get("version", ""),
        parent=stat.pid,
        sentinel=stat.sentinel,
        started=stat.tob,
        seen=stat.timestamp,
        state=ClusterState(ours.get("state", ClusterState.IDLE)),
        is_gone=is_gone or (bool(trouble) and ours.get("state") == ClusterState.STOPPED),
        trouble=trouble,
        workers=ours.get("workers", len(stat.workers)),
        has_scheduler=ours.get("has_scheduler", False),
        restarts=stat.reincarnations,
        processes=tuple(_known_part(Process, fields) for fields in ours.get("processes", ())),
        deaths=tuple(_known_part(Death, fields) for fields in ours.get("deaths", ())),
        is_ours=_is_ours(stat),
    )


def _known_part(kind: type[_T], fields: Mapping[str, Any]) -> _T:
    """Return the part of a status that this version knows. Control characters in tenants' texts are escaped."""
    known = {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}
    texts = {name: visible(known[name]) for name in ("func", "how") if isinstance(known.get(name), str)}
    return kind(**known | texts)


def age(moment: datetime) -> float:
    """Return the seconds since a moment in a cluster's status, by this machine's clock."""
    return max(0.0, time.time() - moment.timestamp())  # aware or naive, as `USE_TZ` was where it was written


def recent_deaths(cluster: ClusterStatus, seconds: float) -> list[Death]:
    """Return the deaths in a cluster's status that are from the last `seconds`."""
    return [death for death in cluster.deaths if time.time() - death.at <= seconds]
