"""Another Django-Q2 broker behind our protocol: Django-Q2's own Redis broker stands for all of them."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone
from django_q.brokers.redis_broker import Redis
from django_q.conf import Conf
from django_q.tasks import async_task

from tenant_q import brokers, tenancy
from tenant_q.brokers import adapter as adapters
from tenant_q.brokers import get_broker
from tenant_q.brokers.adapter import AdaptedBroker
from tenant_q.brokers.days import Day
from tenant_q.brokers.django_q import TenantBroker
from tenant_q.brokers.protocol import Counts, Message, Settled
from tenant_q.brokers.redis import RedisBroker
from tenant_q.cluster import lease_keeper
from tenant_q.cluster import sentinel as sentinels
from tenant_q.cluster.child import Child
from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.cluster.shared_memory import Slot
from tenant_q.custom import Chain, Iter
from tenant_q.exceptions import BrokerError, ConfigurationError, EnqueueError, NoTenant
from tenant_q.lifecycle import push
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.models import AuditRecord, GroupPart, TenantRecord
from tenant_q.operations import deleted_tenants
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.provisioning import decommission_tenant
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks, tasks_declared
from tests.integration.conftest import work

A, B = "acme_corp", "globex_inc"
REDIS = "django_q.brokers.redis_broker.Redis"


@pytest.fixture
def broker(tenants, settings, monkeypatch):
    """The project's broker is Django-Q2's Redis broker."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"broker_class": REDIS}
    monkeypatch.setattr(Conf, "REDIS", os.environ["REDIS_URL"])
    monkeypatch.setattr(Conf, "BROKER_CLASS", REDIS)
    monkeypatch.setattr(Conf, "CLUSTER_NAME", settings.Q_CLUSTER["name"])
    brokers.forget_brokers()
    yield get_broker()
    get_broker().inner.delete_queue()
    with in_public():
        GroupPart.objects.all().delete()
    brokers.forget_brokers()


@pytest.fixture
def clock(monkeypatch):
    """The adapter's clock, which stands still until it is moved."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(adapters, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Receipts(Redis):
    """As a broker that wants receipts, such as SQS."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []

    def dequeue(self):
        task = self.connection.lpop(self.list_key)
        return [(f"receipt {task[-4:].decode()}", task)] if task else None

    def acknowledge(self, task_id):
        self.calls.append(("acknowledge", task_id))

    def fail(self, task_id):
        self.calls.append(("fail", task_id))


def message(schema=A, func="tests.tasks.add", **fields):
    package = build(func, (1,), {}, schema=schema)
    return Message(package.id, schema, func, seal(package), **fields)


def fetch(broker):
    return list(broker.fetch("w").leases)


def ids(leases):
    return [lease.id for lease in leases]


# Which broker


def test_the_configured_broker_is_adapted(broker):
    assert isinstance(broker, AdaptedBroker)
    assert isinstance(broker.inner, Redis)
    assert get_broker() is broker
    assert get_broker("other").inner.list_key == "django_q:other:q"
    assert not brokers.uses_redis()
    assert not brokers.uses_orm()


@pytest.mark.parametrize(
    ("own", "ours", "orm"),
    [
        ({}, True, False),
        ({"broker_class": "tenant_q.brokers.django_q.TenantBroker"}, True, False),
        ({"broker_class": "django_q.brokers.orm.ORM"}, False, True),
        ({"orm": "default"}, False, True),
        ({"sqs": {"aws_region": "x"}}, False, False),
        ({"mongo": {"host": "x"}}, False, False),
        ({"iron_mq": {"host": "x"}}, False, False),
    ],
)
def test_which_brokers_place_ours_takes(tenants, settings, own, ours, orm):
    settings.Q_CLUSTER = settings.Q_CLUSTER | own
    assert brokers.uses_redis() is ours
    assert brokers.uses_orm() is orm


def test_a_callers_own_broker(tenants, monkeypatch):
    monkeypatch.setattr(Conf, "REDIS", os.environ["REDIS_URL"])
    theirs = get_broker(broker=Redis("theirs"))
    assert isinstance(theirs, AdaptedBroker)
    assert theirs.cluster == "django_q:theirs:q"
    ours = get_broker(broker=TenantBroker("ours"))
    assert isinstance(ours, RedisBroker)
    assert ours.cluster == "ours"


# Packages


def test_a_package_goes_in_and_out(broker):
    one, two = message(), message(B)
    assert broker.enqueue([one, two]) == 2
    assert broker.counts() == Counts(queued=2, leased=0, delayed=0, dead=0)
    assert broker.queue_size() == broker.queue_size(A) == 2, "there is one queue"
    (first,) = fetch(broker)
    (second,) = fetch(broker)
    assert [(lease.id, lease.schema, lease.payload) for lease in (first, second)] == [
        (one.id, A, one.payload),
        (two.id, B, two.payload),
    ]
    assert not first.is_redelivered
    assert broker.acknowledge("w", [Settled(first, 1.0), Settled(second, 1.0)]) == []
    assert broker.counts().open == 0


def test_there_is_no_day_of_figures(broker):
    assert broker.record_periods() == 0
    assert (broker.day(), broker.day(A), broker.top_tenants(day=True)) == (Day(), Day(), [])


def test_a_bad_payload_is_fetched_without_id_and_tenant(broker):
    broker.enqueue([Message("1" * 32, A, "f", "no package")])
    (lease,) = fetch(broker)
    assert (lease.id, lease.schema, lease.payload) == ("", "", "no package")
    broker.dead_letter("w", lease, "cause")
    assert broker.counts().open == 0


def test_bytes_that_are_no_text_are_fetched_as_a_bad_payload(broker):
    broker.inner.enqueue(b"\xff\xfe")
    (lease,) = fetch(broker)
    assert (lease.id, lease.schema) == ("", "")


def test_what_is_due_while_the_broker_is_away_is_not_lost(broker, clock, monkeypatch):
    one, two = message(), message()
    broker.enqueue([one, two])
    for lease in fetch(broker) + fetch(broker):
        broker.put_off("w", lease, delay=1)
    clock.now += 2
    with monkeypatch.context() as away:
        away.setattr(broker.inner, "list_key", None)  # Redis refuses that
        with pytest.raises(BrokerError):
            broker.fetch("w")
    assert sorted(ids(fetch(broker) + fetch(broker))) == sorted([one.id, two.id])


@pytest.mark.parametrize("path", ["no.such.Broker", "NoDots", "django_q.brokers.NoSuch"])
def test_a_broker_class_that_is_not_there(settings, monkeypatch, path):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"broker_class": path}
    monkeypatch.setattr(Conf, "BROKER_CLASS", path)
    with pytest.raises(ConfigurationError, match=path):
        get_broker("never made before")


def test_what_is_given_back_is_fetched_again(broker):
    broker.enqueue([message(), message()])
    leases = fetch(broker) + fetch(broker)
    assert broker.give_back("w", leases) == 2
    assert ids(fetch(broker) + fetch(broker)) == ids(leases)


def test_nothing_is_recalled_behind_a_long_task(broker, monkeypatch):
    """There are no leases, and the sentinel has neither payloads nor receipts to give back."""
    broker.enqueue([message(), message()])
    slot = Slot()
    slot.plan(fetch(broker) + fetch(broker))
    labels = {"task_id": "a", "schema": A, "func": "f"}
    assert slot.start(labels, None)
    monkeypatch.setattr(lease_keeper, "RECALL_SECONDS", 0.0)
    orders, order = os.pipe()
    sentinel = sentinels.Sentinel(sentinels.Plan(workers=1), orders, Heartbeat())
    try:
        process: Any = SimpleNamespace(pid=1)
        sentinel.children.alive.append(Child("worker", "w", slot, process))
        sentinel.leases.recall()
    finally:
        sentinel.stopping.restore()
        os.close(orders)
        os.close(order)
    assert broker.counts().open == 0
    assert slot.start(labels, None)


def put_off(broker, one, delay):
    broker.enqueue([one])
    (lease,) = fetch(broker)
    broker.put_off("w", lease, delay=delay)


def test_a_package_is_put_off_by_the_process(broker, clock):
    broker.enqueue([message()])
    (lease,) = fetch(broker)
    other = message().payload
    broker.put_off("w", lease, delay=60, payload=other)
    put_off(broker, message(), delay=90)
    assert broker.counts() == Counts(queued=0, leased=0, delayed=2, dead=0)
    broker.enqueue([message(B)])
    batch = broker.fetch("w")
    assert [lease.schema for lease in batch.leases] == [B]
    assert batch.next_delayed == 60
    clock.now += 60
    broker.enqueue([message(B)])
    assert [lease.schema for lease in fetch(broker)] == [B]
    batch = broker.fetch("w")
    assert [lease.payload for lease in batch.leases] == [other]
    assert batch.next_delayed == 30


def test_put_off_without_another_payload(broker, clock):
    one = message()
    broker.enqueue([one])
    broker.put_off("w", fetch(broker)[0], delay=1)
    clock.now += 2
    assert ids(fetch(broker)) == [one.id]
    assert broker.fetch("w").next_delayed is None


def test_close_hands_over_what_is_put_off(broker):
    one = message()
    put_off(broker, one, delay=60)
    assert broker.queue_size() == 0
    broker.close()
    assert broker.counts() == Counts(queued=1, leased=0, delayed=0, dead=0)
    assert ids(fetch(broker)) == [one.id]


def test_purge(broker):
    put_off(broker, message(), delay=60)
    broker.enqueue([message()])
    broker.purge()
    assert broker.counts() == Counts(0, 0, 0, 0)


def test_receipts_are_given_once_for_each_package(broker):
    inner = Receipts(broker.cluster)
    broker = AdaptedBroker(broker.cluster, inner)
    broker.enqueue([message() for _ in range(4)])
    leases = [fetch(broker)[0] for _ in range(4)]
    broker.acknowledge("w", [Settled(leases[0], 1.0)])
    broker.put_off("w", leases[1], delay=60)
    broker.dead_letter("w", leases[2], "cause")
    broker.give_back("w", leases[3:])
    assert inner.calls == [
        ("acknowledge", leases[0].token),
        ("fail", leases[2].token),
        ("acknowledge", leases[3].token),
    ]
    inner.calls.clear()
    broker.close()
    assert inner.calls == [("acknowledge", leases[1].token)], "its receipt is due when it is on the queue again"


def test_a_delay_is_refused_where_nobody_would_hold_it(broker):
    with pytest.raises(EnqueueError, match="cannot delay a task"):
        broker.enqueue([message(), message(delay=1)])
    assert broker.queue_size() == 0


@pytest.mark.parametrize("lane", [{"priority": 1}, {"interval": 0.1}])
def test_a_priority_and_a_rate_are_refused_where_nobody_would_keep_them(broker, lane):
    with pytest.raises(EnqueueError, match="knows neither 'priority' nor 'rate'; leave them out, or use Redis"):
        broker.enqueue([message(), message(**lane)])
    assert broker.queue_size() == 0


@pytest.mark.parametrize(
    ("func", "option"),
    [(tasks_declared.urgent, "priority"), (tasks_declared.limited, "rate"), (tasks_declared.charge, "unique")],
)
def test_a_declared_option_that_nobody_would_keep_is_refused(broker, func, option):
    with in_schema(A):
        with pytest.raises(EnqueueError, match=f"declares the option '{option}', which needs a broker on Redis"):
            async_task(func, 1)
        with pytest.raises(EnqueueError, match=f"'{option}'"):
            func.enqueue(1)
    assert broker.queue_size() == 0


def test_there_are_no_leases_and_no_dead(broker):
    broker.renew(["w"], 15)
    assert broker.reclaim("w", running=None) == broker.expire() == 0
    assert broker.dead() == []
    assert broker.retry_dead({"x": ""}) == broker.purge_dead(["x"]) == 0


def test_the_server_is_named(broker):
    broker.ping()
    assert broker.info().startswith("Redis ")
    assert broker.warnings() == [
        "The Redis broker gives its own guarantees only: no leases, one queue for all tenants."
    ]


def test_stats_of_clusters(broker):
    key = f"stat:{broker.cluster}:1"
    broker.set_stat(key, "one", 30)
    assert broker.get_stat(key) == b"one"
    assert broker.get_stats(f"stat:{broker.cluster}:*") == [b"one"]
    assert broker.get_stats(f"stat:{broker.cluster}:no*") == []


def test_what_goes_wrong_is_a_broker_error(broker, monkeypatch):
    monkeypatch.setattr(Conf, "REDIS", "redis://localhost:1")
    away = AdaptedBroker("elsewhere", Redis("elsewhere"))
    for call in (away.ping, away.info, away.counts, lambda: away.fetch("w"), lambda: away.enqueue([message()])):
        with pytest.raises(BrokerError, match=r"Redis\.\w+ failed for cluster 'elsewhere'"):
            call()


# Groups


def test_parts_of_a_group_are_in_postgresql(broker):
    assert broker.add_parts(A, "g", {"0": "zero"}, seconds=None) == 1
    assert broker.add_parts(A, "g", {"1": "one"}, seconds=60) == 2
    assert broker.add_parts(A, "g", {"1": "again"}, seconds=60) == 2, "a part that is there stays as it is"
    assert broker.add_parts(B, "g", {"0": "another tenant's"}, seconds=None) == 1
    assert broker.parts(A, "g") == {"0": "zero", "1": "one"}
    assert broker.count_parts(A, "g") == 2
    assert str(GroupPart.objects.get(schema_name=B)) == "globex_inc: g[0]"
    assert broker.drop_group(A, "g") == 2
    assert broker.drop_group(A, "g") == 0
    assert broker.parts(A, "g") == {}
    assert broker.parts(B, "g") == {"0": "another tenant's"}


def test_parts_expire(broker):
    broker.add_parts(A, "g", {"0": "zero"}, seconds=None)
    broker.add_parts(A, "g", {"1": "one"}, seconds=60)
    GroupPart.objects.exclude(expires=None).update(expires=timezone.now() - timedelta(seconds=1))
    assert broker.parts(A, "g") == {"0": "zero"}
    assert broker.count_parts(A, "g") == 1
    assert broker.drop_group(A, "g") == 1
    assert GroupPart.objects.count() == 1, "the expired one is still there"
    assert broker.add_parts(A, "g", {"1": "new"}, seconds=60) == 1
    assert broker.parts(A, "g") == {"1": "new"}


def test_parts_are_recorded_while_a_tenant_is_current(broker):
    with in_schema(A):
        broker.add_parts(A, "g", {"0": "zero"}, seconds=None)
        assert broker.count_parts(A, "g") == 1
        assert tenancy.current_schema() == A


# A worker on it


@pytest.fixture
def worker(broker, make_worker):
    return make_worker("adapted", broker)


def test_tasks_of_two_tenants(worker):
    ids = {name: QUtilities.add_async_task("tests.tasks.where", schema_name=name) for name in (A, B)}
    failed = QUtilities.add_async_task("tests.tasks.fail", schema_name=B, hook="tests.tasks.hook")
    work(worker)
    for name, id in ids.items():
        assert QUtilities.get_result(id, schema_name=name)["schema"] == name
    assert QUtilities.get_result(ids[A], schema_name=B) is None
    assert QUtilities.get_result(failed, schema_name=B).startswith("broken")
    assert tasks.notes(f"hook:{failed}")[0]["schema"] == B
    assert (schemas.count_tasks(A), schemas.count_tasks(B)) == (1, 2)


def test_tasks_of_django_qs_own_async_task(worker):
    with in_schema(A):
        id = async_task("tests.tasks.where")
    work(worker)
    assert QUtilities.get_result(id, schema_name=A)["schema"] == A
    with pytest.raises(NoTenant):
        async_task("tests.tasks.where")


def test_a_bad_package_stops_nobody(worker, broker):
    broker.enqueue([Message("1" * 32, A, "f", "no package")])
    id = QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A) == 1
    assert broker.counts().open == 0


def test_a_package_of_a_removed_class_leaves_a_failed_row(worker, broker, monkeypatch):
    module = ModuleType("an_old_release")
    module.Removed = type("Removed", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    id = QUtilities.add_async_task("tests.tasks.add", module.Removed(), schema_name=A)
    monkeypatch.delitem(sys.modules, module.__name__)
    work(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert not task.success
    assert "No module named 'an_old_release'" in task.result
    assert broker.counts().open == 0


@pytest.mark.parametrize("cached", [False, True], ids=["table", "cache"])
def test_an_iter(worker, broker, cached):
    both = {
        name: Iter("tests.tasks.add", [(n, 10) for n in range(4)], cached=cached, schema_name=name) for name in (A, B)
    }
    for one in both.values():
        one.run()
    work(worker)
    for one in both.values():
        assert one.result() == [10, 11, 12, 13]
    assert GroupPart.objects.count() == 0, "no parts are left"


@pytest.mark.parametrize("cached", [False, 60], ids=["table", "cache"])
def test_a_chain(worker, cached):
    chain = Chain([("tests.tasks.add", (1,)), "tests.tasks.own_schema"], cached=cached, schema_name=B)
    chain.run()
    work(worker)
    assert chain.current() == 2
    assert chain.result() == [1, B]
    assert schemas.count_tasks(B) == (0 if cached else 2)
    QUtilities.delete_task_group(chain.group, tasks=True, cached=cached, schema_name=B)
    assert chain.result() is None


def test_a_tenant_that_is_gone_is_put_off_and_then_given_up(worker, broker, clock, caplog):
    package = build("tests.tasks.note_where", ("nobody",), {}, schema="nobody")
    package.task["tenant"] = "99999"
    push.push([package])
    for _ in range(MOST_PUT_OFFS + 1):
        work(worker)
        clock.now += 100
    assert broker.counts().open == 0
    assert f"Dead-lettered package {package.id}: UnknownTenant: No tenant has the schema name 'nobody'" in caplog.text
    assert tasks.notes("nobody") == []


def test_a_tenant_is_decommissioned_and_its_queued_tasks_are_given_up(worker, broker, clock, caplog):
    schemas.clone_tenants(["spare"])
    deleted_tenants.find_and_clear()
    id = QUtilities.add_async_task("tests.tasks.note_where", "spare", schema_name="spare")
    with in_public():
        broker.add_parts("spare", "group", {"0": "part"}, seconds=None)
    try:
        assert decommission_tenant("spare", actor="test").cancelled == 0
        assert not GroupPart.objects.exists()
        for _ in range(MOST_PUT_OFFS + 1):
            work(worker)
            clock.now += 100
    finally:
        schemas.drop_tenant("spare")
        TenantRecord.objects.all().delete()
        AuditRecord.objects.filter(schema_name="spare").delete()
        tenancy.forget_tenants()
    assert broker.counts().open == 0
    assert f"Dead-lettered package {id}: UnknownTenant" in caplog.text
    assert tasks.notes("spare") == []


def test_a_worker_that_leaves_hands_over_what_is_put_off(worker, broker):
    package = build("tests.tasks.add", (1,), {}, schema="nobody")
    package.task["tenant"] = "99999"
    push.push([package])
    work(worker)
    assert broker.counts() == Counts(queued=0, leased=0, delayed=1, dead=0)
    worker.close()
    assert broker.counts() == Counts(queued=1, leased=0, delayed=0, dead=0)


def test_what_needs_a_queue_of_the_tenants_own(broker, make_worker):
    """The states of what has ended are those of rows; all else says which broker it needs."""
    id = QUtilities.add_async_task("math.floor", 1.5, schema_name=A)
    acts = [
        lambda: broker.live(A),
        lambda: broker.find(A, id),
        lambda: broker.place(A, id),
        lambda: broker.state(A, id),
        lambda: QUtilities.get_status(id, A),
        lambda: QUtilities.cancel(id, A, by="Ada"),
        lambda: QUtilities.get_progress(id, A),
    ]
    for act in acts:
        with pytest.raises(ConfigurationError, match=r"The Redis broker cannot .*; use Redis for that"):
            act()
    assert broker.cancelled() == []
    worker = make_worker()
    while QUtilities.fetch_task(id, schema_name=A) is None:
        worker.tick()
    assert QUtilities.get_status(id, A) == "success"


def test_a_task_may_tell_progress_that_nobody_keeps(broker, make_worker):
    id = QUtilities.add_async_task("tests.tasks.tell", 0.5, schema_name=A)
    worker = make_worker()
    while QUtilities.fetch_task(id, schema_name=A) is None:
        worker.tick()
    assert QUtilities.fetch_task(id, schema_name=A).success
    sentinel = sentinels.Sentinel(sentinels.Plan(workers=1), -1, Heartbeat())
    try:
        process: Any = SimpleNamespace(pid=None)
        sentinel.children.alive.append(Child("worker", "w1", worker.slot, process))
        sentinel.leases.pass_on_progress()
        sentinel.leases.pass_on_cancels()
    finally:
        sentinel.stopping.restore()
