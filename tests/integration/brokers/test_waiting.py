"""What a tenant has waiting: count, read and take it, in slices, while workers go on."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import CANCELLED, Chosen, Message, Settled, Unique, Waiting
from tenant_q.brokers.redis import waiting as redis_waiting
from tests.integration.brokers.drivers import OnRedis

A, B = "acme_corp", "globex_inc"
CAUSE = "TaskPurged: by Ada"
ALL = Chosen()


@pytest.fixture(params=[1, 3, 500])
def size(request, monkeypatch):
    """The packages of a slice."""
    monkeypatch.setattr(redis_waiting, "_SLICE", request.param)
    return request.param


def message(id, schema=A, func="f", **options):
    return Message(id, schema, func, f"payload of {id}", **options)


def queued(broker, schema=A):
    return [one.id for one in broker.live(schema, limit=1000)]


def taken(broker, chosen=ALL, schema=A):
    return sorted(one.id for some in broker.take_waiting(schema, chosen, CAUSE) for one in some)


def everywhere(broker):
    """Enqueue packages in all places of a tenant, some of another function, and one of another tenant."""
    broker.enqueue([message(f"q{n}", func="fg"[n % 2]) for n in range(7)])
    broker.enqueue([message(f"p{n}", priority=5) for n in range(2)])
    broker.enqueue([message(f"r{n}", func="g", interval=60.0) for n in range(3)])
    broker.enqueue([message(f"d{n}", func="fg"[n % 2], delay=1000.0 + n) for n in range(4)])
    broker.enqueue([message("other", schema=B)])


def test_what_waits_is_counted(broker):
    everywhere(broker)
    assert broker.count_waiting(A) == Waiting(queued=12, delayed=4)
    assert broker.queue_size(A) == 12


def test_all_that_waits_is_taken_and_is_dead(broker, size):
    everywhere(broker)
    before = queued(broker)
    assert taken(broker) == sorted(before)
    assert broker.count_waiting(A) == Waiting()
    dead = broker.dead(A)
    assert sorted(one.id for one in dead) == sorted(before)
    assert {one.cause for one in dead} == {CAUSE}
    assert dead[0].payload == f"payload of {dead[0].id}"
    assert queued(broker, B) == ["other"]
    assert [lease.id for lease in broker.fetch("w1").leases] == ["other"]
    assert broker.purge_dead(before) == len(before)
    assert broker.counts().dead == 0


@pytest.mark.parametrize(("chosen", "left"), [(Chosen(delayed=False), "d"), (Chosen(queued=False), "pqr")])
def test_one_place_only(broker, size, chosen, left):
    everywhere(broker)
    taken(broker, chosen)
    assert {id[0] for id in queued(broker)} == set(left)


def test_one_function_only_and_the_others_keep_their_order(broker, size):
    everywhere(broker)
    before = queued(broker)
    assert taken(broker, Chosen(func="g")) == ["d1", "d3", "q1", "q3", "q5", "r0", "r1", "r2"]
    assert queued(broker) == [id for id in before if id in ("p0", "p1", "q0", "q2", "q4", "q6", "d0", "d2")]
    assert len(broker.fetch("w1", seconds=1e6).leases) > 0


def test_leased_packages_stay(broker, size):
    broker.enqueue([message("a")])
    (lease,) = broker.fetch("w1").leases
    broker.enqueue([message("b")])
    assert taken(broker) == ["b"]
    assert broker.acknowledge("w1", [Settled(lease, 1.0)]) == []


def test_the_walk_misses_nothing_while_workers_take_and_others_enqueue(broker, size):
    broker.enqueue([message(f"a{n}", func="fg"[n % 2]) for n in range(9)])
    found = []
    for number, some in enumerate(broker.take_waiting(A, Chosen(func="g"), CAUSE)):
        found += [one.id for one in some]
        broker.enqueue([message(f"new{number}")])
        if number == 0:
            held = [lease.id for lease in broker.fetch("w1", limit=1).leases]
    assert sorted([*found, *(id for id in held if id == "a1")]) == ["a1", "a3", "a5", "a7"]
    assert {"a0", "a2", "a4", "a6", "a8"} - {*held} <= {*queued(broker)}


def test_a_taken_package_has_no_unique_key(broker):
    unique = Unique("f", "k")
    broker.enqueue([message("a", unique=unique)])
    taken(broker)
    assert broker.enqueue_unique(message("b", unique=unique)) == "b"


def test_a_cancel_survives_that(broker):
    broker.enqueue([message("a")])
    broker.cancel(A, "a", f"{CANCELLED}: by Ada")
    taken(broker)
    broker.retry_dead({"a": ""})
    assert [lease.give_up_reason for lease in broker.fetch("w1").leases] == [f"{CANCELLED}: by Ada"]


def test_all_live_packages_are_read_slice_by_slice(broker, size):
    broker.enqueue([message("leased")])
    broker.fetch("w1")
    everywhere(broker)
    found = [live for some in broker.each_live(A) for live in some]
    assert sorted(live.id for live in found) == sorted(queued(broker))
    assert found[-1].place == "leased"
    by_id = {live.id: live for live in broker.live(A)}
    assert {live.id: live for live in found} == by_id


def test_a_tenant_that_is_gone_is_found_by_its_name(broker):
    for one in (message("a", tenant="1"), message("b", tenant="2"), message("c", schema=B, tenant="3")):
        broker.enqueue([one])
    assert broker.tenants_named(A) == ["1", "2"]
    assert broker.tenants_named("initech_llc") == [""]
    assert broker.count_waiting(A, tenant="2") == Waiting(queued=1)
    assert [one.id for some in broker.take_waiting(A, Chosen(), CAUSE, tenant="2") for one in some] == ["b"]


# Cancel many


def test_many_are_cancelled_at_once(broker):
    everywhere(broker)
    ids = ["d1", "q3", "p0", "r2", "unknown", "q0", "other"]
    places = broker.cancel_all(A, ids, f"{CANCELLED}: by Ada")
    assert places == {"d1": "delayed", "q3": "queued", "p0": "queued", "r2": "queued", "q0": "queued"}
    live = {one.id: one for one in broker.live(A)}
    assert {id for id, one in live.items() if one.give_up_reason} == set(places)
    assert [one for one in queued(broker) if one[0] in "qdpr"][:1] == ["p1"], "by priority"
    assert [id for id in queued(broker) if id in places] == ["q0", "r2", "p0", "q3", "d1"], "at the head of the queue"


def test_a_link_that_follows_a_cancelled_package_is_cancelled(broker):
    broker.enqueue([message("a")])
    broker.fetch("w1")
    broker.cancel(A, "a", f"{CANCELLED}: by Ada")
    broker.enqueue([message("b", follows="a", once=True), message("c")])
    assert [one.give_up_reason for one in broker.live(A)] == [f"{CANCELLED}: by Ada"] * 2 + [None]


# What it costs


@pytest.fixture
def on_redis():
    driver = OnRedis()
    yield driver.broker
    driver.end()


def test_each_call_of_the_script_takes_few_packages(on_redis):
    on_redis.enqueue([message(f"a{n}", func="fg"[n % 2]) for n in range(1000)])
    most = redis_waiting._SLICE
    assert [len(some) for some in on_redis.take_waiting(A, Chosen(func="g"), CAUSE)] == [most // 2] * 4 + [0]
    assert [len(some) for some in on_redis.take_waiting(A, ALL, CAUSE)] == [most] * 2 + [0]


def test_each_call_of_the_script_reads_few_bytes(on_redis):
    payload = "x" * (redis_waiting._SLICE_BYTES // 2 - 100)
    on_redis.enqueue([Message(f"a{n}", A, "f", payload) for n in range(5)])
    assert [len(some) for some in on_redis.take_waiting(A, ALL, CAUSE)] == [2, 2, 1]
    on_redis.enqueue([Message(f"b{n}", A, "f", 5 * payload) for n in range(2)])
    assert [len(some) for some in on_redis.take_waiting(A, ALL, CAUSE)] == [1, 1, 0]
