"""Dead letters: list, retry and purge them."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import Counts
from tests.integration.brokers.drivers import fetch, fetch_one, put


def test_a_dead_letter_says_why(broker):
    put(broker, "a", "b")
    broker.dead_letter("w1", fetch_one(broker), "Because: of\na test ä")
    (dead,) = broker.dead()
    assert (dead.id, dead.schema, dead.func, dead.cause) == ("a", "acme_corp", "f", "Because: of\na test ä")
    assert dead.payload == "payload of a"
    assert broker.counts() == Counts(1, 0, 0, 1)
    assert broker.counts().open == 1, "the dead are not run any more"
    assert fetch(broker) == ["b"]


def test_the_dead_by_tenant_and_oldest_first(driver, broker):
    for n, schema in enumerate(("acme_corp", "globex_inc", "acme_corp")):
        put(broker, f"{9 - n}", schema=schema)
        broker.dead_letter("w1", fetch_one(broker), "c")
        driver.advance(10)
    assert [dead.id for dead in broker.dead("acme_corp")] == ["9", "7"]
    assert [dead.id for dead in broker.dead(limit=2)] == ["9", "8"]
    assert [dead.id for dead in broker.dead("acme_corp", limit=1)] == ["9"]
    assert [dead.id for dead in broker.dead("acme_corp", newest_first=True)] == ["7", "9"]
    assert [dead.id for dead in broker.dead(limit=2, newest_first=True)] == ["7", "8"]
    assert [dead.id for dead in broker.dead("acme_corp", limit=1, newest_first=True)] == ["7"]
    assert [dead.id for dead in broker.dead(ids=["7", "9", "unknown", "7"])] == ["9", "7"]
    assert [dead.id for dead in broker.dead(ids={"7", "8", "9"}, limit=2, newest_first=True)] == ["7", "8"]
    assert [dead.id for dead in broker.dead("globex_inc", ids=["9", "8"])] == ["8"]
    assert broker.dead(ids=[]) == []
    assert broker.dead("initech_llc") == []
    ages = [broker.dead()[2].died - dead.died for dead in broker.dead()]
    assert ages == pytest.approx([20, 10, 0], abs=5)


def test_the_dead_are_retried_with_a_clean_slate(broker):
    put(broker, "a")
    fetch_one(broker)
    broker.reclaim("w1", running="a", give_up_reason="too long")
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.retry_dead({"a": "", "unknown": ""}) == 1
    lease = fetch_one(broker)
    assert (lease.starts, lease.give_up_reason, lease.payload) == (0, None, "payload of a")
    assert lease.is_redelivered, "it may have succeeded, and died of what followed"
    broker.dead_letter("w1", lease, "c")
    assert broker.retry_dead({"a": "other"}) == 1
    assert fetch_one(broker).payload == "other"
    assert broker.retry_dead({"a": ""}) == 0, "only the dead are"


def test_the_dead_are_purged(broker):
    put(broker, "a", "b", once=True)
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.purge_dead(["a", "b", "unknown"]) == 1
    assert broker.counts() == Counts(1, 0, 0, 0)
    assert put(broker, "a", once=True) == 1, "what was never acknowledged is not known"
