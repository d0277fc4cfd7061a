"""A claim costs the same number of Redis commands however many tenants there are and however much is queued.

The commands inside the script count too. The time is printed only.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tenant_q.brokers.protocol import Message, Settled
from tenant_q.brokers.redis import RedisBroker

IS_LONG = os.environ.get("CHAOS") == "long"
MANY_TENANTS = 10_000 if IS_LONG else 1_000
MANY_QUEUED = 1_000_000 if IS_LONG else 20_000
TAKEN = 16


@pytest.fixture
def make_broker() -> Iterator[Any]:
    made = []

    def make() -> RedisBroker:
        made.append(RedisBroker(f"c{uuid.uuid4().hex[:8]}"))
        return made[-1]

    yield make
    for broker in made:
        remove(broker)


def remove(broker: RedisBroker) -> None:
    names = list(broker.client.scan_iter(f"{broker.tag}*", count=10_000))
    for start in range(0, len(names), 1000):
        broker.client.unlink(*names[start : start + 1000])


def put(broker: RedisBroker, tenants: int, each: int) -> None:
    """Queue `each` packages of one function for each of `tenants`, whose run time is known to be short."""
    for tenant in range(tenants):
        broker.client.hset(f"{broker.tag}:costs", f"t{tenant};f", 0.1)
        broker.enqueue(
            [Message(id=f"{tenant}-{n}", schema=f"t{tenant}", func="f", payload="x" * 200) for n in range(each)]
        )


def commands(broker: RedisBroker) -> dict[str, int]:
    """How often each command was called so far, also by scripts."""
    found: Any = broker.client.info("commandstats")
    ignored = ("cmdstat_info", "cmdstat_client", "cmdstat_hello")
    return {name: stats["calls"] for name, stats in found.items() if not name.startswith(ignored)}


def claim(broker: RedisBroker) -> tuple[dict[str, int], float]:
    """The commands of one claim, and the shortest of some times in milliseconds."""
    settle(broker)  # the script is known to the server then
    broker.client.set(f"{broker.tag}:ring", 10**9)  # else a claim writes it where the tenant's time is ahead of it
    before = commands(broker)
    batch = broker.fetch("w", limit=TAKEN)
    after = commands(broker)
    assert len(batch.leases) == TAKEN
    broker.acknowledge("w", [Settled(lease, 0.0001) for lease in batch.leases])
    calls = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    return calls, min(settle(broker) for _ in range(20))


def settle(broker: RedisBroker) -> float:
    begun = time.perf_counter()
    batch = broker.fetch("w", limit=TAKEN)
    seconds = time.perf_counter() - begun
    broker.acknowledge("w", [Settled(lease, 0.0001) for lease in batch.leases])
    return seconds * 1000


def test_a_claim_costs_the_same_with_many_tenants_and_much_queued(make_broker):
    enough = 30 * TAKEN
    cases = {
        "1 tenant": (1, enough),
        f"{MANY_TENANTS:,} tenants": (MANY_TENANTS, 2 * TAKEN),
        f"1 tenant, {MANY_QUEUED:,} queued": (1, MANY_QUEUED),
    }
    found = {}
    for name, (tenants, each) in cases.items():
        broker = make_broker()
        put(broker, tenants, each)
        found[name], milliseconds = claim(broker)
        print(f"\n{name:<30} {sum(found[name].values()):>4} commands, {milliseconds:.2f} ms a claim of {TAKEN}", end="")
        remove(broker)
    first, *others = found.values()
    assert first["cmdstat_evalsha"] == 1
    for other in others:
        assert other == first


@pytest.mark.parametrize("has_rate", [False, True])
def test_a_claim_costs_the_same_with_much_queued_in_lanes(make_broker, has_rate):
    found = {}
    for name, each in {"few": 30 * TAKEN, "many": MANY_QUEUED}.items():
        broker = make_broker()
        broker.client.hset(f"{broker.tag}:costs", mapping={"t;f": 0.1, "t;slow": 0.1})
        if has_rate:
            park(broker, each)
        fill_level(broker, 5, each)
        found[name], milliseconds = claim(broker)
        print(f"\n{name:<30} {sum(found[name].values()):>4} commands, {milliseconds:.2f} ms a claim of {TAKEN}", end="")
        remove(broker)
    assert found["many"] == found["few"]


def fill_level(broker: RedisBroker, level: int, count: int, **fields: Any) -> None:
    ids = (f"{fields.get('func', 'f')}-{level}-{n}" for n in range(count))
    common: dict[str, Any] = {"schema": "t", "func": "f", "payload": "x" * 200, "priority": level}
    broker.enqueue([Message(id=id, **(common | fields)) for id in ids])


def park(broker: RedisBroker, count: int) -> None:
    """Queue packages of a rate that allows one start a day, have that one used, and so many more functions' ones."""
    for n in range(min(count, MANY_TENANTS)):
        fill_level(broker, 0, 2, func=f"daily-{n}", interval=86_400.0)
        broker.client.hset(f"{broker.tag}:costs", f"t;daily-{n}", 0.1)
    fill_level(broker, 0, count, func="slow", interval=86_400.0)
    while leases := broker.fetch("w").leases:
        broker.acknowledge("w", [Settled(lease, 0.0001) for lease in leases])
    assert broker.queue_size("t") >= count, "the others are parked"
