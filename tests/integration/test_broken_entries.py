"""What is broken in Redis costs its own entry: every other package is served, and the log names what was dropped."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tenant_q.brokers import get_broker
from tenant_q.brokers.connection import connect
from tenant_q.brokers.protocol import Policy, Settled
from tenant_q.brokers.redis import RedisBroker
from tests import tasks
from tests.integration.brokers.test_redis import check, key, put, remove

LOST = "0" * 32
OTHERS = ("globex_inc", "initech_llc")


@pytest.fixture
def broker(settings) -> Iterator[RedisBroker]:
    settings.TENANT_Q = {"lease": 1}
    broker = RedisBroker(f"broken{uuid.uuid4().hex[:8]}")
    yield broker
    try:
        check(broker)
    finally:
        remove(broker)


def _run_out(broker: RedisBroker) -> None:
    """All leases have run out."""
    client: Any = broker.client
    client.delete(key(broker, "expired"))
    broker.expire()
    for id in client.zrange(key(broker, "leases"), 0, -1):
        client.zadd(key(broker, "leases"), {id: 1})


def queue_entry(broker: Any) -> None:
    broker.client.lpush(key(broker, "queue:acme_corp"), LOST)


def queue_entry_of_bytes(broker: Any) -> None:
    broker.client.lpush(key(broker, "queue:acme_corp"), b"\xff\xfe")
    broker.client.hset(key(broker, "messages"), b"\xff\xfe", b"acme_corp\nf\n0\n\xff")


def malformed_message(broker: Any) -> None:
    broker.client.lpush(key(broker, "queue:acme_corp"), LOST)
    broker.client.hset(key(broker, "messages"), LOST, "no lines")


def delayed_entry(broker: Any) -> None:
    broker.client.zadd(key(broker, "delayed"), {LOST: 1})
    broker.client.zadd(key(broker, "delayed:acme_corp"), {LOST: 1})
    broker.client.hincrby(key(broker, "waiting"), "acme_corp", 1)
    broker.client.sadd(key(broker, "unready"), LOST)


def dead_entry(broker: Any) -> None:
    broker.client.zadd(key(broker, "dead"), {LOST: 1})
    broker.client.hincrby(key(broker, "dead_of"), "acme_corp", 1)


def lease_of_nobody(broker: Any) -> None:
    broker.client.zadd(key(broker, "leases"), {LOST: 1})


def lease_of_a_worker(broker: Any) -> None:
    broker.client.zadd(key(broker, "leases"), {LOST: 1})
    broker.client.zadd(key(broker, "held:w1"), {LOST: 1})


def malformed_lease(broker: Any) -> None:
    lease_of_a_worker(broker)
    broker.client.hset(key(broker, "leased"), LOST, b"\xc1\xff not packed")


def malformed_policy(broker: Any) -> None:
    broker.client.hset(key(broker, "policy"), "acme_corp", b"\xc1")


def malformed_cost(broker: Any) -> None:
    broker.client.hset(key(broker, "costs"), "acme_corp;f", "x")


def cancelled_entry(broker: Any) -> None:
    lease_of_a_worker(broker)
    broker.client.hset(key(broker, "cancelled"), LOST, 1)


def queue_of_wrong_type(broker: Any) -> None:
    broker.client.set(key(broker, "queue:acme_corp"), "x")
    broker.client.zadd(key(broker, "ready"), {"acme_corp": 0})


def delayed_of_wrong_type(broker: Any) -> None:
    broker.client.set(key(broker, "delayed:acme_corp"), "x")


def running_of_wrong_type(broker: Any) -> None:
    broker.client.set(key(broker, "running:acme_corp"), "x")


def held_of_wrong_type(broker: Any) -> None:
    broker.client.set(key(broker, "held:w1"), "x")


BROKEN = [
    queue_entry, queue_entry_of_bytes, malformed_message, delayed_entry, dead_entry, lease_of_nobody,
    lease_of_a_worker, malformed_lease, malformed_policy, malformed_cost, cancelled_entry, queue_of_wrong_type,
    delayed_of_wrong_type, running_of_wrong_type, held_of_wrong_type,
]  # fmt: skip


def _all_operations(broker: RedisBroker) -> list[str]:
    """Do whatever clusters and people do with a broker, for this tenant and two others. Return the ids that ran."""
    put(broker, "a", schema=OTHERS[0])
    put(broker, "b", schema=OTHERS[1], delay=0.001)
    put(broker, "own")
    broker.renew(["w1", "w2"], 1)
    broker.set_policies({"acme_corp": Policy(max_running=5)})
    for act in (broker.counts, broker.loads, broker.totals, broker.policies, broker.cancelled, broker.dead):
        act()
    for schema in ("acme_corp", *OTHERS):
        broker.live(schema)
        broker.queue_size(schema)
        broker.state(schema, LOST)
        broker.find(schema, LOST)
        broker.cancel(schema, LOST, "TaskCancelled: by nobody")
    broker.retry_dead({LOST: ""})
    broker.purge_dead([LOST])
    done: list[str] = []
    for turn in range(20):
        worker = f"w{turn % 2 + 1}"
        leases = broker.fetch(worker).leases
        broker.renew(["w1", "w2"], 1)
        assert broker.acknowledge(worker, [Settled(lease, 0.001) for lease in leases]) == []
        done += [lease.id for lease in leases]
        broker.reclaim("w1", running=None, charged=False)
        _run_out(broker)
        broker.expire()
    return done


@pytest.mark.parametrize("damage", BROKEN)
def test_what_is_broken_costs_nobody_else(broker, damage: Callable[[Any], None], caplog):
    damage(broker)
    with caplog.at_level(logging.ERROR):
        assert sorted(_all_operations(broker)) == ["a", "b", "own"]
    client: Any = broker.client
    client.delete(key(broker, "expired"), key(broker, "policy"))
    if damage not in (malformed_policy, malformed_cost):
        assert broker.statistics()["broken"] >= 1
        assert "is dropped" in caplog.text or "is moved aside" in caplog.text, "the log names it"
    assert broker.counts().open == 0
    assert broker.loads() == {} or all(load.dead == 0 for load in broker.loads().values())


def test_a_package_whose_lease_is_gone_is_returned(broker):
    put(broker, "a")
    (lease,) = broker.fetch("w1").leases
    broker.client.hdel(key(broker, "leased"), lease.id)
    assert [one.id for one in broker.fetch("w1").leases] == ["a"]
    broker.client.hdel(key(broker, "leased"), lease.id)
    assert broker.reclaim("w1", running="a") == 1
    (again,) = broker.fetch("w2").leases
    assert again.starts == 1
    broker.client.hdel(key(broker, "leased"), lease.id)
    broker.client.zrem(key(broker, "held:w2"), "a")
    _run_out(broker)
    broker.expire()
    (again,) = broker.fetch("w1").leases
    assert broker.acknowledge("w1", [Settled(again, 0.1)]) == []
    broker.client.delete(key(broker, "expired"))


def test_messages_that_vanish_while_their_packages_are_leased(broker):
    """Whatever a worker does next with such a package, it is forgotten then."""
    for act in (
        lambda lease: broker.dead_letter("w1", lease, "c"),
        lambda lease: broker.put_off("w1", lease, delay=0.0),
        lambda lease: broker.give_back("w1", [lease]),
        lambda lease: broker.reclaim("w1", running=lease.id, give_up_reason="v"),
        lambda lease: broker.acknowledge("w1", [Settled(lease, 0.1)]),
    ):
        put(broker, "a")
        (lease,) = broker.fetch("w1").leases
        broker.client.hdel(key(broker, "messages"), "a")
        act(lease)
        assert broker.fetch("w2").leases == ()
        assert broker.dead() == []
        assert broker.counts().open == 0


def test_a_put_off_package_gets_its_message_again(broker):
    put(broker, "a")
    (lease,) = broker.fetch("w1").leases
    broker.client.hdel(key(broker, "messages"), "a")
    broker.put_off("w1", lease, delay=0.0, payload="again")
    assert [one.payload for one in broker.fetch("w1").leases] == ["again"]
    broker.purge()
    broker.client.delete(key(broker, "messages"))
    assert broker.fetch("w1").leases == ()


def test_dead_packages_of_bytes_are_listed(broker):
    client: Any = broker.client
    client.zadd(key(broker, "dead"), {b"\xff": 1})
    client.hset(key(broker, "messages"), b"\xff", b"acme_corp\nf\n0\n\xff")
    assert len(broker.dead()) == 1
    broker.purge()


# What is only shown is not required


@pytest.fixture
def as_user(tenants) -> Iterator[Callable[..., RedisBroker]]:
    """A broker of a user of Redis with these rights."""
    admin = tasks.client()
    names: list[str] = []

    def make(*rules: str) -> RedisBroker:
        names.append(f"user{uuid.uuid4().hex[:8]}")
        admin.execute_command("ACL", "SETUSER", names[-1], "on", ">secret", *rules)
        kwargs = connect().connection_pool.connection_kwargs | {"username": names[-1], "password": "secret"}
        pool = redis.ConnectionPool(connection_class=connect().connection_pool.connection_class, **kwargs)
        return RedisBroker(get_broker().cluster, redis.Redis(connection_pool=pool))

    yield make
    for name in names:
        admin.execute_command("ACL", "DELUSER", name)


def test_a_user_without_info_is_served(as_user, caplog):
    broker = as_user("~*", "&*", "+@all", "-@dangerous")
    assert broker.info() == "Redis"
    assert "maxmemory-policy cannot be read" in broker.warnings()[0]
    assert "no permissions" in broker.warnings()[0]
    put(broker, "a")
    (lease,) = broker.fetch("w1", wait=0.1).leases
    assert broker.acknowledge("w1", [Settled(lease, 0.1)]) == []


def test_every_key_is_under_a_hash_tag(as_user):
    """A rule of an ACL for {tq:*, or a Redis Cluster with several nodes."""
    broker = as_user("~{tq:*", "&*", "+@all")
    broker.set_stat("django_q:x:cluster:1", "1", 60)
    assert broker.get_stat("django_q:x:cluster:1") == b"1"
    assert broker.get_stats("*") == [b"1"]
    assert broker.get_stat("django_q:x:cluster:2") is None
    broker.client.hset(f"{broker.tag}:status", "django_q:x:cluster:2", "gone, of an earlier version")
    assert broker.get_stats("*") == [b"1"], "another node's or not permitted: it is not live here"
    broker.probe()
    put(broker, "a")
    assert len(broker.fetch("w1", wait=0.1).leases) == 1
    broker.note_stray()
    assert broker.strays() is not None


def test_a_status_of_the_version_before_is_read(tenants):
    """Two versions run on one broker during a rolling deploy."""
    broker: Any = get_broker()
    name = f"django_q:{broker.cluster}:cluster:1"
    broker.client.set(name, "before", ex=60)
    broker.client.hset(f"{broker.tag}:status", name, "before")
    assert broker.get_stats("*") == [b"before"]
    assert broker.get_stat(name) == b"before"
    broker.client.delete(name)
    assert broker.get_stats("*") == []
