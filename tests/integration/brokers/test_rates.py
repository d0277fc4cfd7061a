"""A rate limits the starts of a function; what it holds back holds back nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_q.brokers.protocol import CANCELLED, Message, Policy, Unique
from tests.integration.brokers.drivers import fetch, fetch_one, finish, know, put

# Long intervals: the real time that passes on the server meanwhile allows no start.
HOURLY: dict[str, Any] = {"interval": 3600.0}
A, B = "acme_corp", "globex_inc"


def starts(driver, broker, hours=1.0, worker="w1"):
    """Let time pass, run what may start, and return its ids."""
    driver.advance(hours * 3600)
    leases = broker.fetch(worker).leases
    finish(broker, *leases, worker=worker)
    return [lease.id for lease in leases]


def test_one_start_in_each_interval(driver, broker):
    know(broker, 0.1)
    put(broker, *"abc", **HOURLY)
    assert starts(driver, broker, 0) == ["a"]
    assert starts(driver, broker, 0) == []
    assert starts(driver, broker) == ["b"]
    assert starts(driver, broker, 0.5) == []
    assert starts(driver, broker, 0.6) == ["c"]


def test_idle_workers_learn_when_the_next_start_is(broker):
    put(broker, *"ab", **HOURLY)
    fetch_one(broker)
    assert broker.fetch("w2").next_delayed == pytest.approx(3600, abs=5)


def test_no_burst_is_saved_up(driver, broker):
    know(broker, 0.1)
    put(broker, *"abcdef", **HOURLY)
    assert starts(driver, broker, 24) == ["a"]
    assert starts(driver, broker, 0) == []


def test_a_late_start_delays_no_later_one(driver, broker):
    """Half a second's worth may start at once."""
    know(broker, 0.1)
    put(broker, *(f"{n:02}" for n in range(60)), interval=0.05)
    assert starts(driver, broker, 0) == [f"{n:02}" for n in range(11)]


def test_what_is_held_back_holds_back_nothing_else(broker):
    know(broker, 0.1, A)
    know(broker, 0.1, B)
    put(broker, *(f"limited {n}" for n in range(50)), **HOURLY)
    put(broker, "plain", "other function", func="g")
    put(broker, "other tenant", schema=B, **HOURLY)
    found = [id for n in range(4) for id in fetch(broker, f"w{n}")]
    assert sorted(found) == ["limited 0", "other function", "other tenant", "plain"]


def test_a_rate_is_a_tenants_own(driver, broker):
    know(broker, 0.1, A, B)
    put(broker, "a1", "a2", **HOURLY)
    put(broker, "b1", "b2", schema=B, **HOURLY)
    assert sorted(starts(driver, broker, 0)) == ["a1", "b1"]
    assert sorted(starts(driver, broker)) == ["a2", "b2"]


def test_a_rate_of_the_site_counts_all_tenants_by_turns(driver, broker):
    know(broker, 0.1, A, B)
    put(broker, "a1", "a2", "a3", is_site_rate=True, **HOURLY)
    put(broker, "b1", "b2", schema=B, is_site_rate=True, **HOURLY)
    found = [starts(driver, broker, 0 if n == 0 else 1) for n in range(5)]
    assert all(len(one) == 1 for one in found)
    assert [one[0][0] for one in found] == ["a", "a", "b", "a", "b"], "they waited in this order"


def test_a_held_back_tenant_holds_up_no_other_one(driver, broker):
    know(broker, 0.1, A, B)
    put(broker, "a1", "a2", is_site_rate=True, **HOURLY)
    put(broker, "b1", "b2", schema=B, is_site_rate=True, **HOURLY)
    assert starts(driver, broker, 0) == ["a1"]
    broker.set_policies({A: Policy(paused=True)})
    assert starts(driver, broker) == ["b1"]
    assert starts(driver, broker) == ["b2"]
    broker.set_policies({A: Policy()})
    assert starts(driver, broker) == ["a2"]


def test_equal_levels_take_turns(driver, broker):
    """A high rate leaves half of its tenant's turns to what has none."""
    know(broker, 60)
    know(broker, 60, func="g")
    put(broker, *(f"limited {n}" for n in range(8)), interval=0.001)
    put(broker, *(f"plain {n}" for n in range(8)), func="g")
    found = "".join(fetch_one(broker, f"w{n}").id[0] for n in range(8))
    assert sorted(found[:4]) == sorted(found[4:]) == ["l", "l", "p", "p"]


def test_levels_count_within_a_rate(driver, broker):
    know(broker, 0.1)
    put(broker, "first", **HOURLY)
    put(broker, "low", priority=-3, **HOURLY)
    put(broker, "high", priority=3, **HOURLY)
    assert [starts(driver, broker, 0), starts(driver, broker), starts(driver, broker)] == [
        ["high"],
        ["first"],
        ["low"],
    ]


@pytest.mark.parametrize("how", ["give_back", "reclaim", "dead", "put_off"])
def test_a_lease_that_returns_has_used_its_start(driver, broker, how):
    know(broker, 0.1)
    put(broker, *"ab", **HOURLY)
    lease = fetch_one(broker)
    if how == "give_back":
        broker.give_back("w1", [lease])
    elif how == "reclaim":
        broker.reclaim("w1", running="a")
    elif how == "dead":
        broker.dead_letter("w1", lease, "a cause")
        broker.retry_dead({"a": ""})
    else:
        broker.put_off("w1", lease, delay=0)
    assert starts(driver, broker, 0) == []
    assert sorted(starts(driver, broker) + starts(driver, broker)) == ["a", "b"]


@pytest.mark.parametrize(("before", "now"), [(86400.0, 60.0), (60.0, 86400.0)])
def test_the_rate_enqueued_last_holds(driver, broker, before, now):
    know(broker, 0.1)
    put(broker, *"abc", interval=before)
    assert starts(driver, broker, 0) == ["a"]
    put(broker, "d", interval=now)
    assert starts(driver, broker, 0.02) == ["b"]
    assert starts(driver, broker, 0.02) == (["c"] if now == 60 else [])


def test_what_is_cancelled_needs_no_start(driver, broker):
    know(broker, 0.1)
    put(broker, *"abc", **HOURLY)
    assert starts(driver, broker, 0) == ["a"]
    broker.cancel(A, "c", f"{CANCELLED}: by Ada")
    lease = fetch_one(broker)
    assert (lease.id, lease.give_up_reason) == ("c", f"{CANCELLED}: by Ada")
    assert starts(driver, broker, worker="w2") == ["b"]


def test_what_waits_for_its_rate_is_queued(broker):
    put(broker, *"abc", **HOURLY)
    fetch_one(broker)
    counts = broker.counts()
    assert (counts.queued, counts.leased, counts.delayed) == (2, 1, 0)
    assert broker.queue_size(A) == broker.loads()[A].queued == 2
    assert [(one.id, one.place) for one in broker.live(A)] == [("a", "leased"), ("b", "queued"), ("c", "queued")]


@pytest.mark.parametrize("is_site_rate", [True, False])
def test_a_purge_and_the_end_of_a_tenant_leave_nothing(driver, broker, is_site_rate):
    for n in range(2):
        put(broker, *(f"{n}{id}" for id in "abc"), tenant="7", is_site_rate=is_site_rate, interval=86400.0)
        fetch(broker)
        if n == 0:
            broker.purge()
            broker.reclaim("w1", running=None)
            finish(broker, *broker.fetch("w1").leases)
    lease = broker.fetch("w1").leases
    finish(broker, *lease)
    broker.forget_tenant(A, "7", f"{CANCELLED}: gone", seconds=10)
    assert broker.counts().open == 0
    assert fetch(broker) == []
    assert broker.fetch("w1").next_delayed is None


def test_a_unique_package_keeps_its_key_while_it_waits_for_its_rate(driver, broker):
    for id in "abc":
        unique = Unique("f", "k" if id == "c" else id)
        assert broker.enqueue_unique(Message(id, A, "f", "payload", unique=unique, priority=3, **HOURLY)) == id
    again = Message("d", A, "f", "payload", unique=Unique("f", "k"), **HOURLY)
    assert broker.enqueue_unique(again, limited=True) == "c"
    assert starts(driver, broker, 0) == ["a"]
    assert broker.enqueue_unique(again) == "c", "it is parked"
    assert starts(driver, broker) == ["b"]
    assert starts(driver, broker) == ["c"]
    assert broker.enqueue_unique(again) == "d"
    broker.purge()
    assert put(broker, "e", unique=Unique("f", "k"), **HOURLY) == 1
    broker.cancel(A, "e", CANCELLED)
    assert broker.enqueue_unique(again) == "d"


def test_what_another_one_has_the_key_of_changes_no_rate(driver, broker):
    put(broker, "a", unique=Unique("f", "k"), **HOURLY)
    assert put(broker, "b", unique=Unique("f", "k"), interval=1.0) == 0
    put(broker, "c", **HOURLY)
    assert starts(driver, broker, 0) == ["a"]
    assert starts(driver, broker, 0.5) == []
