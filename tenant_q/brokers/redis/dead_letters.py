"""Dead letters: list them, queue them again, forget them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from tenant_q.brokers.protocol.dead_letters import Dead
from tenant_q.brokers.redis.decoding import shown
from tenant_q.brokers.redis.part import Part, chunks


class RedisDeadLetters(Part):
    """The dead letters, see `protocol.dead_letters`."""

    def dead(
        self,
        schema: str | None = None,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        ids: Collection[str] | None = None,
    ) -> list[Dead]:
        if ids is not None and not ids:
            return []
        owner = self._owner(schema) if schema else ("", "")
        if ids is None:
            return list(self._dead(owner, limit, newest_first=newest_first))
        found = [
            one
            for chunk in chunks([*dict.fromkeys(ids)])
            for one in self._dead(owner, limit, *chunk, newest_first=newest_first)
        ]
        return sorted(found, key=lambda one: (one.died, one.id), reverse=newest_first)[:limit]

    def _dead(self, owner: tuple[str, str], limit: int, *ids: str, newest_first: bool = False) -> Iterator[Dead]:
        first, last, count = 0, b"", 0
        while first >= 0 and count < limit:
            order = "newest" if newest_first else "oldest"
            first, last, *rows = self._run("list_dead", *owner, limit - count, order, first, last, *ids)
            count += len(rows)
            for id, name, func, died, cause, payload in rows:
                at = float(died) / 1000
                yield Dead(shown(id), shown(name), shown(func), at, shown(cause), shown(payload))

    def retry_dead(self, ids_and_payloads: Mapping[str, str]) -> int:
        retried = 0
        for chunk in chunks(list(ids_and_payloads.items())):
            retried += int(self._run("retry_dead", *(part for pair in chunk for part in pair)))
        return retried

    def purge_dead(self, ids: Sequence[str]) -> int:
        return sum(int(self._run("purge_dead", *chunk)) for chunk in chunks(ids))
