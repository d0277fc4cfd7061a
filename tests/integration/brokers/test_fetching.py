"""Fetch a batch: its order, its size, its expected work."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import BATCH_LIMIT, SMALL_BATCH, Batch
from tests.integration.brokers.drivers import fetch, fetch_one, finish, know, put


def test_first_in_first_out(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    put(broker, *"de")
    assert fetch(broker) == list("abcde")


def test_the_limits_of_a_batch(broker):
    know(broker, 0.1)
    put(broker, *(f"{n:04}" for n in range(1200)))
    assert len(fetch(broker, "w1")) == BATCH_LIMIT
    assert len(fetch(broker, "w2")) == 236, "a quarter of what is queued"
    assert len(fetch(broker, "w3", limit=3)) == 3


def test_a_burst_is_shared_by_the_workers(broker):
    know(broker, 0.1)
    put(broker, *(f"{n:03}" for n in range(150)), delay=60)
    put(broker, *(f"{n:03}" for n in range(200, 350)))
    assert [len(fetch(broker, f"w{n}")) for n in range(3)] == [SMALL_BATCH, SMALL_BATCH, 150 - 2 * SMALL_BATCH]


def test_a_batch_holds_a_budget_of_expected_work(broker):
    know(broker, 10)
    put(broker, *"abcdefgh")
    assert fetch(broker, "w1") == list("abcde"), "five times 10 ms"
    assert fetch(broker, "w2", seconds=0.02) == list("fg")


def test_slices_of_the_tenants_whose_turn_it_is(broker):
    """A slice is a quarter of the batch's 50 ms."""
    know(broker, 2.5, "acme_corp", "globex_inc")
    for n in range(30):
        put(broker, f"a{n:02}")
        put(broker, f"g{n:02}", schema="globex_inc")
    taken = "".join(id[0] for id in fetch(broker))
    assert taken == "aaaaagggggaaaaaggggg"


def test_a_slice_is_a_batch_where_each_opens_a_session(broker, settings):
    settings.TENANT_Q = settings.TENANT_Q | {"isolation": "login"}
    know(broker, 2.5, "acme_corp", "globex_inc")
    for n in range(30):
        put(broker, f"a{n:02}")
        put(broker, f"g{n:02}", schema="globex_inc")
    assert ["".join(id[0] for id in fetch(broker, f"w{n}")) for n in range(2)] == ["a" * 20, "g" * 20]


def test_short_packages_share_a_slice(broker):
    know(broker, 0.125, "acme_corp", "globex_inc")
    for n in range(40):
        put(broker, f"a{n:02}")
        put(broker, f"g{n:02}", schema="globex_inc")
    assert "".join(id[0] for id in fetch(broker)) == "a" * 40 + "g" * 24


def test_what_is_unknown_or_long_comes_alone(broker):
    put(broker, "a", "b")
    assert fetch(broker, "w1") == ["a"]
    assert fetch(broker, "w2") == ["b"]
    know(broker, 50, func="long")
    know(broker, 1, func="short")
    put(broker, "c", "d", func="short")
    put(broker, "e", func="long")
    put(broker, "f", func="short")
    assert [fetch(broker, f"w{n}") for n in (3, 4, 5)] == [["c", "d"], ["e"], ["f"]]


def test_run_times_are_known_by_tenant(broker):
    know(broker, 1, "acme_corp")
    know(broker, 80, "globex_inc")
    put(broker, "a", "b", schema="globex_inc")
    assert fetch(broker) == ["a"], "what is short for one may be long for another"


@pytest.mark.parametrize(
    ("ms", "taken"),
    [(0.125, "g" * 34 + "i" * 30), (2, "gggiiiggg"), (16, "gi"), (20, "g")],
    ids=str,
)
def test_what_is_new_to_a_tenant_is_taken_for_three_times_as_long(broker, ms, taken):
    """It may be longer for this one; others are not to wait for a batch of it. A slice is a quarter of 50 ms."""
    know(broker, ms, "acme_corp")
    for n in range(40):
        put(broker, f"g{n:02}", schema="globex_inc")
        put(broker, f"i{n:02}", schema="initech_llc")
    assert "".join(id[0] for id in fetch(broker)) == taken


def test_what_is_new_to_a_tenant_is_judged_by_what_it_took_all_others(broker):
    know(broker, 8, "acme_corp")
    know(broker, 16, "globex_inc")
    for n, schema in enumerate(("initech_llc", "umbrella_co", "vandelay_co", "hooli_xyz")):
        put(broker, str(n), schema=schema)
    assert len(fetch(broker, seconds=0.06)) == 3, "27 ms each: three times 9"


def test_one_slow_run_changes_an_estimate_by_an_eighth(broker):
    know(broker, 8)
    know(broker, 80)
    put(broker, *"abcd")
    assert fetch(broker, seconds=0.034) == ["a", "b"], "17 ms each"


def test_what_was_given_up_without_a_run_teaches_nothing(broker):
    know(broker, 40)
    for _ in range(20):
        put(broker, "cancelled")
        finish(broker, fetch_one(broker), seconds=0.0)
    put(broker, "a", "b", "c")
    assert fetch(broker) == ["a", "b"], "40 ms each, as it was learned"


def test_nothing_to_fetch(broker):
    assert broker.fetch("w1") == Batch()


def test_the_answer_of_a_fetch_gets_lost(broker):
    """The worker fetches again, and gets the same packages, in their order."""
    know(broker, 0.1)
    put(broker, *"abcd")
    lost = broker.fetch("w1", limit=3).leases
    again = broker.fetch("w1").leases
    assert [lease.id for lease in again] == list("abcd")
    assert not any(lease.is_redelivered for lease in again)
    assert finish(broker, lost[0]) == ["a"], "a token of the lost answer fits no more"
    assert finish(broker, *again) == []
