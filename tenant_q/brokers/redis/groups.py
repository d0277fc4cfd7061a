"""Groups: a hash for each group, under the site's tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tenant_q.brokers.protocol.limits import BATCH_BYTES
from tenant_q.brokers.redis.part import Part
from tenant_q.exceptions import GroupTooLarge


class RedisGroups(Part):
    """The parts of groups, see `protocol.groups`."""

    def add_parts(
        self, schema: str, group: str, parts: Mapping[str, str], *, seconds: int | None, tenant: str | None = None
    ) -> int:
        owner, count = self._owner(schema, tenant), 0
        for portion in _portions_of_group(parts):
            count = int(self._run("add_parts", *owner, group, seconds or 0, *portion, tag=self._site_tag))
        return count

    def parts(
        self, schema: str, group: str, *, tenant: str | None = None, most_bytes: int | None = None
    ) -> Mapping[str, str]:
        found = self._group(schema, group, "parts", tenant, most_bytes or 0)
        if isinstance(found, int):
            raise GroupTooLarge(found)
        return {index.decode(): payload.decode() for index, payload in zip(found[::2], found[1::2], strict=True)}

    def count_parts(self, schema: str, group: str) -> int:
        return int(self._group(schema, group, "count"))

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        return int(self._group(schema, group, "drop", tenant))

    def _group(self, schema: str, group: str, act: str, tenant: str | None = None, most_bytes: int = 0) -> Any:
        return self._run("group", *self._owner(schema, tenant), group, act, most_bytes, tag=self._site_tag)


def _portions_of_group(parts: Mapping[str, str]) -> Iterator[list[str]]:
    """Divide the parts of a group, index and payload, into lists of about `BATCH_BYTES` bytes for Redis."""
    portion: list[str] = []
    size = 0
    for index, payload in parts.items():
        if portion and size + len(payload) > BATCH_BYTES:
            yield portion
            portion, size = [], 0
        portion += index, payload
        size += len(payload)
    if portion:
        yield portion
