"""Cancelling, states and progress, with a worker in this process. What the sentinel does is done here by hand."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.db import transaction
from django_q.models import Task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.redis import RedisBroker
from tenant_q.cluster.child import KILL_MARGIN, Child
from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.cluster.interrupt import SIGNAL
from tenant_q.cluster.sentinel import Plan, Sentinel
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.custom import Iter
from tenant_q.exceptions import BrokerError, NoTenant, ProgressError
from tenant_q.lifecycle import progress as progress_module
from tenant_q.lifecycle import save_results
from tenant_q.lifecycle.execute import execute, running
from tenant_q.lifecycle.submit import submit
from tenant_q.models import AuditRecord
from tenant_q.states import LONGEST_TEXT, Progress, State
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import know_as_short, make_due, redis_key, work

HERE = __name__
A, B = "acme_corp", "globex_inc"
SEEN: list[Any] = []
WORKERS: list[Worker] = []


@pytest.fixture(autouse=True)
def clean(request):
    SEEN.clear()
    WORKERS.clear()
    yield
    SEEN.clear()
    WORKERS.clear()


def add(func: str, *args: Any, schema: str = A, **keywords: Any) -> str:
    path = func if "." in func else f"{HERE}.{func}"
    return QUtilities.add_async_task(path, *args, schema_name=schema, **keywords)


def status(id: str, schema: str = A) -> State:
    return QUtilities.get_status(id, schema)


def row(id: str, schema: str = A) -> Task:
    task = QUtilities.fetch_task(id, schema_name=schema)
    assert task is not None
    return task


def tell_worker() -> None:
    """What the sentinel does: it notifies the worker in this process of cancels."""
    (worker,) = WORKERS
    reasons = {one.id: one.reason for one in worker.broker.cancelled() if one.worker == worker.key}
    worker.slot.cancel(reasons)
    if worker.slot.task in reasons:
        os.kill(os.getpid(), SIGNAL)


# Tasks


def see(what: Any = None) -> str:
    SEEN.append(what)
    return "done"


def cancel_this(id_of: str = "") -> str:
    """Cancel the running task, or another one, as somebody outside does."""
    (worker,) = WORKERS
    SEEN.append(QUtilities.cancel(id_of or str(worker.slot.task)))
    tell_worker()
    return "to its end"


def cancel_and_fail() -> None:
    (worker,) = WORKERS
    QUtilities.cancel(str(worker.slot.task))
    raise ValueError("on its own")


def cancel_and_end_otherwise() -> None:
    try:
        cancel_this()
    except BaseException as error:
        raise ValueError("instead") from error


def ask_own_status() -> str:
    (worker,) = WORKERS
    return str(QUtilities.get_status(str(worker.slot.task)))


# What waits


@pytest.mark.seam
def test_a_queued_task_never_runs(tenants, worker):
    id, other = add("see"), add("see")
    assert status(id) == "queued"
    assert QUtilities.cancel(id, A) is True
    assert status(id) is State.CANCELLED, "at once"
    work(worker)
    assert SEEN == [None], "the other one"
    assert row(id).result == "TaskCancelled: cancelled"
    assert not row(id).success
    assert (status(id), status(other)) == ("cancelled", "success")
    assert get_broker().counts().open == 0


def test_a_delayed_task_never_runs(tenants, worker):
    id = add("see", q_options={"delay": 3600})
    assert status(id) == "delayed"
    assert QUtilities.cancel(id, A)
    assert status(id) == "cancelled"
    work(worker)
    assert SEEN == []
    assert status(id) == "cancelled"
    assert row(id).result == "TaskCancelled: cancelled"


def test_one_that_has_attempts_left_is_not_tried_again(tenants, worker):
    id = add("see", q_options={"max_attempts": 0})
    QUtilities.cancel(id, A)
    work(worker)
    assert status(id) == "cancelled"
    assert get_broker().counts().open == 0


def test_one_between_two_attempts(tenants, worker):
    id = add("tests.tasks.fail", q_options={"max_attempts": 3, "retry_delay": 3600})
    worker.tick()
    assert status(id) == "delayed"
    assert QUtilities.cancel(id, A)
    work(worker)
    assert row(id).attempt_count == 2
    assert status(id) == "cancelled"


def test_one_of_a_paused_tenant_waits_for_its_row(tenants, unlimited, worker):
    policies.change(A, actor="test", act="pause", paused=True)
    id = add("see")
    QUtilities.cancel(id, A)
    worker.tick()
    assert status(id) == "cancelled"
    assert QUtilities.fetch_task(id, schema_name=A) is None
    policies.change(A, actor="test", act="resume", paused=False)
    work(worker)
    assert (SEEN, row(id).success) == ([], False)


# What a worker holds


@pytest.mark.parametrize("options", [{}, {"transactional": True}])
def test_a_running_task_is_stopped_and_its_worker_goes_on(tenants, worker, options):
    WORKERS.append(worker)
    id, other = add("cancel_this", q_options={"max_attempts": 5, **options}), add("see")
    work(worker)
    assert SEEN == [True, None]
    task = row(id)
    assert task.result.startswith("TaskCancelled: cancelled : Traceback")
    assert "in cancel_this" in task.result
    assert (task.attempt_count, status(id), status(other)) == (1, "cancelled", "success")
    assert not worker.stopping


def test_one_in_a_batch_behind_another_never_runs(tenants, worker):
    WORKERS.append(worker)
    for func in ("see", "cancel_this"):
        know_as_short(f"{HERE}.{func}", A)
    behind = "b" * 32
    first = add("cancel_this", behind)
    submit(f"{HERE}.see", (), {}, schema=A, id=behind)
    last = add("see", "last")
    worker.tick()
    assert SEEN == [True, "last"]
    assert [status(id) for id in (first, behind, last)] == ["success", "cancelled", "success"]
    assert row(behind).result == "TaskCancelled: cancelled"
    assert get_broker().counts().open == 0


def test_a_leased_task_counts_as_running(tenants, worker):
    WORKERS.append(worker)
    id = add("ask_own_status")
    work(worker)
    assert row(id).result == "running"


def test_one_that_fails_by_itself_when_it_is_cancelled_is_not_tried_again(tenants, worker):
    """The sentinel had not told its worker yet."""
    WORKERS.append(worker)
    id = add("cancel_and_fail", q_options={"max_attempts": 5, "retry_delay": 3600})
    worker.tick()
    assert status(id) == "cancelled"
    make_due()
    work(worker)
    assert row(id).result == "TaskCancelled: cancelled"
    assert get_broker().counts().open == 0


def test_one_that_ends_in_another_error_when_it_is_interrupted_is_given_up_at_once(tenants, worker):
    WORKERS.append(worker)
    id = add("cancel_and_end_otherwise", q_options={"max_attempts": 5, "retry_delay": 3600})
    work(worker)
    worker.tick()
    assert status(id) == "cancelled"
    assert row(id).result == "TaskCancelled: cancelled"


def test_one_whose_worker_died_is_given_up(tenants, make_worker):
    id = add("see", q_options={"max_deliveries": 5})
    broker = get_broker()
    broker.fetch("w0")
    QUtilities.cancel(id, A)
    broker.reclaim("w0", running=id)
    work(make_worker())
    assert (SEEN, status(id)) == ([], "cancelled")
    assert "WorkerDied" not in row(id).result


def test_one_that_had_succeeded_stays_so(tenants, make_worker):
    """Its row is saved, its worker died before it acknowledged, and it is cancelled now."""
    id = add("see")
    broker = get_broker()
    worker = make_worker()
    lease = broker.fetch(worker.key).leases[0]
    (delivery,) = worker.admission.open_all([lease])
    with in_schema(A):
        save_results.save([execute(delivery.package)])
    assert QUtilities.cancel(id, A)
    broker.reclaim(worker.key, running=None)
    work(worker)
    assert (SEEN, status(id)) == ([None], "success")


# Who may cancel what


@pytest.mark.seam
def test_nothing_of_another_tenant(tenants, worker):
    id = add("see", schema=B)
    assert status(id, A) == "unknown"
    assert QUtilities.cancel(id, A) is False
    assert QUtilities.get_progress(id, A) is None
    assert status(id, B) == "queued"
    work(worker)
    assert (status(id, A), status(id, B)) == ("unknown", "success")
    assert QUtilities.cancel(id, B) is False, "it has finished"


def test_what_is_not_there(tenants):
    assert status("no such id") == "unknown"
    assert QUtilities.cancel("no such id", A) is False
    with pytest.raises(NoTenant):
        QUtilities.get_status("no such id")
    with pytest.raises(NoTenant):
        QUtilities.cancel("no such id")


def test_it_may_be_cancelled_twice(tenants, worker):
    id = add("see")
    assert QUtilities.cancel(id, A, by="Ada")
    assert QUtilities.cancel(id, A, by="Bob")
    work(worker)
    assert row(id).result == "TaskCancelled: cancelled by Ada"


def test_who_cancelled_is_in_the_row_and_in_the_audit_trail(tenants, worker):
    ids = [add("see") for _ in range(2)]
    with in_schema(A):
        QUtilities.cancel(ids[0], by="Ada\n Lovelace " + "e" * 200)
    QUtilities.cancel(ids[1], A)
    QUtilities.cancel("no such id", A, by="Ada")
    with in_public():
        found = AuditRecord.objects.get(target__in=[*ids, "no such id"])
    who = ("Ada Lovelace " + "e" * 200)[:150]
    assert (found.actor, found.act, found.schema_name, found.target) == (who, "cancel", A, ids[0])
    assert found.after == {"cluster": get_broker().cluster}
    work(worker)
    assert row(ids[0]).result == f"TaskCancelled: cancelled by {who}"


def test_what_cannot_be_done_is_not_recorded(tenants, monkeypatch):
    id = add("see")

    def away(*_: Any) -> None:
        raise BrokerError("away")

    monkeypatch.setattr(RedisBroker, "cancel", away)
    with pytest.raises(BrokerError):
        QUtilities.cancel(id, A, by="Ada")
    with in_public():
        assert not AuditRecord.objects.filter(target=id).exists()


def test_in_the_queue_of_another_cluster(tenants, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"ALT_CLUSTERS": {"other": {}}}
    id = add("see", cluster="other")
    try:
        assert status(id) == "queued"
        assert QUtilities.cancel(id, A)
        assert status(id) == "cancelled"
    finally:
        broker = get_broker("other")
        broker.purge()
        for key in tasks.client().scan_iter("{tq:other}*"):
            tasks.client().delete(key)


# What follows


def test_a_cancelled_link_ends_its_chain(tenants, worker):
    with in_schema(A):
        group = QUtilities.create_async_tasks_chain([(f"{HERE}.see", (1,)), (f"{HERE}.see", (2,))])
    (first,) = get_broker().live(A)
    QUtilities.cancel(first.id, A)
    work(worker)
    assert SEEN == []
    assert QUtilities.get_group_count(group, schema_name=A) == 1
    assert QUtilities.get_group_count(group, failures=True, schema_name=A) == 1


def test_a_cancelled_part_makes_its_iter_a_failure(tenants, worker):
    with in_schema(A):
        parts = Iter("math.floor", [1.5, 2.5])
        id = parts.run()
    QUtilities.cancel(get_broker().live(A)[0].id, A)
    work(worker)
    task = row(id)
    assert not task.success
    assert task.result == ["TaskCancelled: cancelled", 2]
    assert status(id) == "failure"


def test_its_hook_is_called(tenants, worker):
    key = f"hook:{add('see', hook='tests.tasks.hook')}"
    QUtilities.cancel(key[5:], A)
    work(worker)
    (note,) = tasks.notes(key)
    assert (note["success"], note["result"]) == (False, "TaskCancelled: cancelled")


def test_a_cancel_is_no_error_in_the_log(tenants, worker, caplog):
    id = add("see")
    QUtilities.cancel(id, A)
    with caplog.at_level("INFO"):
        work(worker)
    about = [record for record in caplog.records if getattr(record, "task_id", None) == id]
    assert any("TaskCancelled" in record.getMessage() for record in about)
    assert {record.levelname for record in about} <= {"INFO", "DEBUG"}


# States


def test_the_states_of_what_has_ended(tenants, worker):
    good, bad, cached = add("see"), add("tests.tasks.fail"), add("see", cached=60)
    unsaved = add("see", save=False)
    cached_failure = add("tests.tasks.fail", cached=60)
    work(worker)
    found = [status(id) for id in (good, bad, cached, unsaved, cached_failure)]
    assert found == ["success", "failure", "success", "unknown", "failure"]
    assert State("success").is_finished and not State("queued").is_finished


def test_an_iter_runs_from_its_first_part_to_its_last(tenants, worker):
    with in_schema(A):
        id = Iter(f"{HERE}.see", [1, 2]).run()
    assert (status(id), status(id, B)) == ("queued", "unknown")
    worker.tick()
    assert (len(SEEN), status(id)) == (1, "running")
    work(worker)
    assert status(id) == "success"


def test_a_task_whose_text_only_looks_like_it(tenants, worker):
    id = add("tests.tasks.fail", "the TaskCancelled: cancelled")
    work(worker)
    assert status(id) == "failure"


def test_a_dead_package_is_a_failure(tenants):
    id = add("see")
    broker = get_broker()
    broker.dead_letter("w1", broker.fetch("w1").leases[0], "c")
    assert status(id) == "failure"
    assert QUtilities.cancel(id, A) is False


def test_one_that_ends_while_it_is_looked_for(tenants, worker, monkeypatch):
    """Not yet saved when its row is looked for, and acknowledged when the broker is asked."""
    id = add("see")
    state = RedisBroker.state

    def end_first(self: RedisBroker, schema: str, id: str) -> State | None:
        work(worker)
        tenancy.enter(schema)
        return state(self, schema, id)

    with monkeypatch.context() as context:
        context.setattr(RedisBroker, "state", end_first)
        assert status(id) == "success"


def test_a_task_on_commit_is_not_known_before(tenants):
    with in_schema(A), transaction.atomic():
        id = add("see", q_options={"on_commit": True})
        assert status(id) == "unknown"
    assert status(id) == "queued"


# Progress

WANTED: list[Any] = []


def tell(*told: Any) -> Any:
    for one in told:
        QUtilities.set_progress(*one) if isinstance(one, tuple) else QUtilities.set_progress(one)
    (worker,) = WORKERS
    times, id, last = worker.slot.progress or (0, "", None)
    SEEN.append((times // 2, last))
    if last:
        worker.broker.set_progress({worker.key: (id, last)})
    return QUtilities.get_progress(id)


def test_progress_costs_no_round_trip_and_the_last_value_counts(tenants, worker):
    WORKERS.append(worker)
    id = add("tell", 0, (0.5, "half"), (1, "all\nof it"))
    work(worker)
    assert [(3, Progress(1.0, "all\nof it"))] == SEEN
    assert row(id).result == Progress(1.0, "all\nof it")
    assert QUtilities.get_progress(id, A) is None, "it ends with the task"
    assert not tasks.client().exists(redis_key("progress"))


def test_progress_in_sync_mode(tenants):
    with in_schema(A):
        id = QUtilities.add_async_task(f"{HERE}.tell_here", sync=True)
    assert [Progress(0.5, "half")] == SEEN
    assert QUtilities.get_progress(id, A) is None


def tell_here() -> None:
    package = running.get()
    assert package is not None
    QUtilities.set_progress(0.5, "half")
    SEEN.append(QUtilities.get_progress(package.id))


def test_a_sync_task_within_another_does_not_tell_for_it(tenants, worker):
    WORKERS.append(worker)
    add("tell_around")
    work(worker)
    assert SEEN[0] == Progress(0.5, "half"), "the inner one's own"
    assert SEEN[1] == (1, Progress(0.1)), "the outer one's stays"


def tell_around() -> None:
    QUtilities.set_progress(0.1)
    QUtilities.add_async_task(f"{HERE}.tell_here", sync=True)
    (worker,) = WORKERS
    times, _, last = worker.slot.progress or (0, "", None)
    SEEN.append((times // 2, last))


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None])
def test_a_fraction_that_is_none(tenants, worker, fraction):
    WORKERS.append(worker)
    id = add("tell", (fraction,))
    work(worker)
    assert "ProgressError" in row(id).result
    assert f"a fraction from 0 to 1, not {fraction!r}" in row(id).result


def test_progress_outside_of_a_task():
    with pytest.raises(ProgressError, match="no task runs here"):
        QUtilities.set_progress(0.5)


def test_a_text_that_is_too_long_is_cut(tenants, worker):
    WORKERS.append(worker)
    id = add("tell", (0.5, "ä" * LONGEST_TEXT))
    work(worker)
    assert row(id).result.text == "ä" * (LONGEST_TEXT // 2)


# The sentinel


class FakeProcess:
    """This process stands in for the worker's; it is not to be killed."""

    pid = os.getpid()
    killed = False
    exitcode: int | None = None
    peak_memory: int | None = None

    def __init__(self) -> None:
        self.rung: list[int] = []

    def kill(self) -> None:
        self.killed = True

    def is_alive(self) -> bool:
        return self.exitcode is None

    def signal(self, number: int) -> None:
        if self.is_alive():
            self.rung.append(number)


@pytest.fixture
def sentinel(tenants):
    sentinel = Sentinel(Plan(workers=1), -1, Heartbeat())
    process: Any = FakeProcess()
    sentinel.children.alive.append(Child("worker", "w1", Slot(), process))
    yield sentinel
    sentinel.stopping.restore()


@pytest.fixture
def rung(sentinel):
    return sentinel.children.alive[0].process.rung


def lease_and_start(sentinel: Sentinel, id: str) -> None:
    broker = get_broker()
    assert broker.fetch("w1").leases
    sentinel.children.alive[0].slot.start({"task_id": id, "schema": A, "func": "f"}, None)


def test_the_sentinel_tells_a_worker_and_kills_it_when_it_goes_on(sentinel, rung, monkeypatch):
    id, child = add("see", q_options={"max_attempts": 3}), sentinel.children.alive[0]
    lease_and_start(sentinel, id)
    sentinel.leases.pass_on_cancels()
    assert rung == [] and child.notified is None
    QUtilities.cancel(id, A, by="Ada")
    sentinel.leases.pass_on_cancels()
    sentinel.leases.pass_on_cancels()
    assert rung == [SIGNAL, SIGNAL]
    assert child.slot.cancellation(id) == "TaskCancelled: cancelled by Ada"
    sentinel.children.kill_overdue()
    assert not child.process.killed
    assert child.notified is not None
    child.notified = (id, child.notified[1] - KILL_MARGIN - 0.1)
    sentinel.children.kill_overdue()
    assert child.process.killed
    sentinel.children.ended.append(child)
    sentinel.leases.reclaim()
    (lease,) = get_broker().fetch("w2").leases
    assert (lease.starts, lease.give_up_reason) == (0, "TaskCancelled: cancelled by Ada"), "no start is charged"


def test_a_dead_workers_number_is_not_signalled(sentinel, rung):
    """It may be another process's by now."""
    id, child = add("see"), sentinel.children.alive[0]
    lease_and_start(sentinel, id)
    QUtilities.cancel(id, A)
    child.process.exitcode = -9
    sentinel.leases.pass_on_cancels()
    assert rung == []


def test_a_worker_that_left_in_order_charges_nobody(sentinel):
    """As one does that stops while PostgreSQL is away, with packages that it never started."""
    id, child = add("see"), sentinel.children.alive[0]
    for _ in range(3):
        assert get_broker().fetch("w1").leases
        child.process.exitcode = 0
        child.slot.leave_for_good()
        sentinel.children.ended.append(child)
        sentinel.leases.reclaim()
    (lease,) = get_broker().fetch("w2").leases
    assert (lease.id, lease.starts) == (id, 0)


def test_a_cancelled_package_that_died_and_is_queued_again_does_not_run(tenants, worker):
    id, broker = add("see"), get_broker()
    (lease,) = broker.fetch("w2").leases
    QUtilities.cancel(id, A, by="Ada")
    broker.dead_letter("w2", lease, "its tenant cannot be entered")
    assert broker.retry_dead({id: ""}) == 1
    work(worker)
    assert row(id).result.startswith("TaskCancelled: cancelled by Ada")


def test_the_next_task_is_neither_interrupted_nor_blamed(sentinel, rung):
    first, child = add("see"), sentinel.children.alive[0]
    lease_and_start(sentinel, first)
    QUtilities.cancel(first, A)
    sentinel.leases.pass_on_cancels()
    child.notified = (first, child.notified[1] - KILL_MARGIN - 0.1)
    second = add("see")
    broker = get_broker()
    lease = broker.fetch("w2").leases[0]
    child.slot.finish()
    child.slot.start({"task_id": second, "schema": A, "func": "f"}, None)
    sentinel.children.kill_overdue()
    assert not child.process.killed, "it has ended in time"
    sentinel.leases.pass_on_cancels()
    assert len(rung) == 1 and child.notified is None
    # It ended just as its worker was killed for it.
    broker.give_back("w2", [lease])
    child.kill_reason, child.killed_for = "TaskCancelled: cancelled", first
    know_as_short(f"{HERE}.see", A)
    assert second in [lease.id for lease in broker.fetch("w1").leases]
    sentinel.children.ended.append(child)
    sentinel.leases.reclaim()
    assert broker.state(A, second) is State.QUEUED
    assert int(tasks.client().hget(redis_key("starts"), second) or 0) == 0


def test_a_hook_is_not_killed_for_its_cancelled_task(sentinel, rung):
    """The task has ended, and its row is there."""
    id, child = add("see"), sentinel.children.alive[0]
    lease_and_start(sentinel, id)
    child.slot.finish()
    child.slot.occupy({"task_id": id, "schema": A, "func": "f"}, None)
    QUtilities.cancel(id, A)
    sentinel.leases.pass_on_cancels()
    assert rung == [] and child.notified is None


def test_the_sentinel_passes_on_what_is_new(sentinel, monkeypatch):
    calls = []
    passed_on = RedisBroker.set_progress

    def count(self: RedisBroker, told: Any) -> None:
        calls.append(told)
        passed_on(self, told)

    monkeypatch.setattr(RedisBroker, "set_progress", count)
    id = add("see")
    lease_and_start(sentinel, id)
    slot = sentinel.children.alive[0].slot
    for n in range(1000):
        slot.report_progress(id, Progress(n / 1000))
    sentinel.leases.pass_on_progress()
    sentinel.leases.pass_on_progress()
    assert calls == [{"w1": (id, Progress(0.999))}, {}]
    assert QUtilities.get_progress(id, A) == Progress(0.999)
    assert QUtilities.get_progress(id, B) is None


def test_progress_that_could_not_be_passed_on_is_passed_on_later(sentinel, monkeypatch):
    id = add("see")
    lease_and_start(sentinel, id)
    sentinel.children.alive[0].slot.report_progress(id, Progress(0.5))

    def away(*_: Any) -> None:
        raise BrokerError("away")

    with monkeypatch.context() as context:
        context.setattr(RedisBroker, "set_progress", away)
        with pytest.raises(BrokerError):
            sentinel.leases.pass_on_progress()
    sentinel.leases.pass_on_progress()
    assert QUtilities.get_progress(id, A) == Progress(0.5)


def test_where_a_task_reports_to(worker):
    assert progress_module._report == worker.slot.report_progress
