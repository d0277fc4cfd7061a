"""The status that clusters publish, and the names of clusters that the settings do not know.

Both are shared by all clusters of a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenant_q.brokers.redis.decoding import shown
from tenant_q.brokers.redis.part import Part

# Names of clusters that the settings do not know: how long and how many are kept, and how many one call reads.
STRAY_SECONDS = 30 * 24 * 3600
MOST_STRAYS = 1000
STRAYS_LOOKED_AT = 20


class RedisStatus(Part):
    """The status of clusters, see `protocol.status`."""

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        with self._errors:
            pipe = self.client.pipeline(transaction=False)
            pipe.set(self._stat(key), value, ex=seconds)
            pipe.hset(self._last_stats, key, value)
            pipe.execute()

    def get_stat(self, key: str) -> Any:
        with self._errors:
            found = self.client.get(self._stat(key))
        return self._stats_of_before([key])[0] if found is None else found

    def get_stats(self, pattern: str) -> list[Any]:
        with self._errors:
            keys: Any = self.client.hkeys(self._last_stats)
            pipe = self.client.pipeline(transaction=False)
            for key in sorted(keys):
                pipe.get(self._stat(shown(key)))
            values: list[Any] = pipe.execute()
        found = dict(zip(sorted(keys), values, strict=True))
        missing = [key for key, value in found.items() if value is None]
        found |= dict(zip(missing, self._stats_of_before(missing), strict=True))
        return [value for value in found.values() if value is not None]

    def _stats_of_before(self, keys: Sequence[str | bytes]) -> list[Any]:
        """Return from Redis the status of clusters of an earlier version, under keys without the site's tag.

        A value is None if there is none, or if the server refuses the key: it may be on another node, or not permitted.
        """
        if not keys:
            return []
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        with self._errors:
            values: list[Any] = pipe.execute(raise_on_error=False)
        return [None if isinstance(value, Exception) else value for value in values]

    def _stat(self, key: str) -> str:
        """Return the Redis key of a cluster's status, under the site's tag."""
        return f"{self._site_tag}:{key}"

    def last_stats(self) -> list[Any]:
        with self._errors:
            found: Any = self.client.hgetall(self._last_stats)
        return [found[key] for key in sorted(found)]

    def forget_stats(self, keys: Sequence[str]) -> None:
        if keys:
            with self._errors:
                self.client.hdel(self._last_stats, *keys)

    def note_stray(self) -> None:
        with self._errors:
            count: Any = self.client.scard(self._strays)
            if count >= MOST_STRAYS:
                return
            pipe = self.client.pipeline(transaction=False)
            pipe.sadd(self._strays, self.cluster)
            pipe.expire(self._strays, STRAY_SECONDS)
            pipe.execute()

    def strays(self) -> list[str]:
        with self._errors:
            found: Any = self.client.srandmember(self._strays, STRAYS_LOOKED_AT)
        return sorted(name.decode() for name in found)

    def forget_strays(self, names: Sequence[str]) -> None:
        if names:
            with self._errors:
                self.client.srem(self._strays, *names)

    @property
    def _strays(self) -> str:
        return f"{self._site_tag}:strays"

    @property
    def _last_stats(self) -> str:
        return f"{self._site_tag}:status"
