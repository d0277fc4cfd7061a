"""What every part of the Redis broker shares: the cluster, the client, its scripts, and the keys of tenants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import redis

from tenant_q.brokers.connection import connect
from tenant_q.brokers.redis.scripts import Scripts
from tenant_q.conf import conf
from tenant_q.tenancy import queue_suffix

# How many entries one call of a script handles, so that it does not block the server.
CHUNK = 1000

_Item = TypeVar("_Item")


def _no_keys(schemas: Iterable[str]) -> Mapping[str, str]:
    return {}


class Part:
    """A connection to the queues of one cluster. In tests its keys carry the name of the test database.

    Args:
        cluster: The name of the cluster.
        client: A client, or None for the one that `Q_CLUSTER` names.
        keys_of: A function that returns the keys of the tenants that have these schemas now, by schema.
    """

    def __init__(
        self,
        cluster: str,
        client: redis.Redis | None = None,
        keys_of: Callable[[Iterable[str]], Mapping[str, str]] = _no_keys,
    ) -> None:
        self.cluster = cluster
        self._keys_of = keys_of
        self._suffix = queue_suffix()
        self.tag = f"{{tq:{cluster}{self._suffix}}}"
        self.client = client or connect()
        self._scripts = Scripts(cluster, self.tag, self.client)

    @property
    def _site_tag(self) -> str:
        return f"{{tq:{conf().site}{self._suffix}}}"

    def _owner(self, schema: str, tenant: str | None = None) -> tuple[str, str]:
        """Return the two arguments by which a Redis script gets a tenant: its schema's name and its key."""
        return schema, self._keys_of([schema]).get(schema, "") if tenant is None else tenant

    def _run(self, name: str, *arguments: Any, tag: str | None = None) -> Any:
        return self._scripts.run(name, *arguments, tag=tag)

    @property
    def _errors(self) -> AbstractContextManager[None]:
        return self._scripts.errors


def chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Return the items in portions that one call of a Redis script handles."""
    return (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))
