"""Counts, loads, totals and labels."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tenant_q.brokers.loads import BOUNDS, Figures, Load, quantile
from tenant_q.brokers.protocol import Broker, Counts, Lease, Policy, Settled
from tests.integration.brokers.drivers import OnRedis, fetch, fetch_one, finish, put

# Figures


def test_counts(broker):
    put(broker, *(f"a{n}" for n in range(4)))
    put(broker, "g", schema="globex_inc")
    put(broker, "later", delay=60)
    fetch_one(broker, "w1")
    broker.dead_letter("w2", fetch_one(broker, "w2"), "c")
    counts = broker.counts()
    assert counts == Counts(queued=3, leased=1, delayed=1, dead=1)
    assert (counts.open, counts.runnable) == (5, 5)
    assert broker.queue_size() == 3
    assert broker.queue_size("acme_corp") + broker.queue_size("globex_inc") == 3
    assert broker.queue_size("nobody") == 0


def test_counts_of_one_tenant(broker):
    put(broker, *(f"a{n}" for n in range(6)))
    put(broker, "g", "h", schema="globex_inc")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker, "w1"), "c")
    held = [lease for worker in ("w2", "w3") for lease in [fetch_one(broker, worker)]]
    own = [sum(lease.schema == schema for lease in held) for schema in ("acme_corp", "globex_inc")]
    acme, globex = broker.tenant_counts("acme_corp"), broker.tenant_counts("globex_inc")
    assert (acme.leased, globex.leased) == tuple(own)
    assert (acme.delayed, globex.delayed) == (1, 0)
    assert acme.dead + globex.dead == 1
    assert (acme.open + acme.dead, globex.open + globex.dead) == (7, 2)
    assert broker.tenant_counts("nobody") == Counts(0, 0, 0, 0)


def test_purging_leaves_what_runs(driver, broker):
    put(broker, *"abc", once=True)
    put(broker, "g", schema="globex_inc")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker), "c")
    broker.put_off("w1", fetch_one(broker), delay=60, unready=True)
    running = fetch_one(broker)
    broker.purge()
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert broker.dead() == []
    assert finish(broker, running) == []
    driver.advance(61)
    assert fetch(broker) == []
    assert put(broker, "later") == 1, "what was purged is not known"


# What operators see


def run(broker: Broker, *ids: str, schema: str = "acme_corp", func: str = "f", **settled: Any) -> None:
    """Enqueue, lease and acknowledge packages. `settled` is what the acknowledgement says of each."""
    put(broker, *ids, schema=schema, func=func)
    leases: dict[str, list[Lease]] = {}
    while (count := sum(map(len, leases.values()))) < len(ids):
        worker = f"runner {count}"
        leases[worker] = list(broker.fetch(worker, limit=len(ids)).leases)
        assert {lease.id for lease in leases[worker]} <= set(ids)
    for worker, taken in leases.items():
        for lease in taken:
            assert broker.acknowledge(worker, [Settled(lease, **({"seconds": 0.001} | settled))]) == []


def test_the_load_of_each_tenant(broker):
    assert broker.loads() == {}
    run(broker, "done", schema="initech_llc")
    put(broker, "a", "b", "c")
    put(broker, "later", delay=60.0)
    put(broker, "other", schema="globex_inc", func="g")
    for lease in broker.fetch("w1", limit=1).leases:
        broker.dead_letter("w1", lease, "it cannot be saved")
    broker.fetch("w2", limit=1)
    places = {name: (one.queued, one.leased, one.delayed, one.dead) for name, one in broker.loads().items()}
    held = [name for name, one in places.items() if one[1]]
    assert sum(one[0] for one in places.values()) == 2 and len(held) == 1
    assert places["initech_llc"] == (0, 0, 0, 0)
    assert sum(one[3] for one in places.values()) == 1
    assert places["acme_corp"][2] == 1
    counts = broker.counts()
    assert [sum(column) for column in zip(*places.values(), strict=True)] == [
        counts.queued, counts.leased, counts.delayed, counts.dead,
    ]  # fmt: skip


def test_loads_know_the_queue_of_a_paused_tenant(broker):
    broker.set_policies({"acme_corp": Policy(paused=True)})
    put(broker, "a", "b")
    assert broker.loads() == {"acme_corp": Load(queued=2)}
    broker.set_policies({}, complete=True)
    assert broker.loads() == {"acme_corp": Load(queued=2)}


def test_the_dead_are_counted_until_they_are_retried_or_purged(broker):
    for id in ("a", "b", "c"):
        put(broker, id)
        broker.dead_letter("w1", fetch_one(broker), "why not")
    assert broker.loads()["acme_corp"].dead == 3
    broker.retry_dead({"a": "", "unknown": ""})
    assert (broker.loads()["acme_corp"].dead, broker.loads()["acme_corp"].queued) == (2, 1)
    broker.purge_dead(["b", "unknown"])
    assert broker.loads()["acme_corp"].dead == 1
    broker.purge()
    assert broker.loads() == {}


def test_loads_tell_how_the_last_hour_was(broker, driver):
    for number in range(19):
        run(broker, f"fast {number}", seconds=0.003, waited=0.1)
    run(broker, "slow", seconds=30.0, waited=100.0, failed=True)
    run(broker, "other", schema="globex_inc", waited=None)
    loads = broker.loads()
    acme, globex = loads["acme_corp"], loads["globex_inc"]
    assert (acme.done, acme.failed, globex.done, globex.failed) == (19, 1, 1, 0)
    assert 0.002 < acme.run_p95 <= 0.004 and 0.064 < acme.wait_p95 <= 0.128
    assert globex.wait_p95 is None and globex.run_p95 <= 0.001
    driver.advance_figures(6)
    run(broker, "later", seconds=0.003)
    assert broker.loads()["acme_corp"].done == 20
    driver.advance_figures(8)
    assert broker.loads()["acme_corp"].done == 1, "the first ones are an hour old"
    assert broker.loads()["globex_inc"] == Load()
    driver.advance_figures(20)
    assert broker.loads()["acme_corp"] == Load(), "nothing was done in this hour"
    run(broker, "at last", seconds=0.003)
    assert broker.loads()["acme_corp"].done == 1


def test_totals_never_go_back(broker, driver):
    run(broker, "a", "b", func="f", seconds=0.5, waited=2.0)
    run(broker, "c", schema="globex_inc", func="g", seconds=10_000.0, waited=None, failed=True)
    driver.advance_figures(100)
    run(broker, "d", func="g", seconds=0.0005, waited=0.0)
    totals = broker.totals()
    acme, globex = totals.tenants["acme_corp"], totals.tenants["globex_inc"]
    assert (acme.done, acme.failed, acme.run_seconds, acme.wait_seconds) == (3, 0, 1.0005, 4.0)
    assert (globex.done, globex.failed, globex.run_seconds, globex.wait_seconds) == (0, 1, 10_000.0, 0.0)
    assert globex.runs == (0,) * len(BOUNDS) + (1,), "longer than the last bound"
    assert sum(globex.waits) == 0, "not known"
    assert acme.runs[0] == 1 and acme.runs[9] == 2, "up to 1 ms; from 256 to 512 ms"
    assert {func: (one.done, one.failed) for func, one in totals.functions.items()} == {"f": (2, 0), "g": (1, 1)}


def test_only_so_many_functions_have_figures_and_estimates_of_their_own(broker, driver, monkeypatch):
    """Whoever makes names in bulk does not fill the server."""
    monkeypatch.setattr("tenant_q.brokers.protocol.limits.MOST_FUNCTIONS", 3)
    for func in ("a", "b", "c", "d", "e", "a", "d"):
        run(broker, f"of {func} {uuid.uuid4()}", func=func, seconds=0.001)
    assert {func: one.done for func, one in broker.totals().functions.items()} == {"a": 2, "b": 1, "c": 1, "other": 3}
    assert broker.totals().tenants["acme_corp"].done == 7
    put(broker, "short", "shorter", func="a")
    assert len(fetch(broker)) == 2, "known as short"
    for id in ("short", "shorter"):
        broker.cancel("acme_corp", id, "TaskCancelled: no")
    put(broker, "unknown", "unknown too", func="d", schema="globex_inc")
    assert len(fetch(broker, "w2")) == 1, "nothing is learned of it, so it runs alone"


def test_names_in_bulk_do_not_fill_the_server(broker, driver):
    from tenant_q.brokers.protocol import MOST_FUNCTIONS

    ids = [f"{number}" for number in range(MOST_FUNCTIONS + 200)]
    for id in ids:
        run(broker, id, func=f"made.up.{id}", seconds=0.001)
    assert len(broker.totals().functions) == MOST_FUNCTIONS + 1


def test_what_is_refused_is_not_counted(broker):
    put(broker, "a")
    late = fetch_one(broker)
    broker.reclaim("w1", running=None)
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    assert finish(broker, late) == ["a"]
    assert broker.totals().tenants["acme_corp"].done == 1


@pytest.mark.parametrize("ms", [0.0, 0.001, 1.0, 1.001, 2.0, 2.5, 4.0, 1000.0, 2.0**23, 2.0**23 + 1, 1e12])
def test_a_time_is_counted_by_the_bound_that_it_does_not_exceed(broker, ms):
    run(broker, "a", seconds=ms / 1000, waited=ms / 1000)
    expected = sum(ms > round(1000 * bound) for bound in BOUNDS)
    assert broker.totals().tenants["acme_corp"].runs.index(1) == expected


def test_a_quantile_lies_between_the_bounds_of_what_it_falls_into():
    assert quantile(Figures().runs, 0.95) is None
    counts = [0] * (len(BOUNDS) + 1)
    counts[3] = 100
    assert quantile(counts, 0.95) == pytest.approx(0.004 + 0.95 * 0.004)
    counts[-1] = 100
    assert quantile(counts, 0.95) == BOUNDS[-1]


def test_who_has_labels_keeps_them_and_who_is_gone_makes_room_for_who_is_new(broker):
    def named(*names: str, most: int = 2) -> set[str]:
        return broker.name_labels("tenants", names, most=most)

    assert named("a") == {"a"}
    assert named("c", "a", "b") == {"a", "c"}, "those in front first"
    assert named("b", "c", "a") == {"a", "c"}
    assert named("b", "c") == {"c"}, "b was counted among the others"
    assert named("b", "c", "d", "e") == {"c", "d"}
    assert named("a", "b", "d") == {"d"}, "a is among the others since it was gone"
    assert broker.name_labels("functions", ["a", "b"], most=2) == {"a", "b"}, "others"


def test_labels_are_no_more_than_they_may_be(broker):
    def named(most: int) -> set[str]:
        return broker.name_labels("tenants", ["a", "b", "c", "d"], most=most)

    assert named(3) == {"a", "b", "c"}
    assert named(1) == {"a"}
    assert named(1) == {"a"}
    assert named(3) == {"a", "b", "c"}, "raised"


def test_the_figures_of_an_hour_are_forgotten():
    driver = OnRedis()
    try:
        run(driver.broker, "a")
        run(driver.broker, "b")
        (kept,) = driver.client.scan_iter(driver.key("figures:*"))
        assert 3900 < driver.client.ttl(kept) <= 4200
    finally:
        driver.end()
