"""The broker protocol in plain Python: the specification that people read, and a broker for tests.

It has the rules of the Redis broker and none of its cleverness, and a clock that the test steers.
`tests/integration/test_broker_machine.py` holds the two against each other. Costs and virtual times are in
milliseconds, all other times in seconds.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tenant_q.brokers import loads, protocol
from tenant_q.brokers.loads import Figures, Load, Totals
from tenant_q.brokers.protocol import (
    BATCH_BYTES,
    BATCH_LIMIT,
    BATCH_SECONDS,
    CANCEL_REACH,
    CANCELLED,
    MOST_DEBT_SECONDS,
    NEW_FACTOR,
    OTHER_FUNCTIONS,
    REMEMBER_SECONDS,
    SLICES,
    SMALL_BATCH,
    UNKNOWN_COST_MS,
    Batch,
    Cancelled,
    Counts,
    Dead,
    Lease,
    Live,
    Message,
    Policy,
    Settled,
    outage_seconds,
    state_at,
)
from tenant_q.conf import conf
from tenant_q.exceptions import QueueFull, TenantDeleted
from tenant_q.states import Progress, State

# As in the Redis broker.


@dataclass(slots=True)
class History:
    """What happened to a package. `alone`: it is delivered by itself, because it may have killed a machine.

    `death` says how the last worker died whose death was charged to it.
    """

    starts: int | None = None
    death: str | None = None
    give_up_reason: str | None = None
    alone: bool = False

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled, which nothing takes back."""
        return (self.give_up_reason or "").startswith(CANCELLED)


@dataclass(slots=True)
class Held:
    """A lease in force. `charged` is what its tenant was charged for it, `alone` whether it is all of its batch.

    `is_cancelled` says that it was cancelled while it was leased, `progress` how far it says it is.
    """

    lease: Lease
    worker: str
    deadline: float
    charged: float
    alone: bool
    is_cancelled: bool = False
    progress: Progress | None = None


class MemoryBroker:
    """One cluster's queues in this process. Groups and status are its own, not its site's.

    Parameters: `cluster`, its name; `clock`, which returns the seconds since the epoch; `keys_of`, which returns the
    keys of the tenants that have these schemas now, by schema.
    """

    def __init__(
        self,
        cluster: str,
        clock: Callable[[], float] = time.time,
        keys_of: Callable[[Iterable[str]], Mapping[str, str]] = lambda schemas: {},
    ) -> None:
        self.cluster = cluster
        self.clock = clock
        self.keys_of = keys_of
        # By key of a tenant, the name of its queue, which stands for its schema in what follows. By that name, whose
        # it is and what its schema is called now.
        self.queue_of_tenant: dict[str, str] = {}
        self.owners: dict[str, tuple[str, str]] = {}
        self.deleted: dict[str, float] = {}
        self.cached: dict[str, set[str]] = defaultdict(set)
        self.messages: dict[str, Message] = {}
        self.histories: dict[str, History] = defaultdict(History)
        # The places of an id: its tenant's queue, leased (oldest lease first), delayed until, dead since and why.
        self.queues: dict[str, list[str]] = defaultdict(list)
        self.leased: dict[str, Held] = {}
        self.delayed: dict[str, float] = {}
        self.died: dict[str, tuple[float, str]] = {}
        self.unready: set[str] = set()
        self.known: dict[str, float] = {}
        # By id of a package that is there, what was enqueued to follow it.
        self.followed: dict[str, str] = {}
        self.late: dict[str, float] = {}
        # The ring: tenants with work queued that neither a pause nor a cap keeps out.
        self.ring: set[str] = set()
        self.ring_time = 0.0
        self.virtual: dict[str, float] = defaultdict(float)
        # Since when the ring has not been empty, and until when since then each tenant was the only one in it.
        self.waited_since = 0.0
        self.alone_until: dict[str, float] = {}
        self.costs: dict[tuple[str, str], float] = {}
        self.in_force: dict[str, Policy] = {}
        self.last_token = 0
        self.last_scan: float | None = None
        self.happened = {"stale_acks": 0, "expired": 0, "broken": 0}
        # What was done: of each tenant and function, and of each tenant when a period with something done began.
        # The last two are microseconds run and milliseconds waited.
        self.figures: dict[str, list[int]] = defaultdict(lambda: [0] * (loads.COUNTS + 2))
        self.functions: dict[str, list[int]] = defaultdict(lambda: [0] * (loads.COUNTS + 2))
        self.figures_then: dict[int, dict[str, list[int]]] = {}
        self.kept: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
        # For each kind of label: whether a name has series of its own, and how many names could have.
        self.labelled: dict[str, dict[str, bool]] = defaultdict(dict)
        self.most_labels: dict[str, int] = {}
        self.told_last: dict[str, str] = {}
        self.kept_until: dict[tuple[str, ...], float] = {}

    def ping(self) -> None: ...

    def probe(self) -> None: ...

    def info(self) -> str:
        return "Memory"

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...

    # Tenants

    def _queue(self, schema: str, tenant: str | None = None) -> str:
        """The name of a tenant's queue: its schema's, unless an earlier tenant of that name has it."""
        tenant = self.keys_of([schema]).get(schema, "") if tenant is None else tenant
        own = schema if self.owners.get(schema, (tenant, ""))[0] == tenant or not tenant else f"{schema}#{tenant}"
        return self.queue_of_tenant.get(tenant, own)

    def _claim(self, schema: str, tenant: str | None = None) -> str:
        tenant = self.keys_of([schema]).get(schema, "") if tenant is None else tenant
        name = self._queue(schema, tenant)
        if tenant and tenant not in self.queue_of_tenant:
            self.queue_of_tenant[tenant] = name
            self.owners[name] = (tenant, schema)
        return name

    def _schema(self, queue: str) -> str:
        return self.owners[queue][1] if queue in self.owners else queue

    def note_cached(self, schema: str, id: str, *, seconds: int | None, tenant: str | None = None) -> None:
        if not self._is_deleted(tenant):
            self.cached[self._claim(schema, tenant)].add(id)

    def cached_ids(self, schema: str, tenant: str) -> list[str]:
        return sorted(self.cached[self._queue(schema, tenant)])

    def forget_cached(self, schema: str, tenant: str, ids: Sequence[str]) -> None:
        self.cached[self._queue(schema, tenant)].difference_update(ids)

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        is_let_go = self._is_deleted(tenant) and tenant not in self.queue_of_tenant
        self.deleted[tenant] = self.clock() + seconds
        if is_let_go:
            return 0
        queue = self._claim(schema, tenant)
        self.in_force.pop(queue, None)
        self.ring.discard(queue)
        own = [id for id, message in self.messages.items() if message.schema == queue]
        for id in own:
            if id in self.leased:
                self._cancel_leased(id, reason)
                continue
            for place in (self.delayed, self.died, self.messages, self.histories, self.followed):
                place.pop(id, None)
            self.unready.discard(id)
        self.queues.pop(queue, None)
        self.costs = {key: cost for key, cost in self.costs.items() if key[0] != queue}
        for key in [key for key in self.kept if key[:2] == ("group", queue)]:
            del self.kept[key]
        held = sum(id in self.leased for id in own)
        if not held and not self.cached[queue]:
            for kept in (self.figures, self.virtual, self.cached):
                kept.pop(queue, None)
            for then in self.figures_then.values():
                then.pop(queue, None)
            self.queue_of_tenant.pop(tenant, None)
            _, name = self.owners.pop(queue)
            if name not in {name for _, name in self.owners.values()}:
                self.labelled["tenants"].pop(name, None)
        return held

    def _is_deleted(self, tenant: str | None) -> bool:
        return tenant is not None and self.deleted.get(tenant, 0.0) > self.clock()

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        self.owners[self._claim(old, tenant)] = (tenant, new)

    # The ring

    def _policy(self, schema: str) -> Policy:
        return self.in_force.get(schema, Policy())

    def _is_kept_out(self, schema: str) -> bool:
        """Whether a tenant is paused, or as many workers are busy with it as its cap allows."""
        policy = self._policy(schema)
        busy = {held.worker for held in self.leased.values() if held.lease.schema == schema}
        return policy.paused or (policy.max_running is not None and len(busy) >= policy.max_running)

    def _enter_ring(self, schema: str) -> None:
        """Let a tenant in that may be served. It has no credit for its absence, and its debt is not forgiven."""
        if schema not in self.ring and self.queues[schema] and not self._is_kept_out(schema):
            self._note_wait()
            self.virtual[schema] = max(self.virtual[schema], self.ring_time)
            self.ring.add(schema)

    def _note_wait(self) -> None:
        """Note since when others wait for a tenant that runs, before one more enters the ring."""
        if not self.ring:
            self.waited_since, self.alone_until = self.clock(), {}
        elif len(self.ring) == 1:
            self.alone_until[next(iter(self.ring))] = self.clock()

    def _others_waited(self, schema: str) -> float | None:
        """Return for how many ms other tenants have been in the ring without a break; None if there are none."""
        if self.ring <= {schema}:
            return None
        return (self.clock() - max(self.waited_since, self.alone_until.get(schema, 0.0))) * 1000

    def _ahead(self, schema: str) -> float:
        """Return the ms that a tenant is charged for its leases in force."""
        return sum(held.charged for held in self.leased.values() if held.lease.schema == schema)

    # From place to place

    def _push(self, id: str, *, at_head: bool = False) -> None:
        schema = self.messages[id].schema
        self.queues[schema].insert(0 if at_head else len(self.queues[schema]), id)
        self._enter_ring(schema)

    def _end_lease(self, id: str, used_ms: float = 0.0) -> None:
        self._end_leases({id: used_ms})

    def _end_leases(self, used: Mapping[str, float]) -> None:
        """Settle accounts and end leases, in this order: a capped tenant enters the ring with what it owes.

        Parameters: `used`, the milliseconds used, by id.
        """
        ended: dict[str, list[str]] = defaultdict(list)
        for id in used:
            ended[self.messages[id].schema].append(id)
        for schema, ids in ended.items():
            self._settle(schema, sum(used[id] for id in ids), [self.leased.pop(id).charged for id in ids])
        for schema in ended:
            if schema not in self.ring and not self._ahead(schema) and self.virtual[schema] <= self.ring_time:
                del self.virtual[schema]  # it has caught up
        for schema in ended:
            self._enter_ring(schema)

    def _settle(self, schema: str, used: float, charged: Sequence[float]) -> None:
        """Replace a tenant's expected charge by its use: it owes the time in which others waited.

        If no other waits, the ring's virtual time follows the tenant's, as if it had taken turns with all others.
        """
        waited = self._others_waited(schema)
        owed = used if waited is None else min(used, waited)
        refunded = self.virtual[schema] - sum(charged)
        self.virtual[schema] = refunded + owed / self._policy(schema).weight
        if used and waited is None:
            self.ring_time = max(self.ring_time, self.virtual[schema] - self._ahead(schema))
        elif used:
            furthest = max(self.ring_time + MOST_DEBT_SECONDS * 1000, refunded)
            self.virtual[schema] = min(self.virtual[schema], furthest)

    def _return_unrun(self, ids: Iterable[str]) -> int:
        """Put leased packages at the heads of their queues, so that they run in this order. Returns how many."""
        found = list(dict.fromkeys(ids))
        for id in reversed(found):
            self._end_lease(id)
            self._push(id, at_head=True)
        return len(found)

    def _is_in_force(self, worker: str, lease: Lease) -> bool:
        """Return whether the worker holds the lease with its token."""
        held = self.leased.get(lease.id)
        return held is not None and held.worker == worker and held.lease.token == lease.token

    def _held_by(self, worker: str) -> list[str]:
        return [id for id, held in self.leased.items() if held.worker == worker]

    # Packages

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        for message in messages:
            if self._is_deleted(message.tenant):
                raise TenantDeleted(message.tenant)
        messages = [replace(message, schema=self._claim(message.schema, message.tenant)) for message in messages]
        if messages and limited:
            schema = messages[0].schema
            limit = self._policy(schema).max_queued or math.inf
            waits = len(self.queues[schema]) + sum(self.messages[id].schema == schema for id in self.delayed)
            new = sum(not self._is_known(message) for message in messages)
            if new and waits + new > limit:
                raise QueueFull(f"{schema} has no room for {new}: {waits} wait, its max_queued is {limit}.")
        accepted = 0
        for message in messages:
            if not self._is_known(message):
                accepted += 1
                self.messages[message.id] = message
                if message.delay > 0:
                    self.delayed[message.id] = self.clock() + message.delay
                else:
                    self._push(message.id)
            if message.follows in self.messages:
                self.followed[message.follows] = message.id
        return accepted

    def _is_known(self, message: Message) -> bool:
        is_done = message.id in self.known or self.followed.get(message.follows) == message.id
        return message.id in self.messages or (message.once and is_done)

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        """Does not wait: nobody else can bring work meanwhile."""
        now = self.clock()
        # A worker fetches with empty hands. What it still holds was leased by a fetch whose answer got lost.
        self._return_unrun(self._held_by(worker))
        for _, id in sorted((due, id) for id, due in self.delayed.items() if due <= now):
            del self.delayed[id]
            self.unready.discard(id)
            self._push(id)
        leases = tuple(self._take_batch(worker, limit, seconds * 1000))
        return Batch(leases, next_delayed=min((due - now for due in self.delayed.values()), default=None))

    def _take_batch(self, worker: str, limit: int, budget: float) -> list[Lease]:
        """Take slices of the tenants of least virtual time, until the budget is spent.

        A function that is unknown or long runs alone, and so does a package that may have killed a machine.
        """
        taken: list[Lease] = []
        spent, bytes_taken, is_full = 0.0, 0, False
        limit = min(limit, max(SMALL_BATCH, sum(map(len, self.queues.values())) // 4))
        while self.ring and not is_full and len(taken) < limit:
            schema = min(self.ring, key=lambda schema: (self.virtual[schema], schema))
            # If no other tenant waits, leases in force are charged only when they end.
            unsettled = self._ahead(schema) if self.ring == {schema} else 0.0
            self.ring_time = max(self.ring_time, self.virtual[schema] - unsettled)
            charged, of_slice = 0.0, 0.0
            room = self.ring_time + MOST_DEBT_SECONDS * 1000 - self.virtual[schema]
            for id in self.queues[schema][: limit - len(taken)]:
                cost = self._expected(schema, self.messages[id].func)
                alone = cost is None or cost >= budget or self.histories[id].alone
                size = self._size(id)
                is_left = bool(taken) and (alone or bytes_taken + size > BATCH_BYTES)
                if not is_left:
                    bytes_taken += size
                    charge = (UNKNOWN_COST_MS if cost is None else cost) / self._policy(schema).weight
                    charge = min(charge, max(0.0, room - charged))
                    taken.append(self._take(worker, id, charge, alone))
                    charged += charge
                spent += cost or 0.0
                of_slice += cost or 0.0
                is_full = alone or is_left or spent >= budget
                if is_full or of_slice >= budget / SLICES:
                    break
            self.virtual[schema] += charged
            if not self.queues[schema]:
                self.ring.remove(schema)
        # This worker was free to take more of a capped tenant; from here on it counts as busy with it.
        self.ring = {schema for schema in self.ring if not self._is_kept_out(schema)}
        return taken

    def _size(self, id: str) -> int:
        """Return the size of a message in Redis, in bytes."""
        message = self.messages[id]
        return len(f"{message.schema}\n{message.func}\n0\n{message.payload}".encode())

    def _expected(self, schema: str, func: str) -> float | None:
        """What a run is expected to take, in ms. One that is new to its tenant, and known of others, may be longer."""
        own, of_all = self.costs.get((schema, func)), self.costs.get(("*", func))
        return own if own is not None or of_all is None else NEW_FACTOR * of_all

    def _take(self, worker: str, id: str, charged: float, alone: bool) -> Lease:
        """Lease the head of a queue. Its tenant is charged at once what it is expected to cost."""
        message, history = self.messages[id], self.histories[id]
        self.last_token += 1
        token = f"{self.last_token}.{secrets.token_hex(4)}"
        lease = Lease(id, message.schema, message.payload, token, history.starts, history.give_up_reason, history.death)
        self.queues[message.schema].remove(id)
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
            self.histories.pop(id, None)
            self.followed.pop(id, None)
            message = self.messages.pop(id)
            if message.once:
                self.known[id] = self.clock()
            func = self._counted(message.func)
            if ms > 0 and func != OTHER_FUNCTIONS:  # what was given up without a run tells nothing
                self._learn((message.schema, func), ms)
                self._learn(("*", func), ms)
        self.happened["stale_acks"] += len(refused)
        if settled:
            self.known = {id: at for id, at in self.known.items() if at > self.clock() - REMEMBER_SECONDS}
        return refused

    def _begin_period(self) -> None:
        """Keep the figures as they are when a period begins, for as long as they are asked for."""
        now = int(self.clock() // loads.PERIOD_SECONDS)
        self.figures_then.setdefault(now, {schema: list(counts) for schema, counts in self.figures.items()})
        for period in [period for period in self.figures_then if period < now - loads.PERIODS]:
            del self.figures_then[period]

    def _count(self, one: Settled, ms: float) -> None:
        message = self.messages[one.lease.id]
        waited = None if one.waited is None else round(one.waited * 1000)
        for counts in (self.figures[message.schema], self.functions[self._counted(message.func)]):
            counts[-2] += round(ms * 1000)
            counts[-1] += waited or 0
            for place in loads.places_of(ms, waited, failed=one.failed):
                counts[place] += 1

    def _counted(self, func: str) -> str:
        """The name under which a function is counted: its own, or that of all above the limit."""
        has_room = len(self.functions.keys() - {OTHER_FUNCTIONS}) < protocol.MOST_FUNCTIONS
        return func if func in self.functions or has_room else OTHER_FUNCTIONS

    def _learn(self, key: tuple[str, str], ms: float) -> None:
        """New figures weigh an eighth, so that one slow run does not send a function into solitude."""
        before = self.costs.get(key, ms)
        self.costs[key] = before + (ms - before) / 8

    def note_late(self, ids: Sequence[str], *, seconds: float) -> None:
        self.late |= dict.fromkeys(ids, self.clock() + seconds)

    def may_come(self, ids: Sequence[str]) -> set[str]:
        return {id for id in ids if id in self.messages or self.late.get(id, 0.0) > self.clock()}

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
            history = self.histories.pop(lease.id, History())
            if history.is_cancelled:
                self.histories[lease.id] = History(give_up_reason=history.give_up_reason)
            self.died[lease.id] = (self.clock(), cause)

    # Leases

    def renew(self, workers: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, str]]:
        found: dict[str, dict[str, str]] = {worker: {} for worker in workers}
        for id, held in self.leased.items():
            if held.worker in found:
                held.deadline = self.clock() + seconds
                found[held.worker][id] = held.lease.token
        return found

    def reclaim(
        self,
        worker: str,
        *,
        running: str | None,
        give_up_reason: str | None = None,
        charged: bool = True,
        death: str | None = None,
    ) -> int:
        lost = self._held_by(worker)
        for history, is_it in [(self.histories[id], id == running) for id in lost]:
            # A worker that ran nothing may have died of a package it had finished. The others come one at a time
            # from now on, and one that did so already is charged.
            may_be_cause = (is_it and not give_up_reason) if running else history.alone
            is_charged = charged and may_be_cause
            history.alone = history.alone or (charged and not running)
            history.starts = (history.starts or 0) + is_charged
            history.death = death if is_charged and death else history.death
            if is_it and give_up_reason and not history.is_cancelled:
                history.give_up_reason = give_up_reason
        return self._return_unrun(lost)

    def expire(self) -> int:
        now, lease = self.clock(), conf().lease
        gap = 0.0 if self.last_scan is None else now - self.last_scan
        self.last_scan = now
        if gap > outage_seconds(lease):
            # Nobody could renew meanwhile: each has the time left that it had then, but not more than a new one.
            for held in self.leased.values():
                held.deadline = max(held.deadline, min(held.deadline + gap, now + lease))
            return 0
        late = [id for id, held in self.leased.items() if held.deadline <= now]
        for id in late:
            # In a larger batch any one may be the cause: none is charged, and each comes alone the next time.
            history = self.histories[id]
            history.starts = (history.starts or 0) + self.leased[id].alone
            history.death = None if self.leased[id].alone else history.death
            history.alone = True
        self.happened["expired"] += len(late)
        return self._return_unrun(late)

    # Policies

    def set_policies(self, policies: Mapping[str, Policy], *, complete: bool = False) -> None:
        changed = {self._claim(schema): policy for schema, policy in policies.items()}
        before = dict(self.in_force)
        self.in_force = changed if complete else {**self.in_force, **changed}
        for schema in {*before, *changed} & self.virtual.keys():
            self._weigh_debt(schema, before.get(schema, Policy()).weight)
        self.ring = {schema for schema in self.ring if not self._is_kept_out(schema)}
        for schema in list(self.queues):
            self._enter_ring(schema)

    def _weigh_debt(self, schema: str, before: float) -> None:
        """Keep a tenant's debt in worker-seconds when its weight changes from `before`."""
        start = self.ring_time + self._ahead(schema)
        debt = max(0.0, self.virtual[schema] - start)
        weight = self._policy(schema).weight
        if debt and weight != before:
            self.virtual[schema] = start + debt * before / weight

    def policies(self) -> Mapping[str, Policy]:
        return {self._schema(queue): policy for queue, policy in self.in_force.items()}

    # Figures

    def counts(self) -> Counts:
        queued = [id for queue in self.queues.values() for id in queue]
        paused = {id for id in [*queued, *self.delayed] if self._policy(self.messages[id].schema).paused}
        places = (len(queued), len(self.leased), len(self.delayed), len(self.died))
        return Counts(*places, paused=len(paused), unready=len(self.unready - paused))

    def loads(self) -> Mapping[str, Load]:
        queued = Counter({schema: len(queue) for schema, queue in self.queues.items() if queue})
        leased, delayed, dead = (
            Counter(self.messages[id].schema for id in place) for place in (self.leased, self.delayed, self.died)
        )
        first = int(self.clock() // loads.PERIOD_SECONDS) - loads.PERIODS
        then = self.figures_then.get(min((n for n in self.figures_then if n >= first), default=0), self.figures)
        found: dict[str, Load] = defaultdict(Load)
        for queue in {*queued, *leased, *delayed, *dead, *self.figures}:
            places = queued[queue], leased[queue], delayed[queue], dead[queue]
            found[self._schema(queue)] += Load(*places, self._since(queue, then.get(queue)))
        return dict(found)

    def _since(self, schema: str, then: Sequence[int] | None) -> Figures:
        now = self.figures.get(schema)
        return _figures(
            [after - before for after, before in zip(now, then or [0] * len(now), strict=True)] if now else []
        )

    def totals(self) -> Totals:
        tenants: dict[str, Figures] = defaultdict(Figures)
        for queue, counts in self.figures.items():
            tenants[self._schema(queue)] += _figures(counts)
        return Totals(dict(tenants), {name: _figures(counts) for name, counts in self.functions.items()})

    def name_labels(self, kind: str, names: Sequence[str], *, most: int) -> set[str]:
        told = self.labelled[kind]
        is_raised = most > self.most_labels.get(kind, 0)
        kept = [name for name in names if told.get(name)]
        free = [name for name in names if name not in kept and (is_raised or name not in told)]
        named = {*[*kept, *free][:most]}
        told.update({name: name in named for name in (*told, *names)})
        self.most_labels[kind] = most
        return named

    def statistics(self) -> Mapping[str, int]:
        return dict(self.happened)

    def queue_size(self, schema: str | None = None) -> int:
        own = None if schema is None else self._queue(schema)
        return sum(len(queue) for name, queue in self.queues.items() if own in (None, name))

    # One tenant's packages

    def live(self, schema: str, *, limit: int = 100) -> list[Live]:
        schema = self._queue(schema)
        leased = [(id, "leased") for id in self.leased]
        queued = [(id, "queued") for id in self.queues[schema]]
        delayed = [(id, "delayed") for _, id in sorted((due, id) for id, due in self.delayed.items())]
        places = [*leased, *queued, *delayed]
        return [self._live(id, place) for id, place in places if self.messages[id].schema == schema][:limit]

    def _live(self, id: str, place: str) -> Live:
        message = self.messages[id]
        return Live(
            id, message.schema, message.func, place, self.delayed.get(id), message.payload, self._give_up_reason(id)
        )

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

    def _give_up_reason(self, id: str) -> str | None:
        return self.histories[id].give_up_reason if id in self.histories else None

    def _is_cancelled(self, id: str) -> bool:
        return id in self.histories and self.histories[id].is_cancelled

    def cancel(self, schema: str, id: str, reason: str) -> str | None:
        place = self.place(schema, id)
        if place in (None, "dead"):
            return None
        schema = self._queue(schema)
        if place == "leased":
            self._cancel_leased(id, reason)
        elif not self._is_cancelled(id):
            self.histories[id].give_up_reason = reason
            if place == "delayed":
                del self.delayed[id]
                self.unready.discard(id)
                self._push(id, at_head=True)
            elif id in self.queues[schema][:CANCEL_REACH]:
                self.queues[schema].remove(id)
                self.queues[schema].insert(0, id)
        return place

    def _cancel_leased(self, id: str, reason: str) -> None:
        if not self._is_cancelled(id):
            self.histories[id].give_up_reason = reason
            self.leased[id].is_cancelled = True

    def cancelled(self) -> list[Cancelled]:
        leased = [(id, held) for id, held in self.leased.items() if held.is_cancelled]
        return [Cancelled(id, held.worker, self.histories[id].give_up_reason or "") for id, held in leased]

    def set_progress(self, told: Mapping[str, tuple[str, Progress]]) -> None:
        for worker, (id, progress) in told.items():
            if id in self.leased and self.leased[id].worker == worker:
                self.leased[id].progress = progress

    def get_progress(self, schema: str, id: str) -> Progress | None:
        return self.leased[id].progress if self.place(schema, id) == "leased" else None

    def purge(self) -> None:
        for kept in (self.messages, self.histories, self.followed):
            for id in kept.keys() - self.leased.keys():
                del kept[id]
        for place in (self.queues, self.delayed, self.unready, self.died, self.ring):
            place.clear()

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
            self._push(id)
        return len(found)

    def purge_dead(self, ids: Sequence[str]) -> int:
        purged = [self.messages.pop(id) for id in ids if self.died.pop(id, None)]
        for message in purged:
            self.histories.pop(message.id, None)
            self.followed.pop(message.id, None)
        return len(purged)

    # Groups, and the status of clusters

    def _kept(self, *key: str) -> dict[str, str]:
        """What is kept under a key until its time is over."""
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
        return protocol.not_larger(dict(self._kept("group", self._queue(schema, tenant), group)), most_bytes)

    def count_parts(self, schema: str, group: str) -> int:
        return len(self._kept("group", self._queue(schema), group))

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        key = "group", self._queue(schema, tenant), group
        self._kept(*key)
        self.kept_until.pop(key, None)
        return len(self.kept.pop(key))

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        self.kept["stat", key] = {"": value}
        self.told_last[key] = value
        self.kept_until["stat", key] = self.clock() + seconds

    def get_stat(self, key: str) -> bytes | None:
        value = self._kept("stat", key).get("")
        return value.encode() if value is not None else None

    def get_stats(self, pattern: str) -> list[bytes]:
        found = [self.get_stat(key[1]) for key in sorted(self.kept) if key[0] == "stat"]
        return [value for value in found if value is not None]

    def last_stats(self) -> list[bytes]:
        return [self.told_last[key].encode() for key in sorted(self.told_last)]

    def forget_stats(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.told_last.pop(key, None)


def _figures(counts: Sequence[int]) -> Figures:
    return Figures.of(counts[:-2], counts[-2], counts[-1]) if any(counts) else loads.NOTHING
