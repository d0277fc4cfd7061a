"""Weights, caps, limits and pauses of tenants."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import Policy
from tests.integration.brokers.drivers import fetch, fetch_one, finish, know, put, run_out


def test_policies_in_force(broker):
    assert broker.policies() == {}
    first, second = Policy(2.5, 3, 4, True), Policy(max_running=1)
    broker.set_policies({"acme_corp": first, "globex_inc": second})
    assert broker.policies() == {"acme_corp": first, "globex_inc": second}
    broker.set_policies({"globex_inc": first})
    assert broker.policies() == {"acme_corp": first, "globex_inc": first}
    broker.set_policies({"initech_llc": second}, complete=True)
    assert broker.policies() == {"initech_llc": second}


@pytest.mark.parametrize("when", ["before", "on the backlog"])
def test_nothing_of_a_paused_tenant_is_started(driver, broker, when):
    pause = {"acme_corp": Policy(paused=True)}
    if when == "before":
        broker.set_policies(pause)
    put(broker, "a")
    put(broker, "later", delay=60)
    put(broker, "g", schema="globex_inc")
    broker.set_policies(pause)
    driver.advance(61)
    assert fetch(broker) == ["g"]
    counts = broker.counts()
    assert (counts.queued, counts.paused, counts.open, counts.runnable) == (2, 2, 3, 1)
    assert fetch(broker, "w2") == []
    broker.set_policies({"acme_corp": Policy()})
    assert fetch(broker, "w2") == ["a"]
    assert broker.counts().paused == 0


def test_a_pause_ends_with_the_policy(broker):
    broker.set_policies({"acme_corp": Policy(paused=True)})
    put(broker, "a")
    assert fetch(broker) == []
    broker.set_policies({}, complete=True)
    assert fetch(broker) == ["a"]


def test_what_runs_of_a_paused_tenant_ends(broker):
    put(broker, "a", "b")
    first, second = fetch_one(broker, "w1"), fetch_one(broker, "w2")
    broker.set_policies({"acme_corp": Policy(paused=True)})
    assert finish(broker, first) == []
    assert broker.give_back("w2", [second]) == 1
    assert fetch(broker) == []


def test_a_cap_counts_workers_not_packages(broker):
    know(broker, 1)
    broker.set_policies({"acme_corp": Policy(max_running=2)})
    put(broker, *(f"{n}" for n in range(9)))
    assert [len(fetch(broker, f"w{n}", limit=3)) for n in (1, 2)] == [3, 3]
    put(broker, "g", schema="globex_inc")
    assert fetch(broker, "w3") == ["g"]
    assert fetch(broker, "w4") == []
    assert broker.counts().runnable == 10, "they need nobody but a worker"


@pytest.mark.parametrize("how", ["acknowledge", "give_back", "put_off", "dead_letter", "reclaim", "expire", "fetch"])
def test_a_worker_that_is_done_makes_room_under_the_cap(driver, broker, how):
    know(broker, 1)
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    put(broker, *"abcd")
    first, second = broker.fetch("w1", limit=2).leases
    assert fetch(broker, "w2") == []
    finish(broker, first)
    assert fetch(broker, "w2") == [], "it holds another"
    if how == "acknowledge":
        finish(broker, second)
    elif how == "give_back":
        broker.give_back("w1", [second])
    elif how == "put_off":
        broker.put_off("w1", second, delay=60)
    elif how == "dead_letter":
        broker.dead_letter("w1", second, "c")
    elif how == "reclaim":
        broker.reclaim("w1", running=None)
    elif how == "expire":
        run_out(driver)
    else:
        broker.set_policies({"acme_corp": Policy(max_running=1, paused=True)})
        assert fetch(broker, "w1") == []
        broker.set_policies({"acme_corp": Policy(max_running=1)})
    assert fetch(broker, "w2", limit=1) == ["c" if how in ("acknowledge", "put_off", "dead_letter") else "b"]
    assert fetch(broker, "w3") == []


def test_a_cap_takes_effect_at_once(broker):
    put(broker, *"abcde")
    leases = [fetch_one(broker, f"w{n}") for n in (1, 2)]
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    assert fetch(broker, "w3") == []
    finish(broker, leases[0])
    assert fetch(broker, "w3") == [], "there is still one"
    broker.set_policies({"acme_corp": Policy(max_running=2)})
    assert fetch(broker, "w3", limit=1) == ["c"]
