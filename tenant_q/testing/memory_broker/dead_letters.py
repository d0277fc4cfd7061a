"""Dead letters: list them, queue them again, forget them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tenant_q.brokers.protocol import Dead
from tenant_q.testing.memory_broker.ring import Ring


class MemoryDeadLetters(Ring):
    """The dead letters, see `protocol.dead_letters`."""

    def dead(
        self,
        schema: str | None = None,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        ids: Collection[str] | None = None,
    ) -> list[Dead]:
        found = [(self.messages[id], *died) for id, died in self.died.items() if ids is None or id in ids]
        wanted = None if schema is None else self._queue(schema)
        found = [one for one in found if wanted in (None, one[0].schema)]
        own = [Dead(m.id, self._schema(m.schema), m.func, at, cause, m.payload) for m, at, cause in found]
        return (own[::-1] if newest_first else own)[:limit]

    def retry_dead(self, ids_and_payloads: Mapping[str, str]) -> int:
        found = [id for id in ids_and_payloads if self.died.pop(id, None)]
        for id in found:
            self.messages[id] = replace(self.messages[id], payload=ids_and_payloads[id] or self.messages[id].payload)
            self.histories[id].starts = 0  # its task may have succeeded before
            if unique := self.unique_of.get(id):
                self.key_holders.setdefault(self._field(self.messages[id], unique), id)
            self._push(id)
        return len(found)

    def purge_dead(self, ids: Sequence[str]) -> int:
        return len([self._forget(id) for id in ids if self.died.pop(id, None)])
