"""The queues: what goes in, what a worker takes out, and how it leaves."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import replace

from tenant_q.brokers.messages import leaving_of
from tenant_q.brokers.protocol import (
    BATCH_BYTES,
    BATCH_LIMIT,
    BATCH_SECONDS,
    MOST_DEBT_SECONDS,
    NEW_FACTOR,
    OTHER_FUNCTIONS,
    REMEMBER_SECONDS,
    SHORTEST_PARKING,
    SMALL_BATCH,
    UNKNOWN_COST_MS,
    Batch,
    Lease,
    Message,
    Settled,
    slices,
)
from tenant_q.conf import conf
from tenant_q.exceptions import QueueFull, TenantDeleted
from tenant_q.testing.memory_broker.batches import Filling, Slice
from tenant_q.testing.memory_broker.lanes import QUEUE, Lane, lane_of_message
from tenant_q.testing.memory_broker.monitoring import MemoryMonitoring
from tenant_q.testing.memory_broker.state import Held


class MemoryQueue(MemoryMonitoring):
    """The queues, see `protocol.queue`."""

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        for message in messages:
            if self._is_deleted(message.tenant):
                raise TenantDeleted(message.tenant)
            if message.tenant in self.leaving:
                raise leaving_of(messages, message.tenant)
        messages = [replace(message, schema=self._claim(message.schema, message.tenant)) for message in messages]
        if messages and limited:
            schema = messages[0].schema
            limit = self._policy(schema).max_queued or math.inf
            waits = len(self._queued(schema)) + sum(self.messages[id].schema == schema for id in self.delayed)
            new = sum(not self._is_known(message) and not self._other_holder(message) for message in messages)
            if new and waits + new > limit:
                raise QueueFull(f"{schema} has no room for {new}: {waits} wait, its max_queued is {limit}.")
        accepted, pushed = 0, list[str]()
        rates: dict[str, Message] = {}
        for message in messages:
            if holder := self._other_holder(message):
                self._join(message, holder)
            elif not self._is_known(message):
                accepted += 1
                self.messages[message.id] = message
                self._take_key(message)
                if message.follows in self.messages and self._is_cancelled(message.follows):
                    self.histories[message.id].give_up_reason = self._give_up_reason(message.follows)
                if lane := lane_of_message(message):
                    self.lane_of[message.id] = lane
                    if lane[1]:
                        rates[lane[1]] = message
                if message.delay > 0:
                    self.delayed[message.id] = self.clock() + message.delay
                else:
                    pushed.append(message.id)
            if message.follows in self.messages:
                self.followed[message.follows] = message.id
        for rate, message in rates.items():
            self._note_rate(rate, message.interval)
        for id in pushed:
            self._push(id)
        return accepted

    def enqueue_unique(self, message: Message, *, limited: bool = False) -> str:
        self.enqueue([message], limited=limited)
        own = replace(message, schema=self._claim(message.schema, message.tenant))
        return self._other_holder(own) or message.id

    def _other_holder(self, message: Message) -> str | None:
        """Return the package that has the unique key of a message that is not known, if there is one."""
        if message.unique is None or self._is_known(message):
            return None
        return self.key_holders.get(self._field(message, message.unique))

    def _join(self, message: Message, holder: str) -> None:
        if message.unique and message.unique.needs_alias:
            life = REMEMBER_SECONDS + max(0.0, self.delayed.get(holder, 0.0) - self.clock())
            self.aliases[message.schema, message.id] = holder, self.clock() + life

    def _take_key(self, message: Message) -> None:
        if message.unique:
            self.key_holders[self._field(message, message.unique)] = message.id
            self.unique_of[message.id] = message.unique

    def _is_known(self, message: Message) -> bool:
        is_done = message.id in self.known or self.followed.get(message.follows) == message.id
        return message.id in self.messages or (message.once and is_done)

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        """Fetch without waiting: nobody else can bring work meanwhile."""
        now = self.clock()
        # A worker that fetches holds nothing. If it still has leases, the answer of their fetch got lost.
        self._return_unrun(self._held_by(worker))
        for _, id in sorted((due, id) for id, due in self.delayed.items() if due <= now):
            del self.delayed[id]
            self.unready.discard(id)
            self._push(id)
        for rate in sorted(self.rate_due, key=lambda rate: (self.rate_due[rate], rate)):
            if self.rate_due[rate] <= now:
                self._serve_rate(rate)
        leases = self._take_batch(worker, limit, seconds * 1000)
        dues = [*self.delayed.values(), *self.rate_due.values()]
        return Batch(leases, next_delayed=min((max(0.0, due - now) for due in dues), default=None))

    def _serve_rate(self, rate: str) -> None:
        """Open a rate key for as many of the tenants that wait for it as packages may start, those held back besides.

        If nobody takes a start, the next tenant's turn comes after the time of one.
        """
        next_start, starts = self._starts(rate)
        opened = 0
        for schema in list(self.turns[rate]) if starts else []:
            if opened == starts:
                break
            self._unpark(schema, rate)
            self._open_rate(schema, rate)
            opened += not self._is_kept_out(schema)
            self._enter_ring(schema)
        if rate in self.turns:
            due = self.clock() + opened * self.rates[rate].interval if opened else next_start
            self.rate_due[rate] = max(due, self.clock() + SHORTEST_PARKING)

    def _take_batch(self, worker: str, limit: int, budget: float) -> tuple[Lease, ...]:
        """Take slices of the tenants of least virtual time, until the budget is spent."""
        queued = sum(len(self._queued(schema)) for schema in self._with_queues())
        batch = Filling(worker, min(limit, max(SMALL_BATCH, queued // 4)), budget)
        while self.ring and not batch.is_full and len(batch.leases) < batch.limit:
            schema = min(self.ring, key=lambda schema: (self.virtual[schema], schema))
            self._note_turn(schema)
            self._take_slice(batch, schema)
            if not self._has_work(schema):
                self.ring.remove(schema)
        # This worker was free to take more of a capped tenant; from here on it counts as busy with it.
        self.ring = {schema for schema in self.ring if not self._is_kept_out(schema)}
        return tuple(batch.leases)

    def _note_turn(self, schema: str) -> None:
        """Set the ring's virtual time to that of the tenant whose turn it is."""
        # If no other tenant waits, leases in force are charged only when they end.
        unsettled = self._ahead(schema) if self.ring == {schema} else 0.0
        self.ring_time = max(self.ring_time, self.virtual[schema] - unsettled)

    def _take_slice(self, batch: Filling, schema: str) -> None:
        """Take packages of a tenant, until a slice or the batch is full.

        From the lane of the highest level, of equal levels from the one that was served longest ago. The tenant's queue
        is one of them, with the level 0.
        """
        room = self.ring_time + MOST_DEBT_SECONDS * 1000 - self.virtual[schema]
        part = Slice(schema, room, batch.limit - len(batch.leases))
        if not self.lanes[schema]:
            self._take_from(batch, part, QUEUE, part.most)
        else:
            if self.queues[schema] and "0" not in self.open[schema]:
                self._place(schema, "0", 0)
            while self.open[schema] and not part.is_full and part.most:
                self._take_from_lane(batch, part, min(self.open[schema], key=self.open[schema].__getitem__))
        self.virtual[schema] += part.charged

    def _take_from_lane(self, batch: Filling, part: Slice, name: str) -> None:
        """Take packages of one lane, or of a rate key no more than may start. If no more may start, it is parked."""
        schema = part.schema
        if name.startswith(";"):
            rate = name[1:]
            next_start, starts = self._starts(rate)
            count = self._take_from(batch, part, (self._levels(schema, rate)[0], rate), min(part.most, starts))
            if count:
                next_start += count * self.rates[rate].interval
                self.rates[rate].next_start = next_start
            if name in self.open[schema]:
                if count == starts:
                    self._park(schema, rate, next_start)
                else:
                    self._open_rate(schema, rate)
            return
        level = int(name)
        self._take_from(batch, part, (level, ""), part.most)
        if level == 0:
            self.open[schema].pop(name, None)
        if self.queues[schema] if level == 0 else name in self.open[schema]:
            self._place(schema, name, level)

    def _take_from(self, batch: Filling, part: Slice, lane: Lane, most: int) -> int:
        """Take packages from the head of a tenant's queue or lane, and return how many.

        A function that is unknown or long runs alone, and so does a package that may have killed a machine.
        """
        schema, count = part.schema, 0
        waiting = self.queues[schema] if lane == QUEUE else self.lanes[schema][lane]
        for id in waiting[:most]:
            cost = self._expected(schema, self.messages[id].func)
            alone = cost is None or cost >= batch.budget or self.histories[id].alone
            size = self._size(id)
            if batch.leases and (alone or batch.bytes + size > BATCH_BYTES):
                batch.is_full = part.is_full = True
                break
            charge = (UNKNOWN_COST_MS if cost is None else cost) / self._policy(schema).weight
            charge = min(charge, max(0.0, part.room - part.charged))
            if lane == QUEUE:
                self.queues[schema].remove(id)
            else:
                self._leave_lane(schema, lane, id)
            batch.leases.append(self._take(batch.worker, id, charge, alone))
            batch.bytes += size
            count, part.most = count + 1, part.most - 1
            part.charged += charge
            batch.spent += cost or 0.0
            part.spent += cost or 0.0
            batch.is_full = alone or batch.spent >= batch.budget
            part.is_full = batch.is_full or part.spent >= batch.budget / slices()
            if part.is_full:
                break
        return count

    def _size(self, id: str) -> int:
        """Return the size of a message in Redis, in bytes."""
        message = self.messages[id]
        return len(f"{message.schema}\n{message.func}\n0\n{message.payload}".encode())

    def _expected(self, schema: str, func: str) -> float | None:
        """Return the expected run time in ms. A function that is new to its tenant alone may run longer."""
        own, of_all = self.costs.get((schema, func)), self.costs.get(("*", func))
        return own if own is not None or of_all is None else NEW_FACTOR * of_all

    def _take(self, worker: str, id: str, charged: float, alone: bool) -> Lease:
        """Lease the head of a queue. Its tenant is charged at once what it is expected to cost."""
        message, history = self.messages[id], self.histories[id]
        self.last_token += 1
        token = f"{self.last_token}.{secrets.token_hex(4)}"
        lease = Lease(id, message.schema, message.payload, token, history.starts, history.give_up_reason, history.death)
        self.leased[id] = Held(lease, worker, self.clock() + conf().lease, charged, alone)
        return lease

    def acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        refused: list[str] = []
        used: dict[str, float] = {}
        self._begin_period()
        for one in settled:
            if self._is_in_force(worker, one.lease) and one.lease.id not in used:
                used[one.lease.id] = round(one.seconds * 1000, 3)
                self._count(one, used[one.lease.id])
            else:
                refused.append(one.lease.id)
        self._end_leases(used)
        for id, ms in used.items():
            message = self._forget(id)
            if message.once:
                self.known[id] = self.clock()
            func = self._counted(message.func)
            if ms > 0 and func != OTHER_FUNCTIONS:  # a package that was given up without a run teaches nothing
                self._learn((message.schema, func), ms)
                self._learn(("*", func), ms)
        self.happened["stale_acks"] += len(refused)
        if settled:
            self.known = {id: at for id, at in self.known.items() if at > self.clock() - REMEMBER_SECONDS}
        return refused

    def _learn(self, key: tuple[str, str], ms: float) -> None:
        """Update an estimate. A new time weighs an eighth, so that one slow run does not make a function run alone."""
        before = self.costs.get(key, ms)
        self.costs[key] = before + (ms - before) / 8

    def give_back(self, worker: str, leases: Sequence[Lease]) -> int:
        return self._return_unrun(lease.id for lease in leases if self._is_in_force(worker, lease))

    def put_off(
        self,
        worker: str,
        lease: Lease,
        *,
        delay: float,
        payload: str | None = None,
        seconds: float = 0.0,
        unready: bool = False,
    ) -> None:
        if self._is_in_force(worker, lease):
            self._end_lease(lease.id, round(seconds * 1000, 3))
            message = self.messages[lease.id]
            self.messages[lease.id] = replace(message, payload=payload or message.payload)
            if not self._is_cancelled(lease.id):
                self.histories[lease.id].give_up_reason = None
            self.delayed[lease.id] = self.clock() + delay
            self.unready |= {lease.id} if unready else set()

    def dead_letter(self, worker: str, lease: Lease, cause: str) -> None:
        if self._is_in_force(worker, lease):
            self._end_lease(lease.id)
            self._bury(lease.id, cause)

    def purge(self) -> None:
        for id in self.messages.keys() - self.leased.keys():
            self._forget(id)
        for place in (self.queues, self.lanes, self.open, self.turns, self.rate_due):
            place.clear()
        for left in (self.delayed, self.unready, self.died, self.ring):
            left.clear()
