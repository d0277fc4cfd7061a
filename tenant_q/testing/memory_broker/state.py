"""What the in-memory broker keeps: where each package is, whose queue it is in, and what happened to it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tenant_q.brokers import loads
from tenant_q.brokers.protocol import CANCELLED, Lease, Message, Policy, Unique
from tenant_q.states import Progress


@dataclass(slots=True)
class History:
    """What happened to a package.

    Attributes:
        starts: How many runs ended with the death of their worker; None if it was never given back by a death.
        death: How the last worker died whose death was charged to it.
        give_up_reason: Why it is to be given up instead of run.
        alone: Whether it is delivered by itself, because it may have killed a machine.
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
    """A lease in force.

    Attributes:
        lease: The lease.
        worker: The worker that holds it.
        deadline: Until when, in seconds since the epoch.
        charged: The milliseconds that its tenant was charged for it.
        alone: Whether it is all of its batch.
        is_cancelled: Whether its package was cancelled since the worker took it.
        progress: The progress that the package reported.
    """

    lease: Lease
    worker: str
    deadline: float
    charged: float
    alone: bool
    is_cancelled: bool = False
    progress: Progress | None = None


@dataclass(slots=True)
class Rate:
    """A rate key in use.

    Attributes:
        interval: The seconds between two starts.
        next_start: When the next package may start, in seconds since the epoch.
    """

    interval: float
    next_start: float = 0.0


class State:
    """One cluster's queues in this process. Groups and status are its own, not its site's.

    Args:
        cluster: The name of the cluster.
        clock: A function that returns the seconds since the epoch.
        keys_of: A function that returns the keys of the tenants that have these schemas now, by schema.
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
        # For each tenant's key, the name of its queue; below, that name stands for the schema. For each queue, the key
        # of its tenant and the name its schema has now.
        self.queue_of_tenant: dict[str, str] = {}
        self.owners: dict[str, tuple[str, str]] = {}
        self.deleted: dict[str, float] = {}
        self.leaving: set[str] = set()
        self.cached: dict[str, set[str]] = defaultdict(set)
        self.messages: dict[str, Message] = {}
        self.histories: dict[str, History] = defaultdict(History)
        # The places of an id: its tenant's queue; leased, the oldest lease first; delayed, with the due time; dead,
        # with the time and the cause.
        self.queues: dict[str, list[str]] = defaultdict(list)
        self.leased: dict[str, Held] = {}
        # The lane of each package that has one: its level and its rate key (see `lanes`). For each queue, the packages
        # in its lanes, and its open lanes with their places. For each parked rate key, the queues that wait for it, in
        # order, and when the next one is served.
        self.lane_of: dict[str, tuple[int, str]] = {}
        self.lanes: dict[str, dict[tuple[int, str], list[str]]] = defaultdict(dict)
        self.open: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.turns: dict[str, dict[str, None]] = defaultdict(dict)
        self.rate_due: dict[str, float] = {}
        self.rates: dict[str, Rate] = {}
        self.lane_turn = 0
        self.delayed: dict[str, float] = {}
        self.died: dict[str, tuple[float, str]] = {}
        self.unready: set[str] = set()
        self.known: dict[str, float] = {}
        # For the id of a package that exists, the id of the package that follows it.
        self.followed: dict[str, str] = {}
        # For a queue and a unique key, the package that has the key; and the key of each package that has or had one.
        self.key_holders: dict[tuple[str, str, str], str] = {}
        self.unique_of: dict[str, Unique] = {}
        # For a queue and an id, the id for which it stands, and until when.
        self.aliases: dict[tuple[str, str], tuple[str, float]] = {}
        self.late: dict[str, float] = {}
        # The queues in the ring, the ring's own virtual time, and that of each queue.
        self.ring: set[str] = set()
        self.ring_time = 0.0
        self.virtual: dict[str, float] = defaultdict(float)
        # Since when the ring has not been empty, and until when, since then, each tenant was alone in it.
        self.waited_since = 0.0
        self.alone_until: dict[str, float] = {}
        self.costs: dict[tuple[str, str], float] = {}
        self.in_force: dict[str, Policy] = {}
        self.last_token = 0
        self.epoch = 0
        self.last_scan: float | None = None
        self.happened = {"stale_acks": 0, "expired": 0, "broken": 0}
        # The figures of each queue and function, and those of each queue when a period began. The last two numbers are
        # the microseconds run and the milliseconds waited.
        self.figures: dict[str, list[int]] = defaultdict(lambda: [0] * (loads.COUNTS + 2))
        self.functions: dict[str, list[int]] = defaultdict(lambda: [0] * (loads.COUNTS + 2))
        self.figures_then: dict[int, dict[str, list[int]]] = {}
        # The figures of a day: of a period and a queue, or all queues (None); of a period and each queue how many
        # packages were left at its end, and the milliseconds for which workers were busy, as samples say; the last
        # period that is recorded; and the functions of a part and a queue.
        self.day_counts: dict[tuple[int, str | None], list[int]] = defaultdict(lambda: [0] * (loads.COUNTS + 2))
        self.day_queued: dict[int, dict[str, int]] = {}
        self.day_busy: dict[int, dict[str, int]] = {}
        self.day_recorded = 0
        self.day_functions: dict[tuple[int, str | None], dict[str, list[int]]] = defaultdict(
            lambda: defaultdict(lambda: [0] * (loads.COUNTS + 2))
        )
        self.kept: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
        # For each kind of label: whether a name has series of its own, and how many names could have.
        self.labelled: dict[str, dict[str, bool]] = defaultdict(dict)
        self.most_labels: dict[str, int] = {}
        self.last_stat_of: dict[str, str] = {}
        self.stray_names: set[str] = set()
        self.kept_until: dict[tuple[str, ...], float] = {}

    def _queue(self, schema: str, tenant: str | None = None) -> str:
        """Return the name of a tenant's queue: its schema's, unless an earlier tenant of that name has it."""
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

    def _is_deleted(self, tenant: str | None) -> bool:
        return tenant is not None and self.deleted.get(tenant, 0.0) > self.clock()

    # Unique keys

    def _field(self, message: Message, unique: Unique) -> tuple[str, str, str]:
        return message.schema, unique.func, unique.key

    def _free_key(self, id: str) -> None:
        """Take its unique key away from a package, which may get it again."""
        if unique := self.unique_of.get(id):
            field = self._field(self.messages[id], unique)
            if self.key_holders.get(field) == id:
                del self.key_holders[field]

    def _release_key(self, id: str) -> None:
        self._free_key(id)
        self.unique_of.pop(id, None)

    def _forget(self, id: str) -> Message:
        """Forget a package that is done, dropped or purged. Return its message."""
        self._release_key(id)
        self.histories.pop(id, None)
        self.followed.pop(id, None)
        self.lane_of.pop(id, None)
        return self.messages.pop(id)

    def _bury(self, id: str, cause: str) -> None:
        """Move a package, which is in no place, to the dead letters. Nothing takes a cancel back."""
        self._free_key(id)
        history = self.histories.pop(id, History())
        if history.is_cancelled:
            self.histories[id] = History(give_up_reason=history.give_up_reason)
        self.died[id] = (self.clock(), cause)

    def _give_up_reason(self, id: str) -> str | None:
        return self.histories[id].give_up_reason if id in self.histories else None

    def _is_cancelled(self, id: str) -> bool:
        return id in self.histories and self.histories[id].is_cancelled

    def _cancel_leased(self, id: str, reason: str) -> None:
        if not self._is_cancelled(id):
            self.histories[id].give_up_reason = reason
            self.leased[id].is_cancelled = True
