"""Enqueue packages: what is known, what is limited."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import Counts, Policy
from tenant_q.exceptions import QueueFull
from tests.integration.brokers.drivers import fetch_one, finish, put


def test_a_package_comes_as_it_was_enqueued(broker):
    assert put(broker, "a", payload="line\nline\n\nä:b") == 1
    lease = fetch_one(broker)
    assert (lease.id, lease.schema, lease.payload) == ("a", "acme_corp", "line\nline\n\nä:b")
    assert (lease.starts, lease.give_up_reason, lease.is_redelivered) == (None, None, False)


def test_nothing_is_enqueued(broker):
    assert broker.enqueue([]) == broker.enqueue([], limited=True) == 0
    assert broker.counts() == Counts(0, 0, 0, 0)


def test_more_than_one_round_trip(broker):
    assert put(broker, *(f"{n:04}" for n in range(2500))) == 2500
    assert broker.queue_size("acme_corp") == 2500


@pytest.mark.parametrize("place", ["queued", "leased", "delayed", "dead"])
@pytest.mark.parametrize("once", [True, False])
def test_a_known_id_is_not_enqueued_again(broker, place, once):
    put(broker, "a", once=once, delay=60 if place == "delayed" else 0)
    if place in ("leased", "dead"):
        lease = fetch_one(broker)
        if place == "dead":
            broker.dead_letter("w1", lease, "a test")
    assert put(broker, "a", "b", "b", once=once, payload="other") == 1, "only b, and b once"
    assert put(broker, "a", schema="globex_inc") == 0, "whosever it is"
    assert getattr(broker.counts(), place) == 1 + (place == "queued")


def test_an_acknowledged_deterministic_id_stays_known_for_a_day(driver, broker):
    put(broker, "a", "b", once=True)
    finish(broker, fetch_one(broker))
    assert put(broker, "a", once=True) == 0
    assert put(broker, "a") == 1, "one that is not deterministic is another package"
    driver.advance(24 * 3600 + 1)
    finish(broker, fetch_one(broker))
    finish(broker, fetch_one(broker))
    assert put(broker, "a", "b", once=True) == 1, "b was acknowledged now"


def test_what_follows_a_package_is_known_as_long_as_that_is_there(driver, broker):
    """However long that is put off, dead or in a paused tenant's queue: its link is enqueued once."""
    put(broker, "first", "other")
    first = fetch_one(broker)
    assert put(broker, "link", once=True, follows="first") == 1
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    broker.dead_letter("w1", first, "a test")
    for _ in range(2):
        driver.advance(24 * 3600 + 1)
        put(broker, "another")
        finish(broker, fetch_one(broker))
    assert put(broker, "link", once=True) == 1, "by itself it is forgotten"
    finish(broker, fetch_one(broker))
    driver.advance(24 * 3600 + 1)
    broker.retry_dead({"first": ""})
    first = fetch_one(broker)
    assert put(broker, "link", once=True, follows="first") == 0
    assert put(broker, "another link", once=True, follows="gone") == 1, "nothing is kept of what is not there"
    finish(broker, first)
    finish(broker, fetch_one(broker))
    driver.advance(24 * 3600 + 1)
    put(broker, "another")
    finish(broker, fetch_one(broker))
    assert put(broker, "link", once=True, follows="first") == 1
    finish(broker, fetch_one(broker))


def test_what_follows_is_noted_though_it_is_known(driver, broker):
    """An earlier version enqueued it, or another worker did the moment before."""
    put(broker, "first")
    first = fetch_one(broker)
    put(broker, "link", once=True)
    assert put(broker, "link", once=True, follows="first") == 0
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    driver.advance(24 * 3600 + 1)
    put(broker, "another")
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    assert put(broker, "link", once=True, follows="first") == 0
    finish(broker, first)


def test_any_other_id_does_not(broker):
    put(broker, "a")
    finish(broker, fetch_one(broker))
    assert put(broker, "a") == put(broker, "b", once=True) == 1


@pytest.mark.parametrize("waits", ["queued", "delayed"])
def test_no_more_may_wait_than_the_policy_says(broker, waits):
    broker.set_policies({"acme_corp": Policy(max_queued=3)})
    delay = 60 if waits == "delayed" else 0
    assert put(broker, "a", "b", limited=True, delay=delay) == 2
    with pytest.raises(QueueFull, match=r"acme_corp.* 2 .*wait, .*max_queued is 3"):
        put(broker, "c", "d", limited=True)
    assert broker.counts().open == 2, "neither"
    assert put(broker, "c", limited=True) == 1
    assert put(broker, "b", "c", limited=True) == 0, "they have their room: an answer got lost, say"
    with pytest.raises(QueueFull):
        put(broker, "c", "d", limited=True)
    assert put(broker, "d", "e") == 2, "what a task or a schedule enqueues does not count"
    assert put(broker, "f", schema="globex_inc", limited=True) == 1
    if waits == "queued":
        broker.purge()
        put(broker, "a", "b", "c", limited=True)
        fetch_one(broker)
        assert put(broker, "d", limited=True) == 1, "what is leased does not wait"
