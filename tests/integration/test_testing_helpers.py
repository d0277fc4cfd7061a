"""`tenant_q.testing`: what a project's tests collect, assert and run, without Redis."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase
from django.utils import timezone
from django_q.models import Schedule, Task
from django_q.tasks import async_task

from tenant_q import brokers
from tenant_q.brokers import get_broker
from tenant_q.exceptions import TenantQError
from tenant_q.package.build import deterministic_id
from tenant_q.tenancy import in_schema
from tenant_q.testing import CollectTasksMixin, TaskCollector, collect_tasks
from tenant_q.utils import QUtilities
from tests import tasks_declared

A, B = "acme_corp", "globex_inc"
ADD = "tests.tasks.add"
pytestmark = pytest.mark.seam


@pytest.fixture
def no_redis(monkeypatch, tenants):
    """A test that reached for Redis would fail."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("Redis is asked")

    monkeypatch.setattr("redis.connection.ConnectionPool.get_connection", refuse)
    yield
    monkeypatch.undo()


@pytest.fixture
def collected(no_redis):
    with in_schema(A), collect_tasks() as found:
        yield found


def test_what_is_enqueued_is_collected_and_does_not_reach_the_queue(tenants):
    with in_schema(A), collect_tasks() as found:
        id = QUtilities.add_async_task(ADD, 1, b=2, task_name="n", group="g", q_options={"delay": 60})
        async_task(ADD, 3, schema_name=B)
        tasks_declared.plain.enqueue(5)
    one = found[0]
    assert (one.id, one.name, one.func, one.args, one.kwargs) == (id, "n", ADD, (1,), {"b": 2})
    assert (one.schema, one.group, one.delay, one.options["group"]) == (A, "g", 60, "g")
    assert [task.args for task in found] == [(1,), (3,), (5,)]
    assert get_broker().counts().open == 0
    QUtilities.add_async_task(ADD, 1, schema_name=A)
    assert get_broker().counts().open == 1, "afterwards everything is as before"
    assert len(found) == 3


def test_assertions(collected: TaskCollector):
    collected.assert_nothing_enqueued()
    QUtilities.add_async_task(ADD, 1, b=2, group="g")
    QUtilities.add_async_task(ADD, 1, schema_name=B)
    tasks_declared.renamed.enqueue(4)
    assert collected.assert_enqueued(ADD, (1,), {"b": 2}, schema=A, times=1, group="g").schema == A
    collected.assert_enqueued(ADD, times=2)
    collected.assert_enqueued(tasks_declared.renamed, (4,), times=1, max_attempts=4)
    collected.assert_enqueued("tests.renamed")
    collected.assert_not_enqueued(ADD, schema="stark_ltd")
    with pytest.raises(AssertionError, match=r"add\(1\) with {'group': 'g'} for acme_corp was enqueued; enqueued were"):
        collected.assert_not_enqueued(ADD, (1,), schema=A, group="g")
    for wrong in ({"args": (2,)}, {"kwargs": {}, "schema": A}, {"times": 1}, {"group": "h"}):
        with pytest.raises(AssertionError, match=r"(?s)enqueued were: .*tests\.tasks\.add\(1, b=2\) for acme_corp"):
            collected.assert_enqueued(ADD, **{"args": (1,)} | wrong)
    with pytest.raises(AssertionError, match="No task should have been enqueued"):
        collected.assert_nothing_enqueued()
    assert [task.schema for task in collected.of(ADD)] == [A, B]
    collected.clear()
    collected.assert_nothing_enqueued()
    assert collected.run() == []


def test_tasks_run_in_their_schemas(collected: TaskCollector):
    ids = [QUtilities.add_async_task("tests.tasks.where", schema_name=name) for name in (A, B)]
    assert QUtilities.get_status(ids[0]) == "queued"
    assert QUtilities.get_queue_size() == 1
    finished = collected.run()
    assert {task.id: task.result["schema"] for task in finished} == dict(zip(ids, (A, B), strict=True))
    assert connection.schema_name == A
    assert QUtilities.get_result(ids[0])["schema"] == A
    assert QUtilities.get_status(ids[1], schema_name=B) == "success"
    assert Task.objects.count() == 1


def test_an_error_is_raised_after_its_row_is_saved(collected: TaskCollector):
    id = QUtilities.add_async_task("tests.tasks.fail", "no")
    after = QUtilities.add_async_task(ADD, 1)
    with pytest.raises(ValueError, match="no"):
        collected.run()
    assert QUtilities.fetch_task(id).success is False
    assert [task.id for task in collected.run()] == [after]
    QUtilities.add_async_task("tests.tasks.fail", "no")
    (failed,) = collected.run(raise_errors=False)
    assert (failed.success, failed.result.startswith("no : Traceback")) == (False, True)


def test_retries_and_delays_take_no_time(collected: TaskCollector):
    options = {"max_attempts": 3, "retry_delay": 3600}
    failed = QUtilities.add_async_task("tests.tasks.fail", "no", q_options=options)
    late = QUtilities.add_async_task(ADD, 1, q_options={"delay": timedelta(days=1)})
    assert QUtilities.get_status(late) == "delayed"
    assert [task.id for task in collected.run(raise_errors=False)] == [failed, late]
    assert QUtilities.fetch_task(failed).attempt_count == 3


def test_chains_iters_hooks_and_cached_results(collected: TaskCollector, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    group = QUtilities.create_async_tasks_chain([(ADD, (1,)), (ADD, (2,))], pass_result=True)
    parts = QUtilities.add_async_tasks_from_iter(ADD, [1, 2])
    cached = QUtilities.add_async_task(ADD, 9, hook="tests.tasks.hook", q_options={"cached": 60, "group": "c"})
    gone = QUtilities.add_async_task(ADD, 1)
    assert QUtilities.cancel(gone)
    collected.run(raise_errors=False)
    assert QUtilities.get_result_group(group) == [1, 3]
    assert (QUtilities.get_result(parts), QUtilities.get_result(cached, cached=True)) == ([1, 2], 9)
    assert QUtilities.get_result_group("c", cached=True) == [9]
    assert (QUtilities.get_status(group), QUtilities.get_status(gone)) == ("success", "cancelled")
    assert collected[-1].id == deterministic_id(group, deterministic_id(group, "first link"), "next")
    QUtilities.delete_task_from_cache(cached)


def test_other_clusters_are_run_too(collected: TaskCollector):
    id = QUtilities.add_async_task(ADD, 1, cluster="elsewhere")
    async_task(ADD, 2, cluster="elsewhere")
    assert len(collected.run()) == 2
    assert collected.assert_enqueued(ADD, (1,), cluster="elsewhere").id == id


def test_tasks_that_never_end_are_an_error(collected: TaskCollector, monkeypatch):
    monkeypatch.setattr("tenant_q.testing.collecting.MOST_RUNS", 5)
    QUtilities.add_async_task("tests.tasks.fail", q_options={"max_attempts": 0})
    with pytest.raises(TenantQError, match="After 5 starts"):
        collected.run(raise_errors=False)


def test_due_schedules_fire(collected: TaskCollector):
    now = timezone.now()
    row = Schedule.objects.create(func=ADD, args="1", schedule_type=Schedule.DAILY, next_run=now + timedelta(hours=1))
    assert collected.fire_schedules() == 0
    assert collected.fire_schedules(at=now + timedelta(hours=2)) == 1
    collected.assert_enqueued(ADD, (1,), schema=A, schedule=str(row.pk))
    assert [task.result for task in collected.run()] == [1]
    row.refresh_from_db()
    assert row.next_run == now + timedelta(hours=25)
    assert collected.fire_schedules(at=now + timedelta(hours=2)) == 0


def test_a_task_that_joins_a_unique_one_is_not_collected(collected: TaskCollector):
    assert tasks_declared.charge.enqueue(17) == tasks_declared.charge.enqueue(17)
    async_task(tasks_declared.charge, 17)
    collected.assert_enqueued(tasks_declared.charge, times=1)
    assert [task.result for task in collected.run()] == ["charged 17"]


def test_a_unique_key_is_released_where_a_worker_releases_it(collected: TaskCollector):
    again = "tests.tasks_declared.enqueue_again"
    for options, is_same in (({"unique": "k"}, True), ({"unique": "k", "unique_until": "start"}, False)):
        first = QUtilities.add_async_task(again, options, q_options=options)
        assert (QUtilities.get_result(collected.run()[0].id) == first) is is_same


def test_an_expired_task_does_not_run(collected: TaskCollector):
    id = QUtilities.add_async_task(ADD, 1, q_options={"expires": timezone.now() - timedelta(hours=1)})
    (failed,) = collected.run(raise_errors=False)
    assert (failed.id, failed.success) == (id, False) and failed.result.startswith("TaskExpired: ")
    declared = tasks_declared.soon.enqueue()
    links = QUtilities.create_async_tasks_chain([(ADD, (1,), {"q_options": {"delay": 3600}}), tasks_declared.soon])
    collected.run()
    assert QUtilities.get_result(declared) == "in time", "the time of a test does not pass"
    assert QUtilities.get_result_group(links) == [1, "in time"]


def test_priorities_and_rates_count_and_nobody_waits(collected: TaskCollector):
    first, second = (tasks_declared.plain.using(rate="1/d").enqueue(n) for n in (1, 2))
    last, urgent = (QUtilities.add_async_task(ADD, 3, q_options={"priority": level}) for level in (-1, 1))
    assert [task.id for task in collected.run()] == [urgent, first, last, second]


def test_a_failed_transaction_of_a_task_does_not_break_that_of_the_test(collected: TaskCollector):
    with transaction.atomic():
        id = QUtilities.add_async_task("tests.tasks_database.divide_by_zero")
        collected.run(raise_errors=False)
        assert QUtilities.fetch_task(id).success is False
        assert not Schedule.objects.exists()
        transaction.set_rollback(True)


class InATestCase(CollectTasksMixin, TestCase):
    """What pytest runs with Django's transaction around it."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(in_schema(A))

    def test_what_is_enqueued_on_commit_is_collected_at_the_commit(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            QUtilities.add_async_task(ADD, 1, q_options={"on_commit": True})
            self.tasks.assert_nothing_enqueued()
        self.tasks.assert_enqueued(ADD)

    def test_a_task_enqueues_on_commit_as_in_a_worker(self) -> None:
        QUtilities.add_async_task("tests.tasks_database.enqueue_on_commit")
        self.assertEqual([task.func for task in self.tasks.run()], ["tests.tasks_database.enqueue_on_commit", ADD])

    def test_a_transactional_task_runs(self) -> None:
        QUtilities.add_async_task(ADD, 1, q_options={"transactional": True})
        self.assertEqual([task.result for task in self.tasks.run()], [1])

    def test_a_schedule_made_in_the_test_is_due(self) -> None:
        Schedule.objects.create(func=ADD, args="1", schedule_type=Schedule.ONCE)
        self.assertEqual(self.tasks.fire_schedules(), 1)
        self.assertEqual([task.result for task in self.tasks.run()], [1])


@pytest.fixture(autouse=True)
def _its_tenants(tenants):
    """Also for the test case above."""


def test_nothing_is_left_in_the_place_of_the_brokers(tenants):
    before = brokers._made
    with pytest.raises(ZeroDivisionError), collect_tasks():
        _ = 1 / 0
    assert brokers._made is before
