"""Delayed packages, and those that are put off."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import Counts
from tests.integration.brokers.drivers import fetch, fetch_one, finish, know, put


def test_a_delayed_package_becomes_due(driver, broker):
    put(broker, "b", delay=100)
    put(broker, "a", delay=50)
    batch = broker.fetch("w1")
    assert batch.leases == ()
    assert batch.next_delayed == pytest.approx(50, abs=5)
    assert broker.counts() == Counts(0, 0, 2, 0)
    driver.advance(51)
    assert fetch(broker, "w1") == ["a"]
    driver.advance(51)
    assert fetch(broker, "w2") == ["b"]
    assert broker.fetch("w3").next_delayed is None


def test_the_first_due_comes_first(driver, broker):
    know(broker, 0.1)
    put(broker, "c", delay=30)
    put(broker, "b", "a", delay=20)
    put(broker, "z", delay=10)
    driver.advance(31)
    assert fetch(broker) == list("zabc"), "of equals the first by id"


@pytest.mark.parametrize("how", ["enqueued", "put off"])
def test_what_is_due_competes_by_tenant(driver, broker, how):
    """Another tenant's thousands that are due at one moment delay a tenant's one by a batch, not by all of them."""
    know(broker, 0.1, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(5000)), delay=100)
    put(broker, "one", schema="globex_inc", delay=101 if how == "enqueued" else 0)
    if how == "put off":
        broker.put_off("w1", fetch_one(broker), delay=101)
    driver.advance(110)
    first, second = fetch(broker, "w1"), fetch(broker, "w2")
    assert "one" in first + second
    assert first[0].startswith("a"), "the work of both is taken by turns"


def test_what_is_due_of_many_tenants(driver, broker):
    """Each of them has its turn before a second batch of any."""
    names = [f"tenant_{n:03}" for n in range(300)]
    know(broker, 0.1, *names)
    put(broker, *(f"first {n}" for n in range(1000)), schema=names[0], delay=100)
    for name in names[1:]:
        put(broker, name, schema=name, delay=100)
    driver.advance(110)
    found = [id for n in range(20) for id in fetch(broker, f"w{n}")]
    assert set(names[1:]) <= set(found)


def test_what_is_due_comes_behind_what_was_queued_before(driver, broker):
    """One tenant's packages run in the order in which they could have: neither kind waits for the other's end."""
    know(broker, 0.1)
    put(broker, *"ab")
    put(broker, "due", delay=10)
    driver.advance(11)
    assert fetch(broker, limit=1) == ["a"]
    put(broker, "c")
    assert fetch(broker, "w2") == ["b", "due", "c"]


def test_put_off(driver, broker):
    put(broker, "a", once=True)
    broker.put_off("w1", fetch_one(broker), delay=60, payload="other")
    assert fetch(broker) == []
    driver.advance(61)
    lease = fetch_one(broker)
    assert (lease.id, lease.schema, lease.payload, lease.is_redelivered) == ("a", "acme_corp", "other", False)
    broker.put_off("w1", lease, delay=0)
    assert broker.counts() == Counts(0, 0, 1, 0)
    lease = fetch_one(broker)
    assert lease.payload == "other", "its own"
    finish(broker, lease)
    assert put(broker, "a", once=True) == 0, "its id is as deterministic as before"


def test_what_is_put_off_keeps_its_starts_but_no_give_up_reason(broker):
    put(broker, "a")
    fetch_one(broker)
    broker.reclaim("w1", running="a")
    fetch_one(broker)
    broker.reclaim("w1", running="a", give_up_reason="v")
    broker.put_off("w1", fetch_one(broker), delay=0)
    lease = fetch_one(broker)
    assert (lease.starts, lease.give_up_reason) == (1, None)


def test_what_is_put_off_goes_behind_what_waits(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    broker.put_off("w1", fetch_one(broker), delay=0)
    assert fetch(broker) == list("bca")


def test_what_waits_for_its_tenant(driver, broker):
    put(broker, "a", "b", "c")
    broker.put_off("w1", fetch_one(broker), delay=60, unready=True)
    broker.put_off("w1", fetch_one(broker), delay=60)
    counts = broker.counts()
    assert (counts.delayed, counts.unready, counts.open, counts.runnable) == (2, 1, 3, 2)
    driver.advance(61)
    assert fetch(broker) == ["c"]
    assert broker.counts() == Counts(2, 1, 0, 0)
