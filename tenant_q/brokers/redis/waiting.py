"""What a tenant has waiting: count, read and take it, in slices that hold the server up for some milliseconds each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tenant_q.brokers.protocol.dead_letters import Dead
from tenant_q.brokers.protocol.packages import Live
from tenant_q.brokers.protocol.waiting import Chosen, Waiting
from tenant_q.brokers.redis.decoding import live_of, shown
from tenant_q.brokers.redis.part import Part

# The most packages of a slice, and the most bytes of their messages.
_SLICE = 250
_SLICE_BYTES = 1024 * 1024


class RedisWaiting(Part):
    """What waits, see `protocol.waiting`."""

    def count_waiting(self, schema: str, *, tenant: str | None = None) -> Waiting:
        return Waiting(*self._run("queue_size", *self._owner(schema, tenant)))

    def each_live(self, schema: str) -> Iterator[Sequence[Live]]:
        for rows in self._slices("read_waiting", self._owner(schema)):
            yield [live_of(*row) for row in rows]

    def take_waiting(
        self, schema: str, chosen: Chosen, cause: str, *, tenant: str | None = None
    ) -> Iterator[Sequence[Dead]]:
        places = "both" if chosen.queued and chosen.delayed else "delayed" if chosen.delayed else "queued"
        for rows in self._slices("take_waiting", self._owner(schema, tenant), places, chosen.func, cause):
            yield [
                Dead(shown(id), schema, shown(func), float(died) / 1000, cause, shown(payload))
                for id, func, died, payload in rows
            ]

    def _slices(self, script: str, owner: tuple[str, str], *arguments: str) -> Iterator[list[Any]]:
        """Run a script that walks through what waits in Redis until it is at the end, and yield its answers."""
        cursor = b""
        while True:
            cursor, *rows = self._run(script, *owner, cursor, *arguments, _SLICE, _SLICE_BYTES)
            yield rows
            if not cursor:
                return

    def tenants_named(self, schema: str) -> list[str]:
        with self._errors:
            found: Any = self.client.hgetall(f"{self.tag}:queue_owners")
        owners = {queue.decode(): owner.decode().partition("\n") for queue, owner in found.items()}
        named = sorted(tenant for tenant, _, name in owners.values() if name == schema)
        return named if schema in owners else ["", *named]
