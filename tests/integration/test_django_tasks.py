"""The backend for Django's Tasks API does what Django expects of a backend, for each tenant by itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.core.checks import Error, Warning
from django.db import transaction
from django.utils import timezone
from django_q.models import Schedule, Task
from django_q.signals import post_execute

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.django_tasks import TenantTaskBackend
from tenant_q.django_tasks.api import (
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from tenant_q.exceptions import EnqueueError, InEventLoop, NoTenant, UnsignedResult
from tenant_q.lifecycle import run_again
from tenant_q.schedules import fire
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks, tasks_django
from tests.conftest import wait_until
from tests.integration import conftest
from tests.integration.conftest import make_due

ACME, GLOBEX, INITECH = "acme_corp", "globex_inc", "initech_llc"
HERE = "tests.tasks_django"
pytestmark = pytest.mark.seam
READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL


@pytest.fixture
def acme(tenants: tuple[str, ...]) -> Iterator[None]:
    with in_schema(ACME):
        yield


@pytest.fixture
def signals() -> Iterator[list[tuple[str, str, str, int]]]:
    """What was sent: the signal, the id, the status and the number of attempts."""
    sent: list[tuple[str, str, str, int]] = []

    def receiver(name: str) -> Any:
        def receive(sender: Any, task_result: Any, **_: Any) -> None:
            assert sender is TenantTaskBackend
            sent.append((name, task_result.id, str(task_result.status), task_result.attempts))

        return receive

    kept = {task_enqueued: receiver("enqueued"), task_started: receiver("started"), task_finished: receiver("finished")}
    for one, receive in kept.items():
        one.connect(receive)
    yield sent
    for one, receive in kept.items():
        one.disconnect(receive)


def work(worker: Any) -> None:
    """Run all that is queued, and stay in the schema."""
    schema = tenancy.current_schema()
    conftest.work(worker)
    tenancy.enter(schema)


def finish(worker: Any) -> None:
    """Run all tasks, with their further attempts."""
    for _ in range(10):
        work(worker)
        if get_broker().counts().open == 0:
            return
        make_due()
    raise AssertionError(f"there is no end: {get_broker().counts()}")


def run(worker: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a task that has ended."""
    result = task.enqueue(*args, **kwargs)
    finish(worker)
    result.refresh()
    return result


def test_the_life_of_a_task(acme, worker):
    result = tasks_django.echo.enqueue(1, "two", key=[3.5, None])
    assert (result.status, result.is_finished, result.attempts) == (READY, False, 0)
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    assert (result.errors, result.worker_ids, result.backend) == ([], [], "default")
    assert result.enqueued_at <= timezone.now()
    with pytest.raises(ValueError, match="not finished"):
        result.return_value  # noqa: B018
    enqueued = tasks_django.echo.get_result(result.id)
    assert enqueued == result
    finish(worker)
    result.refresh()
    assert (result.status, result.is_finished, result.attempts) == (SUCCESSFUL, True, 1)
    assert result.return_value == [[1, "two"], {"key": [3.5, None]}]
    assert (result.args, result.kwargs) == ([1, "two"], {"key": [3.5, None]})
    assert result.enqueued_at == enqueued.enqueued_at
    assert enqueued.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert len(result.worker_ids) == 1 and result.worker_ids[0]
    assert result.task == tasks_django.echo and result.errors == []


def test_readers_of_rows_see_an_ordinary_task(acme, worker):
    result = run(worker, tasks_django.echo, 1, key=2)
    row = Task.objects.get(id=result.id)
    assert (row.func, row.args, row.kwargs) == (f"{HERE}.echo", (1,), {"key": 2})
    assert row.result == QUtilities.get_result(result.id) == [[1], {"key": 2}]


@pytest.mark.parametrize("name", ["fail", "fail_later"])
def test_a_failure_has_its_error(acme, worker, name):
    result = run(worker, getattr(tasks_django, name), "no luck")
    assert (result.status, result.attempts) == (FAILED, 1)
    with pytest.raises(ValueError, match="failed"):
        result.return_value  # noqa: B018
    (error,) = result.errors
    assert error.exception_class is tasks_django.Boom
    assert "Traceback (most recent call last)" in error.traceback
    assert "Boom: no luck" in error.traceback and "tasks_django.py" in error.traceback


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("leave", "tenant_q.exceptions.TaskExited", "sys.exit(3)"),
        ("unserializable", "builtins.TypeError", "Unsupported type"),
        ("complex_error", "builtins.ValueError", "within"),
    ],
)
def test_whatever_ends_a_task_is_an_error(acme, worker, name, path, text):
    result = run(worker, getattr(tasks_django, name), *([3] if name == "leave" else []))
    (error,) = result.errors
    assert (result.status, error.exception_class_path) == (FAILED, path)
    assert issubclass(error.exception_class, BaseException) and text in error.traceback


def test_a_coroutine_function_is_a_task(acme, worker):
    assert run(worker, tasks_django.echo_later, {"a": [1]}).return_value == {"a": [1]}


@pytest.mark.parametrize("value", [(1, 2), {"a": (1,)}, b"bytes", ["x", None, True, 1.5]])
def test_arguments_and_values_become_json(acme, worker, value):
    plain = {(1, 2): [1, 2], b"bytes": "bytes"}.get(value) if isinstance(value, tuple | bytes) else value
    plain = {"a": [1]} if value == {"a": (1,)} else plain
    result = run(worker, tasks_django.echo, value)
    assert (result.args, result.return_value) == ([plain], [[plain], {}])


@pytest.mark.parametrize("value", [object(), {1}, 1j, timezone.now(), [object()], {"a": object()}])
def test_arguments_that_json_lacks_are_refused(acme, value):
    with pytest.raises(TypeError, match="Unsupported type"):
        tasks_django.echo.enqueue(value)
    with pytest.raises(TypeError, match="Unsupported type"):
        tasks_django.echo.enqueue(key=value)
    assert get_broker().counts().open == 0


def test_a_task_that_takes_its_context_gets_it(acme, worker):
    result = run(worker, tasks_django.describe, key="k")
    assert result.return_value == {
        "id": result.id,
        "attempt": 1,
        "status": "RUNNING",
        "args": [],
        "path": f"{HERE}.describe",
        "workers": result.worker_ids,
        "key": "k",
    }
    assert run(worker, tasks_django.describe_later).return_value == 1


def test_attempts_have_their_workers_and_their_errors(acme, worker, signals):
    result = run(worker, tasks_django.succeed_third, "k")
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, 3, 3)
    assert len(result.worker_ids) == 3
    assert [error.exception_class for error in result.errors] == [tasks_django.Boom] * 2
    assert ["attempt 1" in result.errors[0].traceback, "attempt 2" in result.errors[1].traceback] == [True, True]
    assert result.started_at < result.last_attempted_at < result.finished_at
    assert [(name, status, attempts) for name, _, status, attempts in signals] == [
        ("enqueued", "READY", 0),
        ("started", "RUNNING", 1),
        ("started", "RUNNING", 2),
        ("started", "RUNNING", 3),
        ("finished", "SUCCESSFUL", 3),
    ]


def test_between_attempts_a_task_is_ready_with_its_errors(acme, worker):
    result = tasks_django.never_succeed.enqueue()
    work(worker)
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (READY, 1, 1)
    finish(worker)
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (FAILED, 3, 3)
    assert "Traceback" in result.errors[0].traceback and "Traceback" in result.errors[2].traceback


def test_each_signal_is_sent_once(acme, worker, signals):
    ids = [tasks_django.where.enqueue().id, tasks_django.fail.enqueue("x").id, tasks_django.leave.enqueue(1).id]
    assert signals == [("enqueued", id, "READY", 0) for id in ids]
    finish(worker)
    for id, status in zip(ids, ("SUCCESSFUL", "FAILED", "FAILED"), strict=True):
        own = [sent for sent in signals if sent[1] == id]
        assert own[1:] == [("started", id, "RUNNING", 1), ("finished", id, status, 1)]
    assert len(signals) == 9


def test_a_receiver_that_fails_changes_nothing(acme, worker, signals):
    def break_it(**_: Any) -> None:
        raise ZeroDivisionError

    for one in (task_started, task_finished):
        one.connect(break_it)
    try:
        assert run(worker, tasks_django.where).return_value == ACME
    finally:
        for one in (task_started, task_finished):
            one.disconnect(break_it)
    assert [name for name, *_ in signals] == ["enqueued", "started", "finished"]


def test_plain_tasks_send_no_signal(acme, worker, signals):
    QUtilities.add_async_task("tests.tasks.add", 1)
    QUtilities.add_async_task(tasks_django.not_a_task)
    work(worker)
    assert signals == []


def test_run_after_delays(acme, worker):
    result = tasks_django.where.using(run_after=timezone.now() + timedelta(hours=1)).enqueue()
    work(worker)
    result.refresh()
    assert result.status == READY and QUtilities.get_status(result.id) == "delayed"
    assert result.task.run_after is not None
    make_due()
    work(worker)
    result.refresh()
    assert result.status == SUCCESSFUL


def test_run_after_in_the_past_is_now(acme, worker):
    assert run(worker, tasks_django.where.using(run_after=timezone.now() - timedelta(days=1))).status == SUCCESSFUL


def test_a_queue_is_a_cluster(acme, settings, other_cluster):
    settings.TASKS = {"default": settings.TASKS["default"] | {"QUEUES": ["default", "long"]}}
    result = tasks_django.where.using(queue_name=other_cluster("long")).enqueue()
    assert get_broker("long").counts().queued == 1 and get_broker().counts().queued == 0
    assert result.task.queue_name == "long"


def test_a_priority_is_passed_on(acme, worker):
    assert run(worker, tasks_django.where.using(priority=-7)).task.priority == -7


def test_a_priority_of_zero_is_none(acme, monkeypatch):
    from tenant_q.lifecycle import submit

    sent: list[Any] = []
    monkeypatch.setattr(submit, "submit_package", lambda package: sent.append(package))
    tasks_django.where.using(priority=0).enqueue()
    assert "priority" not in sent[0].task


# Each tenant by itself


def test_a_task_runs_in_the_schema_that_enqueued_it(tenants, worker):
    results = {}
    for schema in tenants:
        with in_schema(schema):
            results[schema] = tasks_django.where.enqueue()
    work(worker)
    for schema in tenants:
        with in_schema(schema):
            results[schema].refresh()
            assert results[schema].return_value == schema


def test_a_result_of_another_tenant_does_not_exist(tenants, worker):
    with in_schema(ACME):
        waiting = tasks_django.where.enqueue()
    for _ in range(2):
        with in_schema(GLOBEX), pytest.raises(TaskResultDoesNotExist):
            tasks_django.where.get_result(waiting.id)
        work(worker)


def test_without_a_tenant_nothing_is_enqueued(tenants):
    with pytest.raises(NoTenant):
        tasks_django.where.enqueue()
    with pytest.raises(NoTenant):
        tasks_django.where.get_result("x" * 32)


def test_coroutines_enqueue_and_read_for_their_tenants(tenants, worker):
    async def life(schema: str) -> tuple[str, Any]:
        async with in_schema(schema):
            result = await tasks_django.where.aenqueue()
            await asyncio.sleep(0)
            again = await tasks_django.where.aget_result(result.id)
            await again.arefresh()
            assert again == result
            return schema, result.id

    async def all_of_them() -> list[tuple[str, Any]]:
        return await asyncio.gather(*(life(schema) for schema in tenants * 20))

    enqueued = async_to_sync(all_of_them)()
    work(worker)
    for schema, id in enqueued:
        with in_schema(schema):
            assert tasks_django.where.get_result(id).return_value == schema


def test_a_coroutine_without_a_tenant_is_refused(acme):
    async def call(name: str) -> None:
        outcome = getattr(tasks_django.where, name)(*(["x" * 32] if "result" in name else []))
        if asyncio.iscoroutine(outcome):
            await outcome

    for name in ("enqueue", "aenqueue", "get_result", "aget_result"):
        with pytest.raises(InEventLoop):
            async_to_sync(call)(name)


def test_a_task_enqueues_others_for_its_tenant(tenants, worker):
    with in_schema(GLOBEX):
        first = run(worker, tasks_django.enqueue_another)
        assert tasks_django.where.get_result(first.return_value).return_value == GLOBEX
        *found, plain = run(worker, tasks_django.enqueue_another_later).return_value
        assert [tasks_django.where.get_result(id).return_value for id in found] == [GLOBEX] * 2
        assert QUtilities.get_result(plain)["schema"] == GLOBEX


# Reading results


def test_what_is_no_task_of_the_backend_does_not_exist(acme, worker):
    plain = QUtilities.add_async_task("tests.tasks.add", 1)
    gone = QUtilities.add_async_task("tests.nowhere.at_all")
    stubborn = tasks_django.succeed_third.enqueue("k").id
    for _ in range(2):
        for id in ("x" * 32, plain, gone, stubborn, ""):
            with pytest.raises(TaskResultDoesNotExist):
                task_backends["default"].get_result(id)
        finish(worker)


def test_a_result_of_another_task_is_a_mismatch(acme, worker):
    result = run(worker, tasks_django.where)
    with pytest.raises(Exception, match="does not match"):
        tasks_django.echo.get_result(result.id)


def test_an_unsigned_row_imports_nothing(acme, worker, settings):
    """Whoever may write rows would choose the module."""
    id = run(worker, tasks_django.echo, 1).id
    Task.objects.filter(id=id).update(func="tests.tasks_declared.plain")
    assert "antigravity" not in sys.modules
    Task.objects.filter(id=id).update(func="antigravity.geohash")
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(id)
    assert "antigravity" not in sys.modules
    Task.objects.filter(id=id).update(func=f"{HERE}.echo", hook="changed")
    assert tasks_django.echo.get_result(id).return_value == [[1], {}]
    settings.TENANT_Q = settings.TENANT_Q | {"signed_results": True}
    with pytest.raises(UnsignedResult):
        tasks_django.echo.get_result(id)


def test_a_cancelled_task_has_failed_without_a_start(acme, worker, signals):
    result = tasks_django.where.enqueue()
    QUtilities.cancel(result.id)
    finish(worker)
    result.refresh()
    assert (result.status, result.attempts, result.started_at) == (FAILED, 0, None)
    assert result.errors[0].exception_class_path == "tenant_q.exceptions.TaskCancelled"
    assert [(name, status) for name, _, status, _ in signals] == [("enqueued", "READY"), ("finished", "FAILED")]


def test_a_dead_letter_has_failed(acme, worker):
    result = tasks_django.where.enqueue()
    (lease,) = get_broker().fetch("w2", limit=1).leases
    assert tasks_django.where.get_result(result.id).status == RUNNING
    get_broker().dead_letter("w2", lease, "CannotSave: the disk is full")
    result.refresh()
    assert (result.status, result.errors[0].exception_class_path) == (FAILED, "tenant_q.exceptions.CannotSave")


# However it is started


def test_a_declaration_below_it_holds(acme, worker):
    tasks.client().delete("note:declared")
    result = run(worker, tasks_django.declared, "declared")
    assert (result.return_value, result.attempts) == (2, 2)
    assert Task.objects.get(id=result.id).func == "tests.django_declared"


@pytest.mark.parametrize("how", ["path", "schedule", "run again"])
def test_a_task_by_its_path_is_the_same_task(acme, worker, signals, how):
    if how == "path":
        QUtilities.add_async_task(f"{HERE}.describe", "k")
    elif how == "schedule":
        past = timezone.now() - timedelta(minutes=1)
        Schedule.objects.create(func=f"{HERE}.describe", args="'k'", schedule_type="O", next_run=past)
        assert fire.fire_due(ACME) == 1
    else:
        row = Task.objects.get(id=run(worker, tasks_django.describe, "k").id)
        signals.clear()
        id = run_again.run_again(row, row.args, row.kwargs, row.result, actor="ann")
        Task.objects.exclude(id=id).delete()
    finish(worker)
    row = Task.objects.get()
    result = tasks_django.describe.get_result(row.id)
    assert (result.status, result.return_value["key"], result.attempts) == (SUCCESSFUL, "k", 1)
    assert [name for name, *_ in signals] == ["started", "finished"]


@pytest.mark.parametrize("name", ["where", "fail"])
def test_in_sync_mode_the_result_is_there_at_once(acme, settings, signals, name):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"sync": True}
    result = getattr(tasks_django, name).enqueue(*(["x"] if name == "fail" else []))
    assert result.status == (FAILED if name == "fail" else SUCCESSFUL)
    assert [name for name, *_ in signals] == ["enqueued", "started", "finished"]


@pytest.mark.parametrize("commits", [True, False])
def test_on_commit_announces_what_was_enqueued(tenants, settings, signals, commits):
    settings.TENANT_Q = settings.TENANT_Q | {"on_commit": True}
    with in_schema(ACME), transaction.atomic():
        result = tasks_django.where.enqueue()
        with pytest.raises(TaskResultDoesNotExist):
            result.refresh()
        assert signals == []
        transaction.set_rollback(not commits)
    assert [name for name, *_ in signals] == ["enqueued"] * commits
    assert get_broker().counts().queued == commits


def test_a_task_that_joins_a_unique_one_has_its_result(acme, worker, signals):
    first, second, other = (tasks_django.charge.enqueue(order) for order in (1, 1, 2))
    assert second.id == first.id != other.id
    assert [sent[:2] for sent in signals] == [("enqueued", first.id), ("enqueued", other.id)]
    finish(worker)
    second.refresh()
    assert (second.status, second.return_value) == (SUCCESSFUL, 1)


def test_on_commit_the_id_of_a_task_that_joins_stands_for_the_unique_one(acme, worker, settings, signals):
    first = tasks_django.charge.enqueue(1)
    settings.TENANT_Q = settings.TENANT_Q | {"on_commit": True}
    with transaction.atomic():
        second, other = tasks_django.charge.enqueue(1), tasks_django.charge.enqueue(2)
    assert second.id != first.id
    assert [sent[1] for sent in signals] == [first.id, other.id]
    second.refresh()
    assert second.status == READY
    finish(worker)
    second.refresh()
    assert (second.status, second.return_value) == (SUCCESSFUL, 1)
    assert tasks_django.charge.get_result(second.id).id == first.id


def test_an_interrupt_from_the_keyboard_is_passed_on(acme, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"sync": True}
    with pytest.raises(KeyboardInterrupt):
        tasks_django.interrupt.enqueue()
    assert Task.objects.filter(success=False).count() == 1


def test_a_backend_that_is_gone_takes_no_hook_with_it(acme, worker, settings, monkeypatch):
    sent: list[str] = []
    post_execute.connect(note_it := lambda task, **_: sent.append(task["id"]))
    monkeypatch.setattr("tests.tasks.add", lambda task: sent.append(f"hook of {task.id}"))
    id = QUtilities.add_async_task(f"{HERE}.never_succeed", hook="tests.tasks.add")
    settings.TASKS = {"default": settings.TASKS["default"]}
    try:
        finish(worker)
    finally:
        post_execute.disconnect(note_it)
    assert sent == [id, f"hook of {id}"]


# What a backend accepts


def test_what_the_backend_supports():
    backend = task_backends["default"]
    assert (backend.supports_defer, backend.supports_async_task, backend.supports_get_result) == (True, True, True)
    assert backend.supports_priority


@pytest.mark.parametrize("options", [{"queue_name": "nowhere"}, {"priority": 101}, {"priority": -101}])
def test_a_task_that_cannot_run_is_refused(options):
    with pytest.raises(InvalidTask):
        tasks_django.where.using(**options)


def test_a_naive_run_after_is_refused():
    with pytest.raises(InvalidTask, match="aware"):
        tasks_django.where.using(run_after=timezone.now().replace(tzinfo=None))


def test_a_local_function_is_refused():
    def local() -> None: ...

    kind: Any = type(tasks_django.where)
    for function in (local, lambda: None, TenantTaskBackend, len):
        with pytest.raises(InvalidTask, match="module level"):
            kind(func=function)
    with pytest.raises(InvalidTask, match="context"):
        kind(func=tasks_django.not_a_task, takes_context=True)


def test_a_full_queue_is_an_error(acme, settings):
    settings.TENANT_Q = settings.TENANT_Q | {"max_bytes": 2000}
    with pytest.raises(EnqueueError, match="max_bytes"):
        tasks_django.echo.enqueue("x" * 3000)


def backend(**params: Any) -> TenantTaskBackend:
    return TenantTaskBackend("default", {"BACKEND": "x", **params})


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"OPTIONS": {"max_atempts": 3}}, "max_attempts"),
        ({"OPTIONS": {"cluster": "long"}}, "'cluster'"),
        ({"OPTIONS": {"timeout": -5}}, r"\['timeout'\]"),
        ({"OPTIONS": [1]}, "a dict"),
    ],
)
def test_wrong_options_are_found_by_check_and_by_validation(params, text):
    (message,) = backend(**params).check()
    assert isinstance(message, Error) and message.id == "tenant_q.E012"
    with pytest.raises(InvalidTask, match=text):
        backend(**params).validate_task(tasks_django.where)


def test_a_queue_without_a_cluster_is_a_warning(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"ALT_CLUSTERS": {"mail": {}}}
    assert backend(QUEUES=["default", "mail"], OPTIONS={"timeout": 5}).check() == []
    (message,) = backend(QUEUES=["default", "male"]).check()
    assert isinstance(message, Warning) and "'male'" in message.msg


def test_it_is_djangos_own_api_from_django_6_on():
    own = "django.tasks." if django.VERSION >= (6, 0) else "django_tasks."
    assert TenantTaskBackend.__base__.__module__.startswith(own) and type(tasks_django.where).__module__.startswith(own)


def test_a_project_without_it_does_not_import_it():
    code = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'config.settings'; import django; django.setup(); "
        "from django.core.management import call_command; call_command('check'); "
        "import tenant_q.cluster.worker, tenant_q.utils; "
        "assert not any(name.startswith(('tenant_q.django_tasks', 'django_tasks')) for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# With a real cluster


def test_a_cluster_runs_it_and_sends_the_signals(tenants, mscluster):
    tasks.client().delete("note:signals")
    mscluster("--workers", "2", TEST_TASK_SIGNALS="1", TEST_Q_CLUSTER='{"max_attempts": 1}')
    results = {}
    for schema in (ACME, GLOBEX):
        with in_schema(schema):
            results[schema] = [tasks_django.where.enqueue(), tasks_django.fail.enqueue("x")]
            results[schema] += [tasks_django.kill_worker.enqueue()]

    def sent() -> list[str]:
        return [line.decode() for line in tasks.client().lrange("note:signals", 0, -1)]

    wait_until(lambda: sum(line.startswith("finished") for line in sent()) == 6, 60, "the signals")
    for schema, (good, bad, killed) in results.items():
        with in_schema(schema):
            for result in (good, bad, killed):
                result.refresh()
            assert good.return_value == schema and bad.status == FAILED and killed.status == FAILED
            assert killed.errors[0].exception_class_path == "tenant_q.exceptions.WorkerDied"
            assert f"finished {killed.id} FAILED {killed.attempts} {schema}" in sent()
        for result, status in ((good, "SUCCESSFUL"), (bad, "FAILED")):
            own = [line for line in sent() if result.id in line]
            assert own == [f"started {result.id} RUNNING 1 {schema}", f"finished {result.id} {status} 1 {schema}"]
    tasks.client().delete("note:signals")
    assert tenancy.current_schema() == tenancy.public_schema()
