"""One tenant's packages: find, cancel, and the progress of those that run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tenant_q.brokers.protocol import CANCEL_REACH, Live, state_at
from tenant_q.states import Progress, State
from tenant_q.testing.memory_broker.ring import Ring


class MemoryPackages(Ring):
    """The packages of one tenant, see `protocol.packages`."""

    supports_tenant_queues = True

    def live(self, schema: str, *, limit: int = 100, place: str = "") -> list[Live]:
        schema = self._queue(schema)
        leased = [(id, "leased") for id in self.leased]
        queued = [(id, "queued") for id in self._queued(schema)]
        delayed = [(id, "delayed") for _, id in sorted((due, id) for id, due in self.delayed.items())]
        places = [(id, where) for id, where in (*leased, *queued, *delayed) if place in ("", where)]
        return [self._live(id, where) for id, where in places if self.messages[id].schema == schema][:limit]

    def _live(self, id: str, place: str) -> Live:
        message, due, reason = self.messages[id], self.delayed.get(id), self._give_up_reason(id)
        deaths = self.histories[id].starts or 0
        return Live(id, message.schema, message.func, place, due, message.payload, reason, deaths)

    def find(self, schema: str, id: str) -> Live | None:
        place = self.place(schema, id)
        return None if place in (None, "dead") else self._live(id, str(place))

    def place(self, schema: str, id: str) -> str | None:
        if id not in self.messages or self.messages[id].schema != self._queue(schema):
            return None
        places: dict[str, Collection[str]] = {"leased": self.leased, "delayed": self.delayed, "dead": self.died}
        return next((place for place, ids in places.items() if id in ids), "queued")

    def state(self, schema: str, id: str) -> State | None:
        place = self.place(schema, id)
        if place is None:
            return None
        may_run = place == "leased" and self.leased[id].is_cancelled
        return state_at(place, self._give_up_reason(id), may_run=may_run)

    def real_id(self, schema: str, alias: str) -> str | None:
        found, until = self.aliases.get((self._queue(schema), alias), ("", 0.0))
        return found if until > self.clock() else None

    def cancel(self, schema: str, id: str, reason: str) -> str | None:
        place = self.place(schema, id)
        if place in (None, "dead"):
            return None
        schema = self._queue(schema)
        if place == "leased":
            self._cancel_leased(id, reason)
        elif not self._is_cancelled(id):
            lane = self._lane(id)
            self.histories[id].give_up_reason = reason
            self._release_key(id)
            if place == "delayed":
                del self.delayed[id]
                self.unready.discard(id)
                self._push(id, at_head=True)
            elif lane and id in self.lanes[schema][lane][:CANCEL_REACH]:
                self.queues[schema].insert(0, id)  # it needs neither its turn nor a start of its rate
                self._leave_lane(schema, lane, id)
                del self.lane_of[id]
                self._enter_ring(schema)
            elif id in self.queues[schema][:CANCEL_REACH]:
                self.queues[schema].remove(id)
                self.queues[schema].insert(0, id)
        return place

    def cancel_all(self, schema: str, ids: Sequence[str], reason: str) -> Mapping[str, str]:
        places = {id: self.cancel(schema, id, reason) for id in ids}
        return {id: place for id, place in places.items() if place}

    def set_progress(self, reported: Mapping[str, tuple[str, Progress]]) -> None:
        for worker, (id, progress) in reported.items():
            if id in self.leased and self.leased[id].worker == worker:
                self.leased[id].progress = progress

    def get_progress(self, schema: str, id: str) -> Progress | None:
        return self.leased[id].progress if self.place(schema, id) == "leased" else None
