"""Check the health of clusters, broker and database within a time limit.

Each server is checked in a thread of its own, so that a server that hangs does not block the check.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenant_q import tenancy
from tenant_q.brokers import get_impatient_broker
from tenant_q.brokers.protocol import Counts
from tenant_q.conf import conf
from tenant_q.operations import status
from tenant_q.operations.status import ClusterState, ClusterStatus, Process, age, recent_deaths
from tenant_q.operations.unserved import count, count_queues, unserved, way_out
from tenant_q.operations.workflow_runs import OVERDUE_SECONDS, Overdue, overdue_runs
from tenant_q.schedules import due_index
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line

STUCK_SECONDS = 15.0
"""A process that runs no task is stuck if it has shown no sign of life for this time."""
LATE_SECONDS = 60.0
"""A schedule is reported if it is late by more than this time."""
DEATH_SECONDS = 60.0
"""The death of a process that was replaced is reported for this time."""


@dataclass(frozen=True, slots=True)
class Health:
    """The result of a check, in sentences.

    Attributes:
        problems: What is wrong with the clusters.
        outages: The servers that do not answer, or refuse.
        notes: What an operator should know, without being a problem.
        clusters: The clusters that were judged.
    """

    problems: tuple[str, ...]
    outages: tuple[str, ...]
    notes: tuple[str, ...]
    clusters: tuple[ClusterStatus, ...]

    @property
    def is_well(self) -> bool:
        """Whether the health check found no problem and every server answers."""
        return not (self.problems or self.outages)


def examine(*, host: str | None = None, cluster: str | None = None, seconds: float) -> Health:
    """Check the health of clusters, broker and database.

    Args:
        host: Judge the clusters of this host; None for this machine or, if it runs none, all hosts of the site.
        cluster: Judge the clusters of this name; None for all names.
        seconds: The longest time that the check may take, about.
    """
    broker = _Probe("broker", _probe_broker)
    database = _Probe("database", _probe_database)
    deadline = time.monotonic() + seconds
    outages = [outage for probe in (broker, database) if (outage := probe.wait(deadline))]
    problems: list[str] = []
    notes: list[str] = []
    judged: list[ClusterStatus] = []
    if broker.answer is not None:
        everywhere, queues = broker.answer
        notes += [_serves_nobody(one) for one in everywhere if not one.is_ours]
        ours = [one for one in everywhere if one.is_ours]
        judged = _chosen([one for one in ours if cluster in (None, one.name)], host)
        if not [one for one in judged if not one.is_gone]:
            problems.append(_nobody(host, cluster))
        for one in judged:
            (notes if _is_replaced(one, judged) else problems).extend(_problems(one))
            # A process that waits for a server that hangs shows no sign of life, and will go on with the server.
            (notes if outages else problems).extend(_stuck(one))
            notes += _notes(one)
        notes += [_unready(name, counts) for name, counts in queues if counts.unready]
        # The probe of one machine must not restart it because the cluster of another machine does not run.
        late, overdue = database.answer or ({}, [])
        of_the_site = problems if host is None else notes
        of_the_site.extend(_unserved_clusters(ours, queues, late, cluster))
        of_the_site.extend(_overdue_runs(ours, [one for one in overdue if cluster in (None, one.cluster)]))
    return Health(tuple(problems), tuple(outages), tuple(notes), tuple(judged))


class _Probe(threading.Thread):
    """A query to a server, sent at once in a thread of its own."""

    def __init__(self, server: str, query: Callable[[], Any]) -> None:
        super().__init__(name=f"mshealth {server}", daemon=True)
        self.server = server
        self.query = query
        self.answer: Any = None
        self.error: Exception | None = None
        self.began = time.monotonic()
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.query()
        except Exception as error:  # any error is reported
            self.error = error

    def wait(self, deadline: float) -> str | None:
        """Return what the health check found wrong with a server, or None."""
        self.join(max(0.0, deadline - time.monotonic()))
        if self.error is not None:
            return f"The {self.server} cannot be used: {one_line(self.error)}"
        if self.answer is None:
            return f"The {self.server} does not answer within {time.monotonic() - self.began:.1f} s."
        return None


def _probe_broker() -> tuple[list[ClusterStatus], list[tuple[str, Counts]]]:
    """Check the broker's health: return the clusters of the site, and the counts of each named cluster's queue.

    The probe also writes: after a failover, or when it is full, a server may only answer reads.
    """
    broker = get_impatient_broker()
    found = status.clusters(broker)
    broker.probe()
    return found, count_queues(broker, found, get_impatient_broker)


def _probe_database() -> tuple[dict[str, int], list[Overdue]]:
    """Check the database's health: return each cluster's number of late schedules, and its overdue workflow runs."""
    try:
        with tenancy.raw_cursor() as cursor:
            cursor.execute("SELECT 1")
        return due_index.late_clusters(LATE_SECONDS), overdue_runs()
    finally:
        tenancy.close_connections()


def _serves_nobody(one: ClusterStatus) -> str:
    return (
        f"A qcluster of Django-Q2 runs on {one.host} (process {one.parent}) and serves no tenants; run "
        "`python manage.py mscluster` instead."
    )


def _unready(name: str, counts: Counts) -> str:
    tasks = counted(counts.unready, "task")
    return (
        f"Cluster {name}: {tasks} cannot start, because the tenant is gone, not migrated or not ready; the workers' "
        "log names it."
    )


def _unserved_clusters(
    ours: Sequence[ClusterStatus], queues: Sequence[tuple[str, Counts]], late: Mapping[str, int], cluster: str | None
) -> Iterator[str]:
    """Yield a health problem for each cluster that has waiting tasks or schedules and does not run."""
    live = [one for one in ours if not one.is_gone]
    if not live:
        return  # reported as another problem
    yield from (str(one) for one in unserved(ours, queues) if cluster in (None, one.cluster))
    for name, number in late.items():
        if cluster in (None, name) and name not in {one.name for one in live if one.has_scheduler}:
            schedules = count(number, "schedule")
            yield f"{schedules} for a scheduler of the cluster {name!r}, and none runs; {way_out(name)}."


def _overdue_runs(ours: Sequence[ClusterStatus], overdue: Iterable[Overdue]) -> Iterator[str]:
    """Yield a health problem for each cluster with overdue workflow runs, unless its scheduler has just started."""
    live = [one for one in ours if not one.is_gone]
    for found in overdue if live else ():
        since = [age(one.started) for one in live if one.name == found.cluster and one.has_scheduler]
        if not since:
            waiting, name = count(found.count, "workflow run"), found.cluster
            yield f"{waiting} for a scheduler of the cluster {name!r}, and none runs; {way_out(name)}."
        elif max(since) > OVERDUE_SECONDS:
            runs = "1 workflow run" if found.count == 1 else f"{found.count} workflow runs"
            yield (
                f"Cluster {found.cluster}: {runs} should have been looked at {age(found.since):.0f} s ago; "
                "`msworkflow check` finds runs that nothing drives, the scheduler's log says what it could not do."
            )


def _chosen(found: Sequence[ClusterStatus], host: str | None) -> list[ClusterStatus]:
    if host is not None:
        return [one for one in found if one.host == host]
    return [one for one in found if one.host == socket.gethostname()] or list(found)


def _nobody(host: str | None, cluster: str | None) -> str:
    what = f"No cluster {cluster} of site {conf().site}" if cluster else f"No cluster of site {conf().site}"
    return f"{what} runs{f' on {host}' if host else ''}; start one with `python manage.py mscluster`."


def _is_replaced(gone: ClusterStatus, judged: Sequence[ClusterStatus]) -> bool:
    """Return whether an unhealthy cluster that is gone has a successor: same name, same host, and started since."""
    return gone.is_gone and any(
        not one.is_gone and (one.name, one.host) == (gone.name, gone.host) and one.started >= gone.seen
        for one in judged
    )


def _problems(one: ClusterStatus) -> Iterator[str]:
    name = f"Cluster {one.name} on {one.host}"
    if one.is_gone:
        yield f"{name} (parent {one.parent}) is gone, last seen {age(one.seen):.0f} s ago: {one.trouble}."
        return
    if one.trouble:
        yield f"{name} is in trouble: {one.trouble}."
    if one.state not in (ClusterState.IDLE, ClusterState.WORKING):
        return
    workers, schedulers = one.of_role("worker"), one.of_role("scheduler")
    if len(workers) < one.workers:
        yield f"{name} has {len(workers)} of {one.workers} workers; its log says why they end."
    if one.has_scheduler and not schedulers:
        yield f"{name} has no scheduler; its log says why it ends."


def _stuck(one: ClusterStatus) -> Iterator[str]:
    if one.is_gone or one.state not in (ClusterState.IDLE, ClusterState.WORKING):
        return
    for process in one.processes:
        if _is_stuck(process):
            name = f"Cluster {one.name} on {one.host}"
            yield f"{name}: the {process.role} {process.pid} has shown no sign of life for {process.silent:.0f} s."


def _is_stuck(process: Process) -> bool:
    if process.role == "exporter":  # no task waits for it, and the monitoring notices it
        return False
    return process.silent > STUCK_SECONDS and not process.is_busy


def _notes(one: ClusterStatus) -> Iterator[str]:
    name = f"Cluster {one.name} on {one.host}"
    for death in recent_deaths(one, DEATH_SECONDS):
        yield f"{name}: the {death.role} {death.pid} {death.how} and was replaced."
    if not one.is_gone and one.state in (ClusterState.STARTING, ClusterState.STOPPING):
        yield f"{name} is {one.state}."
    for process in one.processes:
        if process.late > LATE_SECONDS and not one.is_gone:
            yield f"{name}: its scheduler is {process.late:.0f} s behind."
