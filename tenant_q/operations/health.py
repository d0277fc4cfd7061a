"""Is a cluster well? Asked of the broker, the database and the status of clusters, and answered in time.

A server that hangs must not make the question hang: each is asked in a thread of its own, which is waited for so long
and no longer.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenant_q import tenancy
from tenant_q.brokers import get_impatient_broker
from tenant_q.brokers.protocol import Counts
from tenant_q.brokers.redis import RedisBroker
from tenant_q.conf import conf, site_clusters
from tenant_q.operations import status
from tenant_q.operations.status import Cluster, Process, State, age, recent_deaths
from tenant_q.schedules import due_index
from tenant_q.support.visible import one_line

# A process that shows no life for so long, and runs no task, is stuck.
STUCK_SECONDS = 15.0
# Seconds after which a late schedule is reported.
LATE_SECONDS = 60.0
# Seconds for which the death of a process that was replaced is reported.
DEATH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """What was found, a sentence each. `problems` are what is wrong, `outages` servers that do not answer.

    `notes` are what an operator should know and needs no action; `clusters` those that were judged.
    """

    problems: tuple[str, ...]
    outages: tuple[str, ...]
    notes: tuple[str, ...]
    clusters: tuple[Cluster, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong and every server answers."""
        return not (self.problems or self.outages)


def examine(*, host: str | None = None, cluster: str | None = None, seconds: float) -> Health:
    """Look at clusters, broker and database, for at most about `seconds`.

    Parameters: `host`, whose clusters are judged; None for this machine's, and all of the site's where it has none;
    `cluster`, of which name, None for any.
    """
    broker = _Question("broker", _ask_broker)
    database = _Question("database", _ask_database)
    deadline = time.monotonic() + seconds
    outages = [told for question in (broker, database) if (told := question.wait(deadline))]
    problems: list[str] = []
    notes: list[str] = []
    judged: list[Cluster] = []
    if broker.answer is not None:
        everywhere, queues = broker.answer
        notes += [_serves_nobody(one) for one in everywhere if not one.is_ours]
        ours = [one for one in everywhere if one.is_ours]
        judged = _chosen([one for one in ours if cluster in (None, one.name)], host)
        if not [one for one in judged if not one.is_gone]:
            problems.append(_nobody(host, cluster))
        for one in judged:
            (notes if _is_replaced(one, judged) else problems).extend(_problems(one))
            # Whoever waits for a server that hangs shows no life, and goes on with it.
            (notes if outages else problems).extend(_stuck(one))
            notes += _notes(one)
        notes += [_unready(name, counts) for name, counts in queues if counts.unready]
        # A probe of one machine must not restart it because another machine's cluster does not run.
        (problems if host is None else notes).extend(_unserved(ours, queues, database.answer or {}, cluster))
    return Health(tuple(problems), tuple(outages), tuple(notes), tuple(judged))


class _Question(threading.Thread):
    """A question to a server, asked at once."""

    def __init__(self, server: str, ask: Callable[[], Any]) -> None:
        super().__init__(name=f"mshealth {server}", daemon=True)
        self.server = server
        self.ask = ask
        self.answer: Any = None
        self.error: Exception | None = None
        self.asked = time.monotonic()
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.ask()
        except Exception as error:  # whatever it is, it is reported
            self.error = error

    def wait(self, deadline: float) -> str | None:
        """What is wrong with the server, or None."""
        self.join(max(0.0, deadline - time.monotonic()))
        if self.error is not None:
            return f"The {self.server} cannot be used: {one_line(self.error)}"
        if self.answer is None:
            return f"The {self.server} does not answer within {time.monotonic() - self.asked:.1f} s."
        return None


def _ask_broker() -> tuple[list[Cluster], list[tuple[str, Counts]]]:
    """Return the clusters of the site, and the counts of each named cluster's queue.

    The server must also take writes: after a failover, or when it is full, it may only answer reads.
    """
    broker = get_impatient_broker()
    found = status.clusters(broker)
    broker.probe()
    if not isinstance(broker, RedisBroker):
        return found, []
    strays = broker.strays()
    names = dict.fromkeys([*site_clusters(), *(one.name for one in found if one.is_ours), *strays])
    queues = [(name, get_impatient_broker(name).counts()) for name in names]
    broker.forget_strays([name for name, counts in queues if name in strays and not counts.open])
    return found, queues


def _ask_database() -> dict[str, int]:
    """Return the number of late schedules of each cluster."""
    try:
        with tenancy.raw_cursor() as cursor:
            cursor.execute("SELECT 1")
        return due_index.late_clusters(LATE_SECONDS)
    finally:
        tenancy.close_connections()


def _serves_nobody(one: Cluster) -> str:
    return (
        f"A qcluster of Django-Q2 runs on {one.host} (process {one.parent}) and serves no tenants; run "
        "`python manage.py mscluster` in its place."
    )


def _unready(name: str, counts: Counts) -> str:
    tasks = "1 task" if counts.unready == 1 else f"{counts.unready} tasks"
    return (
        f"Cluster {name}: {tasks} cannot start, because the tenant is gone, not migrated or not ready; the log of the "
        "workers names it."
    )


def _unserved(
    ours: Sequence[Cluster], queues: Sequence[tuple[str, Counts]], late: Mapping[str, int], cluster: str | None
) -> Iterator[str]:
    """Yield a sentence for each cluster that does not run, although others do, and has tasks or schedules waiting."""
    live = [one for one in ours if not one.is_gone]
    if not live:
        return  # another problem says so already
    for name, counts in queues:
        waiting = counts.queued and counts.runnable
        if waiting and cluster in (None, name) and name not in {one.name for one in live}:
            yield f"{_count(waiting, 'task')} for the cluster {name!r}, and none of that name runs; {_way_out(name)}."
    for name, count in late.items():
        if cluster in (None, name) and name not in {one.name for one in live if one.has_scheduler}:
            schedules = _count(count, "schedule")
            yield f"{schedules} for a scheduler of the cluster {name!r}, and none runs; {_way_out(name)}."


def _count(count: int, what: str) -> str:
    return f"1 {what} waits" if count == 1 else f"{count} {what}s wait"


def _way_out(name: str) -> str:
    start = f"start one with `python manage.py mscluster --name {name}`"
    if name in site_clusters():
        return start
    return f"the settings do not name it either: {start}, or correct the name where tasks are enqueued"


def _chosen(found: Sequence[Cluster], host: str | None) -> list[Cluster]:
    if host is not None:
        return [one for one in found if one.host == host]
    return [one for one in found if one.host == socket.gethostname()] or list(found)


def _nobody(host: str | None, cluster: str | None) -> str:
    what = f"No cluster {cluster} of site {conf().site}" if cluster else f"No cluster of site {conf().site}"
    return f"{what} runs{f' on {host}' if host else ''}; start one with `python manage.py mscluster`."


def _is_replaced(gone: Cluster, judged: Sequence[Cluster]) -> bool:
    """Whether a cluster that is gone has a successor: of its name, on its host, and started after it was seen last."""
    return gone.is_gone and any(
        not one.is_gone and (one.name, one.host) == (gone.name, gone.host) and one.started >= gone.seen
        for one in judged
    )


def _problems(one: Cluster) -> Iterator[str]:
    name = f"Cluster {one.name} on {one.host}"
    if one.is_gone:
        yield f"{name} (parent {one.parent}) is gone, last seen {age(one.seen):.0f} s ago: {one.trouble}."
        return
    if one.trouble:
        yield f"{name} is in trouble: {one.trouble}."
    if one.state not in (State.IDLE, State.WORKING):
        return
    workers, schedulers = one.of_role("worker"), one.of_role("scheduler")
    if len(workers) < one.workers:
        yield f"{name} has {len(workers)} of {one.workers} workers; its log tells why they end."
    if one.has_scheduler and not schedulers:
        yield f"{name} has no scheduler; its log tells why it ends."


def _stuck(one: Cluster) -> Iterator[str]:
    if one.is_gone or one.state not in (State.IDLE, State.WORKING):
        return
    for process in one.processes:
        if _is_stuck(process):
            name = f"Cluster {one.name} on {one.host}"
            yield f"{name}: the {process.role} {process.pid} has shown no sign of life for {process.silent:.0f} s."


def _is_stuck(process: Process) -> bool:
    if process.role == "exporter":  # no task waits for it, and who scrapes sees it himself
        return False
    return process.silent > STUCK_SECONDS and not process.is_busy


def _notes(one: Cluster) -> Iterator[str]:
    name = f"Cluster {one.name} on {one.host}"
    for death in recent_deaths(one, DEATH_SECONDS):
        yield f"{name}: the {death.role} {death.pid} {death.how} and was replaced."
    if not one.is_gone and one.state in (State.STARTING, State.STOPPING):
        yield f"{name} is {one.state}."
    for process in one.processes:
        if process.late > LATE_SECONDS and not one.is_gone:
            yield f"{name}: its scheduler is {process.late:.0f} s behind."
