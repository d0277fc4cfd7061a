"""What operators look at: read in a few statements and round trips, however many tenants there are."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis.connection
from django.utils import timezone
from django_q.models import Schedule, Task
from django_q.signing import SignedPackage

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.cluster.sentinel import Plan, Sentinel
from tenant_q.models import DueSchedule
from tenant_q.operations.published_status import ClusterStat
from tenant_q.operations.site import Tenant, read_site
from tenant_q.operations.status import GONE_SECONDS, ClusterState
from tenant_q.schedules import due_index
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import sql, work
from tests.integration.planning import on_the_wire


@pytest.fixture
def make_many(tenants: tuple[str, ...]) -> Iterator[Callable[[int], list[str]]]:
    """Rows of tenants without schemas: that is all that the figures ask of them."""
    model = tenancy.tenant_model()
    made: list[str] = []

    def make(count: int) -> list[str]:
        names = [f"many_{number:04}" for number in range(len(made), len(made) + count)]
        model.objects.bulk_create(model(schema_name=n, name=n, **schemas.domain_of(model, n)) for n in names)
        made.extend(names)
        return names

    yield make
    schemas.connection.set_schema_to_public()
    model.objects.filter(schema_name__in=made).delete()
    DueSchedule.objects.filter(schema_name__in=made).delete()
    tenancy.forget_tenants()


def messages_for(names: list[str], count: int) -> list[Any]:
    from tenant_q.brokers.protocol import Message

    return [Message(id=f"{name}-{n}", schema=name, func="f", payload="x" * 200) for name in names for n in range(count)]


@pytest.mark.seam
def test_the_site_tells_of_each_tenant(tenants, worker, unlimited):
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.add", 1, 2)
        QUtilities.add_async_task("tests.tasks.fail")
    work(worker)
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.add", 1, 2, q_options={"delay": 60})
    with in_schema("globex_inc"):
        policies.change("globex_inc", actor="a test", act="pause", paused=True, max_results=7)
        QUtilities.add_async_task("tests.tasks.add", 1, 2)
        moment = timezone.now() + timedelta(hours=1)
        Schedule.objects.create(func="tests.tasks.add", schedule_type=Schedule.ONCE, next_run=moment)
    site = read_site()
    assert [tenant.schema for tenant in site.tenants] == list(tenants)
    acme, globex, initech = site.tenants
    assert (acme.load.done, acme.load.failed, acme.load.delayed, acme.load.queued) == (1, 1, 1, 0)
    assert acme.load.run_p95 is not None and acme.load.wait_p95 is not None
    assert (globex.policy.paused, globex.kept.max_results, globex.load.queued, globex.schedules) == (True, 7, 1, 1)
    assert globex.next_fire == moment
    assert initech == Tenant("initech_llc")
    assert (site.total.queued, site.total.done, site.total.failed, site.total.delayed) == (1, 1, 1, 1)
    assert site.tenant("acme_corp") == acme and site.tenant("nobody") is None
    assert site.late == 0 and site.clusters == ()


def test_a_wait_is_counted_from_when_a_task_was_enqueued_or_due(tenants, worker):
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.add", 1, 2)
    time.sleep(0.3)
    work(worker)
    wait = read_site().tenants[0].load.wait_p95
    assert 0.25 < wait < 600


def test_a_schedule_that_does_not_fire_makes_the_site_late(tenants):
    with in_schema("acme_corp"):
        due = timezone.now() - timedelta(seconds=100)
        Schedule.objects.create(func="tests.tasks.add", schedule_type=Schedule.ONCE, next_run=due)
    assert 100 <= read_site().late < 200
    due_index.hold("acme_corp", due_index.PAUSED, None)
    site = read_site()
    assert site.late == 0
    assert (site.tenants[0].next_fire, site.tenants[0].held) == (None, "paused")


def test_a_tenant_that_was_dropped_is_told_as_long_as_something_of_it_is_there(tenants):
    get_broker().enqueue(messages_for(["dropped"], 2))
    dropped = read_site().tenant("dropped")
    assert not dropped.is_known and dropped.load.queued == 2
    sql("DELETE FROM tenant_q_dueschedule")


def test_a_cluster_that_starts_forgets_those_that_are_long_gone(tenants, settings):
    """Each that was killed leaves one, and perhaps nobody ever looks."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"scheduler": False}
    killed: dict[str, Any] = {
        "parent": 1,
        "started": timezone.now(),
        "state": ClusterState.IDLE,
        "workers_wanted": 1,
        "has_scheduler": True,
    }
    stats = [ClusterStat(cluster_id=uuid.uuid4(), processes=(), reincarnations=0, **killed) for _ in range(2)]
    for stat, seconds in zip(stats, (GONE_SECONDS - 300, GONE_SECONDS + 1), strict=True):
        stat.timestamp -= timedelta(seconds=seconds)
        stat.publish(get_broker())
    sentinel = Sentinel(Plan(workers=0), -1, Heartbeat())
    try:
        sentinel._start_all()
    finally:
        sentinel.stopping.restore()
    left = {str(SignedPackage.loads(one).cluster_id) for one in get_broker().last_stats()}
    assert left == {str(stats[0].cluster_id), str(sentinel.plan.cluster_id)}


def test_statements_and_round_trips_are_the_same_for_any_number_of_tenants(make_many, monkeypatch):
    real = redis.connection.AbstractConnection.send_packed_command
    sent: list[Any] = []
    monkeypatch.setattr(
        redis.connection.AbstractConnection,
        "send_packed_command",
        lambda *args, **kwargs: sent.append(1) or real(*args, **kwargs),
    )

    def cost() -> tuple[int, int]:
        read_site()
        sent.clear()
        with on_the_wire() as messages:
            read_site()
        return len(messages), len(sent)

    few = cost()
    names = make_many(100)
    get_broker().enqueue(messages_for(names, 2))
    assert cost() == few
    print(f"\nstatements, round trips: {few}", end="")
    assert few[0] <= 12 and few[1] <= 6


def test_a_thousand_tenants_with_much_to_do(make_many):
    """The time is printed only. `make chaos` has 1,000 tenants."""
    count = 1000 if os.environ.get("CHAOS") == "long" else 100
    names = make_many(count)
    get_broker().enqueue(messages_for(names, 20))
    moment = timezone.now() + timedelta(days=1)
    DueSchedule.objects.bulk_create(
        [
            DueSchedule(schema_name=name, schedule_id=n, cluster="", next_run=moment, due=moment)
            for name in names
            for n in range(100)
        ],
        batch_size=10_000,
    )
    begun = time.perf_counter()
    site = read_site()
    print(f"\n{count} tenants with 20 queued, 100 schedules each: {time.perf_counter() - begun:.3f} s", end="")
    assert len(site.tenants) == count + 3
    assert site.total.queued == 20 * count
    assert sum(tenant.schedules for tenant in site.tenants) == 100 * count


def test_rows_are_not_read(tenants, worker):
    """100,000 rows of results cost the figures nothing: they come from the broker."""
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.add", 1, 2)
    work(worker)
    with in_schema("acme_corp"):
        Task.objects.all().delete()
    assert read_site().tenants[0].load.done == 1
