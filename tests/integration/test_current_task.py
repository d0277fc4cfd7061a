"""A task asks what runs: itself. `get_result(..., raise_failure=True)` raises what it died of."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import TaskFailed
from tenant_q.brokers import get_broker
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.package.build import deterministic_id
from tenant_q.schedules import by_hand, fire
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import make_due, work

A = "acme_corp"
KNOWN = "tests.tasks_current.known"


@pytest.fixture(autouse=True)
def _no_notes():
    tasks.client().delete("note:k", "note:hook")
    yield
    tasks.client().delete("note:k", "note:hook")


def test_what_a_task_knows_of_itself(worker):
    before = datetime.now(UTC)
    id = QUtilities.add_async_task(KNOWN, schema_name=A, task_name="n", group="g", timeout=60)
    work(worker)
    found = QUtilities.get_result(id, schema_name=A)
    deadline = found.pop("deadline")
    assert found == {
        "id": id,
        "name": "n",
        "schema": A,
        "attempt": 1,
        "is_last_attempt": True,
        "group": "g",
        "schedule": None,
        "idempotency_key": id,
    }
    assert before + timedelta(seconds=60) <= deadline <= datetime.now(UTC) + timedelta(seconds=60)
    assert deadline.utcoffset() == timedelta(0)


def test_outside_of_a_task_there_is_none(worker):
    assert QUtilities.current_task() is None
    work(worker)
    assert QUtilities.current_task() is None


def test_without_a_timeout_there_is_no_deadline(worker):
    id = QUtilities.add_async_task(KNOWN, schema_name=A, timeout=None)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A)["deadline"] is None


def test_attempts_are_counted_and_the_last_is_known(worker):
    options = {"max_attempts": 3, "retry_delay": 1}
    id = QUtilities.add_async_task(
        "tests.tasks_current.note_known", "k", then_fail=True, schema_name=A, q_options=options
    )
    for _ in range(3):
        work(worker)
        make_due()
    notes = tasks.notes("k")
    assert [(note["attempt"], note["is_last"]) for note in notes] == [(1, False), (2, False), (3, True)]
    assert {note["once"] for note in notes} == {id}, "a retry is the same task"


def test_a_redelivery_is_a_further_attempt_at_the_same_task(make_worker):
    id = QUtilities.add_async_task("tests.tasks_current.note_known", "k", schema_name=A)
    broker = get_broker()
    (lease,) = broker.fetch("dead").leases
    broker.reclaim("dead", running=lease.id)
    work(make_worker())
    assert [(note["attempt"], note["once"]) for note in tasks.notes("k")] == [(2, id)]


def test_ids_of_parts_and_links_are_their_keys(worker):
    with in_schema(A):
        iter_id = QUtilities.add_async_tasks_from_iter("tests.tasks_current.note_known", [("k",), ("k",)])
        work(worker)
        assert {note["once"] for note in tasks.notes("k")} == {deterministic_id(iter_id, n) for n in (0, 1)}


def test_a_task_of_a_schedule_knows_it(worker):
    with in_schema(A):
        due = {"func": KNOWN, "next_run": timezone.now() - timedelta(minutes=1)}
        named = Schedule.objects.create(name="nightly", kwargs="q_options={'group': 'other'}", **due)
        unnamed = Schedule.objects.create(**due)
        fire.fire_due(A)
        by_hand.run_now(named, actor="ann")
    work(worker)
    with in_schema(A):
        found = [task.result["schedule"] for task in QUtilities.fetch_task_group("other")]
        assert found == ["nightly", "nightly"]
        assert QUtilities.get_result_group(str(unnamed.pk))[0]["schedule"] == str(unnamed.pk)


def test_coroutines_and_their_threads_know_the_task(worker):
    id = QUtilities.add_async_task("tests.tasks_current.known_in_coroutines", schema_name=A)
    work(worker)
    assert [found["id"] for found in QUtilities.get_result(id, schema_name=A)] == [id] * 3


def test_a_thread_of_its_own_does_not(worker):
    id = QUtilities.add_async_task("tests.tasks_current.known_in_a_thread", schema_name=A)
    work(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.success, task.result) == (True, None)


def test_in_sync_mode_the_innermost_task_is_known_and_a_hook_is_no_task(tenants):
    id = QUtilities.add_async_task("tests.tasks_current.known_around_a_sync_task", schema_name=A, sync=True)
    inner, outer = QUtilities.get_result(id, schema_name=A)
    assert (outer["id"], outer["attempt"], outer["is_last_attempt"]) == (id, 1, True)
    assert inner["id"] != id
    assert [note["known"] for note in tasks.notes("hook")] == [None]


def test_a_hook_in_a_worker_is_no_task(worker):
    QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A, hook="tests.tasks_current.note_in_hook")
    work(worker)
    assert [note["known"] for note in tasks.notes("hook")] == [None]


# raise_failure


def test_a_failure_is_raised_with_its_cause(worker):
    id = QUtilities.add_async_task("tests.tasks.fail", "no money", schema_name=A)
    assert QUtilities.get_result(id, schema_name=A, raise_failure=True) is None, "not finished"
    work(worker)
    with pytest.raises(TaskFailed, match=f"Task {id} failed: ValueError: no money") as raised:
        QUtilities.get_result(id, schema_name=A, raise_failure=True)
    error = raised.value
    assert (error.id, error.cause, error.message) == (id, "ValueError", "no money")
    assert error.traceback.startswith("Traceback") and error.traceback.endswith("ValueError: no money")
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (copied.id, copied.cause, str(copied)) == (id, "ValueError", str(error))


def test_a_death_is_named(worker):
    id = QUtilities.add_async_task("tests.tasks.exit_now", schema_name=A)
    cancelled = QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
    QUtilities.cancel(cancelled, schema_name=A, by="ann")
    work(worker)
    with pytest.raises(TaskFailed) as raised:
        QUtilities.get_result(id, schema_name=A, raise_failure=True)
    assert raised.value.cause == "TaskExited"
    with pytest.raises(TaskFailed) as raised:
        QUtilities.get_result(cancelled, schema_name=A, raise_failure=True)
    assert (raised.value.cause, raised.value.message, raised.value.traceback) == (
        "TaskCancelled",
        "cancelled by ann",
        "",
    )


def test_a_success_is_returned_even_if_it_looks_like_a_failure(worker):
    id = QUtilities.add_async_task("builtins.str", "ValueError: no", schema_name=A)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A, raise_failure=True) == "ValueError: no"


def test_groups_and_objects_raise_too(worker):
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", 1, group="g")
        QUtilities.add_async_task("tests.tasks.fail", "in a group", group="g")
        task = AsyncTask("tests.tasks.fail", "alone")
        chain = Chain([("tests.tasks.fail", ("linked",)), ("tests.tasks.add", (1,))])
        parts = Iter("tests.tasks.fail", [("part",)])
        for one in (task, chain, parts):
            one.run()
    work(worker)
    with in_schema(A):
        assert QUtilities.get_result_group("g") == [1]
        with pytest.raises(TaskFailed, match="in a group"):
            QUtilities.get_result_group("g", raise_failure=True)
        for one, text in ((task, "alone"), (chain, "linked"), (parts, "IterPartFailed: not all of its 1 parts")):
            with pytest.raises(TaskFailed, match=text):
                one.result(raise_failure=True)
        assert parts.fetch().success is False


def test_a_cached_failure_is_raised(worker):
    id = QUtilities.add_async_task("tests.tasks.fail", "kept", schema_name=A, cached=60)
    work(worker)
    with pytest.raises(TaskFailed, match="ValueError: kept"):
        QUtilities.get_result(id, cached=True, schema_name=A, raise_failure=True)
