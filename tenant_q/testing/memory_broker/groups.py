"""The parts of groups, and the status of clusters: both are kept until their time is over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tenant_q.exceptions import GroupTooLarge
from tenant_q.testing.memory_broker.state import State


class MemoryGroups(State):
    """The parts of groups and the status of clusters, see `protocol.groups` and `protocol.status`."""

    def _kept(self, *key: str) -> dict[str, str]:
        """Return what is kept under a key until its time is over."""
        if self.kept_until.get(key, math.inf) <= self.clock():
            del self.kept_until[key], self.kept[key]
        return self.kept[key]

    def add_parts(
        self, schema: str, group: str, parts: Mapping[str, str], *, seconds: int | None, tenant: str | None = None
    ) -> int:
        if self._is_deleted(tenant):
            return 0
        key = "group", self._claim(schema, tenant), group
        recorded = self._kept(*key)
        for index, payload in parts.items():
            recorded.setdefault(index, payload)
        if seconds:
            self.kept_until[key] = self.clock() + seconds
        return len(recorded)

    def parts(
        self, schema: str, group: str, *, tenant: str | None = None, most_bytes: int | None = None
    ) -> Mapping[str, str]:
        found = dict(self._kept("group", self._queue(schema, tenant), group))
        size = sum(map(len, found.values()))
        if most_bytes is not None and size > most_bytes:
            raise GroupTooLarge(size)
        return found

    def count_parts(self, schema: str, group: str) -> int:
        return len(self._kept("group", self._queue(schema), group))

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        key = "group", self._queue(schema, tenant), group
        self._kept(*key)
        self.kept_until.pop(key, None)
        return len(self.kept.pop(key))

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        self.kept["stat", key] = {"": value}
        self.last_stat_of[key] = value
        self.kept_until["stat", key] = self.clock() + seconds

    def get_stat(self, key: str) -> bytes | None:
        value = self._kept("stat", key).get("")
        return value.encode() if value is not None else None

    def get_stats(self, pattern: str) -> list[bytes]:
        found = [self.get_stat(key[1]) for key in sorted(self.kept) if key[0] == "stat"]
        return [value for value in found if value is not None]

    def last_stats(self) -> list[bytes]:
        return [self.last_stat_of[key].encode() for key in sorted(self.last_stat_of)]

    def forget_stats(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.last_stat_of.pop(key, None)

    def note_stray(self) -> None:
        self.stray_names.add(self.cluster)

    def strays(self) -> list[str]:
        return sorted(self.stray_names)

    def forget_strays(self, names: Sequence[str]) -> None:
        self.stray_names.difference_update(names)
