"""A tenant's packages with a higher priority come first; its share among other tenants stays as it is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tenant_q.brokers.protocol import CANCELLED, Policy
from tenant_q.exceptions import QueueFull
from tests.integration.brokers.drivers import SECONDS, fetch, fetch_one, finish, know, put, run_one, run_out

LOW: dict[str, Any] = {"priority": -7}
HIGH: dict[str, Any] = {"priority": 7}


def put_three(broker, **fields):
    """Queue a package of each level, in the wrong order."""
    put(broker, "low", **LOW, **fields)
    put(broker, "plain", **fields)
    put(broker, "high", **HIGH, **fields)


def test_higher_levels_come_first(broker):
    know(broker, 0.1)
    put_three(broker)
    put(broker, "second high", **HIGH)
    put(broker, "highest", priority=100)
    assert fetch(broker) == ["highest", "high", "second high", "plain", "low"]


def test_each_batch_begins_with_the_highest_level(broker):
    put_three(broker)
    assert fetch(broker, limit=1) == ["high"]
    put(broker, "higher", priority=8)
    assert [fetch(broker, f"w{n}", limit=1) for n in range(2, 5)] == [["higher"], ["plain"], ["low"]]


def test_a_level_is_no_turn(broker):
    """However high a tenant's priorities are, another tenant gets its half."""
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(30)), priority=100)
    put(broker, *(f"g{n}" for n in range(30)), schema="globex_inc", priority=-100)
    turns = Counter(run_one(broker, SECONDS) for _ in range(20))
    assert turns["acme_corp"] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("how", ["give_back", "reclaim", "expire", "lost answer"])
def test_what_returns_goes_to_the_head_of_its_own_level(driver, broker, how):
    know(broker, 0.1)
    put_three(broker)
    put(broker, "later high", **HIGH)
    lease = fetch_one(broker)
    assert lease.id == "high"
    if how == "give_back":
        broker.give_back("w1", [lease])
    elif how == "reclaim":
        broker.reclaim("w1", running="high")
    elif how == "expire":
        run_out(driver)
    found = [fetch_one(broker, "w1" if how == "lost answer" else f"v{n}").id for n in range(1)]
    assert [*found, *fetch(broker, "w9")] == ["high", "later high", "plain", "low"]


def test_what_becomes_due_goes_to_its_own_level(driver, broker):
    know(broker, 0.1)
    put_three(broker, delay=10)
    put(broker, "waits")
    driver.advance(11)
    assert fetch(broker) == ["high", "waits", "plain", "low"]


def test_what_is_retried_goes_to_its_own_level(driver, broker):
    know(broker, 0.1)
    put_three(broker)
    high, plain = fetch_one(broker), fetch_one(broker, "w2")
    broker.put_off("w1", high, delay=10, payload="again")
    broker.dead_letter("w2", plain, "a cause")
    broker.dead_letter("w3", fetch_one(broker, "w3"), "a cause")
    assert broker.retry_dead({"low": "", "plain": ""}) == 2
    driver.advance(11)
    assert fetch(broker) == ["high", "plain", "low"]


def test_what_is_cancelled_is_given_up_at_once(broker):
    know(broker, 0.1)
    put_three(broker)
    assert broker.cancel("acme_corp", "low", f"{CANCELLED}: by Ada") == "queued"
    put(broker, "higher", priority=8)
    assert fetch(broker) == ["higher", "high", "low", "plain"], "at the head of the plain queue"


def test_every_level_is_counted(broker):
    broker.set_policies({"acme_corp": Policy(max_queued=3, paused=True)})
    put_three(broker, limited=True)
    with pytest.raises(QueueFull):
        put(broker, "another", limited=True)
    counts = broker.counts()
    assert (counts.queued, counts.paused, counts.runnable) == (3, 3, 0)
    assert broker.queue_size("acme_corp") == broker.queue_size() == broker.loads()["acme_corp"].queued == 3
    assert [one.id for one in broker.live("acme_corp")] == ["high", "plain", "low"]
    assert {broker.place("acme_corp", id) for id in ("high", "plain", "low")} == {"queued"}


def test_a_purge_empties_every_level(broker):
    put_three(broker)
    broker.purge()
    assert broker.counts().open == 0
    assert fetch(broker) == []
    put(broker, "low", **LOW)
    assert fetch(broker) == ["low"]


def test_a_renamed_tenant_keeps_its_levels(broker):
    know(broker, 0.1)
    put_three(broker, tenant="7")
    broker.rename_tenant("7", "acme_corp", "acme_new")
    put(broker, "higher", schema="acme_new", tenant="7", priority=8)
    assert fetch(broker) == ["higher", "high", "plain", "low"]


def test_a_deleted_tenant_leaves_no_level(broker):
    put_three(broker, tenant="7")
    assert broker.forget_tenant("acme_corp", "7", f"{CANCELLED}: gone", seconds=10) == 0
    assert broker.counts().open == 0
    assert fetch(broker) == []


def test_a_paused_tenant_keeps_its_levels(broker):
    know(broker, 0.1)
    put(broker, "high", **HIGH)
    broker.set_policies({"acme_corp": Policy(paused=True)})
    assert fetch(broker) == []
    broker.set_policies({"acme_corp": Policy()})
    assert fetch(broker) == ["high"]


def test_a_capped_tenants_level_is_served_when_a_worker_is_free(broker):
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    put(broker, "first", "second", **HIGH)
    lease = fetch_one(broker)
    assert fetch(broker, "w2") == []
    finish(broker, lease)
    assert fetch(broker, "w2") == ["second"]
