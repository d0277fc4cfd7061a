"""What every broker with leases does when a tenant is deleted, made anew under the same name, or renamed."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_q.brokers.protocol import Broker, Drained, Message, Policy, Settled, Unique
from tenant_q.brokers.redis import RedisBroker
from tenant_q.exceptions import TenantDeleted, TenantLeaving
from tests.integration.brokers.drivers import Driver, InMemory, OnRedis, fetch, fetch_one, finish, put

REASON = "TaskCancelled: its tenant was deleted"


class Site:
    """A driver with tenants whose keys can be changed: schema and key."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.broker: Broker = driver.broker
        self.keys = {"acme_corp": "1"}
        known = lambda schemas: {name: self.keys[name] for name in schemas if name in self.keys}  # noqa: E731
        if isinstance(driver.broker, RedisBroker):
            driver.broker._keys_of = known
        else:
            driver.broker.keys_of = known

    def put(self, *ids: str, schema: str = "acme_corp", **fields: Any) -> int:
        return put(self.broker, *ids, schema=schema, tenant=self.keys.get(schema, ""), **fields)

    def replace(self, *, seconds: float = 0.001) -> int:
        """The tenant is deleted, and another one has the name. Returns how many packages are still held."""
        held = self.broker.forget_tenant("acme_corp", self.keys["acme_corp"], REASON, seconds=seconds)
        self.keys["acme_corp"] = str(int(self.keys["acme_corp"]) + 1)
        return held


@pytest.fixture(params=[InMemory, OnRedis])
def site(request, settings):
    driver = request.param()
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"name": driver.broker.cluster}
    yield Site(driver)
    driver.end()


def test_the_first_tenant_of_a_name_has_the_queue_of_the_version_before(site):
    site.put("a")
    assert fetch_one(site.broker).schema == "acme_corp"


def test_a_tenant_that_is_deleted_leaves_nothing(site):
    site.put(*"abcd")
    site.put("later", delay=60)
    lease = fetch_one(site.broker)
    site.broker.dead_letter("w1", lease, "broken")
    finish(site.broker, fetch_one(site.broker))
    site.broker.set_policies({"acme_corp": Policy(weight=2, paused=True)})
    site.broker.add_parts("acme_corp", "g", {"0": "part"}, seconds=60)
    assert site.replace() == 0
    counts = site.broker.counts()
    assert (counts.queued, counts.leased, counts.delayed, counts.dead) == (0, 0, 0, 0)
    assert site.broker.dead() == []
    assert site.broker.loads() == {}
    assert site.broker.totals().tenants == {}
    assert site.broker.policies() == {}
    assert site.broker.parts("acme_corp", "g", tenant="1") == {}


def test_other_tenants_keep_what_they_have(site):
    site.keys["globex_inc"] = "9"
    site.put("a")
    site.put("b", schema="globex_inc")
    site.broker.add_parts("globex_inc", "g", {"0": "part"}, seconds=60)
    site.replace()
    assert site.broker.counts().queued == 1
    assert site.broker.count_parts("globex_inc", "g") == 1
    finish(site.broker, fetch_one(site.broker))
    assert site.broker.loads()["globex_inc"].done == 1


def test_what_runs_is_cancelled_and_counted_until_it_has_ended(site):
    site.put("a")
    lease = fetch_one(site.broker)
    assert site.replace() == 1
    [cancelled] = site.broker.cancelled()
    assert (cancelled.id, cancelled.reason) == ("a", REASON)
    site.broker.acknowledge("w1", [Settled(lease, 0.1, failed=True)])
    assert site.broker.forget_tenant("acme_corp", "1", REASON, seconds=0.001) == 0
    assert site.broker.loads() == {}


def test_a_later_tenant_meets_nothing_of_one_that_is_not_gone_yet(site):
    site.put("a", "b")
    lease = fetch_one(site.broker)
    site.broker.add_parts("acme_corp", "g", {"0": "old"}, seconds=60)
    site.broker.note_cached("acme_corp", "x", seconds=60)
    site.replace()
    site.put("c")
    site.broker.add_parts("acme_corp", "g", {"0": "new"}, seconds=60)
    assert site.broker.parts("acme_corp", "g") == {"0": "new"}
    assert [live.id for live in site.broker.live("acme_corp")] == ["c"]
    assert site.broker.place("acme_corp", "a") is None
    assert site.broker.cancel("acme_corp", "a", "TaskCancelled: mine") is None
    assert site.broker.queue_size("acme_corp") == 1
    assert fetch_one(site.broker, "w2").schema == "acme_corp#2"
    site.broker.give_back("w1", [lease])
    site.broker.forget_tenant("acme_corp", "1", REASON, seconds=0.001)
    assert site.broker.counts().open == 1
    assert site.broker.cached_ids("acme_corp", "2") == []


def test_loads_are_by_the_schema(site):
    site.put("a")
    fetch_one(site.broker)
    site.replace()
    site.put("b")
    assert (site.broker.loads()["acme_corp"].queued, site.broker.loads()["acme_corp"].leased) == (1, 1)


def test_a_policy_is_of_the_tenant_that_has_the_name(site):
    site.put("a")
    fetch_one(site.broker)
    site.replace()
    site.broker.set_policies({"acme_corp": Policy(paused=True)})
    site.put("b")
    assert site.broker.fetch("w2").leases == ()
    assert site.broker.policies() == {"acme_corp": Policy(paused=True)}


def test_nothing_is_enqueued_for_a_tenant_that_was_deleted_lately(site):
    site.put("a")
    site.replace(seconds=60)
    with pytest.raises(TenantDeleted, match="1"):
        put(site.broker, "b", tenant="1")
    assert site.put("c") == 1
    assert site.broker.counts().open == 1


@pytest.mark.parametrize("is_only_cluster", [True, False])
def test_a_late_part_of_a_deleted_tenant_is_not_kept(site, is_only_cluster, settings):
    if not is_only_cluster:
        settings.Q_CLUSTER = settings.Q_CLUSTER | {"name": f"{site.broker.cluster}_site"}
    site.broker.add_parts("acme_corp", "g", {"0": "part"}, seconds=60)
    site.replace(seconds=60)
    assert site.broker.add_parts("acme_corp", "g", {"1": "late"}, seconds=60, tenant="1") == 0
    site.broker.note_cached("acme_corp", "x", seconds=60, tenant="1")
    assert site.broker.parts("acme_corp", "g", tenant="1") == {}
    assert site.broker.cached_ids("acme_corp", "1") == []
    site.put("a")
    assert fetch_one(site.broker).schema == "acme_corp"


def test_clearing_a_deleted_tenant_again_leaves_the_next_one_alone(site):
    site.put("a")
    site.replace(seconds=60)
    put(site.broker, "b", "c", tenant="")  # of an earlier version
    finish(site.broker, fetch_one(site.broker))
    assert site.broker.forget_tenant("acme_corp", "1", REASON, seconds=60) == 0
    assert (site.broker.queue_size("acme_corp"), site.broker.loads()["acme_corp"].done) == (1, 1)
    lease = fetch_one(site.broker)
    assert site.broker.forget_tenant("acme_corp", "1", REASON, seconds=60) == 0
    assert site.broker.cancelled() == []
    finish(site.broker, lease)
    assert site.broker.forget_tenant("acme_corp", "1", REASON, seconds=60) == 0
    assert site.broker.loads()["acme_corp"].done == 2


def test_a_name_keeps_its_series_while_a_tenant_has_it(site):
    site.put("a")
    lease = fetch_one(site.broker)
    site.replace(seconds=60)
    site.put("b")
    assert site.broker.name_labels("tenants", ["acme_corp"], most=1) == {"acme_corp"}
    site.broker.give_back("w1", [lease])
    assert site.broker.forget_tenant("acme_corp", "1", REASON, seconds=60) == 0
    assert site.broker.name_labels("tenants", ["globex_inc", "acme_corp"], most=1) == {"acme_corp"}
    assert site.broker.forget_tenant("acme_corp", "2", REASON, seconds=60) == 0
    assert site.broker.name_labels("tenants", ["initech_llc", "acme_corp"], most=1) == {"initech_llc"}


def test_a_place_for_figures_is_used_again(site):
    for number in range(5):
        site.put(f"a{number}")
        finish(site.broker, fetch_one(site.broker))
        assert site.broker.loads()["acme_corp"].done == 1
        site.replace()
    site.keys["globex_inc"] = "99"
    site.put("b", schema="globex_inc")
    finish(site.broker, fetch_one(site.broker))
    assert {name: figures.done for name, figures in site.broker.totals().tenants.items()} == {"globex_inc": 1}
    assert site.broker.totals().functions["f"].done == 6


def test_a_deleted_tenant_has_no_day(site):
    for is_recorded in (False, True):
        site.put("a")
        lease = fetch_one(site.broker)
        site.broker.note_busy([lease.id], 5.0)
        finish(site.broker, lease)
        if is_recorded:
            site.driver.advance_figures(1)
            site.broker.record_periods()
        assert len(site.broker.day("acme_corp").periods) == len(site.broker.top_tenants(day=True)) == 1
        assert site.replace() == 0
        assert site.broker.day("acme_corp").periods == site.broker.day("acme_corp").functions == ()
        assert site.broker.top_tenants() == site.broker.top_tenants(day=True) == []
    assert site.broker.day().functions[0].done == 2, "of all tenants"


def test_a_renamed_tenant_keeps_its_day(site):
    site.put("a")
    finish(site.broker, fetch_one(site.broker))
    site.driver.advance_figures(1)
    site.broker.record_periods()
    site.broker.rename_tenant("1", "acme_corp", "acme_ltd")
    site.keys = {"acme_ltd": "1"}
    assert [one.done for one in site.broker.day("acme_ltd").periods] == [1]
    assert [one.schema for one in site.broker.top_tenants(day=True)] == ["acme_ltd"]


def test_a_tenant_that_is_renamed_keeps_what_it_has(site):
    site.put("a", "b")
    site.put("later", delay=60)
    site.broker.dead_letter("w1", fetch_one(site.broker), "broken")
    site.broker.set_policies({"acme_corp": Policy(weight=2)})
    site.broker.add_parts("acme_corp", "g", {"0": "part"}, seconds=60)
    site.keys["new_name"] = site.keys.pop("acme_corp")
    site.broker.rename_tenant("1", "acme_corp", "new_name")
    assert site.broker.queue_size("new_name") == 1
    assert site.broker.place("new_name", "later") == "delayed"
    assert [dead.schema for dead in site.broker.dead("new_name")] == ["new_name"]
    assert site.broker.policies() == {"new_name": Policy(weight=2)}
    assert site.broker.parts("new_name", "g") == {"0": "part"}
    assert set(site.broker.loads()) == {"new_name"}
    assert site.put("c", schema="new_name") == 1
    site.keys["acme_corp"] = "7"
    assert site.broker.live("acme_corp") == []
    site.put("d")
    assert [live.id for live in site.broker.live("acme_corp")] == ["d"]


def test_cached_results_are_noted_until_they_are_forgotten(site):
    site.broker.note_cached("acme_corp", "x", seconds=60)
    site.broker.note_cached("acme_corp", "y", seconds=None)
    assert site.broker.cached_ids("acme_corp", "1") == ["x", "y"]
    site.broker.forget_cached("acme_corp", "1", ["x"])
    assert site.broker.cached_ids("acme_corp", "1") == ["y"]


# A tenant that is being decommissioned


def test_what_waits_of_a_leaving_tenant_is_forgotten_and_what_runs_stays(site):
    site.keys["globex_inc"] = "9"
    site.put("runs")
    lease = fetch_one(site.broker)
    site.put("a", "b")
    site.put("later", delay=60)
    site.put("first", priority=5)
    site.put("slow", interval=3.0)
    site.put("other", schema="globex_inc")
    assert site.broker.drain_tenant("acme_corp", "1") == Drained(cancelled=5, held=1)
    assert [live.id for live in site.broker.live("acme_corp")] == ["runs"]
    assert site.broker.cancelled() == []
    assert fetch(site.broker, "w2") == ["other"]
    assert finish(site.broker, lease) == []
    assert site.broker.drain_tenant("acme_corp", "1") == Drained()


def test_what_comes_back_of_a_leaving_tenant_is_forgotten_too(site):
    site.put("a", "b")
    first, second = fetch_one(site.broker, "w1"), fetch_one(site.broker, "w2")
    assert site.broker.drain_tenant("acme_corp", "1") == Drained(held=2)
    site.broker.put_off("w1", first, delay=5)
    site.broker.give_back("w2", [second])
    assert site.broker.drain_tenant("acme_corp", "1") == Drained(cancelled=2)
    assert site.broker.counts().open == 0


def test_nothing_is_enqueued_for_a_tenant_that_leaves(site):
    site.keys["globex_inc"] = "9"
    site.put("runs")
    lease = fetch_one(site.broker)
    site.broker.drain_tenant("acme_corp", "1")
    for fields in ({}, {"delay": 60}, {"once": True, "follows": "runs"}, {"unique": Unique("f", "k")}):
        with pytest.raises(TenantLeaving, match="f cannot be enqueued: its tenant 'acme_corp' is being decommissioned"):
            site.put("new", **fields)
    message = Message("new", "acme_corp", "f", "payload", tenant="1", unique=Unique("f", "k"))
    with pytest.raises(TenantLeaving):
        site.broker.enqueue_unique(message, limited=True)
    assert site.put("other", schema="globex_inc") == 1
    assert (site.broker.counts().queued, site.broker.counts().leased) == (1, 1)
    # What runs may save its results.
    assert site.broker.add_parts("acme_corp", "g", {"0": "part"}, seconds=60) == 1
    assert finish(site.broker, lease) == []


def test_the_next_tenant_of_the_name_is_not_leaving(site):
    site.broker.drain_tenant("acme_corp", "1")
    site.replace(seconds=60)
    with pytest.raises(TenantDeleted):
        put(site.broker, "a", tenant="1")
    assert site.put("b") == 1
    if isinstance(site.driver, OnRedis):
        assert not {name for name in site.driver.key_names() if name.startswith("leaving")}


def test_a_leaving_tenant_of_many_packages_keeps_none(site):
    site.put(*(f"p{number}" for number in range(2500)))
    assert site.broker.drain_tenant("acme_corp", "1") == Drained(cancelled=2500)
    assert site.broker.counts().open == 0


def test_the_next_tenant_of_the_name_gets_no_rate_and_no_alias(site):
    site.put("a", interval=3600.0)
    finish(site.broker, fetch_one(site.broker))
    site.put("b", delay=60, unique=Unique("f", "k"))
    site.put("c", unique=Unique("f", "k", needs_alias=True))
    assert site.broker.real_id("acme_corp", "c") == "b"
    site.replace()
    assert site.broker.real_id("acme_corp", "c") is None
    site.put("d", interval=3600.0)
    site.put("never run", func="other", interval=3600.0)
    finish(site.broker, fetch_one(site.broker))
    if isinstance(site.driver, OnRedis):
        site.replace()
        assert not {name for name in site.driver.key_names() if "acme_corp" in name}
