"""A purge empties a tenant's queue: what it takes, what it leaves, and what ends by it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.exceptions import BrokerError, DatabaseAway, TaskPurged, UnknownTenant
from tenant_q.lifecycle import save_results
from tenant_q.models import AuditRecord
from tenant_q.operations import purging
from tenant_q.package.envelope import open_package, seal
from tenant_q.package.outcome import give_up, with_outcome
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import errors, make_runs_due, states, work

HERE = __name__
A, B = "acme_corp", "globex_inc"
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def clean(tenants, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "olga")
    monkeypatch.delenv("SUDO_USER", raising=False)
    AuditRecord.objects.all().delete()
    SEEN.clear()
    yield


def see(*what: Any) -> str:
    SEEN.append(what)
    return "done"


def note(task: Task) -> None:
    SEEN.append((task.id, task.success, task.result))


def add(*args: Any, func: str = "see", schema: str = A, **options: Any) -> str:
    return QUtilities.add_async_task(f"{HERE}.{func}", *args, schema_name=schema, q_options=options)


def mstenant(*arguments: str) -> str:
    out = StringIO()
    call_command("mstenant", *arguments, stdout=out)
    return out.getvalue().rstrip("\n")


def rows(schema: str = A) -> dict[str, Any]:
    with in_schema(schema):
        return {task.id: task.result for task in Task.objects.all()}


def waiting(schema: str = A) -> tuple[int, int]:
    found = get_broker().count_waiting(schema)
    return found.queued, found.delayed


PURGED = f"{TaskPurged.__name__}: purged by olga"


# What is purged


@pytest.mark.seam
def test_a_purge_forgets_what_waits_with_one_record_and_no_rows(worker):
    for number in range(3):
        add(number)
    add(delay=60)
    kept = add(schema=B)
    assert mstenant("purge", A, "--yes") == "Purged 4 tasks of acme_corp."
    assert waiting() == (0, 0)
    assert get_broker().counts().dead == 0
    work(worker)
    assert (SEEN, rows(), list(rows(B))) == ([()], {}, [kept])
    (record,) = AuditRecord.objects.all()
    assert (record.actor, record.act, record.schema_name, record.target) == ("olga", "purge", A, "")
    assert record.after == {"places": "queued, delayed", "count": 4}


@pytest.mark.parametrize(
    ("options", "left"),
    [(["--queued"], (0, 2)), (["--delayed"], (2, 0)), (["--queued", "--delayed"], (0, 0)), ([], (0, 0))],
)
def test_one_place_or_both(options, left):
    for delay in (0, 0, 60, 60):
        add(delay=delay)
    mstenant("purge", A, "--yes", *options)
    assert waiting() == left


def test_one_function(worker):
    add("kept")
    add(func="note")
    assert json.loads(mstenant("purge", A, "--yes", "--func", f"{HERE}.note", "--json")) == {
        "schema": A, "purged": 1, "ended": 0, "left": 0,
    }  # fmt: skip
    assert AuditRecord.objects.get().target == f"{HERE}.note"
    work(worker)
    assert SEEN == [("kept",)]


def test_without_yes_there_is_a_question_or_an_error():
    add()
    with pytest.raises(CommandError, match=r"1 queued and 0 delayed tasks of acme_corp.*--yes"):
        mstenant("purge", A)
    assert waiting() == (1, 0)


def test_a_tenant_of_an_unknown_name_is_an_error():
    with pytest.raises(CommandError, match="No tenant has the schema 'acme_crop', and nothing waits under that name"):
        mstenant("purge", "acme_crop", "--yes")
    assert not AuditRecord.objects.exists()


def test_leased_tasks_stay(worker):
    id = add()
    broker = get_broker()
    (lease,) = broker.fetch("other").leases
    assert purging.purge(A, actor="olga").count == 0
    broker.give_back("other", [lease])
    work(worker)
    assert list(rows()) == [id]


def test_unique_keys_are_released():
    first = add(unique="k")
    mstenant("purge", A, "--yes")
    assert add(unique="k") != first
    assert waiting() == (1, 0)


@pytest.mark.seam
def test_what_a_dropped_tenant_left_is_purged_and_no_other_tenants_tasks():
    broker = get_broker()
    for name, schema, tenant in (("a", "gone_ltd", "990"), ("b", "gone_ltd", "991"), ("c", "gone_ltd", "")):
        broker.enqueue([Message(name, schema, "f", "unreadable", tenant=tenant)])
    add()
    assert mstenant("purge", "gone_ltd", "--yes") == "Purged 3 tasks of gone_ltd."
    assert broker.counts().open == 1
    with pytest.raises(UnknownTenant):
        purging.count_waiting("gone_ltd_2")


def test_a_tenant_keeps_its_tasks_when_another_name_is_purged_under_which_the_broker_knows_it():
    add()
    broker = get_broker()
    (key,) = [one for one in broker.tenants_named(A) if one]
    broker.rename_tenant(key, A, "acme_ltd")
    with pytest.raises(CommandError, match="nothing waits under that name"):
        mstenant("purge", "acme_ltd", "--yes")
    assert purging.purge("acme_ltd", actor="olga").count == 0, "its row has another name"
    assert broker.count_waiting("acme_ltd", tenant=key).queued == 1


# What ends by it


@pytest.mark.seam
def test_an_iter_ends_as_failed_with_one_row(worker):
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(n,) for n in range(5)], schema_name=A)
    (lease, *_) = get_broker().fetch("other", limit=1).leases
    done = purging.purge(A, actor="olga")
    assert (done.count, done.ended) == (4, 1)
    assert rows() == {id: PURGED}
    assert QUtilities.get_status(id, A) == "failure"
    get_broker().give_back("other", [lease])
    work(worker)
    assert rows() == {id: PURGED}, "its last part changes nothing"
    assert get_broker().counts().open == 0


def test_a_chain_ends_as_failed_at_the_purged_link(worker):
    chain = [(f"{HERE}.see", (n,)) for n in range(3)]
    first = QUtilities.create_async_tasks_chain(chain, schema_name=A)
    second = QUtilities.create_async_tasks_chain(chain, schema_name=A)
    worker.tick()
    assert purging.purge(A, actor="olga").ended == 2
    assert sorted(rows().values()) in ([PURGED, PURGED, "done"], [PURGED, PURGED, "done", "done"])
    work(worker)
    assert QUtilities.get_status(first, A) == QUtilities.get_status(second, A) == "failure"


@pytest.mark.parametrize("kind", ["iter", "chain"])
def test_the_hook_of_what_has_ended_is_called_by_a_worker(worker, kind):
    func, hook = f"{HERE}.see", f"{HERE}.note"
    if kind == "iter":
        QUtilities.add_async_tasks_from_iter(func, [(1,), (2,)], hook=hook, schema_name=A)
    else:
        QUtilities.create_async_tasks_chain([(func, (1,)), (func, (2,))], hook=hook, schema_name=A)
    mstenant("purge", A, "--yes")
    assert SEEN == []
    assert waiting() == (1, 0)
    (id,) = rows()
    work(worker)
    ((called, success, result),) = SEEN
    assert (called, success, result) == (id, False, PURGED)
    assert rows() == {id: PURGED}


def test_a_task_that_has_run_already_keeps_its_result(worker):
    id = add(1)
    broker = get_broker()
    (lease,) = broker.fetch("other").leases
    outcome = give_up(open_package(lease.payload), ValueError("its own"))
    broker.put_off("other", lease, delay=0.0, payload=seal(with_outcome(outcome)))
    assert purging.purge(A, actor="olga").count == 0
    work(worker)
    assert rows() == {id: "ValueError: its own"}


def test_a_package_that_cannot_be_read_is_purged():
    broker = get_broker()
    add()
    (tenant,) = [one for one in broker.tenants_named(A) if one]
    broker.enqueue([Message("broken", A, "f", "no package", tenant=tenant), Message("b2", A, "f", "é:", tenant=tenant)])
    assert purging.purge(A, actor="olga").count == 3


# Interrupted


def test_a_purge_that_was_interrupted_is_repeated(monkeypatch):
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(1,), (2,)], schema_name=A)
    add()

    def fail(outcomes: Any, **options: Any) -> None:
        raise DatabaseAway("away")

    with monkeypatch.context() as patch:
        patch.setattr(save_results, "write", fail)
        with pytest.raises(DatabaseAway):
            purging.purge(A, actor="olga")
    assert {dead.cause for dead in get_broker().dead(A)} == {PURGED}
    assert AuditRecord.objects.get().after["count"] == 0
    assert purging.purge(A, actor="olga").count == 3
    assert get_broker().dead(A) == []
    assert rows() == {id: PURGED}


def test_what_cannot_be_saved_stays_a_dead_letter(monkeypatch):
    QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(1,), (2,)], schema_name=A)
    add()

    def refuse(outcomes: Any, **options: Any) -> Any:
        return save_results.Saved({outcome.package.key: OSError("no") for outcome in outcomes})

    with monkeypatch.context() as patch:
        patch.setattr(save_results, "write", refuse)
        with pytest.raises(CommandError, match="2 tasks of acme_corp stayed dead letters"):
            mstenant("purge", A, "--yes")
    assert len(get_broker().dead(A)) == 2
    assert purging.purge(A, actor="olga").count == 2


def test_without_a_record_nothing_is_purged(monkeypatch):
    add()

    def fail(*args: Any, **options: Any) -> None:
        raise DatabaseAway("away")

    monkeypatch.setattr("tenant_q.audit.record", fail)
    with pytest.raises(DatabaseAway):
        purging.purge(A, actor="olga")
    assert waiting() == (1, 0)


def test_the_record_counts_what_was_purged_before_an_outage(monkeypatch):
    for _ in range(3):
        add()
    monkeypatch.setattr("tenant_q.brokers.redis.waiting._SLICE", 1)
    broker = get_broker()
    purge_dead, calls = broker.purge_dead, []

    def fail_later(ids: Any) -> int:
        calls.append(ids)
        if len(calls) > 2:
            raise BrokerError("away")
        return purge_dead(ids)

    monkeypatch.setattr(broker, "purge_dead", fail_later)
    with pytest.raises(BrokerError):
        purging.purge(A, actor="olga")
    assert AuditRecord.objects.get().after["count"] == 2


def test_a_step_is_cancelled_and_its_run_ends(worker, define):
    flow = define()

    @flow.step
    def first(ctx):
        SEEN.append("first")

    @flow.step(after=first)
    def second(ctx):
        SEEN.append("second")

    @flow.on_end
    def last(ctx):
        SEEN.append(str(ctx.state))

    run = flow.start(schema_name=A)
    assert purging.purge(A, actor="olga").count == 1
    assert run.refresh().state == "failed"
    assert states(run) == {"first": "cancelled", "second": "skipped", "on_end": "ready"}
    assert PURGED in errors(run)["first"]
    work(worker)
    assert SEEN == ["failed"], "the step that runs last is not purged"
    assert rows() == {}
    run.resume()
    work(worker)
    assert SEEN == ["failed", "first", "second", "succeeded"]


def test_the_scheduler_ends_the_steps_of_an_interrupted_purge(worker, define, make_scheduler, monkeypatch):
    flow = define()

    @flow.step
    def first(ctx):
        SEEN.append("first")

    run = flow.start(schema_name=A)
    for _ in get_broker().take_waiting(A, purging.ALL, PURGED):
        pass
    make_runs_due()
    make_scheduler().tick()
    work(worker)
    assert run.refresh().state == "failed"
    assert SEEN == []
    assert get_broker().counts().dead == 0


def test_a_package_in_another_tenants_queue_ends_nothing():
    """Whoever can write to Redis may move a package; its iter belongs to its own tenant."""
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(1,), (2,)], schema_name=A)
    add(schema=B)
    broker = get_broker()
    (tenant,) = [one for one in broker.tenants_named(B) if one]
    part = broker.live(A)[0]
    broker.enqueue([Message("moved", B, "f", part.payload, tenant=tenant)])
    done = purging.purge(B, actor="olga")
    assert (done.count, done.ended, rows(A), rows(B)) == (2, 0, {}, {})
    assert QUtilities.get_status(id, A) == "queued"
