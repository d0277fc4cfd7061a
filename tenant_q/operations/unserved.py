"""Find clusters for which tasks wait although none of their name runs: one that was not started, or a misspelt name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tenant_q.brokers.protocol import Broker, Counts
from tenant_q.conf import site_clusters
from tenant_q.operations.status import ClusterStatus


@dataclass(frozen=True, slots=True)
class Unserved:
    """A cluster that does not run, and the number of tasks that wait for it."""

    cluster: str
    waiting: int

    def __str__(self) -> str:
        return f"{count(self.waiting, 'task')} for the cluster {self.cluster!r}, and none of that name runs; " + (
            f"{way_out(self.cluster)}."
        )


def count_queues(
    broker: Broker, clusters: Iterable[ClusterStatus], broker_of: Callable[[str], Broker]
) -> list[tuple[str, Counts]]:
    """Count the packages of each cluster of a site: of those that the settings name, that run, and that a task named.

    Names that only tasks named, and for which none waits any more, are forgotten.

    Args:
        broker: A broker of the site.
        clusters: The clusters that run or went recently.
        broker_of: A function that returns the broker of a cluster.

    Raises:
        BrokerError: A broker does not answer.
    """
    if not broker.supports_tenant_queues:
        return []
    strays = broker.strays()
    names = dict.fromkeys([*site_clusters(), *(one.name for one in clusters if one.is_ours), *strays])
    queues = [(name, broker_of(name).counts()) for name in names]
    broker.forget_strays([name for name, counts in queues if name in strays and not counts.open])
    return queues


def unserved(clusters: Iterable[ClusterStatus], queues: Sequence[tuple[str, Counts]]) -> list[Unserved]:
    """Return the clusters that do not run and have waiting tasks; a delayed one counts if no setting names the cluster.

    Args:
        clusters: The clusters that run or went recently.
        queues: The counts of each cluster of the site.
    """
    live = {one.name for one in clusters if one.is_ours and not one.is_gone}
    found = []
    for name, counts in queues:
        waits = counts.queued or (counts.delayed if name not in site_clusters() else 0)
        if waits and counts.runnable and name not in live:
            found.append(Unserved(name, counts.runnable))
    return found


def count(number: int, what: str) -> str:
    """Return in words how many things wait for an unserved cluster."""
    return f"1 {what} waits" if number == 1 else f"{number} {what}s wait"


def way_out(name: str) -> str:
    """Return what an operator does about an unserved cluster."""
    start = f"start one with `python manage.py mscluster --name {name}`"
    if name in site_clusters():
        return start
    return f"the settings do not name it either: {start}, or correct the name where tasks are enqueued"
