"""A declared task has its options however it is started."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_q.models import Schedule, Task
from django_q.tasks import async_task

from tenant_q.brokers import get_broker
from tenant_q.custom import Chain
from tenant_q.lifecycle import run_again
from tenant_q.schedules import by_hand, fire
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks, tasks_declared
from tests.conftest import wait_until
from tests.integration.conftest import make_due, work

A = "acme_corp"
HERE = "tests.tasks_declared"


@pytest.fixture(autouse=True)
def _no_notes() -> None:
    tasks.client().delete("note:k")


def finish(worker: Any) -> None:
    for _ in range(20):
        work(worker)
        if get_broker().counts().open == 0:
            return
        make_due()
    raise AssertionError(f"there is no end: {get_broker().counts()}")


def by_enqueue() -> str:
    with in_schema(A):
        return tasks_declared.fail_twice.enqueue("k")


def by_using() -> str:
    return tasks_declared.fail_twice.using(schema_name=A).enqueue("k")


def by_path() -> str:
    return QUtilities.add_async_task(f"{HERE}.fail_twice", "k", schema_name=A)


def by_django_q2() -> str:
    with in_schema(A):
        return async_task(f"{HERE}.fail_twice", "k")


def by_function() -> str:
    with in_schema(A):
        return async_task(tasks_declared.fail_twice, "k")


def by_schedule() -> None:
    with in_schema(A):
        Schedule.objects.create(func=f"{HERE}.fail_twice", args="'k'", next_run=timezone.now() - timedelta(minutes=1))
    assert fire.fire_due(A) == 1


def by_hand_now() -> None:
    with in_schema(A):
        row = Schedule.objects.create(
            func=f"{HERE}.fail_twice", args="'k'", next_run=timezone.now() + timedelta(days=1)
        )
        by_hand.run_now(row, actor="ann")


def by_chain() -> None:
    QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), (f"{HERE}.fail_twice", ("k",))], schema_name=A)


def by_iter() -> None:
    QUtilities.add_async_tasks_from_iter(tasks_declared.fail_twice, [("k",)], schema_name=A)


def by_running_again() -> None:
    with in_schema(A):
        row = Task(id="0" * 32, name="again", func=f"{HERE}.fail_twice", success=False)
        run_again.run_again(row, ("k",), {}, "no", actor="ann")


WAYS = [
    by_enqueue,
    by_using,
    by_path,
    by_django_q2,
    by_function,
    by_schedule,
    by_hand_now,
    by_chain,
    by_iter,
    by_running_again,
]


@pytest.mark.parametrize("start", WAYS, ids=lambda start: start.__name__)
def test_its_retries_hold_however_it_is_started(worker, start):
    start()
    finish(worker)
    assert len(tasks.notes("k")) == 3
    with in_schema(A):
        last = Task.objects.latest("stopped")
        assert (last.success, last.result) == (True, [3] if start is by_iter else 3)


def test_an_option_of_the_call_wins(worker):
    id = tasks_declared.fail_twice.using(schema_name=A, max_attempts=1, task_name="once").enqueue("k")
    finish(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.success, task.name, len(tasks.notes("k"))) == (False, "once", 1)


def test_each_keyword_reaches_the_function(worker):
    id = tasks_declared.taker.using(schema_name=A, group="g").enqueue(group=1, timeout=2, delay=3, q_options=4)
    finish(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.result, task.group) == ({"group": 1, "timeout": 2, "delay": 3, "q_options": 4}, "g")


def test_a_declared_name_is_stored_and_runs(worker):
    id = tasks_declared.renamed.using(schema_name=A).enqueue(4)
    finish(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.func, task.result) == ("tests.renamed", 8)
    with in_schema(A):
        again = run_again.run_again(task, task.args, task.kwargs, task.result, actor="ann")
    finish(worker)
    assert QUtilities.get_result(again, schema_name=A) == 8


def test_a_cluster_is_taken_by_django_q2s_own_call(tenants, other_cluster, monkeypatch):
    name = other_cluster("other")
    from tenant_q.package import declarations

    own = declarations.find(tasks_declared.plain)
    other = declarations.Declaration(own.func, own.path, own.name, {"cluster": name})
    monkeypatch.setitem(declarations._registry.by_name, own.path, other)
    with in_schema(A):
        async_task(tasks_declared.plain, 1)
    assert (get_broker().counts().open, get_broker(name).counts().open) == (0, 1)


def test_a_link_does_not_pass_on_what_its_function_declares(worker, monkeypatch):
    from tenant_q.package import declarations

    own = declarations.find(tasks_declared.plain)
    other = declarations.Declaration(own.func, own.path, own.name, {"cached": 60})
    monkeypatch.setitem(declarations._registry.by_name, own.path, other)
    group = QUtilities.create_async_tasks_chain([(own.path, (1,)), ("tests.tasks.add", (2,))], schema_name=A)
    finish(worker)
    with in_schema(A):
        assert [task.result for task in Task.objects.filter(group=group)] == [2]


@pytest.mark.parametrize(("kind", "starts"), [("flaky", 5), ("very", 1), ("other", 1)])
def test_only_the_named_errors_are_retried(worker, kind, starts):
    tasks_declared.choosy.using(schema_name=A).enqueue("k", kind)
    finish(worker)
    assert len(tasks.notes("k")) == starts


@pytest.mark.parametrize("name", ["OSError", "django.db.OperationalError", "django.db.utils.DatabaseError"])
def test_an_error_may_be_named_by_any_of_its_names(worker, name):
    func = "tests.tasks_declared.away" if "db" in name else "tests.tasks_declared.refuse"
    options = {"max_attempts": 3, "retry_delay": 0, "no_retry_on": name}
    id = QUtilities.add_async_task(func, schema_name=A, q_options=options)
    finish(worker)
    assert QUtilities.fetch_task(id, schema_name=A).attempt_count == 1


@pytest.mark.parametrize("func", [tasks_declared.atomic, tasks_declared.stored])
def test_a_declaration_wins_over_the_setting_cached(worker, settings, monkeypatch, func):
    from django_q.conf import Conf

    settings.Q_CLUSTER = settings.Q_CLUSTER | {"cached": 60}
    monkeypatch.setattr(Conf, "CACHED", 60)
    with in_schema(A):
        async_task(func, "k")
    Chain([("tests.tasks.add", (1,)), (func, ("k",))], schema_name=A).run()
    QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), (func, ("k",))], schema_name=A)
    finish(worker)
    with in_schema(A):
        assert [task.result for task in Task.objects.all()] == ["k"] * 3


def test_a_timeout_can_be_named(worker):
    options = {"timeout": 1, "max_attempts": 2, "retry_delay": 0, "no_retry_on": "tenant_q.exceptions.TaskTimeout"}
    id = QUtilities.add_async_task("time.sleep", 30, schema_name=A, q_options=options)
    finish(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.success, task.attempt_count) == (False, 1)
    assert task.result.startswith("TaskTimeout: ")


def test_a_task_decides_itself_about_its_next_start(worker):
    id = tasks_declared.decides.using(schema_name=A).enqueue("k", delay=1000)
    work(worker)
    assert QUtilities.get_status(id, schema_name=A) == "delayed"
    finish(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (len(tasks.notes("k")), task.attempt_count) == (3, 3)
    assert task.result.startswith("not yet : Traceback")


def test_the_failed_row_names_the_cause_of_a_retry(worker):
    id = tasks_declared.decides_with_cause.using(schema_name=A).enqueue("k")
    finish(worker)
    text = QUtilities.fetch_task(id, schema_name=A).result
    assert len(tasks.notes("k")) == 2, "retry_on does not concern it"
    assert text.startswith("nothing to divide by : Traceback") and "Retry" not in text


def test_the_worker_completes_what_the_caller_did_not_know(worker):
    module = "tests.tasks_declared_elsewhere"
    assert module not in sys.modules
    id = QUtilities.add_async_task(f"{module}.fail_once", "k", schema_name=A)
    assert module not in sys.modules, "enqueueing by path imports nothing"
    finish(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.result, task.attempt_count) == (2, 2)


@pytest.mark.parametrize("enqueue", ["enqueue", "using", "path", "async_task", "schedule", "on commit"])
def test_a_declared_priority_counts_however_it_is_started(tenants, make_worker, enqueue):
    urgent = f"{HERE}.urgent"
    with in_schema(A):
        async_task("tests.tasks.note", "k", q_options={"max_attempts": 1})
        async_task("tests.tasks.note", "k", q_options={"priority": -1})
        if enqueue == "enqueue":
            tasks_declared.urgent.enqueue("k")
        elif enqueue == "using":
            tasks_declared.urgent.using(priority=9).enqueue("k")
        elif enqueue == "path":
            QUtilities.add_async_task(urgent, "k")
        elif enqueue == "async_task":
            async_task(urgent, "k")
        elif enqueue == "on commit":
            QUtilities.add_async_task(urgent, "k", q_options={"on_commit": True})
        else:
            Schedule.objects.create(func=urgent, args="'k',", schedule_type="O")
            fire.fire_due(A)
    waiting = [one.func for one in get_broker().live(A)]
    assert waiting == [urgent, "tests.tasks.note", "tests.tasks.note"]
    finish(make_worker())
    assert tasks.notes("k")[0] == {"name": "urgent"}


def test_a_rate_counts_retries_and_holds_up_nothing_else(tenants, make_worker):
    with in_schema(A):
        QUtilities.add_async_task(f"{HERE}.fail_twice", "k", q_options={"rate": "1/d"})
        other = QUtilities.add_async_task("tests.tasks.add", 1)
    worker = make_worker()

    def is_parked() -> bool:
        worker.tick()
        make_due()
        counts = get_broker().counts()
        return len(tasks.notes("k")) == 1 and (counts.queued, counts.leased, counts.delayed) == (1, 0, 0)

    wait_until(is_parked, what="the second attempt to wait for tomorrow")
    worker.tick()
    assert len(tasks.notes("k")) == 1
    assert QUtilities.get_result(other, schema_name=A) == 1
