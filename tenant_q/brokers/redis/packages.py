"""One tenant's packages: find, cancel, and the progress of those that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenant_q.brokers.protocol.limits import CANCEL_REACH
from tenant_q.brokers.protocol.packages import Live, state_at
from tenant_q.brokers.redis.decoding import live_of, shown, text
from tenant_q.brokers.redis.part import Part, chunks
from tenant_q.brokers.redis.scripts import REFUSALS
from tenant_q.states import Progress, State
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.brokers")


class RedisPackages(Part):
    """The packages of one tenant, see `protocol.packages`."""

    supports_tenant_queues = True

    def live(self, schema: str, *, limit: int = 100, place: str = "") -> list[Live]:
        return [live_of(*found) for found in self._run("live", *self._owner(schema), limit, place)]

    def find(self, schema: str, id: str) -> Live | None:
        match self._run("find", *self._owner(schema), id, "whole"):
            case [place, due, reason, _, message, starts] if place != b"dead":
                return live_of(id.encode(), place, due, reason, message, starts)
        return None

    def place(self, schema: str, id: str) -> str | None:
        found = self._run("find", *self._owner(schema), id)
        return text(found[0]) if found else None

    def state(self, schema: str, id: str) -> State | None:
        match self._run("find", *self._owner(schema), id):
            case [place, _, reason, may_run]:
                return state_at(place.decode(), text(reason), may_run=bool(may_run))
        return None

    def real_id(self, schema: str, alias: str) -> str | None:
        found = self._run("alias", *self._owner(schema), alias)
        return shown(found) if found else None

    def cancel(self, schema: str, id: str, reason: str) -> str | None:
        return self.cancel_all(schema, [id], reason).get(id)

    def cancel_all(self, schema: str, ids: Sequence[str], reason: str) -> Mapping[str, str]:
        owner, places = self._owner(schema), dict[str, str]()
        for some in chunks(ids):
            found = self._run("cancel", *owner, reason, CANCEL_REACH, *some)
            places |= {id: place.decode() for id, place in zip(some, found, strict=True) if place}
        return places

    def set_progress(self, reported: Mapping[str, tuple[str, Progress]]) -> None:
        arguments = [part for worker, (id, one) in reported.items() for part in (worker, id, one.fraction, one.text)]
        try:
            if arguments:
                self._run("set_progress", *arguments)
        except REFUSALS as error:
            if len(reported) > 1:
                for worker, one in reported.items():
                    self.set_progress({worker: one})
            else:
                logger.warning(
                    "The progress of %s is not kept: %s",
                    *(id for id, _ in reported.values()),
                    error,
                    event="task.progress_not_kept",
                )

    def get_progress(self, schema: str, id: str) -> Progress | None:
        found = self._run("get_progress", *self._owner(schema), id)
        if found is None:
            return None
        fraction, words = found.decode().split("\n", 1)
        return Progress(float(fraction), words)
