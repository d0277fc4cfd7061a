"""No tenant starves: weights, arrivals, run times, delays and retries at random, on a clock of the simulation's own.

While a tenant has work that could run, it is entitled to its share, by weight, of the workers. What it gets may fall
short of that by what cannot be helped: a task that has begun is not interrupted. What it uses while others wait counts
against it; what it uses while nobody does, does not.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

import pytest

from tenant_q.brokers.protocol import Lease, Message, Policy, Settled
from tenant_q.testing.memory_broker import MemoryBroker

WORKERS = 4
NAMES = [f"tenant_{n}" for n in range(5)]
WEIGHTS = [0.5, 1.0, 1.0, 2.0, 4.0]
# In seconds.
RUN_TIMES = [0.002, 0.05, 1.0, 10.0]
NIGHT, DAY = 7200.0, 600.0
# A tenant's worst case: each worker has begun a longest task of another one, and then one more of the next in turn.
MOST_SHORT = 2 * WORKERS * max(RUN_TIMES)


class Simulation:
    """Workers, tenants, and a broker whose time is the simulation's.

    Parameters: `seed`, of what is random; `early`, the seconds for which the night's tasks run on in the day.
    """

    def __init__(self, seed: int, early: float) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.broker = MemoryBroker("simulated", lambda: self.now)
        self.weights = {name: self.random.choice(WEIGHTS) for name in NAMES}
        self.broker.set_policies({name: Policy(weight=weight) for name, weight in self.weights.items()})
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.running: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.retried: set[str] = set()
        self.waits = Counter[str]()
        # What each was entitled to less what it got, in worker-seconds; and the most that any ever fell short.
        self.short: dict[str, float] = defaultdict(float)
        self.worst = 0.0
        self._plan(early)

    def _plan(self, early: float) -> None:
        """One tenant fills all workers but one for a night; others do little. Then all have more than can be done."""
        for _ in range(WORKERS - 1):
            self.at(0.0, lambda: self.put(NAMES[0], NIGHT))
        for _ in range(20):
            self.at(self.random.uniform(0, NIGHT), lambda: self.put(self.random.choice(NAMES[1:]), 0.05))
        for name in NAMES:
            begun = NIGHT - early + self.random.choice([0, self.random.uniform(0, DAY / 2)])
            for _ in range(120):
                seconds = self.random.choice(RUN_TIMES)
                burst = self.random.choice([1, 1, 5])
                at = begun + self.random.uniform(0, DAY)
                delay = self.random.choice([0.0, 0.0, 30.0])
                for _ in range(burst):
                    self.at(at, partial(self.put, name, seconds, delay))

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), act))

    def put(self, schema: str, seconds: float, delay: float = 0.0) -> None:
        id = f"{schema} {next(self.numbers)}"
        self.seconds[id] = seconds
        self.broker.enqueue([Message(id, schema, f"f{seconds}", "", delay)])
        self.at(self.now + delay, lambda: None)

    def run(self) -> None:
        while self.events:
            when, _, act = heapq.heappop(self.events)
            self.count(when - self.now)
            self.now = when
            act()
            for worker in (f"w{n}" for n in range(WORKERS)):
                if worker not in self.running:
                    self.work(worker, list(self.broker.fetch(worker).leases), [])
            self.waits = self.waiting()

    def work(self, worker: str, leases: list[Lease], done: list[Settled]) -> None:
        """Run a batch, one package after the other; then settle it."""
        self.running.pop(worker, None)
        if not leases:
            self.settle(worker, done)
            return
        first, *others = leases
        self.running[worker] = first.schema
        seconds = self.seconds[first.id]
        self.at(self.now + seconds, lambda: self.work(worker, others, [*done, Settled(first, seconds)]))

    def settle(self, worker: str, done: list[Settled]) -> None:
        """Acknowledge what succeeds, and put off what is to be tried again, each once. The night's tasks succeed."""
        can_fail = [one for one in done if one.lease.id not in self.retried and one.seconds < NIGHT]
        failed = [one for one in can_fail if self.random.random() < 0.1]
        self.broker.acknowledge(worker, [one for one in done if one not in failed])
        for one in failed:
            self.retried.add(one.lease.id)
            self.broker.put_off(worker, one.lease, delay=5.0, seconds=one.seconds)
            self.at(self.now + 5.0, lambda: None)

    def waiting(self) -> Counter[str]:
        due = [id for id, due in self.broker.delayed.items() if due <= self.now]
        queued = [id for ids in self.broker.queues.values() for id in ids]
        return Counter(self.broker.messages[id].schema for id in [*queued, *due])

    def count(self, seconds: float) -> None:
        """Count what each tenant was entitled to since the last event, and what it got."""
        got = Counter(self.running.values())
        active = {*self.waits, *got}
        total = sum(self.weights[name] for name in active)
        for name in NAMES:
            if not self.waits.keys() - {name}:
                self.short[name] = 0.0  # nobody else wants what it uses
            elif name in active:
                share = WORKERS * self.weights[name] / total
                self.short[name] += seconds * (min(share, got[name] + self.waits[name]) - got[name])
            if not self.waits[name]:
                self.short[name] = min(0.0, self.short[name])  # and being idle is no credit
            self.worst = max(self.worst, self.short[name])


@pytest.mark.parametrize("early", [0.0, 20.0])
@pytest.mark.parametrize("seed", range(8))
def test_no_tenant_falls_short_of_its_share(seed, early):
    simulation = Simulation(seed, early)
    simulation.run()
    assert simulation.broker.counts().open == 0
    print(f"\nmost that a tenant fell short: {simulation.worst:.0f} worker-seconds, of {MOST_SHORT + early:.0f}")
    assert simulation.worst <= MOST_SHORT + WORKERS * early
