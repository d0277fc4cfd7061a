"""The index of the failures of all tenants: what it says, and what is done with it."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from django_q.models import Task

from tenant_q import audit, policies
from tenant_q.brokers import get_broker
from tenant_q.lifecycle import run_again, submit
from tenant_q.models import AuditRecord, Failure
from tenant_q.operations import failure_acts, failure_upkeep, failures
from tenant_q.operations.failures import FailureFilter
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import pickled_tuples, sql, work
from tests.integration.planning import elsewhere, insert, on_the_wire

A, B = "acme_corp", "globex_inc"
ALL = FailureFilter()
NOW = timezone.now()


def entry(schema: str, id: str, *, minutes: float = 0, **values: object) -> Failure:
    """Make an entry of a task that failed some minutes ago."""
    stopped = NOW - timedelta(minutes=minutes)
    made = {"func": "shop.tasks.bill", "cause": "ValueError", "is_pending": False} | values
    return Failure.rows().create(schema_name=schema, task_id=id, stopped=stopped, **made)


@pytest.fixture(autouse=True)
def no_entries(tenants: object) -> Iterator[None]:
    AuditRecord.objects.all().delete()  # also those of another file's tests
    yield
    connection.set_schema_to_public()
    schemas.truncate(schemas.TENANTS)
    Failure.rows().all().delete()


def test_failures_are_grouped_by_cause_and_function() -> None:
    entry("testone", "a", minutes=9, schedule="nightly")
    entry("testone", "b", minutes=1)
    entry("testtwo", "c", minutes=5, schedule="nightly")
    entry("testtwo", "d", cause="KeyError")
    entry("testtwo", "e", again="f")

    found = failures.groups(FailureFilter(), limit=10)

    assert [(one.cause, one.func, one.count, one.tenants, one.schedules) for one in found] == [
        ("ValueError", "shop.tasks.bill", 3, 2, 1),
        ("KeyError", "shop.tasks.bill", 1, 1, 0),
    ]
    assert (found[0].first, found[0].last) == (at(9), at(1))
    assert failures.groups(FailureFilter(), limit=1, offset=1) == found[1:]


def at(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (FailureFilter(), "dcba"),
        (FailureFilter(since=at(5)), "dc"),
        (FailureFilter(until=at(8)), "ba"),
        (FailureFilter(func="shop.tasks.ship"), "b"),
        (FailureFilter(cause="KeyError"), "c"),
        (FailureFilter(cause="?"), "d"),
        (FailureFilter(schema="testtwo"), "dc"),
        (FailureFilter(schedule="nightly"), "a"),
        (FailureFilter(ids=frozenset([("testone", "a"), ("testtwo", "a")])), "a"),
        (FailureFilter(schema="testone", func="shop.tasks.bill"), "a"),
        (FailureFilter(ids=frozenset()), ""),
    ],
)
def test_a_filter_finds(wanted: FailureFilter, ids: str) -> None:
    entry("testone", "a", minutes=9, schedule="nightly")
    entry("testone", "b", minutes=8, func="shop.tasks.ship")
    entry("testtwo", "c", minutes=3, cause="KeyError")
    entry("testtwo", "d", minutes=1, cause="")

    assert "".join(one.task_id for one in failures.failures(wanted, limit=10)) == ids
    assert failures.count(wanted) == len(ids)


# Run again


def fail_task(schema: str = A, *args: Any, func: str = "tests.tasks.fail", **keywords: Any) -> str:
    """Enqueue a task that fails. Returns its id."""
    with in_schema(schema):
        return str(QUtilities.add_async_task(func, *args, **keywords))


def queued(schema: str = A) -> list[str]:
    return [one.id for one in get_broker().live(schema)]


def ids(wanted: FailureFilter = ALL) -> set[str]:
    return {one.task_id for one in failures.failures(wanted, limit=1000)}


def retry(wanted: FailureFilter = ALL, **keywords: Any) -> failures.FailuresDone:
    return failures.retry(wanted, actor="Ada", **keywords)


@pytest.mark.seam
def test_failures_of_several_tenants_run_again(worker: Any) -> None:
    failed = [
        fail_task(A, "one"),
        fail_task(A, "two", q_options={"group": "g", "hook": "tests.tasks.hook"}),
        fail_task(B),
    ]
    work(worker)
    assert ids() == set(failed)

    done = retry()

    assert (done.done, done.skipped, done.errors, done.last) == (3, 0, {}, None)
    assert ids() == set()
    assert (len(queued(A)), len(queued(B))) == (2, 1)
    records = AuditRecord.objects.filter(act="run failures again").order_by("schema_name")
    assert [(one.actor, one.schema_name, one.after) for one in records] == [
        ("Ada", A, {"count": 2}),
        ("Ada", B, {"count": 1}),
    ]
    assert set(records[0].target.split()) == set(failed[:2])
    work(worker)
    with in_schema(A):
        rows = Task.objects.filter(success=False)
        assert sorted(rows.values_list("args", "group"), key=str) == [
            (("one",), None), (("one",), None), (("two",), "g"), (("two",), "g"),
        ]  # fmt: skip
    assert len(ids()) == 3, "the new tasks have failed too"
    assert ids().isdisjoint(failed)


def test_what_was_run_again_is_not_run_twice(worker: Any) -> None:
    fail_task()
    work(worker)
    assert retry().done == 1
    before = queued()
    assert retry() == failures.FailuresDone()
    assert queued() == before


@pytest.mark.seam
def test_a_call_that_ended_before_its_commit_is_repeated_with_the_same_id(worker: Any, monkeypatch: Any) -> None:
    failed = fail_task()
    work(worker)
    with monkeypatch.context() as patched:
        patched.setattr(failure_acts.audit, "record_each", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            retry()
    assert (ids(), len(queued())) == ({failed}, 1)
    (first,) = queued()
    assert retry().done == 1
    assert queued() == [first]
    assert Failure.rows().get(task_id=failed).again == first


def test_it_is_not_repeated_after_the_new_task_has_run_either(worker: Any, monkeypatch: Any) -> None:
    failed = fail_task()
    work(worker)
    with monkeypatch.context() as patched:
        patched.setattr(failure_acts.audit, "record_each", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            retry()
    work(worker)
    (new,) = ids() - {failed}
    assert retry(FailureFilter(ids=frozenset([(A, failed)]))).done == 1
    assert queued() == []
    assert ids() == {new}


def test_the_number_of_statements_does_not_depend_on_the_number_of_tenants(worker: Any) -> None:
    def sent(act: Any) -> int:
        with on_the_wire() as found:
            act(ALL, actor="Ada")
        return len(found)

    counts = []
    for schemas_of_failures in ((A,), (A, A, B, "initech_llc")):
        for schema in schemas_of_failures:
            fail_task(schema)
        work(worker)
        counts.append((sent(failures.retry), sent(failures.delete)))
        work(worker)
        failures.delete(ALL, actor="Ada")
    assert counts[0] == counts[1]


def test_a_task_that_is_queued_again_itself_is_not_run_twice(worker: Any) -> None:
    """As one that an operator has retried from the dead tasks."""
    failed, other = fail_task(), fail_task(B)
    work(worker)
    submit.submit("tests.tasks.fail", (), {}, schema=A, id=failed)
    done = retry()
    assert (done.done, list(done.errors), queued(A)) == (1, [(A, failed)], [failed])
    assert "it is queued in the broker" in done.errors[A, failed]
    assert ids() == {failed}
    assert other not in ids()


def test_a_dead_task_is_run_again(worker: Any) -> None:
    failed = fail_task()
    work(worker)
    submit.submit("tests.tasks.fail", (), {}, schema=A, id=failed)
    (lease,) = get_broker().fetch("w2").leases
    get_broker().dead_letter("w2", lease, "a cause")
    assert retry().done == 1


def test_an_entry_without_a_row_leaves_the_index(worker: Any) -> None:
    entry(A, "gone")
    assert retry() == failures.FailuresDone(skipped=1)
    failure_upkeep.work_on(A)
    assert ids() == set()


def test_two_operators_at_once_run_each_failure_once(worker: Any) -> None:
    fail_task(), fail_task(A, "two")
    work(worker)
    one = min(ids())
    with elsewhere() as other:
        other.execute("SELECT 1 FROM tenant_q_failure WHERE task_id = %s FOR UPDATE", [one])
        done = retry()
    assert (done.done, done.skipped, ids()) == (1, 1, {one})


def test_a_failure_that_ends_meanwhile_is_left(worker: Any) -> None:
    entry(A, "later", minutes=-60)
    assert retry() == failures.FailuresDone()
    assert ids() == {"later"}


def test_an_iter_is_run_again_with_its_parts(worker: Any) -> None:
    with in_schema(A):
        id = QUtilities.add_async_tasks_from_iter("tests.tasks.fail", [("a",), ("b",)])
    work(worker)
    done = retry(FailureFilter(ids=frozenset([(A, id)])))
    assert done.done == 1
    assert len(queued()) == 2
    new = Failure.rows().get(task_id=id).again
    work(worker)
    with in_schema(A):
        assert Task.objects.get(id=new).result == Task.objects.get(id=id).result


def test_a_scheduled_task_keeps_its_schedule(worker: Any, make_scheduler: Any) -> None:
    insert(A, NOW, func="tests.tasks.fail", name="nightly", repeats=1, schedule_type="O")
    make_scheduler().tick()
    work(worker)
    assert retry(FailureFilter(schedule="nightly")).done == 1
    work(worker)
    assert failures.count(FailureFilter(schedule="nightly")) == 1


def test_rows_that_no_cluster_signed_are_refused(worker: Any) -> None:
    failed, other = fail_task(), fail_task(A, "two")
    work(worker)
    sql(f"UPDATE {A}.django_q_task SET func = 'os.system' WHERE id = %s", failed)
    done = retry()
    assert (done.done, list(done.errors)) == (1, [(A, failed)])
    assert "are not signed by a cluster of this site" in done.errors[A, failed]
    assert ids() == {failed}
    assert other not in ids()


def test_a_value_that_no_cluster_signed_is_not_unpickled(worker: Any) -> None:
    failed = fail_task()
    work(worker)
    endless = b"}" + pickled_tuples(40) + b"Ns."  # a key whose hash takes 2**40 steps
    sql(f"UPDATE {A}.django_q_task SET args = %s WHERE id = %s", b64encode(endless).decode(), failed)
    assert list(retry().errors) == [(A, failed)]


def test_a_full_queue_takes_what_it_has_room_for(worker: Any, unlimited: None) -> None:
    for number in range(3):
        fail_task(A, str(number))
    work(worker)
    policies.change(A, actor="Ada", act="limit", max_queued=2)
    done = retry()
    assert (done.done, len(done.errors), len(queued())) == (2, 1, 2)
    assert "QueueFull" not in next(iter(done.errors.values()))
    assert len(ids()) == 1


def test_a_tenant_that_cannot_be_served_keeps_no_other(worker: Any) -> None:
    fail_task(A), fail_task(B)
    work(worker)
    entry("nobody", "a")
    sql(f"ALTER TABLE {A}.django_q_task RENAME TO away")
    try:
        done = retry()
    finally:
        sql(f"ALTER TABLE {A}.away RENAME TO django_q_task")
    assert done.done == 1
    assert {schema for schema, _ in done.errors} == {A, "nobody"}


def test_it_goes_on_behind_the_last_one(worker: Any) -> None:
    for schema in (A, A, A, B):
        fail_task(schema)
    work(worker)
    seen: list[int] = []
    wanted = FailureFilter(until=timezone.now())
    first = retry(wanted, limit=2, progress=seen.append)
    assert (first.done, first.last is not None) == (2, True)
    second = retry(wanted, limit=2, after=first.last, progress=seen.append)
    assert (second.done, second.last) == (2, max(Failure.rows().values_list("schema_name", "task_id")))
    assert retry(wanted, limit=2, after=second.last, progress=seen.append) == failures.FailuresDone()
    assert seen == [2, 2]


def test_a_project_with_sync_runs_them_here(worker: Any, settings: Any) -> None:
    failed = fail_task()
    work(worker)
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"sync": True}
    assert retry().done == 1
    assert queued() == []
    assert len(ids()) == 1
    assert ids() != {failed}


def test_one_that_is_run_again_in_the_admin_is_no_longer_open(worker: Any) -> None:
    failed = fail_task()
    work(worker)
    with in_schema(A):
        task = Task.objects.get(id=failed)
        new = run_again.run_again(task, task.args, task.kwargs, task.result, actor="Ada")
    assert ids() == set()
    assert Failure.rows().get(task_id=failed).again == new


# Delete


@pytest.mark.seam
def test_failures_are_deleted(worker: Any) -> None:
    fail_task(A), fail_task(A, "two"), fail_task(B)
    done_one = fail_task(A, 1, func="tests.tasks.add")
    work(worker)
    done = failures.delete(FailureFilter(schema=A), actor="Ada")
    assert (done.done, done.skipped, done.errors) == (2, 0, {})
    with in_schema(A):
        assert list(Task.objects.values_list("id", flat=True)) == [done_one]
    assert failures.count(FailureFilter()) == 1
    record = AuditRecord.objects.get(act="delete failures")
    assert (record.actor, record.schema_name, record.after) == ("Ada", A, {"count": 2})


def test_what_is_no_failure_any_more_is_not_deleted(worker: Any) -> None:
    entry(A, "gone")
    done = failures.delete(FailureFilter(), actor="Ada")
    assert (done.done, done.skipped) == (0, 1)
    assert not AuditRecord.objects.filter(act="delete failures").exists()
    failure_upkeep.work_on(A)
    assert failures.count(FailureFilter()) == 0


# msfailures


def test_the_command_shows_groups_and_failures() -> None:
    entry("acme_corp", "a", minutes=90, schedule="nightly", attempts=3)
    entry("globex_inc", "b", minutes=1)
    entry("globex_inc", "c", minutes=1, cause="", func="shop.tasks.\x1b[31mship")
    head, first, second = command("msfailures").splitlines()
    assert head.split() == ["cause", "function", "count", "tenants", "schedules", "first", "last"]
    assert first.split()[:5] == ["ValueError", "shop.tasks.bill", "2", "2", "1"]
    assert second.split()[:5] == ["-", "shop.tasks.\\x1b[31mship", "1", "1", "-"]
    (one,) = json.loads(command("msfailures", "list", "--json", "--schedule", "nightly"))
    assert one == {
        "schema": A, "id": "a", "func": "shop.tasks.bill", "cause": "ValueError", "schedule": "nightly", "attempts": 3,
        "stopped": at(90).isoformat(),
    }  # fmt: skip
    assert [one["id"] for one in json.loads(command("msfailures", "list", "--since", "1h", "--json"))] == ["b", "c"]
    assert [one["id"] for one in json.loads(command("msfailures", "list", "--schema", A, "--json"))] == ["a"]
    (group,) = json.loads(command("msfailures", "--cause", "?", "--json"))
    assert (group["count"], group["cause"]) == (1, "")
    assert command("msfailures", "--func", "no.such").strip() == "No failures."
    assert "The first 1; --limit N shows more" in command("msfailures", "list", "--limit", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "tomorrow"], "'tomorrow' is neither an age, such as 90m, 12h or 3d, nor a date or a moment"),
        (["--since", "2026-02-31"], "'2026-02-31' is neither an age"),
        (["--schema", "nobody"], "nobody"),
        (["retry", "--limit", "3"], "--limit is for what is shown"),
        (["list", "--yes"], "--yes belongs to `msfailures retry`"),
        (["delete"], "Delete 1 failed task of all tenants? Nobody can answer here; add --yes to delete them."),
    ],
)
def test_the_commands_errors_name_the_way_out(arguments: list[str], message: str) -> None:
    entry(A, "a")
    with pytest.raises(CommandError, match=re.escape(message)):
        command("msfailures", *arguments)
    assert ids() == {"a"}


@pytest.mark.parametrize("since", ["2026-01-31", "2026-01-31 12:30", "2026-01-31T12:30:00+02:00", "5w", "30s"])
def test_the_forms_of_a_moment(since: str) -> None:
    assert json.loads(command("msfailures", "--since", since, "--json")) == []


def test_the_command_asks_first(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_task(), fail_task(B)
    work(worker)
    answers = StringIO("n\ny\n")
    answers.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises(CommandError, match=r"Nothing was done\."):
        command("msfailures", "retry", "--schema", A)
    assert len(ids()) == 2
    assert command("msfailures", "retry", "--schema", A).strip() == "1 failed task run again"
    assert len(queued(A)) == 1
    assert AuditRecord.objects.get().actor == audit.operator()


def test_the_command_reports_what_could_not_be_done(worker: Any) -> None:
    failed = fail_task()
    work(worker)
    sql(f"UPDATE {A}.django_q_task SET func = 'os.system'")
    out = StringIO()
    with pytest.raises(CommandError, match=r"1 failed task could not be run again; see the reasons above\."):
        call_command("msfailures", "retry", "--yes", stdout=out)
    assert failed in out.getvalue()
    assert "0 failed tasks run again" in out.getvalue()
    data = StringIO()
    with pytest.raises(CommandError):
        call_command("msfailures", "retry", "--yes", "--json", stdout=data)
    found = json.loads(data.getvalue())
    assert (found["done"], found["skipped"], found["errors"][0]["id"]) == (0, 0, failed)
    assert command("msfailures", "delete", "--yes").strip() == "1 failed task deleted"
    assert ids() == set()


def command(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.mark.parametrize("cause", failures.ENDED_BY_HAND)
def test_what_was_ended_by_hand_is_not_run_again_among_others(cause):
    entry(A, "ended", cause=cause)
    entry(A, "failed")
    assert [one.task_id for one in failures.failures(FailureFilter(), limit=9)] == ["failed"]
    assert [one.task_id for one in failures.failures(FailureFilter(cause=cause), limit=9)] == ["ended"]
    assert [one.task_id for one in failures.failures(FailureFilter(ids=frozenset({(A, "ended")})), limit=9)]
