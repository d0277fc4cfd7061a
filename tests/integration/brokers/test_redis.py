"""The Redis broker, operation by operation, against a real server.

After every test each package must be in exactly one place, and nothing must be left of those that are done.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import types
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from tenant_q.brokers.connection import address, connect, make_client, missing_limits
from tenant_q.brokers.protocol import BATCH_LIMIT, Batch, Lease, Message, Policy, Settled
from tenant_q.brokers.redis import RedisBroker
from tenant_q.brokers.redis import scripts as scripts_module
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, ConfigurationError
from tests import tasks
from tests.conftest import wait_until

# All that may be left when no package is: what is learned, the clocks, tombstones, and tokens for idle workers.
MAY_STAY = {
    "vtime",
    "waited",
    "costs",
    "ring",
    "token",
    "expired",
    "known",
    "wake",
    "figures",
    "figure_places",
    "functions",
    "day_functions",
    "day_names",
}


@pytest.fixture
def broker() -> Iterator[RedisBroker]:
    """A broker with queues of its own. After the test its keys must fit each other."""
    broker = RedisBroker(f"b{uuid.uuid4().hex[:8]}")
    yield broker
    try:
        check(broker)
    finally:
        remove(broker)


def remove(broker: RedisBroker) -> None:
    for key in list(broker.client.scan_iter(f"{broker.tag}*")):
        broker.client.delete(key)


def key(broker: RedisBroker, name: str) -> str:
    return f"{broker.tag}:{name}"


def keys(broker: RedisBroker) -> set[str]:
    """Their names; what is kept of the figures of each five minutes is one."""
    names = (name.decode().removeprefix(f"{broker.tag}:") for name in broker.client.scan_iter(f"{broker.tag}*"))
    return {re.sub(r"^(figures|day_functions):\d+.*$", r"\1", name) for name in names}


def places(broker: RedisBroker) -> Counter[str]:
    """How often each id is in a queue, leased, delayed or dead."""
    client: Any = broker.client
    found: list[bytes] = []
    for name in keys(broker):
        if name.startswith("queue:"):
            found += client.lrange(key(broker, name), 0, -1)
    for name in ("leases", "delayed", "dead"):
        found += client.zrange(key(broker, name), 0, -1)
    return Counter(id.decode() for id in found)


def check(broker: RedisBroker) -> None:
    """Every package is in exactly one place, and what is kept about it fits."""
    client: Any = broker.client
    found = places(broker)
    assert set(found.values()) <= {1}, f"in two places: {found}"
    messages = {id.decode() for id in client.hkeys(key(broker, "messages"))}
    assert messages == set(found)
    leased = {id.decode() for id in client.zrange(key(broker, "leases"), 0, -1)}
    assert {id.decode() for id in client.hkeys(key(broker, "leased"))} == leased
    held = [name for name in keys(broker) if name.startswith("held:")]
    assert Counter(id.decode() for name in held for id in client.zrange(key(broker, name), 0, -1)) == Counter(leased)
    ready = {schema.decode() for schema in client.zrange(key(broker, "ready"), 0, -1)}
    assert ready == {name.removeprefix("queue:") for name in keys(broker) if name.startswith("queue:")}
    for name in ("starts", "verdicts"):
        assert {id.decode() for id in client.hkeys(key(broker, name))} <= messages
    assert {id.decode() for id in client.smembers(key(broker, "alone"))} <= messages
    dead = {id.decode() for id in client.zrange(key(broker, "dead"), 0, -1)}
    assert {id.decode() for id in client.hkeys(key(broker, "causes"))} == dead
    assert client.llen(key(broker, "wake")) <= 64


def message(id: str, schema: str = "acme_corp", **fields: Any) -> Message:
    return Message(**{"id": id, "schema": schema, "func": "f", "payload": f"payload of {id}"} | fields)


def put(broker: RedisBroker, *ids: str, schema: str = "acme_corp", **fields: Any) -> int:
    return broker.enqueue([message(id, schema, **fields) for id in ids])


def know(broker: RedisBroker, ms: float, *schemas: str, func: str = "f") -> None:
    """Have the broker learn a function's run time, as it does by an acknowledgement."""
    for schema in schemas or ("acme_corp",):
        put(broker, f"learn {schema}", schema=schema, func=func)
        (lease,) = broker.fetch("learner").leases
        assert broker.acknowledge("learner", [Settled(lease, ms / 1000)]) == []


def ids(broker: RedisBroker, worker: str = "w1", **limits: Any) -> list[str]:
    return [lease.id for lease in broker.fetch(worker, **limits).leases]


def fetch_one(broker: RedisBroker, worker: str = "w1") -> Lease:
    (lease,) = broker.fetch(worker, limit=1).leases
    return lease


def deadline(broker: RedisBroker, id: str) -> float:
    return float(broker.client.zscore(key(broker, "leases"), id) or 0)


def run_out(broker: RedisBroker, *ids: str) -> None:
    """The leases of these packages have run out."""
    for id in ids:
        broker.client.zadd(key(broker, "leases"), {id: 1}, xx=True)


# Enqueueing


def test_a_package_comes_as_it_was_enqueued(broker):
    assert broker.enqueue([message("a", "acme_corp", func="shop.tasks.f", payload="line\nline\n\nä:b")]) == 1
    lease = fetch_one(broker)
    assert (lease.id, lease.schema, lease.payload) == ("a", "acme_corp", "line\nline\n\nä:b")
    assert (lease.starts, lease.give_up_reason, lease.is_redelivered) == (None, None, False)


def test_nothing_is_enqueued(broker):
    assert broker.enqueue([]) == 0
    assert keys(broker) == set()


def test_thousands_at_once(broker):
    assert put(broker, *(f"{n:04}" for n in range(2500))) == 2500
    assert broker.queue_size("acme_corp") == 2500
    broker.purge()


@pytest.mark.parametrize("place", ["queued", "leased", "delayed", "dead"])
@pytest.mark.parametrize("once", [True, False])
def test_a_known_id_is_not_enqueued_again(broker, place, once):
    put(broker, "a", once=once, delay=60 if place == "delayed" else 0)
    if place in ("leased", "dead"):
        lease = fetch_one(broker)
        if place == "dead":
            broker.dead_letter("w1", lease, "a test")
    assert put(broker, "a", "b", "b", once=once, payload="other") == 1, "only b, and b once"
    assert getattr(broker.counts(), place) == 1 + (place == "queued")
    assert places(broker) == {"a": 1, "b": 1}


def test_a_deterministic_id_stays_known_after_its_acknowledgement(broker):
    put(broker, "a", once=True)
    broker.acknowledge("w1", [Settled(fetch_one(broker), 0.0)])
    assert put(broker, "a", once=True) == 0
    assert broker.counts().open == 0
    assert put(broker, "other", once=True) == 1
    broker.purge()


def test_any_other_id_does_not(broker):
    put(broker, "a")
    broker.acknowledge("w1", [Settled(fetch_one(broker), 0.0)])
    assert not broker.client.exists(key(broker, "known"))
    assert put(broker, "a") == 1
    broker.purge()


def test_tombstones_are_forgotten_after_a_day(broker):
    put(broker, "old", once=True)
    broker.acknowledge("w1", [Settled(fetch_one(broker), 0.0)])
    broker.client.zincrby(key(broker, "known"), -24 * 3600 * 1000 - 1, "old")
    put(broker, "new", once=True)
    broker.acknowledge("w1", [Settled(fetch_one(broker), 0.0)])
    assert broker.client.zrange(key(broker, "known"), 0, -1) == [b"new"]
    assert put(broker, "old", once=True) == 1
    broker.purge()


# Fetching


def test_first_in_first_out(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    put(broker, *"de")
    assert ids(broker) == list("abcde")


def test_the_limit_of_a_batch(broker):
    know(broker, 0.1)
    put(broker, *(f"{n:03}" for n in range(1200)))
    assert len(ids(broker, "w1")) == BATCH_LIMIT
    assert len(ids(broker, "w2", limit=3)) == 3


def test_a_batch_holds_a_budget_of_expected_work(broker):
    know(broker, 10)
    put(broker, *"abcdefgh")
    assert ids(broker, "w1") == list("abcde"), "five times 10 ms"
    assert ids(broker, "w2", seconds=0.02) == list("fg")


def test_a_function_never_run_comes_alone(broker):
    put(broker, *"abc")
    assert ids(broker, "w1") == ["a"]
    assert ids(broker, "w2") == ["b"]


def test_a_long_function_comes_alone(broker):
    know(broker, 50, func="long")
    know(broker, 1, func="short")
    put(broker, "a", "b", func="short")
    put(broker, "c", func="long")
    put(broker, "d", func="short")
    assert [ids(broker, f"w{n}") for n in range(3)] == [["a", "b"], ["c"], ["d"]]


def test_run_times_are_known_by_tenant(broker):
    """What is short for one tenant may be long for another."""
    know(broker, 1, "acme_corp")
    know(broker, 80, "globex_inc")
    put(broker, "a", "b", schema="globex_inc")
    assert ids(broker) == ["a"]


def test_one_slow_run_changes_an_estimate_by_an_eighth(broker):
    know(broker, 8)
    know(broker, 80)
    assert float(broker.client.hget(key(broker, "costs"), "acme_corp;f") or 0) == pytest.approx(17)


def test_nothing_to_fetch(broker):
    batch = broker.fetch("w1")
    assert batch.leases == ()
    assert batch.next_delayed is None
    assert keys(broker) == set()


# Fairness


def run_one(broker: RedisBroker, seconds: dict[str, float]) -> str:
    """Run one package, for as long as its tenant's take. Returns the tenant."""
    lease = fetch_one(broker)
    for field in broker.client.hkeys(key(broker, "waited")):  # the others have waited meanwhile
        broker.client.hincrby(key(broker, "waited"), field, -round(seconds[lease.schema] * 1000))
    broker.acknowledge("w1", [Settled(lease, seconds[lease.schema])])
    return lease.schema


def test_tenants_take_turns(broker):
    know(broker, 10, "acme_corp", "globex_inc", "initech_llc")
    for n in range(30):
        put(broker, f"a{n}")
    for n in range(3):
        put(broker, f"g{n}", schema="globex_inc")
        put(broker, f"i{n}", schema="initech_llc")
    seconds = dict.fromkeys(("acme_corp", "globex_inc", "initech_llc"), 0.01)
    turns = [run_one(broker, seconds) for _ in range(9)]
    assert Counter(turns) == {"acme_corp": 3, "globex_inc": 3, "initech_llc": 3}
    for start in (0, 3, 6):
        assert len(set(turns[start : start + 3])) == 3, "each once before anybody comes again"
    broker.purge()


def test_tenants_share_worker_seconds(broker):
    know(broker, 30, "acme_corp")
    know(broker, 10, "globex_inc")
    for n in range(40):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, {"acme_corp": 0.03, "globex_inc": 0.01}) for _ in range(40))
    assert turns["globex_inc"] == pytest.approx(30, abs=2)
    broker.purge()


def test_what_was_expected_is_settled_by_what_was_used(broker):
    """A tenant whose tasks take ten times what was expected pays for that."""
    know(broker, 1, "acme_corp", "globex_inc")
    for n in range(20):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, {"acme_corp": 0.1, "globex_inc": 0.01}) for _ in range(11))
    assert turns["acme_corp"] <= 2
    broker.purge()


def test_idleness_is_no_credit(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    seconds = {"acme_corp": 0.01, "globex_inc": 0.01}
    for n in range(60):
        put(broker, f"a{n}")
    for _ in range(40):
        run_one(broker, seconds)
    for n in range(20):
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, seconds) for _ in range(10))
    assert turns["acme_corp"] >= 4, "globex does not get the 400 ms that it was idle"
    assert turns["globex_inc"] >= 4, "and has not to wait for acme's backlog"
    broker.purge()


def test_debt_is_not_forgiven(broker):
    """Having no work for a moment does not wipe out what a tenant used while others waited."""
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, "long")
    put(broker, *(f"g{n}" for n in range(10)), schema="globex_inc")
    assert run_one(broker, {"acme_corp": 0.5}) == "acme_corp"
    put(broker, *(f"a{n}" for n in range(3)))
    turns = [run_one(broker, {"acme_corp": 0.01, "globex_inc": 0.01}) for _ in range(10)]
    assert turns == ["globex_inc"] * 10
    broker.purge()


def test_a_tenant_that_has_caught_up_leaves_no_virtual_time(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    for name in ("vtime", "ahead", "ready"):
        assert broker.client.exists(key(broker, name)) == 0, name


def test_what_is_given_back_is_not_charged(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(4)))
    before = float(broker.client.hget(key(broker, "vtime"), "acme_corp") or 0)
    broker.give_back("w1", broker.fetch("w1").leases)
    assert float(broker.client.hget(key(broker, "vtime"), "acme_corp") or 0) == before
    broker.purge()


# Leases and tokens


def test_tokens_only_grow(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    tokens = [int(lease.token.partition(".")[0]) for lease in broker.fetch("w1").leases]
    assert tokens == sorted(tokens)
    broker.give_back("w1", broker.fetch("w1").leases)
    assert min(int(lease.token.partition(".")[0]) for lease in broker.fetch("w1").leases) > max(tokens)


def test_a_lease_ends_after_the_setting(broker, settings):
    for seconds in (1, 100):
        settings.TENANT_Q = {"lease": seconds}
        put(broker, str(seconds))
        fetch_one(broker, f"w{seconds}")
    assert deadline(broker, "100") - deadline(broker, "1") == pytest.approx(99_000, abs=500)


def test_an_acknowledged_package_is_gone(broker):
    know(broker, 1)
    put(broker, *"abc", once=True)
    leases = broker.fetch("w1").leases
    assert broker.acknowledge("w1", [Settled(lease, 0.001) for lease in leases]) == []
    assert broker.counts().open == 0
    assert keys(broker) <= MAY_STAY
    assert broker.acknowledge("w1", []) == []


def test_what_is_not_leased_cannot_be_acknowledged(broker):
    put(broker, "a")
    lease = fetch_one(broker)
    assert broker.acknowledge("w1", [Settled(lease, 0.1)]) == []
    assert broker.acknowledge("w1", [Settled(lease, 0.1)]) == ["a"], "not twice"


@pytest.mark.parametrize("how", ["acknowledge", "give_back", "put_off", "dead_letter"])
def test_a_stale_worker_changes_nothing(broker, how):
    """Its lease ran out, and another worker has the package now."""
    put(broker, "a")
    stale = fetch_one(broker, "stale")
    run_out(broker, "a")
    assert broker.expire() == 1
    fresh = fetch_one(broker, "fresh")
    assert fresh.token != stale.token
    if how == "acknowledge":
        assert broker.acknowledge("stale", [Settled(stale, 0.1)]) == ["a"]
    elif how == "give_back":
        assert broker.give_back("stale", [stale]) == 0
    elif how == "put_off":
        broker.put_off("stale", stale, delay=1, payload="other")
    else:
        broker.dead_letter("stale", stale, "stale")
    assert broker.counts().leased == 1
    assert broker.client.hget(key(broker, "messages"), "a") == b"acme_corp\nf\n0\npayload of a"
    assert broker.acknowledge("fresh", [Settled(fresh, 0.1)]) == []


def test_give_back_to_the_head_in_order(broker):
    know(broker, 0.1)
    put(broker, *"abcd")
    leases = broker.fetch("w1", limit=3).leases
    put(broker, "e")
    broker.acknowledge("w1", [Settled(leases[0], 0.0)])
    assert broker.give_back("w1", leases[1:]) == 2
    assert broker.give_back("w1", []) == 0
    again = broker.fetch("w2").leases
    assert [lease.id for lease in again] == list("bcde")
    assert not any(lease.is_redelivered for lease in again), "they never started"


# Delays


def test_a_delayed_package_becomes_due(broker):
    put(broker, "a", delay=0.05)
    batch = broker.fetch("w1")
    assert batch.leases == ()
    assert batch.next_delayed is not None
    assert 0 <= batch.next_delayed <= 0.05
    assert broker.counts().delayed == 1
    assert wait_until(lambda: ids(broker)) == ["a"]


def test_next_delayed_is_the_first(broker):
    put(broker, "a", delay=100)
    put(broker, "b", delay=10)
    assert broker.fetch("w1").next_delayed == pytest.approx(10, abs=1)
    assert broker.counts().delayed == 2


@pytest.mark.parametrize("pause", [(), ("acme_corp",)])
def test_what_an_earlier_version_delayed_is_found(broker, pause):
    """It notes in no place when a tenant's first package is due, and forgets none whose packages it moves."""
    broker.set_policies({schema: Policy(paused=True) for schema in pause})
    put(broker, *(f"a{n}" for n in range(600)), delay=0.001)
    put(broker, *(f"g{n}" for n in range(600)), schema="globex_inc", delay=0.002)
    due = key(broker, "due")
    broker.client.delete(due)
    broker.client.zadd(due, {"initech_llc": 1})
    put(broker, "later", schema="globex_inc", delay=60)
    time.sleep(0.005)  # until they are due
    found = set()
    while (batch := broker.fetch("w1")).leases or batch.next_delayed == 0:
        found |= {lease.id for lease in batch.leases}
        broker.acknowledge("w1", [Settled(lease, 0.0001) for lease in batch.leases])
    assert len(found) == (600 if pause else 1200)
    broker.set_policies({}, complete=True)
    assert broker.counts().delayed == 1
    assert broker.client.zrange(due, 0, -1) == [b"globex_inc"]
    assert broker.fetch("w1").next_delayed == pytest.approx(60, abs=5)


def test_put_off_with_another_payload(broker):
    put(broker, "a", once=True)
    broker.put_off("w1", fetch_one(broker), delay=0.01, payload="other")
    lease = wait_until(lambda: broker.fetch("w1").leases)[0]
    assert (lease.id, lease.schema, lease.payload) == ("a", "acme_corp", "other")
    broker.acknowledge("w1", [Settled(lease, 0.0)])
    assert put(broker, "a", once=True) == 0, "its id is as deterministic as before"


def test_put_off_with_its_own_payload(broker):
    put(broker, "a")
    broker.put_off("w1", fetch_one(broker), delay=0)
    assert broker.counts().delayed == 1
    assert fetch_one(broker).payload == "payload of a"


def test_what_is_put_off_goes_behind_what_waits(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    broker.put_off("w1", fetch_one(broker), delay=0)
    assert ids(broker) == list("bca")


# The dead


def test_a_dead_letter_says_why(broker):
    put(broker, "a", "b")
    broker.dead_letter("w1", fetch_one(broker), "Because: of\na test ä")
    (dead,) = broker.dead()
    assert (dead.id, dead.schema, dead.func, dead.cause) == ("a", "acme_corp", "f", "Because: of\na test ä")
    assert dead.payload == "payload of a"
    assert broker.counts() == type(broker.counts())(queued=1, leased=0, delayed=0, dead=1)
    assert broker.counts().open == 1, "the dead are not run any more"
    assert ids(broker) == ["b"]


def test_the_dead_by_tenant_and_oldest_first(broker):
    for n, schema in enumerate(("acme_corp", "globex_inc", "acme_corp")):
        put(broker, f"{n}", schema=schema)
        broker.dead_letter("w1", fetch_one(broker), "c")
    assert [dead.id for dead in broker.dead("acme_corp")] == ["0", "2"]
    assert [dead.id for dead in broker.dead(limit=2)] == ["0", "1"]
    assert [dead.id for dead in broker.dead(limit=2, newest_first=True)] == ["2", "1"]
    assert broker.dead("initech_llc") == []


def test_a_few_of_the_dead_cost_nothing_for_the_others(broker):
    put(broker, "a")
    broker.dead_letter("w1", fetch_one(broker), "c")
    broker.dead()  # the server knows the script then
    before = calls(broker, lambda: broker.dead(ids=["a"]))
    for n in range(30):
        put(broker, f"other {n}")
        broker.dead_letter("w1", fetch_one(broker), "c")
    assert calls(broker, lambda: broker.dead(ids=["a"])) == before
    assert calls(broker, lambda: broker.dead(limit=1)) <= before


def test_the_dead_are_retried_with_a_clean_slate(broker):
    put(broker, "a")
    fetch_one(broker)
    broker.reclaim("w1", running="a", give_up_reason="too long")
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.retry_dead({"a": "", "unknown": ""}) == 1
    lease = fetch_one(broker)
    assert (lease.starts, lease.give_up_reason, lease.payload) == (0, None, "payload of a")
    broker.dead_letter("w1", lease, "c")
    assert broker.retry_dead({"a": "other"}) == 1
    assert fetch_one(broker).payload == "other"
    assert broker.retry_dead({"a": ""}) == 0, "only the dead are"


def test_the_dead_are_purged(broker):
    put(broker, "a", "b")
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.purge_dead(["a", "b", "unknown"]) == 1
    assert places(broker) == {"b": 1}
    assert put(broker, "a") == 1


# Death of workers


def test_reclaiming_charges_only_what_ran(broker):
    know(broker, 0.1)
    put(broker, *"abcd")
    broker.fetch("w1", limit=3)
    broker.fetch("other")
    assert broker.reclaim("w1", running="b") == 3
    assert broker.counts() == type(broker.counts())(queued=3, leased=1, delayed=0, dead=0)
    leases = broker.fetch("w2").leases
    assert [(lease.id, lease.starts) for lease in leases] == [("a", 0), ("b", 1), ("c", 0)]
    assert all(lease.is_redelivered for lease in leases)


def test_starts_add_up(broker):
    put(broker, "a")
    for starts in (None, 1, 2, 3):
        assert fetch_one(broker).starts == starts
        broker.reclaim("w1", running="a")


def test_a_verdict_comes_with_the_package(broker):
    know(broker, 0.1)
    put(broker, "a", "b")
    broker.fetch("w1")
    broker.reclaim("w1", running="a", give_up_reason="it took too long")
    assert [lease.give_up_reason for lease in broker.fetch("w2").leases] == ["it took too long", None]
    broker.reclaim("w2", running=None)


def test_a_worker_that_died_while_it_ran_nothing(broker):
    """Nobody is charged the first time, but all come alone; who is alone when it happens again is charged."""
    know(broker, 0.1)
    put(broker, "a", "b")
    assert len(broker.fetch("w1").leases) == 2
    broker.reclaim("w1", running=None)
    (first,) = broker.fetch("w1").leases
    assert (first.id, first.starts) == ("a", 0)
    broker.reclaim("w1", running=None)
    (again,) = broker.fetch("w1").leases
    assert (again.id, again.starts) == ("a", 1)


def test_there_is_nothing_to_reclaim(broker):
    assert broker.reclaim("nobody", running=None) == 0
    assert broker.reclaim("nobody", running="a") == 0


# Expiry and renewal


def test_a_lease_that_ran_out_is_given_back(broker, settings):
    settings.TENANT_Q = {"lease": 1}
    know(broker, 0.1)
    put(broker, *"abc")
    assert len(broker.fetch("w1").leases) == 3
    run_out(broker, "a", "b")
    assert broker.expire() == 2
    assert broker.expire() == 0
    assert broker.counts().leased == 1, "the other one has time"
    (lease,) = broker.fetch("w2").leases
    assert (lease.id, lease.starts) == ("a", 0), "it comes alone, and is not charged: it may not be the cause"
    run_out(broker, "a")
    assert broker.expire() == 1
    assert fetch_one(broker, "w2").starts == 1, "it was alone"


def test_a_package_leased_alone_is_charged_when_its_lease_runs_out(broker):
    put(broker, "a")
    fetch_one(broker)
    run_out(broker, "a")
    assert broker.expire() == 1
    assert fetch_one(broker).starts == 1


def test_an_outage_does_not_expire_the_living(broker, settings):
    settings.TENANT_Q = {"lease": 2}
    put(broker, "a")
    fetch_one(broker)
    assert broker.expire() == 0
    away = 10_000
    broker.client.zincrby(key(broker, "leases"), -away, "a")
    broker.client.decrby(key(broker, "expired"), away)
    before = deadline(broker, "a")
    assert broker.expire() == 0, "nobody looked for ten seconds"
    assert deadline(broker, "a") - before == pytest.approx(away, abs=500)
    assert broker.expire() == 0, "and it has its time again"
    run_out(broker, "a")
    assert broker.expire() == 1


def test_renewal_is_for_those_that_live(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    broker.fetch("living", limit=2)
    broker.fetch("dead")
    before = {id: deadline(broker, id) for id in "abc"}
    broker.renew(["living", "without leases"], 100)
    assert deadline(broker, "a") == deadline(broker, "b") > before["a"] + 80_000
    assert deadline(broker, "c") == before["c"]
    broker.renew([], 100)


def test_renewal_saves_a_lease_that_ran_out_but_was_not_taken_back(broker):
    put(broker, "a")
    lease = fetch_one(broker)
    run_out(broker, "a")
    broker.renew(["w1"], 15)
    assert broker.expire() == 0
    assert broker.acknowledge("w1", [Settled(lease, 0.1)]) == []


def test_the_answer_of_a_fetch_gets_lost(broker):
    """The worker fetches again, and gets the same packages, in their order."""
    know(broker, 0.1)
    put(broker, *"abcd")
    lost = broker.fetch("w1", limit=3).leases
    again = broker.fetch("w1").leases
    assert [lease.id for lease in again] == list("abcd")
    assert not any(lease.is_redelivered for lease in again)
    assert broker.acknowledge("w1", [Settled(lost[0], 0.0)]) == ["a"], "a token of the lost answer fits no more"
    assert broker.acknowledge("w1", [Settled(lease, 0.0) for lease in again]) == []


# Waiting


def test_idle_workers_are_woken(broker):
    broker.fetch("w1")
    put(broker, "a")
    assert broker.client.llen(key(broker, "wake")) == 1
    (lease,) = broker.fetch("w1", wait=60).leases
    assert lease.id == "a"
    assert broker.client.llen(key(broker, "wake")) == 0


def test_what_comes_while_a_worker_waits(broker):
    broker.fetch("w1")
    fetched: list[Batch] = []
    waiting = threading.Thread(target=lambda: fetched.append(broker.fetch("w1", wait=60)))
    waiting.start()
    wait_until(lambda: broker.client.info("clients")["blocked_clients"], what="the worker to wait")
    put(broker, "a")
    waiting.join()
    assert [lease.id for lease in fetched[0].leases] == ["a"]


def test_being_woken_and_fetching_are_one_round_trip(broker, monkeypatch):
    broker.fetch("w1")
    put(broker, "a")
    sent = []
    send = AbstractConnection.send_packed_command
    monkeypatch.setattr(AbstractConnection, "send_packed_command", lambda *args, **_: sent.append(1) or send(*args))
    assert [lease.id for lease in broker.fetch("w1", wait=60).leases] == ["a"]
    assert len(sent) == 1


def test_a_server_that_forgot_its_scripts_while_a_worker_waits(broker):
    broker.fetch("w1")
    put(broker, "a")
    broker.client.script_flush()
    assert [lease.id for lease in broker.fetch("w1", wait=60).leases] == ["a"]


def test_tokens_do_not_pile_up(broker):
    put(broker, *(f"{n}" for n in range(200)))
    assert broker.client.llen(key(broker, "wake")) == 64
    broker.purge()


def test_there_is_more(broker):
    """A worker that takes a full batch wakes another one."""
    put(broker, "a", "b")
    broker.client.delete(key(broker, "wake"))
    fetch_one(broker)
    assert broker.client.llen(key(broker, "wake")) == 1


# Figures


def test_counts(broker):
    put(broker, *(f"a{n}" for n in range(4)))
    put(broker, "g", schema="globex_inc")
    put(broker, "later", delay=60)
    fetch_one(broker, "w1")
    broker.dead_letter("w2", fetch_one(broker, "w2"), "c")
    counts = broker.counts()
    assert (counts.leased, counts.delayed, counts.dead, counts.queued, counts.open) == (1, 1, 1, 3, 5)
    assert broker.queue_size() == 3
    assert broker.queue_size("acme_corp") + broker.queue_size("globex_inc") == 3
    assert broker.queue_size("nobody") == 0


def test_purging_leaves_what_runs(broker):
    put(broker, *"abc", once=True)
    put(broker, "g", schema="globex_inc")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker), "c")
    running = fetch_one(broker)
    broker.purge()
    assert places(broker) == {running.id: 1}
    assert broker.acknowledge("w1", [Settled(running, 0.0)]) == []
    assert keys(broker) <= MAY_STAY
    assert put(broker, "later") == 1, "what was purged is not known"


# Groups


def calls_of(broker: RedisBroker, act: Callable[[], Any]) -> Counter[str]:
    """How often each command is called by an operation, also by its scripts."""

    def count() -> Counter[str]:
        found: Any = broker.client.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()})

    before = count()
    act()
    return count() - before - Counter({"info": 1})


def test_a_purge_costs_the_same_however_much_is_there(broker):
    """No script is as long as what it forgets, so the server serves others meanwhile."""
    broker.purge()  # the script is known to the server then
    calls = []
    for count in (10, 3000):
        know(broker, 0.1)
        put(broker, *(f"q{n}" for n in range(count)))
        put(broker, *(f"d{n}" for n in range(count)), delay=60)
        held = ids(broker, limit=3)
        broker.reclaim("w1", running=held[0])
        assert ids(broker, limit=3) == held
        calls.append(calls_of(broker, broker.purge))
        assert broker.counts().open == 3
        assert ids(broker, "w1") == held, "what was leased has its message and its history"
        assert broker.client.hkeys(key(broker, "starts")) == [id.encode() for id in held]
        broker.purge()
        remove(broker)
    assert calls[0] == calls[1]


def dead_letter(broker: RedisBroker, schema: str, count: int) -> None:
    for n in range(count):
        put(broker, f"{schema} {n:04}", schema=schema)
        broker.dead_letter("w1", fetch_one(broker), "c")


def test_the_dead_are_looked_through_by_slices(broker):
    put(broker, *(f"a{n:04}" for n in range(2500)))
    for start in (0, 1000, 2000):  # as dead-lettering each of them would do
        names = [f"a{n:04}" for n in range(start, min(2500, start + 1000))]
        broker.client.zadd(key(broker, "dead"), dict.fromkeys(names, 1000 + start))
    broker.client.ltrim(key(broker, "queue:acme_corp"), 2500, -1)
    broker.client.hset(key(broker, "causes"), mapping=dict.fromkeys((f"a{n:04}" for n in range(2500)), "c"))
    broker.client.hset(key(broker, "dead_of"), "acme_corp", 2500)
    dead_letter(broker, "globex_inc", 2)
    own = ["globex_inc 0000", "globex_inc 0001"]
    assert [one.id for one in broker.dead("globex_inc")] == own
    assert [one.id for one in broker.dead("globex_inc", newest_first=True)] == own[::-1]
    assert calls_of(broker, lambda: broker.dead("globex_inc"))["evalsha"] == 3
    found = broker.dead(limit=2400)
    assert [one.id for one in found] == [f"a{n:04}" for n in range(2400)]
    assert broker.dead(ids=[one.id for one in found], limit=1500, newest_first=True) == found[:-1501:-1]
    assert broker.retry_dead({"none": ""}) == broker.purge_dead(["none"]) == 0  # the server knows the scripts then
    retried = calls_of(broker, lambda: broker.retry_dead(dict.fromkeys((one.id for one in found), "")))
    assert retried["evalsha"] == 3
    purged = calls_of(broker, lambda: broker.purge_dead([one.id for one in broker.dead(limit=5000)]))
    assert purged["evalsha"] == 2, "one to list them"
    assert broker.counts().dead == 0
    broker.purge()


def test_policies_of_many_tenants_come_into_force_by_slices(broker):
    many = {f"t{n}": Policy(weight=2) for n in range(2500)}
    broker.set_policies({"gone": Policy(paused=True)})
    put(broker, "a", schema="gone")
    assert ids(broker) == []
    broker.set_policies(many)
    assert calls_of(broker, lambda: broker.set_policies(many, complete=True))["evalsha"] == 4
    assert broker.policies() == many
    assert ids(broker) == ["a"]
    broker.set_policies({}, complete=True)
    assert broker.policies() == {}


def test_parts_of_a_group(broker):
    assert broker.add_parts("acme_corp", "g", {"0": "first"}, seconds=None) == 1
    assert broker.add_parts("acme_corp", "g", {"1": "second"}, seconds=None) == 2
    assert broker.add_parts("acme_corp", "g", {"1": "again"}, seconds=None) == 2
    assert broker.parts("acme_corp", "g") == {"0": "first", "1": "second"}
    assert broker.count_parts("acme_corp", "g") == 2
    assert broker.drop_group("acme_corp", "g") == 2
    assert broker.parts("acme_corp", "g") == {}
    assert broker.drop_group("acme_corp", "g") == broker.count_parts("acme_corp", "g") == 0
    assert keys(broker) == set()


def test_equal_groups_of_two_tenants(broker):
    for schema in ("acme_corp", "globex_inc"):
        broker.add_parts(schema, "g", {"0": schema}, seconds=None)
    assert broker.parts("acme_corp", "g") == {"0": "acme_corp"}
    broker.drop_group("acme_corp", "g")
    assert broker.parts("globex_inc", "g") == {"0": "globex_inc"}
    assert broker.parts("acme_corp;g", "") == {}
    broker.drop_group("globex_inc", "g")


@pytest.mark.parametrize(("seconds", "kept"), [(None, -1), (100, 100)])
def test_how_long_a_group_is_kept(broker, seconds, kept):
    broker.add_parts("acme_corp", "g", {"0": "x"}, seconds=seconds)
    assert broker.client.ttl(f"{{tq:{conf().site}}}:group:acme_corp;g") == pytest.approx(kept, abs=2)
    broker.drop_group("acme_corp", "g")


# Status


def test_the_status_of_clusters(broker, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"name": broker.cluster}
    assert broker.get_stats("*") == []
    broker.set_stat("one", "1", 60)
    broker.set_stat("two", "2", 60)
    try:
        assert broker.get_stat("one") == b"1"
        assert broker.get_stats("*") == [b"1", b"2"]
        broker.client.delete(key(broker, "one"))
        assert broker.get_stats("*") == [b"2"], "one that is not refreshed is gone"
        assert broker.last_stats() == [b"1", b"2"]
        broker.forget_stats(["one"])
        assert broker.last_stats() == [b"2"]
    finally:
        broker.client.delete("one", "two", key(broker, "status"))


# The server


def test_the_server(broker):
    broker.ping()
    assert broker.info().split()[0] in ("Valkey", "Redis")
    assert broker.warnings() == []
    broker.close()


def test_a_server_that_may_drop_tasks(broker, monkeypatch):
    memory = {"maxmemory": 1000, "maxmemory_policy": "allkeys-lru"}
    monkeypatch.setattr(broker.client, "info", lambda section: memory)
    (warning,) = broker.warnings()
    assert "'allkeys-lru': it may drop queued tasks; set it to 'noeviction'" in warning
    memory["maxmemory"] = 0
    assert broker.warnings() == []
    monkeypatch.undo()


@pytest.fixture
def full(broker):
    """Fill the server up to its `maxmemory`, and make room again."""
    limit = broker.client.config_get("maxmemory")["maxmemory"]
    yield lambda: broker.client.config_set("maxmemory", 1)
    broker.client.config_set("maxmemory", limit)


def test_a_full_server_is_worked_off(broker, full):
    """It takes nothing more of callers; what is there is run, given back and done, else it were full for good."""
    put(broker, *"abcdefg")
    broker.client.hset(key(broker, "costs"), "acme_corp;f", 1)
    broker.set_policies({"acme_corp": Policy(max_queued=100)})
    full()
    with pytest.raises(BrokerError, match="maxmemory"):
        broker.enqueue([message("h")], limited=True)
    leases = broker.fetch("w1").leases
    assert [lease.id for lease in leases] == [*"abcdefg"]
    broker.renew(["w1"], 60)
    broker.expire()
    assert broker.give_back("w1", leases[6:]) == 1
    broker.put_off("w1", leases[5], delay=60)
    broker.dead_letter("w1", leases[4], "cause")
    broker.enqueue([message("i")])  # a chain's next link: its place is made free by the acknowledgement
    assert broker.add_parts("acme_corp", "group", {"0": "part"}, seconds=None) == 1
    assert broker.acknowledge("w1", [Settled(lease, 0.001) for lease in leases[:3]]) == []
    assert broker.reclaim("w1", running="d") == 1
    broker.set_policies({"acme_corp": Policy(paused=True)})
    assert broker.retry_dead({"e": ""}) == 1
    assert (broker.counts().queued, broker.counts().delayed) == (4, 1)
    broker.drop_group("acme_corp", "group")
    broker.set_policies({}, complete=True)
    broker.purge()


LEASE = Lease(id="a", schema="acme_corp", payload="p", token="1")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("ping", {}),
        ("info", {}),
        ("warnings", {}),
        ("enqueue", {"messages": [message("a")]}),
        ("fetch", {"worker": "w"}),
        ("fetch", {"worker": "w", "wait": 1}),
        ("acknowledge", {"worker": "w", "settled": [Settled(LEASE, 0.0)]}),
        ("give_back", {"worker": "w", "leases": [LEASE]}),
        ("put_off", {"worker": "w", "lease": LEASE, "delay": 1}),
        ("dead_letter", {"worker": "w", "lease": LEASE, "cause": "c"}),
        ("renew", {"workers": ["w"], "seconds": 1}),
        ("reclaim", {"worker": "w", "running": None}),
        ("expire", {}),
        ("counts", {}),
        ("queue_size", {"schema": "acme_corp"}),
        ("tenant_counts", {"schema": "acme_corp"}),
        ("purge", {}),
        ("dead", {}),
        ("retry_dead", {"ids_and_payloads": {"a": ""}}),
        ("purge_dead", {"ids": ["a"]}),
        ("add_parts", {"schema": "s", "group": "g", "parts": {"0": "p"}, "seconds": None}),
        ("parts", {"schema": "s", "group": "g"}),
        ("count_parts", {"schema": "s", "group": "g"}),
        ("drop_group", {"schema": "s", "group": "g"}),
        ("set_stat", {"key": "k", "value": "v", "seconds": 1}),
        ("get_stat", {"key": "k"}),
        ("get_stats", {"pattern": "*"}),
    ],
)
def test_a_server_that_is_away_is_one_kind_of_error(method, arguments, tmp_path):
    client = redis.Redis(unix_socket_path=f"{tmp_path}/nobody.sock", retry=Retry(NoBackoff(), 0))
    away = RedisBroker("away", client)
    with pytest.raises(BrokerError, match=r"nobody\.sock does not serve cluster 'away'"):
        getattr(away, method)(**arguments)


# Connecting


def test_how_the_client_is_chosen(settings):
    fresh: Any = connect.__wrapped__
    for configured in (os.environ["REDIS_URL"], {"unix_socket_path": "/x", "decode_responses": True}, {"host": "h"}):
        settings.Q_CLUSTER = {"redis": configured}
        kwargs = fresh().connection_pool.connection_kwargs
        assert not kwargs.get("decode_responses"), "payloads are bytes"
    assert address(fresh()) == "h:6379"
    settings.Q_CLUSTER = {}
    assert address(fresh()) == "localhost:6379"
    settings.Q_CLUSTER = {"redis": "redis://user:secret@example.com:6380/1"}
    assert address(fresh()) == "example.com:6380", "without the password"
    assert connect() is connect(), "one pool a process"


SHAPES: list[Any] = [
    "?decode_responses=True",
    "?encoding=latin-1&encoding_errors=replace",
    "?protocol=3",
    {"decode_responses": True, "encoding": "utf-16", "protocol": 3},
    {"connection_pool": "decoding"},
]


@pytest.mark.parametrize("configured", SHAPES)
def test_options_that_change_the_shape_of_answers_have_no_effect(settings, configured):
    """A URL's options win over those of the code that reads it, and every worker crashed at its first package."""
    url = os.environ["REDIS_URL"]
    if isinstance(configured, str):
        configured = url + configured.replace("?", "&" if "?" in url else "?")
    elif "connection_pool" in configured:
        configured = {"connection_pool": redis.ConnectionPool.from_url(url, decode_responses=True)}
    else:
        configured = configured | redis.connection.parse_url(url)
        path = configured.pop("path", None)
        configured |= {"unix_socket_path": path} if path else {}
        configured.pop("connection_class", None)
    settings.Q_CLUSTER = {"redis": configured}
    broker = RedisBroker(f"shape{uuid.uuid4().hex[:8]}", make_client())
    broker.enqueue([message("a", payload="ä")])
    (lease,) = broker.fetch("w1").leases
    assert (lease.id, lease.payload) == ("a", "ä")
    assert broker.acknowledge("w1", [Settled(lease, 0.1)]) == []
    assert broker.statistics()["stale_acks"] == 0
    remove(broker)


def test_an_alias_of_django_redis_has_our_shape(settings, monkeypatch):
    pool = redis.ConnectionPool.from_url(os.environ["REDIS_URL"], decode_responses=True, protocol=3)
    theirs = types.SimpleNamespace(get_redis_connection=lambda alias: redis.Redis(connection_pool=pool))
    monkeypatch.setitem(sys.modules, "django_redis", theirs)
    settings.Q_CLUSTER = {"django_redis": "default"}
    broker = RedisBroker(f"shape{uuid.uuid4().hex[:8]}", make_client())
    broker.enqueue([message("a")])
    assert ids(broker) == ["a"]
    assert pool.connection_kwargs["decode_responses"], "their own client is left alone"
    remove(broker)


@pytest.mark.parametrize(
    ("theirs", "expected"), [({}, (5, 10)), ({"socket_timeout": None}, (5, None)), ({"socket_timeout": 77}, (5, 77))]
)
def test_an_alias_of_django_redis_waits_for_no_answer_for_ever(settings, monkeypatch, theirs, expected):
    """Unless the project's own options say so."""
    pool = redis.ConnectionPool.from_url(os.environ["REDIS_URL"], protocol=2, **theirs)
    module = types.SimpleNamespace(get_redis_connection=lambda alias: redis.Redis(connection_pool=pool))
    monkeypatch.setitem(sys.modules, "django_redis", module)
    settings.Q_CLUSTER = {"django_redis": "default"}
    options = make_client().connection_pool.connection_kwargs
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == expected
    assert "socket_connect_timeout" not in pool.connection_kwargs, "their own client is left alone"


@pytest.mark.parametrize(
    ("theirs", "expected"), [({}, (2, 2)), ({"socket_timeout": None}, (2, 2)), ({"socket_timeout": 7}, (2, 7))]
)
@pytest.mark.parametrize("how", ["keywords", "django_redis"])
def test_who_watches_others_waits_for_no_answer_for_long(settings, monkeypatch, how, theirs, expected):
    """Also where the project has a process wait for ever. Its own limit holds."""
    pool = redis.ConnectionPool.from_url(os.environ["REDIS_URL"], protocol=2, **theirs)
    module = types.SimpleNamespace(get_redis_connection=lambda alias: redis.Redis(connection_pool=pool))
    monkeypatch.setitem(sys.modules, "django_redis", module)
    settings.Q_CLUSTER = {"django_redis": "default"} if how == "django_redis" else {"redis": theirs}
    options = make_client(patient=False).connection_pool.connection_kwargs
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == expected


def test_a_pool_of_another_kind_without_limits_is_named(settings, monkeypatch):
    """It may be the one of Redis Sentinel. Its options are the project's; a call of it could last for ever."""

    class Pool(redis.ConnectionPool):
        pass

    def use(url=os.environ["REDIS_URL"], **theirs):
        pool = Pool.from_url(url, **theirs)
        module = types.SimpleNamespace(get_redis_connection=lambda alias: redis.Redis(connection_pool=pool))
        monkeypatch.setitem(sys.modules, "django_redis", module)

    settings.Q_CLUSTER = {"django_redis": "default"}
    use("redis://localhost/0", decode_responses=True, socket_timeout=3)
    with pytest.raises(ConfigurationError, match=r"decode_responses, .*; remove it, and set socket_connect_timeout"):
        make_client()
    use("redis://localhost/0")
    assert missing_limits(make_client()) == ["socket_connect_timeout", "socket_timeout"]
    use("unix:///run/redis.sock")
    assert missing_limits(make_client()) == ["socket_timeout"]
    use()
    (warning,) = RedisBroker("limits", make_client()).warnings()
    assert re.match("The Pool of the client sets no (socket_connect_timeout and )?socket_timeout, so", warning)
    use(socket_timeout=3, socket_connect_timeout=3)
    assert RedisBroker("limits", make_client()).warnings() == []


def test_a_pool_of_another_kind_with_another_shape_is_refused(settings):
    class Pool(redis.ConnectionPool):
        pass

    settings.Q_CLUSTER = {"redis": {"connection_pool": Pool.from_url(os.environ["REDIS_URL"])}}
    assert make_client().ping()
    settings.Q_CLUSTER = {"redis": {"connection_pool": Pool.from_url(os.environ["REDIS_URL"], decode_responses=True)}}
    with pytest.raises(ConfigurationError, match="its Pool sets decode_responses, which changes the answers"):
        make_client()


@pytest.mark.parametrize("password", ["pa#ss", "pa/ss", "pa?ss", "12#3", "#", "p[ss", "p]ss"])
def test_a_password_that_ends_the_url_is_named_and_not_shown(settings, password):
    settings.Q_CLUSTER = {"redis": f"redis://:{password}@localhost:6379/0"}
    with pytest.raises(ConfigurationError, match=r"write '#' as %23") as raised:
        make_client()
    text = str(raised.value) + repr(raised.value.__cause__)
    assert password == "#" or password not in text
    assert "pa'" not in text
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("configured", [{"hosst": "x"}, "http://localhost", "localhost:6379"])
def test_options_that_cannot_be_used(settings, configured):
    settings.Q_CLUSTER = {"redis": configured}
    with pytest.raises(ConfigurationError, match=r"Q_CLUSTER\['redis'\] cannot be used: .*; give a URL or"):
        connect.__wrapped__()


def test_without_django_redis(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "django_redis", None)
    settings.Q_CLUSTER = {"django_redis": "default"}
    with pytest.raises(ConfigurationError, match="django-redis is not installed; install it, or set 'redis'"):
        connect.__wrapped__()


def test_scripts_are_read_once(broker, monkeypatch):
    put(broker, "a")
    monkeypatch.setattr(scripts_module, "_LUA", "gone")
    fetch_one(broker)
    RedisBroker(broker.cluster).purge()


def test_a_server_that_forgot_the_scripts(broker):
    put(broker, "a")
    tasks.client().script_flush()
    put(broker, "b")
    assert broker.queue_size() == 2


# Anything in any order


class Walk(RuleBasedStateMachine):
    """Operations in any order: no package is lost, none is in two places, and each is acknowledged once at most."""

    SCHEMAS = st.sampled_from(["acme_corp", "globex_inc"])
    WORKERS = st.sampled_from(["w1", "w2"])

    def __init__(self) -> None:
        super().__init__()
        self.broker = RedisBroker(f"walk{uuid.uuid4().hex[:8]}")
        self.serial = 0
        self.accepted: set[str] = set()
        self.done: list[str] = []
        self.leases: list[tuple[str, Lease]] = []

    def teardown(self) -> None:
        remove(self.broker)

    def a_lease(self, data: Any) -> tuple[str, Lease]:
        """Any lease ever given, also one that fits no more."""
        taken: tuple[str, Lease] = data.draw(st.sampled_from(self.leases))
        return taken

    @rule(schema=SCHEMAS, count=st.integers(1, 4), once=st.booleans(), delay=st.sampled_from([0, 0, 60]))
    def enqueue(self, schema, count, once, delay):
        fresh = [f"{self.serial + n}" for n in range(count)]
        self.serial += count
        assert put(self.broker, *fresh, schema=schema, once=once, delay=delay) == count
        self.accepted |= set(fresh)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def enqueue_again(self, data):
        known = sorted(self.accepted - set(self.done))
        if known:
            assert put(self.broker, data.draw(st.sampled_from(known))) == 0

    @rule(worker=WORKERS, limit=st.integers(1, 5))
    def fetch(self, worker, limit):
        leases = self.broker.fetch(worker, limit=limit).leases
        assert len(leases) <= limit
        self.leases += [(worker, lease) for lease in leases]

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def acknowledge(self, data):
        worker, lease = self.a_lease(data)
        if self.broker.acknowledge(worker, [Settled(lease, 0.001)]) == []:
            self.done.append(lease.id)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), delay=st.sampled_from([0, 60]))
    def put_off(self, data, delay):
        worker, lease = self.a_lease(data)
        self.broker.put_off(worker, lease, delay=delay)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data):
        worker, lease = self.a_lease(data)
        assert self.broker.give_back(worker, [lease]) in (0, 1)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def dead_letter(self, data):
        worker, lease = self.a_lease(data)
        self.broker.dead_letter(worker, lease, "c")

    @rule(worker=WORKERS, data=st.data())
    def die(self, worker, data):
        ran = data.draw(st.sampled_from([None, *(lease.id for _, lease in self.leases)]))
        self.broker.reclaim(worker, running=ran)

    @rule()
    def expire(self):
        run_out(self.broker, *self.accepted)
        self.broker.expire()

    @rule()
    def retry_the_dead(self):
        self.broker.retry_dead({dead.id: "" for dead in self.broker.dead()})

    @invariant()
    def everything_is_somewhere_once(self):
        check(self.broker)
        assert set(places(self.broker)) == self.accepted - set(self.done)
        assert len(set(self.done)) == len(self.done)
        counts = self.broker.counts()
        assert counts.open + counts.dead == len(self.accepted) - len(self.done)


def test_anything_in_any_order():
    run_state_machine_as_test(
        Walk,
        settings=hypothesis_settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# One tenant's packages


def calls(broker: RedisBroker, act: Any) -> int:
    """How many commands the server ran for it."""
    broker.client.config_resetstat()
    act()
    stats: Any = broker.client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat"))


def test_what_a_tenant_has_costs_nothing_for_what_others_have(broker):
    """And no more for what of its own is not shown."""
    put(broker, "a")
    put(broker, *(f"d{n}" for n in range(10)), delay=60)
    for schema in ("globex_inc", "initech_llc"):
        put(broker, f"q {schema}", schema=schema)
        put(broker, f"d {schema}", schema=schema, delay=30)
    acts = {
        "live": lambda: broker.live("acme_corp", limit=5),
        "find": lambda: broker.find("acme_corp", "d8"),
        "place": lambda: broker.place("acme_corp", "d8"),
        "cancel": lambda: broker.cancel("acme_corp", "d9", "TaskCancelled: x"),
        "cancelled": broker.cancelled,
    }
    before = {name: calls(broker, act) for name, act in acts.items()}
    put(broker, *(f"more {n}" for n in range(500)), delay=60)
    put(broker, *(f"others {n}" for n in range(500)), schema="globex_inc", delay=20)
    put(broker, *(f"others' {n}" for n in range(500)), schema="initech_llc")
    put(broker, "d9 again", delay=60)
    acts["cancel"] = lambda: broker.cancel("acme_corp", "d9 again", "TaskCancelled: x")
    after = {name: calls(broker, act) for name, act in acts.items()}
    assert all(abs(after[name] - before[name]) < 5 for name in acts), (before, after)
