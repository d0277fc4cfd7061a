"""First steps with `QUtilities`: enqueue, wait for results, schedule, retry, cancel. Times to wait are milliseconds."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from django_q.models import Failure, Schedule, Success

from tenant_q.custom import AsyncTask
from tenant_q.exceptions import EnqueueError, TenantQError
from tenant_q.policies import change
from tenant_q.states import State
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until

WAIT = 60_000


def test_a_task_runs_in_the_schema_of_the_current_tenant():
    with in_schema("acme_corp"):
        task_id = QUtilities.add_async_task("tests.tasks.where")
        assert QUtilities.get_result(task_id, wait=WAIT)["schema"] == "acme_corp"


def test_a_task_can_be_enqueued_for_another_tenant():
    with in_public():
        task_id = QUtilities.add_async_task("tests.tasks.where", schema_name="globex_inc")
        assert QUtilities.get_result(task_id, wait=WAIT, schema_name="globex_inc")["schema"] == "globex_inc"


def test_without_a_tenant_nothing_is_enqueued():
    with in_public(), pytest.raises(TenantQError, match="schema_name"):
        QUtilities.add_async_task("tests.tasks.add", 1, 2)


def test_a_tenant_does_not_see_the_tasks_of_another():
    with in_schema("acme_corp"):
        task_id = QUtilities.add_async_task("tests.tasks.add", 1, 2)
        assert QUtilities.get_result(task_id, wait=WAIT) == 3
    with in_schema("globex_inc"):
        assert QUtilities.get_result(task_id) is None
        assert not Success.objects.filter(id=task_id).exists()


def test_a_failure_is_a_row_with_the_reason():
    with in_schema("acme_corp"):
        task_id = QUtilities.add_async_task("tests.tasks.fail", "out of paper")
        row = QUtilities.fetch_task(task_id, wait=WAIT)
        assert not row.success and "out of paper" in row.result
        assert Failure.objects.filter(id=task_id).exists()


def test_a_task_that_fails_can_be_started_again():
    with in_schema("acme_corp"):
        options = {"max_attempts": 3, "retry_delay": 0.01}
        task_id = QUtilities.add_async_task("tests.tasks.fail", q_options=options)
        assert QUtilities.fetch_task(task_id, wait=WAIT).attempt_count == 3


def test_a_task_whose_worker_is_killed_runs_again():
    with in_schema("acme_corp"):
        key = uuid.uuid4().hex
        task_id = QUtilities.add_async_task("tests.tasks.kill_worker_once", key)
        assert QUtilities.get_result(task_id, wait=WAIT) == "second run"


def test_a_task_can_wait_for_the_commit():
    with in_schema("acme_corp"):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            rolled_back = QUtilities.add_async_task("tests.tasks.nothing", q_options={"on_commit": True})
            raise ZeroDivisionError
        assert QUtilities.get_status(rolled_back) == State.UNKNOWN


def test_a_task_can_wait_for_its_time():
    with in_schema("acme_corp"):
        task_id = QUtilities.add_async_task("tests.tasks.nothing", q_options={"delay": timedelta(hours=1)})
        assert QUtilities.get_status(task_id) == State.DELAYED
        assert QUtilities.cancel(task_id)


def test_a_running_task_can_be_cancelled():
    with in_schema("acme_corp"):
        key = uuid.uuid4().hex
        task_id = QUtilities.add_async_task("tests.tasks.hold", key)
        wait_until(lambda: tasks.notes(key), what="the task to run")
        assert QUtilities.cancel(task_id, by="olga")
        row = QUtilities.fetch_task(task_id, wait=WAIT)
        assert not row.success and "cancelled by olga" in row.result.lower()


def test_an_iter_runs_one_function_for_many_arguments():
    with in_schema("globex_inc"):
        task_id = QUtilities.add_async_tasks_from_iter("tests.tasks.add", [(1, 2), (3, 4), (5, 6)])
        assert QUtilities.get_result(task_id, wait=WAIT) == [3, 7, 11]


def test_a_chain_runs_one_task_after_another():
    with in_schema("globex_inc"):
        key = uuid.uuid4().hex
        chain = [("tests.tasks.note_where", (key,)), ("tests.tasks.add", (1, 2))]
        group = QUtilities.create_async_tasks_chain(chain)
        results = QUtilities.get_result_group(group, count=2, wait=WAIT)
        assert results[1] == 3 and len(tasks.notes(key)) == 1


def test_a_task_object_keeps_what_it_is_to_run():
    with in_schema("initech_llc"):
        task = AsyncTask("tests.tasks.add", 20)
        task.args = (20, 22)
        task.run()
        assert task.result(wait=WAIT) == 42


def test_a_schedule_is_a_row_of_its_tenant():
    with in_schema("initech_llc"):
        group = f"schedule-{uuid.uuid4().hex}"
        now = timezone.now()
        made = QUtilities.create_schedule("tests.tasks.add", 1, 2, name=group, schedule_type="D", next_run=now)
        wait_until(lambda: Schedule.objects.get(pk=made.pk).next_run > now, what="the schedule to fire")
        assert QUtilities.get_result_group(group, count=1, wait=WAIT) == [3]
    with in_schema("acme_corp"):
        assert not Schedule.objects.filter(name=group).exists()


def test_an_operator_can_pause_a_tenant():
    change("initech_llc", actor="olga", act="pause", paused=True)
    try:
        task_id = QUtilities.add_async_task("tests.tasks.nothing", schema_name="initech_llc")
        assert QUtilities.get_status(task_id, schema_name="initech_llc") == State.QUEUED
    finally:
        change("initech_llc", actor="olga", act="resume", paused=False)
    assert QUtilities.fetch_task(task_id, wait=WAIT, schema_name="initech_llc").success


def test_a_mistake_is_found_where_it_is_made():
    with in_schema("acme_corp"), pytest.raises(EnqueueError, match="pickle"):
        QUtilities.add_async_task("tests.tasks.add", lambda: 1)
    assert connection.schema_name == "public"
