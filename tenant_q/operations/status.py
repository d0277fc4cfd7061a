"""The cluster's status: told by its sentinel each second, read by every door and by Django-Q2's `qinfo` and `qmonitor`.

A status that is not told again is no longer live after `STAT_SECONDS`. What a cluster told last is kept for a while, so
that one that was killed is seen to be gone.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from django.utils import timezone
from django.utils.encoding import force_str
from django_q.conf import Conf
from django_q.signing import BadSignature, SignedPackage
from django_q.status import Stat

from tenant_q import __version__
from tenant_q.brokers.protocol import Broker
from tenant_q.conf import conf
from tenant_q.package.signing import unsign
from tenant_q.support import moments
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import visible

logger = get_logger("tenant_q.status")

# A status that is not refreshed is gone after this long.
STAT_SECONDS = 3
# A cluster that did not stop in order is shown as gone for this long.
GONE_SECONDS = 600
# The most deaths of processes that are reported, the latest.
DEATHS_TOLD = 5


class State(StrEnum):
    """What a cluster does."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    STOPPING = "stopping"
    STOPPED = "stopped"

    @property
    def as_in_django_q(self) -> Any:
        """The same for `qinfo` and `qmonitor`."""
        return getattr(Conf, self.name)


@dataclass(frozen=True, slots=True)
class Process:
    """A worker, the scheduler or the exporter of a cluster, at the moment of the status.

    `key` names it towards the broker; `done` is how many tasks or ticks it completed; `silent` the seconds since its
    last sign of life. `task_id`, `schema` and `func` name the task that has run for `seconds`; None when it runs
    nothing. `late` is how many seconds the scheduler was behind when it looked last.
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
        """Whether it runs a task."""
        return self.task_id is not None


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended and was not to. `at` is in seconds since the epoch; what it ran is as in `Process`."""

    at: float
    role: str
    pid: int
    how: str
    task_id: str | None = None
    schema: str | None = None
    func: str | None = None

    @property
    def moment(self) -> datetime:
        """When it ended."""
        return moments.at(self.at)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as its sentinel told last, at the moment `seen`.

    `workers` is how many there are to be; `restarts` how many processes were replaced after they had died. `is_gone`
    says that it publishes nothing any more, and `trouble` why, or what is wrong with it, in a few words. `is_ours` is
    False for a `qcluster` of Django-Q2, which publishes less and serves no tenants.
    """

    id: str
    name: str
    host: str
    version: str
    parent: int
    sentinel: int
    started: datetime
    seen: datetime
    state: State
    is_gone: bool
    trouble: str
    workers: int
    has_scheduler: bool
    restarts: int
    processes: tuple[Process, ...]
    deaths: tuple[Death, ...]
    is_ours: bool = True

    def of_role(self, role: str) -> list[Process]:
        """Its processes of one role."""
        return [process for process in self.processes if process.role == role]


class ClusterStat(Stat):  # type: ignore[misc]
    """One moment of a cluster, as it travels. `workers` are the workers' real process ids; busy is "Working"."""

    def __init__(
        self,
        *,
        cluster_id: uuid.UUID,
        parent: int,
        started: datetime,
        state: State,
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
        # Ours: of plain types, so that another version reads it too.
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
        """Show this status for `STAT_SECONDS`. Raises `BrokerError`."""
        broker.set_stat(self.key, SignedPackage.dumps(self._as_in_django_q, True), STAT_SECONDS)
        if self.tenant_q["state"] == State.STOPPED and not self.tenant_q["trouble"]:
            broker.forget_stats([self.key])  # an orderly end is no news

    @property
    def _as_in_django_q(self) -> Stat:
        """The same, of Django-Q2's class: a pickle that names a module of ours does not open where that has moved."""
        stat = Stat.__new__(Stat)
        vars(stat).update(vars(self), broker=None)  # a broker is what it drops when it is pickled
        return stat


_T = TypeVar("_T", Process, Death)


def clusters(broker: Broker) -> list[Cluster]:
    """The clusters of this site that run, and those that are gone since a short time, by name and start.

    Raises `BrokerError`.
    """
    live = {stat.key: stat for stat in _opened(broker.get_stats(f"{Conf.Q_STAT}:*"))}
    gone = {stat.key: stat for stat in _opened(broker.last_stats()) if stat.key not in live}
    old = [key for key, stat in gone.items() if _is_old(stat)]
    if old:
        broker.forget_stats(old)
    found = [_cluster(stat, is_gone=False) for stat in live.values()]
    # A qcluster leaves its last status behind, whether it stopped in order or was killed.
    found += [_cluster(stat, is_gone=True) for key, stat in gone.items() if key not in old and _is_ours(stat)]
    return sorted(found, key=lambda cluster: (cluster.name, cluster.started, cluster.id))


def forget_old(broker: Broker) -> None:
    """Forget the clusters that are gone for longer than `GONE_SECONDS`, also where nobody looks.

    Raises `BrokerError`.
    """
    broker.forget_stats([stat.key for stat in _opened(broker.last_stats()) if _is_old(stat)])


def _is_old(stat: Any) -> bool:
    return age(stat.timestamp) > GONE_SECONDS


def _opened(packed: Iterable[Any]) -> Iterator[Any]:
    """The statuses that open; those that were signed with another key, or by another program, are passed over."""
    for one in packed:
        try:
            stat = _Unpickler(io.BytesIO(unsign(force_str(one)))).load()
        except (BadSignature, AttributeError, ImportError, ValueError, pickle.UnpicklingError) as error:
            logger.debug("A status is passed over: %s", error)
            continue
        if isinstance(stat, Stat):
            yield stat


class _Unpickler(pickle.Unpickler):
    """Also opens what clusters from before the folders publish: an instance of `tenant_q.status.ClusterStat`."""

    def find_class(self, module: str, name: str) -> Any:
        return Stat if (module, name) == ("tenant_q.status", "ClusterStat") else super().find_class(module, name)


def _is_ours(stat: Any) -> bool:
    return "tenant_q" in vars(stat)


def _cluster(stat: Any, *, is_gone: bool) -> Cluster:
    ours: Mapping[str, Any] = vars(stat).get("tenant_q", {})
    trouble = ours.get("trouble", "")
    if is_gone and not trouble:
        trouble = "its sentinel tells nothing any more"
    return Cluster(
        id=str(stat.cluster_id),
        name=ours.get("name", "qcluster"),
        host=stat.host,
        version=ours.get("version", ""),
        parent=stat.pid,
        sentinel=stat.sentinel,
        started=stat.tob,
        seen=stat.timestamp,
        state=State(ours.get("state", State.IDLE)),
        is_gone=is_gone or (bool(trouble) and ours.get("state") == State.STOPPED),
        trouble=trouble,
        workers=ours.get("workers", len(stat.workers)),
        has_scheduler=ours.get("has_scheduler", False),
        restarts=stat.reincarnations,
        processes=tuple(_made(Process, fields) for fields in ours.get("processes", ())),
        deaths=tuple(_made(Death, fields) for fields in ours.get("deaths", ())),
        is_ours=_is_ours(stat),
    )


def _made(kind: type[_T], fields: Mapping[str, Any]) -> _T:
    """Of the fields that this version knows. Tenants name their functions, and tasks are what processes die of."""
    known = {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}
    texts = {name: visible(known[name]) for name in ("func", "how") if isinstance(known.get(name), str)}
    return kind(**known | texts)


def age(moment: datetime) -> float:
    """Seconds since `moment`, as this machine's clock tells."""
    return max(0.0, time.time() - moment.timestamp())  # whatever USE_TZ was when it was written


def recent_deaths(cluster: Cluster, seconds: float) -> list[Death]:
    """The deaths of the last `seconds`."""
    return [death for death in cluster.deaths if time.time() - death.at <= seconds]
