"""The epoch of a broker: a number that grows each second, by which a scheduler notices that the broker lost data.

PostgreSQL and the broker both hold it. It is raised in PostgreSQL first, and then written to the broker. The next beat
notes in PostgreSQL what the broker held. If the broker then holds less, or nothing, it was emptied, restored to an
earlier state, or replaced by a replica that lacked the last writes. It may lack packages of any open run. So may a
server that was restarted, whatever it holds: the number is kept with the id of the server's run.
"""

from __future__ import annotations

from psycopg import sql

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.models import BrokerEpoch
from tenant_q.schedules.index_statements import fetch, in_public
from tenant_q.sql import statement
from tenant_q.support.log_labels import get_logger
from tenant_q.workflows import run_index

logger = get_logger("tenant_q.workflows")

# The number that the broker held after this process wrote to it last, by cluster.
_written: dict[str, int] = {}
# Runs, by cluster, that could not be made due after a loss, because a transaction had locked their entries.
_left: dict[str, list[tuple[str, str]]] = {}


def beat(cluster: str) -> bool:
    """Raise a cluster's epoch by one. If the broker lost data, make all open runs of the cluster due.

    The scheduler calls it each second while runs are open. It costs one statement and one round trip to the broker.
    Runs are made due before the broker holds the number again, so a scheduler that is killed meanwhile leaves the loss
    to the next beat. A broker other than Redis has no epoch.

    Returns:
        Whether the broker lost data.

    Raises:
        BrokerError: The broker does not answer.
        DatabaseAway: The database cannot be reached.
    """
    broker = get_broker(cluster)
    if not broker.supports_tenant_queues:
        return False
    if left := _left.pop(cluster, None):
        _left[cluster] = run_index.make_due(left)
    number, known = _raise(cluster)
    held = broker.raise_epoch(number, known=known)
    is_lost = held is None
    if held is None:
        count, _left[cluster] = run_index.make_all_due([cluster])
        logger.warning(
            "The broker of cluster %s lost data; made %s of its open workflow runs due earlier",
            cluster,
            count,
            event="workflow.broker_lost_data",
        )
        held = broker.raise_epoch(number, known=0)
    _written[cluster] = held or number
    return is_lost


def _raise(cluster: str) -> tuple[int, int]:
    """Raise a cluster's epoch in PostgreSQL. Return it, and the highest number that the broker has held for sure."""
    query = sql.SQL(statement("epoch")).format(
        table=in_public(BrokerEpoch._meta.db_table),
        cluster=sql.Literal(cluster),
        written=sql.Literal(_written.get(cluster, 0)),
    )
    ((number, known),) = tenancy.retry_conflicts(lambda: fetch(query))
    return int(number), int(known)


def forget() -> None:
    """Forget what this process knows of the brokers' epochs, as a new process does."""
    _written.clear()
    _left.clear()
