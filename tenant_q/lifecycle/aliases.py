"""Find the task for which another id stands.

Some callers get an id before it is known that another task has the unique key of theirs: those of Django-Q2's own
`async_task`, and those that enqueue with `on_commit`. The broker keeps such an id for a day. An alias names the task
itself, so it is followed once: what else Redis has does not lead on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from tenant_q.brokers import Broker, get_impatient_broker, site_brokers, uses_redis
from tenant_q.conf import site_clusters
from tenant_q.exceptions import BrokerError
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.aliases")

T = TypeVar("T")
# Only what is as long as an id can be an alias; results are also looked for by name.
_ID_LENGTH = 32


def real_id(schema: str, id: str) -> str | None:
    """Return the id of the tenant's task for which an alias stands; None if it is no alias. Raises `BrokerError`."""
    return _among(site_brokers(), schema, id)


def _among(brokers: Iterable[Broker], schema: str, id: str) -> str | None:
    if len(id) != _ID_LENGTH:
        return None
    return next((found for broker in brokers if (found := broker.real_id(schema, id))), None)


def followed(look: Callable[[str], T | None], schema: str, id: str) -> Callable[[], T | None]:
    """Return a function that looks for something under an id, or under the id for which that stands.

    The broker is asked once, when there is nothing under the id itself. If it does not answer, it is asked again by the
    next call, and the id counts as no alias meanwhile.

    Args:
        look: A function that looks for something under an id, and returns None if it is not there.
        schema: The tenant's schema.
        id: The id.
    """
    ids = [id]
    is_settled = len(id) != _ID_LENGTH or not uses_redis()

    def find() -> T | None:
        nonlocal is_settled
        found = look(ids[-1])
        if found is not None or is_settled:
            return found
        try:
            alias = _among(map(get_impatient_broker, site_clusters()), schema, id)
        except BrokerError as error:
            logger.warning(
                "It is unknown whether %s stands for another task: %s",
                id,
                error,
                event="task.alias_unknown",
                extra={"schema": schema, "task_id": id},
            )
            return None
        is_settled = True
        if alias is None:
            return None
        ids.append(alias)
        return look(alias)

    return find
