"""Log tasks for clusters that the settings do not name: a misspelt name, or a cluster started with `--name`.

Such a task waits until a cluster of that name runs. It is not refused, because `mscluster --name` may serve any name.
The first task for a name is logged, and `mshealth` reports the name.
"""

from __future__ import annotations

from tenant_q.brokers.protocol import Broker
from tenant_q.conf import conf, site_clusters
from tenant_q.exceptions import TenantQError
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.brokers")

# The most names that a process logs, for projects that invent a name for each task.
_MOST = 100
_noted: set[str] = set()


def note(broker: Broker) -> None:
    """Log a stray: a task that is enqueued for a cluster that the settings do not name.

    Each process logs a name once. If the broker does not keep the name, the next task tries again.
    """
    name = broker.cluster
    if name in (conf().cluster, conf().site) or name in _noted or len(_noted) >= _MOST or name in site_clusters():
        return
    _noted.add(name)
    logger.warning(
        "A task is enqueued for the cluster %s, which is neither this site's own (%s) nor in "
        "Q_CLUSTER['ALT_CLUSTERS']; it waits until `mscluster --name %s` runs: correct the name, or add it there.",
        repr(name),
        conf().site,
        name,
        event="task.enqueued_for_unknown_cluster",
    )
    try:
        broker.note_stray()
    except TenantQError as error:  # the task is enqueued by now, so the caller must not see an error
        _noted.discard(name)
        logger.warning("The name %r is not kept for mshealth yet: %s", name, error, event="broker.stray_not_kept")


def forget() -> None:
    """Forget which stray names of clusters were logged, so that the next task for each is logged again."""
    _noted.clear()
