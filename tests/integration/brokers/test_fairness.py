"""Tenants share worker-seconds."""

from __future__ import annotations

from collections import Counter

import pytest

from tenant_q.brokers.protocol import MOST_DEBT_SECONDS, Policy, Settled
from tests.integration.brokers.drivers import SECONDS, fetch, fetch_one, know, pass_time, put, run_one, run_out


def test_tenants_take_turns(broker):
    know(broker, 10, *SECONDS)
    put(broker, *(f"a{n}" for n in range(30)))
    for schema in ("globex_inc", "initech_llc"):
        put(broker, *(f"{schema}{n}" for n in range(3)), schema=schema)
    turns = [run_one(broker, SECONDS) for _ in range(9)]
    assert turns == ["acme_corp", "globex_inc", "initech_llc"] * 3, "of equals the first by name"


def test_tenants_share_worker_seconds(broker):
    know(broker, 30, "acme_corp")
    know(broker, 10, "globex_inc")
    for n in range(40):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, {"acme_corp": 0.03, "globex_inc": 0.01}) for _ in range(40))
    assert turns["globex_inc"] == pytest.approx(30, abs=2)


@pytest.mark.parametrize("when", ["before", "on the backlog"])
def test_a_tenant_of_three_times_the_weight(broker, when):
    know(broker, 10, "acme_corp", "globex_inc")
    if when == "before":
        broker.set_policies({"acme_corp": Policy(weight=3)})
    for n in range(40):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    broker.set_policies({"acme_corp": Policy(weight=3)})
    turns = Counter(run_one(broker, SECONDS) for _ in range(40))
    assert turns["acme_corp"] == pytest.approx(30, abs=2)


def test_what_was_expected_is_settled_by_what_was_used(broker):
    know(broker, 1, "acme_corp", "globex_inc")
    for n in range(20):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, {"acme_corp": 0.1, "globex_inc": 0.01}) for _ in range(11))
    assert turns["acme_corp"] <= 2


def test_what_is_put_off_is_charged_what_it_used(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(4)))
    put(broker, *(f"g{n}" for n in range(9)), schema="globex_inc")
    lease = fetch_one(broker)
    assert lease.schema == "acme_corp"
    pass_time(broker, 0.045)
    broker.put_off("w1", lease, delay=60, seconds=0.045)
    # Both have used as much before; acme 45 ms more, and the ring is where it started.
    assert [run_one(broker, SECONDS) for _ in range(6)] == ["globex_inc"] * 5 + ["acme_corp"]


@pytest.mark.parametrize("how", ["give_back", "reclaim", "dead_letter", "expire"])
def test_what_was_not_run_is_not_charged(driver, broker, how):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(6)))
    put(broker, *(f"g{n}" for n in range(6)), schema="globex_inc")
    lease = fetch_one(broker)
    if how == "give_back":
        broker.give_back("w1", [lease])
    elif how == "reclaim":
        broker.reclaim("w1", running=lease.id)
    elif how == "dead_letter":
        broker.dead_letter("w1", lease, "c")
    else:
        run_out(driver)
    assert fetch_one(broker).schema == "acme_corp", "it is still its turn"


def test_idleness_is_no_credit(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(60)))
    for _ in range(40):
        run_one(broker, SECONDS)
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    turns = Counter(run_one(broker, SECONDS) for _ in range(10))
    assert turns["acme_corp"] == pytest.approx(5, abs=1), "globex does not get the 400 ms that it was idle"


def test_being_capped_is_no_credit(broker):
    """What a capped tenant did not run comes back when the ring is far ahead: it is served from there on."""
    know(broker, 400, "acme_corp")
    know(broker, 10, "globex_inc")
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    put(broker, *(f"a{n}" for n in range(60)))
    held = fetch_one(broker, "w1")
    assert held.schema == "acme_corp"
    put(broker, *(f"g{n}" for n in range(90)), schema="globex_inc")
    for _ in range(60):
        assert run_one(broker, SECONDS, "w2") == "globex_inc"
    broker.give_back("w1", [held])
    turns = Counter(run_one(broker, SECONDS) for _ in range(20))
    assert turns["acme_corp"] == pytest.approx(10, abs=1)


def test_debt_is_not_forgiven(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, "long")
    put(broker, *(f"g{n}" for n in range(10)), schema="globex_inc")
    assert run_one(broker, {"acme_corp": 0.5}) == "acme_corp"
    put(broker, *(f"a{n}" for n in range(3)))
    assert [run_one(broker, SECONDS) for _ in range(10)] == ["globex_inc"] * 10


@pytest.mark.parametrize("end", ["acknowledged", "put off"])
@pytest.mark.parametrize("ms", [None, 7_200_000])
def test_what_nobody_else_wanted_costs_nothing(broker, ms, end):
    """Sixteen worker-hours of an otherwise idle night are no debt in the morning, expected or not."""
    know(broker, 0.1, "acme_corp", func="mail")
    know(broker, 10, "globex_inc")
    if ms:
        know(broker, ms)
    put(broker, *(f"a{n}" for n in range(8)))
    leases = [fetch_one(broker, f"w{n}") for n in range(8)]
    pass_time(broker, 7200)
    for n, lease in enumerate(leases):
        if end == "acknowledged":
            broker.acknowledge(f"w{n}", [Settled(lease, 7200)])
        else:
            broker.put_off(f"w{n}", lease, delay=3600, seconds=7200)
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    put(broker, "mail", func="mail")
    assert "mail" in fetch(broker, "w1") + fetch(broker, "w2")


@pytest.mark.parametrize("ms", [None, 7_200_000])
def test_a_tenant_owes_from_when_another_waits(broker, ms):
    know(broker, 1000, "globex_inc")
    if ms:
        know(broker, ms)
    put(broker, *(f"a{n}" for n in range(3)))
    leases = [fetch_one(broker, worker) for worker in ("w1", "w2")]
    pass_time(broker, 7190)
    put(broker, *(f"g{n}" for n in range(40)), schema="globex_inc")
    pass_time(broker, 10)
    for worker, lease in zip(("w1", "w2"), leases, strict=True):
        broker.acknowledge(worker, [Settled(lease, 7200)])
    turns = [run_one(broker, {"globex_inc": 1, "acme_corp": 7200}) for _ in range(22)]
    assert turns.index("acme_corp") == pytest.approx(20, abs=1), "globex has waited for 2 times 10 s"


def test_what_was_used_alone_moves_the_others_too(broker):
    """A tenant's backlog has been served all the time, so a small one has no debt for what it ran now and then."""
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(300)))
    for n in range(20):
        for _ in range(10):
            run_one(broker, SECONDS)
        put(broker, f"g{n}", schema="globex_inc")
        assert "globex_inc" in [run_one(broker, SECONDS) for _ in range(2)]


def test_debt_is_bounded(broker):
    """Others get an hour of worker time before a tenant that has used a year of it while they waited."""
    know(broker, 10, "acme_corp")
    know(broker, 600_000, "globex_inc")
    put(broker, "long", "a")
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    run_one(broker, {"acme_corp": 365 * 86400})
    turns = [run_one(broker, {"globex_inc": 600, "acme_corp": 0.01}) for _ in range(10)]
    assert turns.index("acme_corp") == MOST_DEBT_SECONDS / 600


def test_debt_is_bounded_while_a_long_task_runs(broker):
    """What a task of two hours is expected to use keeps its tenant's others from their turns for an hour at most."""
    know(broker, 7_200_000, "acme_corp")
    know(broker, 0.1, "acme_corp", func="mail")
    know(broker, 600_000, "globex_inc")
    put(broker, "long")
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    assert fetch(broker, "w2") == ["long"]
    put(broker, "mail", func="mail")
    turns = [run_one(broker, {"globex_inc": 600, "acme_corp": 0.001}) for _ in range(10)]
    assert turns.index("acme_corp") == MOST_DEBT_SECONDS / 600


def test_debt_is_weighed_anew(broker):
    """A tenant of a tenth of the weight owes ten times as much for its time, until it weighs as much as others."""
    know(broker, 10, "acme_corp", "globex_inc")
    broker.set_policies({"acme_corp": Policy(weight=0.1)})
    put(broker, "long", "a")
    put(broker, *(f"g{n}" for n in range(40)), schema="globex_inc")
    run_one(broker, {"acme_corp": 0.1})
    broker.set_policies({"acme_corp": Policy(weight=1)})
    turns = [run_one(broker, SECONDS) for _ in range(20)]
    assert turns.index("acme_corp") == pytest.approx(10, abs=1)
