"""`QUtilities`, `Iter`, `Chain` and `AsyncTask`, with results in the tenants' tables and in the cache."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, connection
from django_q.brokers import get_broker as django_q_broker
from django_q.conf import Conf
from django_q.models import Schedule, Task

from tenant_q.brokers import get_broker
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.exceptions import EnqueueError, NoTenant, UnknownTenant
from tenant_q.lifecycle import results
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import work

A, B, C = "acme_corp", "globex_inc", "initech_llc"
CACHED = pytest.mark.parametrize("cached", [False, True, 60], ids=["table", "cache", "cache for a minute"])


@pytest.fixture
def own_cluster(tenants, monkeypatch):
    """Django-Q2 read the cluster's name when it was imported."""
    monkeypatch.setattr(Conf, "CLUSTER_NAME", get_broker().cluster)


@pytest.fixture
def in_acme(tenants):
    with in_schema(A):
        yield


@pytest.fixture
def works_while_waited_for(worker, monkeypatch):
    """Who polls for a result lets the worker work meanwhile."""

    def sleep(seconds):
        with in_schema(A):
            worker.tick()

    monkeypatch.setattr(results, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))


def add_group(schema, group="g", **options):
    """Three tasks of one group, the second of which fails."""
    return [
        QUtilities.add_async_task(func, *args, group=group, schema_name=schema, **options)
        for func, args in (("tests.tasks.add", (1,)), ("tests.tasks.fail", ()), ("tests.tasks.add", (3,)))
    ]


# One task


@CACHED
def test_the_result_of_a_task(worker, cached):
    id = QUtilities.add_async_task("tests.tasks.add", 1, b=2, schema_name=A, cached=cached)
    assert QUtilities.get_result(id, cached=cached, schema_name=A) is None
    work(worker)
    assert QUtilities.get_result(id, cached=cached, schema_name=A) == 3
    task = QUtilities.fetch_task(id, cached=cached, schema_name=A)
    assert (task.id, task.func, task.args, task.kwargs, task.success) == (id, "tests.tasks.add", (1,), {"b": 2}, True)
    assert schemas.count_tasks(A) == (0 if cached else 1)


@CACHED
def test_another_tenant_has_no_result_of_that_id(worker, cached):
    id = QUtilities.add_async_task("tests.tasks.add", 1, group="g", schema_name=A, cached=cached)
    work(worker)
    assert QUtilities.get_result(id, cached=cached, schema_name=A) == 1
    assert QUtilities.get_result(id, cached=cached, schema_name=B) is None
    assert QUtilities.fetch_task(id, cached=cached, schema_name=B) is None
    assert QUtilities.get_result_group("g", cached=cached, schema_name=B) is None
    assert QUtilities.get_group_count("g", cached=cached, schema_name=B) == 0
    assert not QUtilities.delete_task_from_cache(id, schema_name=B)
    QUtilities.delete_task_group("g", tasks=True, cached=cached, schema_name=B)
    assert QUtilities.get_result(id, cached=cached, schema_name=A) == 1


def test_a_result_by_the_tasks_name(worker):
    ids = [QUtilities.add_async_task("tests.tasks.add", n, task_name="sum", schema_name=A) for n in (1, 2)]
    QUtilities.add_async_task("tests.tasks.add", 3, task_name="sum", schema_name=B)
    work(worker)
    assert QUtilities.fetch_task("sum", schema_name=A).id == ids[1], "the latest"
    assert QUtilities.get_result("sum", schema_name=B) == 3
    assert QUtilities.get_result("sum", schema_name=C) is None


def test_options_stand_among_the_keywords_or_in_q_options(worker):
    for options in (
        {"task_name": "one", "group": "g", "save": True},
        {"q_options": {"task_name": "one", "group": "g", "save": True, "max_deliveries": 1}},
    ):
        id = QUtilities.add_async_task("tests.tasks.add", 1, b=1, schema_name=A, **options)
        work(worker)
        task = QUtilities.fetch_task(id, schema_name=A)
        assert (task.name, task.group, task.kwargs) == ("one", "g", {"b": 1})


def test_a_functions_keywords_may_be_named_as_options_when_q_options_has_them(worker):
    id = QUtilities.add_async_task(dict, group="mine", q_options={"group": "g"}, schema_name=A)
    work(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.result, task.group) == ({"group": "mine"}, "g")


@CACHED
def test_waiting_for_a_result(works_while_waited_for, cached):
    id = QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A, cached=cached)
    assert QUtilities.get_result(id, wait=30_000, cached=cached, schema_name=A) == 1
    id = QUtilities.add_async_task("tests.tasks.add", 2, schema_name=A, cached=cached)
    assert QUtilities.fetch_task(id, wait=-1, cached=cached, schema_name=A).result == 2


def test_a_wait_ends(tenants):
    before = time.monotonic()
    assert QUtilities.get_result("nothing", wait=30, schema_name=A) is None
    assert QUtilities.get_result_group("nothing", wait=30, schema_name=A) is None
    assert QUtilities.get_result_group("nothing", wait=30, count=2, schema_name=A) is None
    assert 0.09 <= time.monotonic() - before < 10


# Groups


@CACHED
def test_the_results_of_a_group(worker, cached):
    ids = add_group(A, cached=cached)
    work(worker)
    assert QUtilities.get_result_group("g", cached=cached, schema_name=A) == [1, 3]
    first, text, last = QUtilities.get_result_group("g", failures=True, cached=cached, schema_name=A)
    assert (first, last) == (1, 3)
    assert text.startswith("broken")
    assert [task.id for task in QUtilities.fetch_task_group("g", cached=cached, schema_name=A)] == ids
    fetched = QUtilities.fetch_task_group("g", failures=False, cached=cached, schema_name=A)
    assert [task.id for task in fetched] == [ids[0], ids[2]]
    assert QUtilities.get_group_count("g", cached=cached, schema_name=A) == 3
    assert QUtilities.get_group_count("g", failures=True, cached=cached, schema_name=A) == 1


@CACHED
def test_waiting_for_a_whole_group(works_while_waited_for, cached):
    add_group(A, cached=cached)
    assert QUtilities.get_result_group("g", wait=30_000, count=3, cached=cached, schema_name=A) == [1, 3]
    assert len(QUtilities.fetch_task_group("g", wait=30_000, count=3, cached=cached, schema_name=A)) == 3


@CACHED
def test_what_there_is_of_a_group_when_the_wait_ends(worker, cached):
    add_group(A, cached=cached)
    work(worker)
    assert QUtilities.get_result_group("g", wait=10, count=4, cached=cached, schema_name=A) == [1, 3]
    assert QUtilities.get_result_group("g", count=4, cached=cached, schema_name=A) == [1, 3]


@CACHED
def test_a_group_is_deleted(worker, cached):
    ids = {name: add_group(name, cached=cached) for name in (A, B)}
    work(worker)
    QUtilities.delete_task_group("g", tasks=True, cached=cached, schema_name=A)
    assert QUtilities.get_result_group("g", cached=cached, schema_name=A) is None
    assert QUtilities.get_group_count("g", cached=cached, schema_name=A) == 0
    assert QUtilities.get_result(ids[A][0], cached=cached, schema_name=A) is None
    assert QUtilities.get_group_count("g", cached=cached, schema_name=B) == 3
    assert QUtilities.get_result(ids[B][0], cached=cached, schema_name=B) == 1


def test_a_groups_label_is_taken_off_its_tasks(worker):
    ids = add_group(A)
    work(worker)
    assert QUtilities.delete_task_group("g", schema_name=A) == 3
    assert QUtilities.get_group_count("g", schema_name=A) == 0
    assert QUtilities.get_result(ids[0], schema_name=A) == 1


def test_a_cached_result_is_deleted(worker):
    id = QUtilities.add_async_task("tests.tasks.add", 1, cached=True, schema_name=A)
    work(worker)
    assert QUtilities.delete_task_from_cache(id, schema_name=A)
    assert not QUtilities.delete_task_from_cache(id, schema_name=A)
    assert QUtilities.get_result(id, cached=True, schema_name=A) is None


# Which tenant


def test_the_current_tenant_is_meant_unless_another_is_named(worker):
    with in_schema(A):
        own = QUtilities.add_async_task("tests.tasks.own_schema")
        other = QUtilities.add_async_task("tests.tasks.own_schema", schema_name=B)
        assert connection.schema_name == A
    work(worker)
    with in_schema(A):
        assert QUtilities.get_result(own) == A
        assert QUtilities.get_result(other) is None
        assert QUtilities.get_result(other, schema_name=B) == B
        assert connection.schema_name == A
    with in_schema(B):
        assert QUtilities.get_result(other) == B
        assert QUtilities.fetch_task(other).id == other


CALLS = {
    "add_async_task": ("tests.tasks.add", 1),
    "create_schedule": ("tests.tasks.add", 1),
    "get_result": ("id",),
    "fetch_task": ("id",),
    "get_result_group": ("g",),
    "fetch_task_group": ("g",),
    "get_group_count": ("g",),
    "delete_task_group": ("g",),
    "delete_task_from_cache": ("id",),
    "add_async_tasks_from_iter": ("tests.tasks.add", [1]),
    "create_async_tasks_chain": (["tests.tasks.nothing"],),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_public_schema_and_unknown_tenants_are_refused(tenants, name):
    call = getattr(QUtilities, name)
    with pytest.raises(NoTenant, match="choose a tenant with"):
        call(*CALLS[name])
    with pytest.raises(UnknownTenant, match="No tenant has the schema name 'nobody'"):
        call(*CALLS[name], schema_name="nobody")
    assert connection.schema_name == "public"
    assert get_broker().counts().open == 0


# Queue and schedules


def test_the_size_of_a_queue_is_a_tenants(tenants, own_cluster):
    for name, count in ((A, 3), (B, 2)):
        for n in range(count):
            QUtilities.add_async_task("tests.tasks.add", n, schema_name=name)
    assert QUtilities.get_queue_size() == 5, "of all, in public"
    assert QUtilities.get_queue_size(schema_name=A) == 3
    for name, count in ((A, 3), (B, 2), (C, 0)):
        with in_schema(name):
            assert QUtilities.get_queue_size() == count
            assert QUtilities.get_queue_size(broker=django_q_broker()) == count
            assert QUtilities.get_queue_size(schema_name=B) == 2
    get_broker().fetch("w")
    assert QUtilities.get_queue_size() == 4, "one is started"


def test_a_schedule_is_the_tenants(in_acme):
    schedule = QUtilities.create_schedule(
        "tests.tasks.add", 1, b=2, name="sum", schedule_type=Schedule.MINUTES, minutes=5, repeats=3, hook="a.b"
    )
    other = QUtilities.create_schedule("tests.tasks.add", 1, name="sum", schema_name=B)
    assert (schedule.args, schedule.kwargs, schedule.minutes, schedule.repeats) == ("(1,)", "{'b': 2}", 5, 3)
    assert (schedule.name, schedule.hook, schedule.func) == ("sum", "a.b", "tests.tasks.add")
    assert Schedule.objects.get() == schedule
    with in_schema(B):
        assert Schedule.objects.get().pk == other.pk
    with pytest.raises(IntegrityError, match="already exists"):
        QUtilities.create_schedule("tests.tasks.add", name="sum")


# Sync


@pytest.mark.parametrize("schema", [None, B])
def test_a_sync_task_runs_here_and_now(in_acme, schema):
    id = QUtilities.add_async_task("tests.tasks.where", sync=True, hook="tests.tasks.hook", schema_name=schema)
    found = QUtilities.get_result(id, schema_name=schema)
    assert found["schema"] == found["tenant"] == (schema or A)
    assert found["pk"] is not None
    assert tasks.notes(f"hook:{id}")[0]["schema"] == (schema or A)
    assert connection.schema_name == A
    assert get_broker().counts().open == 0


def test_a_sync_task_raises_its_error_after_its_failed_row_is_kept(in_acme):
    with pytest.raises(ValueError, match="broken"):
        QUtilities.add_async_task("tests.tasks.fail", sync=True)
    task = Task.objects.get()
    assert not task.success
    assert task.result.startswith("broken : Traceback")


def test_a_sync_chain_raises_where_it_fails(in_acme):
    with pytest.raises(ValueError, match="broken"):
        QUtilities.create_async_tasks_chain(
            [("tests.tasks.add", (1,)), "tests.tasks.fail", ("tests.tasks.add", (2,))], group="g", sync=True
        )
    assert [task.success for task in QUtilities.fetch_task_group("g")] == [True, False]


# Iters


@CACHED
def test_an_iter(worker, cached):
    id = QUtilities.add_async_tasks_from_iter(
        "tests.tasks.add", [1, (2,), (3, 4)], cached=cached, hook="tests.tasks.hook", schema_name=A
    )
    assert QUtilities.get_queue_size(schema_name=A) == 3
    work(worker)
    assert QUtilities.get_result(id, cached=cached, schema_name=A) == [1, 2, 7]
    assert QUtilities.get_result(id, cached=cached, schema_name=B) is None
    assert len(tasks.notes(f"hook:{id}")) == 1
    assert schemas.count_tasks(A) == (0 if cached else 1)


def test_an_iter_of_nothing_is_refused(in_acme):
    with pytest.raises(EnqueueError, match="args_iter is empty"):
        QUtilities.add_async_tasks_from_iter("tests.tasks.add", [])
    with pytest.raises(EnqueueError, match="A chain needs at least one link"):
        QUtilities.create_async_tasks_chain([])


@CACHED
def test_the_iter_class(worker, cached):
    iter_ = Iter("tests.tasks.add", kwargs={"b": 10}, cached=cached, schema_name=A)
    assert [iter_.append(n) for n in range(3)] == [1, 2, 3]
    assert (iter_.result(), iter_.fetch(), iter_.id, iter_.started) == (None, None, "", False)
    id = iter_.run()
    assert (iter_.id, iter_.started, iter_.length()) == (id, True, 3)
    assert iter_.result() is None
    work(worker)
    assert iter_.result() == [10, 11, 12]
    assert iter_.result(wait=1000) == [10, 11, 12]
    task = iter_.fetch(wait=1000)
    assert (task.id, task.args, task.success) == (id, ((0,), (1,), (2,)), True)
    assert iter_.append(3) == 4
    assert iter_.result() is None, "it is to be run again"
    assert iter_.run() != id
    work(worker)
    assert iter_.result() == [10, 11, 12, 13]


def test_an_iters_options_stand_in_its_keywords_too(worker):
    iter_ = Iter(
        "tests.tasks.add", [1, 2], {"b": 1, "hook": "tests.tasks.hook", "q_options": {"timeout": 5}}, schema_name=A
    )
    id = iter_.run()
    work(worker)
    assert iter_.result() == [2, 3]
    assert len(tasks.notes(f"hook:{id}")) == 1
    assert iter_.kwargs == {"b": 1, "hook": "tests.tasks.hook", "q_options": {"timeout": 5}}, "they are as they were"


@pytest.mark.parametrize("option", ["cached", "sync", "broker"])
def test_an_iters_own_options_are_no_keywords_of_its_function(worker, option):
    iter_ = Iter("tests.tasks.add", [1, 2], {option: None}, schema_name=A)
    iter_.run()
    work(worker)
    assert iter_.result() == [1, 2]


def test_a_sync_iter(in_acme):
    iter_ = Iter("tests.tasks.add", [1, 2], sync=True)
    iter_.run()
    assert iter_.result() == [1, 2]
    assert get_broker().counts().open == 0


# Chains


@CACHED
def test_the_chain_class(worker, cached):
    chain = Chain(cached=cached, schema_name=A)
    assert chain.append("tests.tasks.add", 1) == 1
    assert chain.append("tests.tasks.add", 2, b=3) == 2
    assert (chain.result(), chain.fetch(), chain.current(), chain.started) == (None, None, None, False)
    group = chain.run()
    assert (chain.group, chain.started, chain.length(), chain.current()) == (group, True, 2, 0)
    worker.tick()
    assert chain.current() == 1
    work(worker)
    assert chain.current() == chain.length() == 2
    assert chain.result(wait=1000) == [1, 5]
    assert [task.result for task in chain.fetch(wait=1000)] == [1, 5]
    assert {task.group for task in chain.fetch()} == {group}
    assert chain.append("tests.tasks.add", 3) == 3
    assert (chain.result(), chain.current()) == (None, None), "it is to be run again"
    assert chain.run() == chain.group != group
    work(worker)
    assert chain.result() == [1, 5, 3], "the results of the first run are gone"


def test_a_chains_failures(worker):
    chain = Chain([("tests.tasks.add", (1,)), ("tests.tasks.fail",)], group="mine", schema_name=A)
    assert chain.run() == "mine"
    work(worker)
    assert chain.result() == [1]
    assert [task.success for task in chain.fetch()] == [True, False]
    assert [task.success for task in chain.fetch(failures=False)] == [True]


def test_a_links_options(worker):
    chain = Chain(schema_name=A)
    chain.append("tests.tasks.add", 1, hook="tests.tasks.hook", task_name="first")
    chain.append("tests.tasks.add", 2, hook="tests.tasks.hook", q_options={"task_name": "second"})
    chain.run()
    work(worker)
    assert [task.name for task in chain.fetch()] == ["first", "second"]
    assert [tasks.notes(f"hook:{task.id}")[0]["result"] for task in chain.fetch()] == [1, 2]


# AsyncTask


@CACHED
def test_the_async_task_class(worker, cached):
    task = AsyncTask("tests.tasks.add", 1, b=2, cached=cached, group="g", hook="tests.tasks.hook", schema_name=A)
    assert (task.result(), task.fetch(), task.result_group(), task.fetch_group()) == (None,) * 4
    id = task.run()
    assert (task.id, task.started) == (id, True)
    work(worker)
    assert task.result(wait=1000) == 3
    assert task.fetch(wait=1000).id == id
    assert task.result_group(wait=1000, count=1) == [3]
    assert [one.id for one in task.fetch_group(wait=1000, count=1)] == [id]
    assert len(tasks.notes(f"hook:{id}")) == 1


@pytest.mark.parametrize("place", ["keywords", "q_options"])
def test_the_options_of_an_async_task_are_attributes(tenants, own_cluster, place):
    options = {"sync": False, "save": True, "hook": "a.b", "group": "g", "cached": 5, "broker": django_q_broker()}
    given = dict(options) if place == "keywords" else {"q_options": dict(options)}
    task = AsyncTask("tests.tasks.add", 1, b=2, schema_name=A, **given)
    assert {name: getattr(task, name) for name in options} == options
    task.run()
    for name, value in {"sync": True, "save": False, "hook": "c.d", "group": "h", "cached": 6, "broker": None}.items():
        task.started = True
        setattr(task, name, value)
        assert getattr(task, name) == value
        assert not task.started, "it is to be run again"
    assert (task.func, task.args, task.kwargs.get("b"), task.schema_name) == ("tests.tasks.add", (1,), 2, A)


def test_the_options_of_an_async_task_have_defaults(tenants, settings):
    task = AsyncTask("tests.tasks.add")
    assert (task.sync, task.save, task.hook, task.group, task.cached, task.broker) == (
        None,
        None,
        None,
        None,
        False,
        None,
    )
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"cached": 7, "sync": True}
    assert AsyncTask("tests.tasks.add").cached == 7
    assert Iter("tests.tasks.add").cached == Chain().cached == 7
    assert Iter("tests.tasks.add").sync is Chain().sync is True


def test_an_async_task_is_run_again_with_other_options(in_acme):
    task = AsyncTask("tests.tasks.add", 1, sync=True)
    first = task.run()
    assert (task.result(), task.result_group(), task.fetch_group()) == (1, None, None)
    task.args, task.group, task.save = (2,), "g", True
    assert task.result() is None
    assert task.run() != first
    assert (task.result(), task.result_group(), task.fetch().group) == (2, [2], "g")


def test_a_broker_of_the_callers_own(worker, own_cluster):
    broker = django_q_broker()
    id = QUtilities.add_async_task("tests.tasks.add", 1, broker=broker, schema_name=A)
    iter_ = Iter("tests.tasks.add", [1, 2], broker=broker, schema_name=A)
    iter_.run()
    chain = Chain([("tests.tasks.add", 1), ("tests.tasks.add", 2)], broker=broker, schema_name=A)
    chain.run()
    assert broker.queue_size() == 4
    work(worker)
    assert QUtilities.get_result(id, schema_name=A) == 1
    assert iter_.result() == chain.result() == [1, 2]


# What the package of 2020 promised


@pytest.fixture
def numbers():
    return [12.5, -3.2, 0.1, 100]


def test_2020_broker_is_purged(tenants, own_cluster):
    QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
    broker = django_q_broker()
    assert broker.queue_size() == 1
    broker.purge_queue()
    assert broker.queue_size() == 0
    assert broker.cache.get("nothing") is None  # to clear it would empty a server that may be others' too


def test_2020_iter(in_acme, own_cluster, numbers):
    broker = django_q_broker()
    broker.purge_queue()
    id = QUtilities.add_async_tasks_from_iter("math.floor", numbers, sync=True)
    assert QUtilities.get_result(id) is not None
    assert QUtilities.get_result(id) == [12, -4, 0, 100]


def test_2020_chain(in_acme, own_cluster):
    chain = Chain(sync=True)
    chain.append("math.pow", 12, 2)
    chain.append("math.floor", 12.93)
    chain.run()
    assert chain.current() == chain.length()
    assert len(chain.result(wait=1000)) == 2
    assert len(chain.fetch()) == 2
    assert chain.result() == [144.0, 12]
