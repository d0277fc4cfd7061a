"""Clusters that tasks are enqueued for and the settings do not name: a slip, or one that runs under a name of its own.

Such a task waits until a cluster of that name runs. It is not refused, for `mscluster --name` may serve any name. So it
is logged, and `mshealth` knows the name.
"""

from __future__ import annotations

from typing import Any

from tenant_q.conf import conf, site_clusters
from tenant_q.labels import get_logger

logger = get_logger("tenant_q.brokers")

# A project that makes up a name for each task logs no more than this.
_MOST = 100
_noted: set[str] = set()


def note(broker: Any) -> None:
    """Log the cluster of a broker that something was enqueued for, where the settings do not name it.

    Once for each name in a process. Raises `BrokerError`.
    """
    name = broker.cluster
    if name in (conf().cluster, conf().site) or name in _noted or len(_noted) >= _MOST or name in site_clusters():
        return
    _noted.add(name)
    logger.warning(
        "A task is enqueued for the cluster %s, which is not this site's own (%s) nor in Q_CLUSTER['ALT_CLUSTERS']; it "
        "waits until `mscluster --name %s` runs: correct the name, or add it there.",
        repr(name),
        conf().site,
        name,
    )
    if hasattr(broker, "note_stray"):
        broker.note_stray()


def forget() -> None:
    """The next task for an unknown cluster is logged again."""
    _noted.clear()
