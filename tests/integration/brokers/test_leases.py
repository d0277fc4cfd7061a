"""Leases and their tokens: stale workers, the death of workers, expiry and renewal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tenant_q.brokers.protocol import Broker, Counts, Lease, Policy
from tenant_q.conf import conf
from tests.integration.brokers.drivers import fetch_one, finish, know, put, run_out

# Leases and tokens


def test_no_token_is_given_twice(broker):
    put(broker, "a")
    tokens = []
    for _ in range(4):
        lease = fetch_one(broker)
        tokens.append(lease.token)
        broker.give_back("w1", [lease])
    assert len(set(tokens)) == 4


def test_an_acknowledged_package_is_gone(broker):
    know(broker, 1)
    put(broker, *"abc", once=True)
    assert finish(broker, *broker.fetch("w1").leases) == []
    assert broker.counts() == Counts(0, 0, 0, 0)
    assert broker.acknowledge("w1", []) == []


def test_a_package_is_acknowledged_once(broker):
    put(broker, "a")
    lease = fetch_one(broker)
    assert finish(broker, lease) == []
    assert finish(broker, lease, replace(lease, id="unknown")) == ["a", "unknown"]
    assert broker.statistics() == {"stale_acks": 2, "expired": 0, "broken": 0}


def act_stale(broker: Broker, how: str, worker: str, lease: Lease) -> None:
    """Do something with a lease that is over. Each answer says that nothing was done."""
    if how == "acknowledge":
        assert finish(broker, lease, worker=worker) == ["a"]
        assert broker.statistics()["stale_acks"] == 1
    elif how == "give_back":
        assert broker.give_back(worker, [lease]) == 0
    elif how == "put_off":
        broker.put_off(worker, lease, delay=1, payload="other")
    else:
        broker.dead_letter(worker, lease, "stale")


STALE = ["acknowledge", "give_back", "put_off", "dead_letter"]


@pytest.mark.parametrize("how", STALE)
def test_a_stale_worker_changes_nothing(driver, broker, how):
    """Its lease ran out, and another worker has the package now."""
    put(broker, "a")
    stale = fetch_one(broker, "stale")
    assert run_out(driver) == 1
    fresh = fetch_one(broker, "fresh")
    act_stale(broker, how, "stale", stale)
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert broker.give_back("fresh", [fresh]) == 1
    assert fetch_one(broker).payload == "payload of a"


@pytest.mark.parametrize("how", STALE)
@pytest.mark.parametrize("fresh", ["another", "stale"])
def test_a_stale_worker_changes_nothing_after_a_failover(driver, broker, how, fresh):
    """The replica lacks the last lease, and gives its number again, perhaps to the same worker."""
    put(broker, "a")
    replica = driver.snapshot()
    lost = fetch_one(broker, "stale")
    driver.restore(replica)
    lease = fetch_one(broker, fresh)
    assert lease.token != lost.token
    act_stale(broker, how, "stale", lost)
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert finish(broker, lease, worker=fresh) == []


@pytest.mark.parametrize("how", STALE)
def test_a_lease_is_its_workers(broker, how):
    """The token alone is not enough."""
    put(broker, "a")
    lease = fetch_one(broker, "w1")
    act_stale(broker, how, "w2", lease)
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert finish(broker, lease) == []


def test_which_packages_may_come(driver, broker):
    """Those of any place, and for a while those that were acknowledged late."""
    know(broker, 0.1)
    put(broker, *"abcd")
    put(broker, "e", delay=60)
    held, done, late = broker.fetch("w1", limit=3).leases
    broker.dead_letter("w2", fetch_one(broker, "w2"), "c")
    assert broker.may_come([*"abcde", "unknown"]) == set("abcde")
    broker.note_late([late.id], seconds=60)
    broker.note_late([], seconds=60)
    finish(broker, done, late)
    assert broker.may_come([*"abcde"]) == {held.id, late.id, "d", "e"}
    driver.advance(61)
    assert broker.may_come([*"abcde"]) == {held.id, "d", "e"}
    assert broker.may_come([]) == set()
    assert len(broker.may_come([*(f"{n}" for n in range(2500)), "a"])) == 1


def test_who_renews_learns_what_is_held(driver, broker):
    know(broker, 0.1)
    put(broker, *"abc")
    leases = broker.fetch("w1", limit=2).leases
    other = fetch_one(broker, "w2")
    held = {lease.id: str(lease.token) for lease in leases}
    assert broker.renew(["w1", "w2", "w3"], 60) == {"w1": held, "w2": {"c": str(other.token)}, "w3": {}}
    finish(broker, leases[0])
    assert broker.renew(["w1"], conf().lease) == {"w1": {"b": str(leases[1].token)}}
    assert broker.renew([], 60) == {}
    assert run_out(driver, but=["w2"]) == 1
    assert broker.renew(["w1"], 60) == {"w1": {}}, "what was given back is not taken again"
    assert broker.counts() == Counts(1, 1, 0, 0)


def test_what_is_unstarted_goes_to_the_head_in_order(broker):
    know(broker, 0.1)
    put(broker, *"abcd")
    leases = broker.fetch("w1", limit=3).leases
    put(broker, "e")
    finish(broker, leases[0])
    assert broker.give_back("w1", leases[1:]) == 2
    assert broker.give_back("w1", leases[1:]) == broker.give_back("w1", []) == 0
    again = broker.fetch("w2").leases
    assert [lease.id for lease in again] == list("bcde")
    assert not any(lease.is_redelivered for lease in again), "they never started"


# Death of workers


def test_reclaiming_charges_only_what_ran(broker):
    """And not what its sentinel killed: the give-up reason says that."""
    know(broker, 0.1)
    put(broker, *"abcd")
    broker.fetch("w1", limit=3)
    broker.fetch("other")
    assert broker.reclaim("w1", running="b", give_up_reason="it took too long") == 3
    assert broker.counts() == Counts(3, 1, 0, 0)
    leases = broker.fetch("w2").leases
    reported = [(lease.id, lease.starts, lease.give_up_reason) for lease in leases]
    assert reported == [("a", 0, None), ("b", 0, "it took too long"), ("c", 0, None)]
    assert all(lease.is_redelivered for lease in leases)


def test_starts_add_up(broker):
    put(broker, "a")
    for starts in (None, 1, 2, 3):
        assert fetch_one(broker).starts == starts
        broker.reclaim("w1", running="a")


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


def test_how_a_worker_died_is_kept_with_what_is_charged(driver, broker):
    know(broker, 0.1)
    put(broker, "a", "b")
    assert [lease.death for lease in broker.fetch("w1").leases] == [None, None]
    broker.reclaim("w1", running="b", death="was killed")
    assert {lease.id: lease.death for lease in broker.fetch("w1").leases} == {"a": None, "b": "was killed"}
    broker.reclaim("w1", running="b", charged=False, death="was stopped")
    broker.fetch("w1")
    broker.reclaim("w1", running="b", give_up_reason="v", death="was killed for its timeout")
    broker.fetch("w1")
    broker.reclaim("w1", running="b")
    leases = broker.fetch("w1").leases
    assert {lease.id: (lease.starts, lease.death) for lease in leases} == {"a": (0, None), "b": (2, "was killed")}
    broker.put_off("w1", next(lease for lease in leases if lease.id == "b"), delay=0)
    (lease,) = broker.fetch("w2").leases
    assert lease.death == "was killed", "it is tried again"
    run_out(driver, but=["w1"])
    (lease,) = broker.fetch("w2").leases
    assert (lease.starts, lease.death) == (2, "was killed"), "nobody is charged"
    run_out(driver, but=["w1"])
    lease = fetch_one(broker, "w2")
    assert (lease.starts, lease.death) == (3, None), "nobody knows how this worker died"
    broker.reclaim("w2", running="b", death="was killed again")
    broker.dead_letter("w2", fetch_one(broker, "w2"), "a cause")
    broker.retry_dead({"b": ""})
    assert fetch_one(broker, "w2").death is None


@pytest.mark.parametrize("running", ["a", None])
def test_a_worker_that_was_stopped_charges_nobody(broker, running):
    know(broker, 0.1)
    put(broker, "a", "b")
    for starts in (None, 0, 0):
        leases = broker.fetch("w1").leases
        assert [(lease.id, lease.starts) for lease in leases] == [("a", starts), ("b", starts)]
        broker.reclaim("w1", running=running, charged=False)


def test_what_paused_tenants_hold_is_not_runnable(broker):
    know(broker, 0.1, "acme_corp", "globex_inc")
    put(broker, "to wait")
    put(broker, "of another", schema="globex_inc")
    for lease in broker.fetch("w1").leases:
        broker.put_off("w1", lease, delay=60, unready=True)
    put(broker, "queued")
    assert (broker.counts().paused, broker.counts().unready) == (0, 2)
    broker.set_policies({"acme_corp": Policy(paused=True)})
    counts = broker.counts()
    assert (counts.paused, counts.unready) == (2, 1), "each is counted once"


def test_there_is_nothing_to_reclaim(broker):
    assert broker.reclaim("nobody", running=None) == broker.reclaim("nobody", running="a") == 0


# Expiry and renewal


def test_leases_that_ran_out_are_given_back(driver, broker):
    know(broker, 0.1)
    put(broker, *"abc")
    assert len(broker.fetch("w1", limit=2).leases) == 2
    assert len(broker.fetch("living").leases) == 1
    assert run_out(driver, but=["living"]) == 2
    assert broker.expire() == 0
    assert broker.statistics()["expired"] == 2
    assert broker.counts() == Counts(2, 1, 0, 0)
    (lease,) = broker.fetch("w2").leases
    assert (lease.id, lease.starts) == ("a", 0), "it comes alone, and is not charged: it may not be the cause"
    assert run_out(driver, but=["living"]) == 1
    assert fetch_one(broker).starts == 1, "it was alone"


def test_a_package_leased_alone_is_charged_when_its_lease_runs_out(driver, broker):
    put(broker, "a")
    fetch_one(broker)
    assert run_out(driver) == 1
    assert fetch_one(broker).starts == 1


def test_renewal_saves_a_lease_that_ran_out_but_was_not_taken_back(driver, broker):
    put(broker, "a")
    lease = fetch_one(broker)
    driver.advance(conf().lease + 1)
    broker.renew(["w1"], conf().lease)
    broker.renew([], conf().lease)
    assert broker.expire() == 0
    assert finish(broker, lease) == []


def test_renewal_is_for_as_long_as_it_says(driver, broker):
    put(broker, "a")
    fetch_one(broker)
    broker.renew(["w1", "without leases"], 2.5 * conf().lease)
    assert run_out(driver) == 0
    assert run_out(driver) == 1


def test_an_outage_does_not_expire_the_living(driver, broker):
    put(broker, "a")
    broker.expire()
    driver.advance(conf().lease / 3)
    fetch_one(broker)
    driver.advance(10 * conf().lease)
    assert broker.expire() == 0, "nobody looked all that time"
    driver.advance(conf().lease / 3)
    assert broker.expire() == 0, "and it has its time again"
    assert run_out(driver) == 1


def test_an_outage_lends_no_time_to_what_was_leased_after_it(driver, broker):
    put(broker, "a")
    broker.expire()
    driver.advance(24 * 3600)
    fetch_one(broker)
    assert broker.expire() == 0
    assert run_out(driver) == 1, "a lease's time later, not a day"
