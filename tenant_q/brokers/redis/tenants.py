"""The end of a tenant and its new name."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q.brokers.protocol.tenants import Drained
from tenant_q.brokers.redis.dead_letters import RedisDeadLetters
from tenant_q.brokers.redis.groups import RedisGroups
from tenant_q.brokers.redis.part import CHUNK, chunks

# The kinds of what is kept of a tenant outside its queue; also in `lua/keep.lua`.
_GROUP, _RESULT = "group;", "result;"


class RedisTenants(RedisDeadLetters, RedisGroups):
    """What is kept of tenants besides their packages, see `protocol.tenants`."""

    def note_cached(self, schema: str, id: str, *, seconds: int | None, tenant: str | None = None) -> None:
        self._run("keep", *self._owner(schema, tenant), f"{_RESULT}{id}", seconds or 0, tag=self._site_tag)

    def cached_ids(self, schema: str, tenant: str) -> list[str]:
        return [what.removeprefix(_RESULT) for what in self._kept(schema, tenant) if what.startswith(_RESULT)]

    def forget_cached(self, schema: str, tenant: str, ids: Sequence[str]) -> None:
        if ids:
            self._run("forget_kept", schema, tenant, *(f"{_RESULT}{id}" for id in ids), tag=self._site_tag)

    def _kept(self, schema: str, tenant: str) -> list[str]:
        return [what.decode() for what in self._run("kept", schema, tenant, tag=self._site_tag)]

    def drain_tenant(self, schema: str, tenant: str) -> Drained:
        cancelled = 0
        while True:
            forgotten, held = self._run("drain_tenant", schema, tenant, CHUNK)
            cancelled += forgotten
            if not forgotten:
                return Drained(cancelled, held)

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        milliseconds = round(seconds * 1000)
        arguments = schema, tenant, reason, CHUNK, milliseconds
        forgotten, held, queue = self._run("forget_tenant", *arguments)
        while forgotten:
            forgotten, held, queue = self._run("forget_tenant", *arguments)
        while dead := list(self._dead((schema, tenant), CHUNK)):
            self.purge_dead([one.id for one in dead])
        self._forget_costs(queue.decode())
        if not held:  # what runs may come back, and start again
            self._forget_rates_and_aliases(queue.decode())
        groups = [what.removeprefix(_GROUP) for what in self._kept(schema, tenant) if what.startswith(_GROUP)]
        for group in groups:
            self.drop_group(schema, group, tenant=tenant)
        for tag in {self.tag, self._site_tag}:
            self._run("release_queue", tenant, schema, milliseconds, tag=tag)
        return int(held)

    def _forget_costs(self, queue: str) -> None:
        pattern = f"{_escaped(queue)};*"
        with self._errors:
            fields = [field for field, _ in self.client.hscan_iter(f"{self.tag}:costs", match=pattern, count=1000)]
            for some in chunks(fields):
                self.client.hdel(f"{self.tag}:costs", *some)

    def _forget_rates_and_aliases(self, queue: str) -> None:
        """Forget when each function of a tenant may start next, and which ids stand for others.

        These keys would expire by themselves, and no list has their names, so all names on the server are looked at.
        """
        own = tuple(f"{self.tag}:{kind}:{queue};".encode() for kind in ("rate", "alias"))
        pattern = f"{_escaped(self.tag)}:*:{_escaped(queue)};*"
        with self._errors:
            found = [name for name in self.client.scan_iter(pattern, count=CHUNK) if name.startswith(own)]
            for some in chunks(found):
                self.client.delete(*some)

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        for tag in {self.tag, self._site_tag}:
            self._run("rename_queue", tenant, old, new, tag=tag)


def _escaped(name: str) -> str:
    """Return the pattern that only this name in Redis matches."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in name)
