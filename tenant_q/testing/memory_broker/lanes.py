"""Lanes: where packages with a priority or a rate wait, and which of a tenant's lanes is served next."""

from __future__ import annotations

import math

from tenant_q.brokers.protocol import RATE_BURST_SECONDS, SHORTEST_PARKING, Message
from tenant_q.testing.memory_broker.state import Rate, State

# A lane: a level, and the rate key of its packages, '' for those without a rate.
Lane = tuple[int, str]
# A tenant's queue, which is served as a lane while the tenant has others.
QUEUE: Lane = (0, "")


def lane_of_message(message: Message) -> Lane | None:
    """Return the lane of a message; None if it waits in its tenant's queue."""
    rate = f"{'*' if message.is_site_rate else message.schema};{message.func}" if message.interval else ""
    return (message.priority, rate) if message.priority or rate else None


class Lanes(State):
    """The lanes of each tenant, as lists of ids. A rate key is open, or parked until its next start."""

    def _lane(self, id: str) -> Lane | None:
        """Return the lane of a package. A cancelled one loses it."""
        if self._is_cancelled(id):
            self.lane_of.pop(id, None)
        return self.lane_of.get(id)

    def _queued(self, schema: str) -> list[str]:
        """Return the ids of a tenant's queued packages, by priority."""
        lists = {QUEUE: self.queues[schema], **self.lanes[schema]}
        return [id for lane in sorted(lists, key=lambda lane: (-lane[0], lane[1])) for id in lists[lane]]

    def _with_queues(self) -> set[str]:
        """Return the tenants that may have queued packages."""
        return {*self.queues, *self.lanes}

    def _has_work(self, schema: str) -> bool:
        return bool(self.queues[schema] or self.open[schema])

    def _levels(self, schema: str, rate: str) -> list[int]:
        return sorted((level for level, of in self.lanes[schema] if of == rate), reverse=True)

    def _place(self, schema: str, lane: str, level: int) -> None:
        """Put a lane of a tenant, or all of a rate key, behind the others of its level."""
        self.lane_turn += 1
        self.open[schema][lane] = (-level, self.lane_turn)

    def _open_rate(self, schema: str, rate: str) -> None:
        if levels := self._levels(schema, rate):
            self._place(schema, f";{rate}", levels[0])

    def _park(self, schema: str, rate: str, next_start: float) -> None:
        self.open[schema].pop(f";{rate}", None)
        self.turns[rate].setdefault(schema)
        self.rate_due.setdefault(rate, max(next_start, self.clock() + SHORTEST_PARKING))

    def _unpark(self, schema: str, rate: str) -> None:
        self.turns[rate].pop(schema, None)
        if not self.turns[rate]:
            del self.turns[rate]
            self.rate_due.pop(rate, None)

    def _push_into_lane(self, id: str, lane: Lane, *, at_head: bool) -> None:
        schema, (level, rate) = self.messages[id].schema, lane
        is_new = lane not in self.lanes[schema]
        ids = self.lanes[schema].setdefault(lane, [])
        ids.insert(0 if at_head else len(ids), id)
        if not rate:
            if is_new:
                self._place(schema, str(level), level)
        elif f";{rate}" in self.open[schema]:
            if is_new and self._levels(schema, rate)[0] == level:
                self._open_rate(schema, rate)
        elif rate in self.turns:
            self._park(schema, rate, 0.0)
        else:
            self._open_rate(schema, rate)

    def _leave_lane(self, schema: str, lane: Lane, id: str) -> None:
        """Remove a package from its lane. Of an empty lane nothing stays."""
        level, rate = lane
        self.lanes[schema][lane].remove(id)
        if not self.lanes[schema][lane]:
            del self.lanes[schema][lane]
            if not rate:
                self.open[schema].pop(str(level), None)
            elif not self._levels(schema, rate):
                self.open[schema].pop(f";{rate}", None)
                self._unpark(schema, rate)
            elif f";{rate}" in self.open[schema]:
                self._open_rate(schema, rate)
        if not self.lanes[schema]:
            self.open[schema].clear()

    def _note_rate(self, rate: str, interval: float) -> None:
        """Keep the interval that was enqueued last. What is parked may start sooner then."""
        before = self.rates.get(rate)
        self.rates[rate] = Rate(interval, before.next_start if before else 0.0)
        if before and before.interval != interval:
            self.rates[rate].next_start = min(before.next_start, self.clock() + interval)
            if rate in self.rate_due:
                self.rate_due[rate] = self.clock()

    def _starts(self, rate: str) -> tuple[float, int]:
        """Return when the next package of a rate key may start, and how many may start now."""
        now, kept = self.clock(), self.rates[rate]
        first = max(kept.next_start, now - RATE_BURST_SECONDS)
        return first, math.floor((now - first) / kept.interval) + 1 if first <= now else 0
