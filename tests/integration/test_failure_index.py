"""The index of failures is what the tenants' task tables say, whoever writes them."""

from __future__ import annotations

import contextlib
import random
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from django.db.models.signals import post_save
from django_q.models import Task

from tenant_q import tenancy
from tenant_q.exceptions import TaskCancelled
from tenant_q.lifecycle import save_results
from tenant_q.models import Failure, IndexedFailures
from tenant_q.operations import failure_upkeep
from tenant_q.package.build import build
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.package.package import SCHEDULE
from tenant_q.schedules import index_upkeep
from tenant_q.schedules.schema_indexes import FAILURES
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import pickled_tuples, sql, work
from tests.integration.planning import elsewhere, insert, on_the_wire, write_past_the_triggers

A, B = "acme_corp", "globex_inc"
STOPPED = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
TASKS = "acme_corp.django_q_task"
ROW = (
    'INSERT INTO "{}".django_q_task (id, name, func, started, stopped, success, attempt_count) '
    "VALUES (%s, 'n', 'shop.tasks.bill', %s, %s, %s, 2)"
)
ENTRY = ("shop.tasks.bill", "", 2, STOPPED, "")


@pytest.fixture(autouse=True)
def no_failures(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    schemas.truncate(schemas.TENANTS)
    assert sql("SELECT * FROM tenant_q_failure WHERE schema_name = ANY(%s)", list(schemas.TENANTS)) == []


def fail(schema: str = A, id: str = "t1", success: bool = False) -> str:
    """A failed row that somebody else than a worker writes. Returns its id."""
    sql(ROW.format(schema), id, STOPPED, STOPPED, success)
    return id


def entries(schema: str = A) -> dict[str, tuple[Any, ...]]:
    """What the index has of a schema: function, cause, attempts, end, and the id of the new task, by task."""
    rows = Failure.rows().filter(schema_name=schema)
    return {one.task_id: (one.func, one.cause, one.attempts, one.stopped, one.again) for one in rows}


def complete(schema: str = A) -> None:
    while failure_upkeep.work_on(schema):
        pass


def stale() -> list[tuple[str, bool]]:
    return index_upkeep.stale_schemas(index=FAILURES)


def is_right(schema: str = A) -> bool:
    return index_upkeep.errors(schema, FAILURES) == 0 and schema not in dict(stale())


# Kept, whoever writes


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("UPDATE {} SET success = true", {}),
        ("UPDATE {} SET attempt_count = 3", {"t1": ("shop.tasks.bill", "", 3, STOPPED, "")}),
        (
            "UPDATE {} SET stopped = stopped + interval '1 day'",
            {"t1": ("shop.tasks.bill", "", 2, STOPPED + timedelta(days=1), "")},
        ),
        ("UPDATE {} SET name = 'other', result = 'x'", {"t1": ENTRY}),
        ("UPDATE {} SET id = 't2'", {"t2": ENTRY}),
        ("UPDATE {} SET id = 't2', success = true", {}),
        ("DELETE FROM {}", {}),
        ("TRUNCATE {}", {}),
    ],
)
@pytest.mark.seam
def test_it_is_kept(change: str, left: dict[str, Any]) -> None:
    fail(), fail(B), fail(id="done", success=True)
    assert entries() == {"t1": ENTRY}
    sql(change.format(TASKS) + ("" if "TRUNCATE" in change else " WHERE id = 't1'"))
    assert entries() == left
    assert entries(B) == {"t1": ENTRY}, "another tenant's is not touched"
    assert is_right()
    assert is_right(B)


def test_a_success_that_becomes_a_failure_is_entered() -> None:
    fail(success=True)
    assert entries() == {}
    sql(f"UPDATE {TASKS} SET success = false")
    assert entries() == {"t1": ENTRY}


def test_a_success_calls_no_function() -> None:
    """Neither when it is inserted, nor when it is changed or pruned: the triggers' conditions say so."""
    sql(f"INSERT INTO {TASKS} (id, name, func, started, stopped, success, attempt_count) "
        "SELECT n::text, 'n', 'f', now(), now(), true, 1 FROM generate_series(1, 50) AS n")  # fmt: skip
    with elsewhere() as other:
        other.execute("SET track_functions = 'all'")
        other.execute(f"UPDATE {TASKS} SET attempt_count = 2")
        other.execute(f"DELETE FROM {TASKS} WHERE id <> '1'")
        other.execute(ROW.format(A), ["new", STOPPED, STOPPED, True])
        calls = "SELECT sum(pg_stat_get_xact_function_calls('public.tenant_q_index_failure()'::regprocedure))"
        assert other.execute(calls).fetchone() == (None,)
        other.execute(ROW.format(A), ["failed", STOPPED, STOPPED, False])
        assert other.execute(calls).fetchone() == (1,), "and a failure does"


def test_a_rollback_takes_the_entry_back() -> None:
    with elsewhere() as other:
        other.execute(ROW.format(A), ["t1", STOPPED, STOPPED, False])
        other.rollback()
    assert entries() == {}


def test_a_tenant_keeps_its_tasks_when_the_index_is_gone() -> None:
    sql("ALTER TABLE tenant_q_failure RENAME TO away")
    try:
        fail()
        sql(f"DELETE FROM {TASKS}")
    finally:
        sql("ALTER TABLE away RENAME TO tenant_q_failure")
    assert is_right()


@pytest.mark.parametrize("column", ["id", "func", "attempt_count"])
def test_a_migration_may_change_a_column(spare: str, column: str) -> None:
    fail(spare)
    table = f"{spare}.django_q_task"
    types = ("bigint", "integer") if column == "attempt_count" else ("varchar(400)", "varchar(200)")
    for type in types:
        sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type}")
        sql(f"UPDATE {table} SET stopped = stopped + interval '1 day'")
        assert is_right(spare)
    assert entries(spare)["t1"][3] == STOPPED + timedelta(days=2)


@pytest.mark.parametrize("column", ["func", "attempt_count", "stopped"])
def test_a_tenant_writes_tasks_of_another_shape(spare: str, column: str) -> None:
    fail(spare)
    sql(f"ALTER TABLE {spare}.django_q_task DROP COLUMN {column}")
    sql(f"UPDATE {spare}.django_q_task SET name = 'e'")
    sql(f"DELETE FROM {spare}.django_q_task")


# Isolation levels


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_failure_is_entered_and_changed_in_any_isolation_level(isolation: str) -> None:
    with elsewhere() as other:
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        other.execute(ROW.format(A), ["t1", STOPPED, STOPPED, False])
        other.execute(f"UPDATE {TASKS} SET attempt_count = 3")
        other.commit()
    assert entries()["t1"][2] == 3


@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET success = true", "TRUNCATE {}"])
def test_what_goes_in_serializable_leaves_the_index_with_the_next_look(make_scheduler: Any, change: str) -> None:
    fail()
    complete()
    with elsewhere() as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        other.execute(change.format(TASKS))
        other.commit()
    assert list(entries()) == ["t1"]
    make_scheduler().tick()
    assert entries() == {}
    assert is_right()


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_what_an_old_snapshot_cannot_write_is_compared_again(make_scheduler: Any, isolation: str) -> None:
    """The scheduler has written to the entry since; the tenant's transaction does not fail."""
    fail()
    with elsewhere() as other:
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        other.execute(f"SELECT 1 FROM {TASKS}")
        complete()
        other.execute(f"UPDATE {TASKS} SET stopped = stopped + interval '1 day'")
        other.commit()
    assert stale() == [(A, False)]
    make_scheduler().tick()
    assert entries()["t1"][3] == STOPPED + timedelta(days=1)
    assert is_right()


def test_serializable_transactions_of_two_tenants_do_not_conflict() -> None:
    fail(), fail(B)
    with elsewhere() as one, elsewhere() as other:
        for session, schema in ((one, A), (other, B)):
            session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            session.execute(f"SELECT count(*) FROM {schema}.django_q_task")
        for session, schema in ((one, A), (other, B)):
            session.execute(ROW.format(schema), ["t2", STOPPED, STOPPED, False])
            session.execute(f"DELETE FROM {schema}.django_q_task WHERE id = 't1'")
        one.commit()
        other.commit()


# Schemas come and go


@pytest.mark.seam
def test_a_restored_schema(spare: str, make_scheduler: Any) -> None:
    fail(spare)
    Failure.rows().filter(schema_name=spare).update(again="new")
    sql(f"CREATE TABLE {spare}.restored (LIKE {spare}.django_q_task INCLUDING ALL)")
    sql(f"INSERT INTO {spare}.restored SELECT * FROM {spare}.django_q_task")
    sql(f"UPDATE {spare}.restored SET id = 't7'")
    sql(f"DROP TABLE {spare}.django_q_task")
    sql(f"ALTER TABLE {spare}.restored RENAME TO django_q_task")
    assert stale() == [(spare, False)]
    make_scheduler().tick()
    assert stale() == []
    assert entries(spare) == {"t7": ENTRY}
    sql(f"DELETE FROM {spare}.django_q_task")
    assert entries(spare) == {}, "its triggers are there again"


@pytest.mark.seam
def test_a_renamed_schema(spare: str, make_scheduler: Any) -> None:
    fail(spare)
    sql(f"ALTER SCHEMA {spare} RENAME TO moved")
    sql(f"UPDATE {tenancy.tenant_model()._meta.db_table} SET schema_name = 'moved' WHERE schema_name = 'spare'")
    assert sorted(stale()) == [("moved", False), (spare, True)]
    make_scheduler().tick()
    assert (stale(), entries(spare), list(entries("moved"))) == ([], {}, ["t1"])
    sql("DELETE FROM moved.django_q_task")
    assert entries("moved") == {}


def test_a_schema_that_our_command_renames_keeps_what_was_noted() -> None:
    schemas.make_tenant("newcomer")
    try:
        fail("newcomer")
        Failure.rows().filter(schema_name="newcomer").update(again="new")
        call_command("mstenant", "rename", "newcomer", "moved", verbosity=0)
        assert (stale(), entries("newcomer")) == ([], {})
        complete("moved")
        assert entries("moved") == {"t1": (*ENTRY[:4], "new")}
    finally:
        for name in ("newcomer", "moved"):
            schemas.drop_tenant(name)
        tenancy.forget_tenants()
        index_upkeep.bring_up_to_date(stale(), FAILURES)


@pytest.mark.parametrize("how", ["DROP SCHEMA {} CASCADE", "DROP TABLE {}.django_q_task"])
def test_a_dropped_schema(spare: str, make_scheduler: Any, how: str) -> None:
    fail(spare)
    sql(how.format(spare))
    assert stale() == [(spare, True)]
    make_scheduler().tick()
    assert (stale(), entries(spare)) == ([], {})


def test_a_tenant_that_is_deleted_leaves_the_index_though_its_schema_stays(spare: str) -> None:
    fail(spare)
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    assert entries(spare) == {}
    assert stale() == [], "the table is no tenant's"


@pytest.mark.parametrize(
    "how",
    [
        "ALTER TABLE spare.django_q_task DISABLE TRIGGER tenant_q_failures_truncated",
        "DROP TRIGGER tenant_q_failure_gone ON spare.django_q_task",
    ],
)
def test_a_trigger_that_is_off(spare: str, make_scheduler: Any, how: str) -> None:
    complete(spare)
    sql(how)
    fail(spare)
    assert stale() == [(spare, False)]
    make_scheduler().tick()
    assert list(entries(spare)) == ["t1"]
    sql("TRUNCATE spare.django_q_task")
    assert entries(spare) == {}


def test_a_scheduler_that_starts_finds_what_went_past_the_triggers(make_scheduler: Any) -> None:
    fail()
    complete()
    write_past_the_triggers(f"DELETE FROM {TASKS}")
    assert stale() == []
    assert index_upkeep.errors(A, FAILURES) == 1
    make_scheduler().tick()
    assert entries() == {}
    assert is_right()


@pytest.mark.seam
def test_a_tenant_is_in_the_index_as_soon_as_it_is_created() -> None:
    schemas.make_tenant("newcomer")
    try:
        assert is_right("newcomer")
        fail("newcomer")
        assert list(entries("newcomer")) == ["t1"]
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()
        index_upkeep.bring_up_to_date(stale(), FAILURES)


# What the triggers do not know


def outcome(schema: str = A, id: str = "t1", *, success: bool = False, after: float = 0.0, **keywords: Any) -> Outcome:
    """An outcome of a task, which failed with a `ValueError`; `keywords` as for a task, and `schedule`."""
    schedule = keywords.pop("schedule", None)
    package = build("tests.tasks.add", (1,), keywords, schema=schema, id=id, origin=SCHEDULE if schedule else None)
    package.task["schedule"] = schedule
    end = STOPPED + timedelta(seconds=after)
    text = "no : Traceback (most recent call last):\n  File\nshop.errors.NoMoney: no"
    return Outcome(package, success, None if success else text, end, end, 1.0, death=None if success else "NoMoney")


def causes(schema: str = A) -> dict[str, tuple[str, str, bool]]:
    rows = Failure.rows().filter(schema_name=schema)
    return {one.task_id: (one.cause, one.schedule, one.is_pending) for one in rows}


@pytest.fixture(params=["in bulk", "one by one"])
def writer(request: pytest.FixtureRequest) -> Iterator[None]:
    """Rows are written in bulk, and one by one as in a project with receivers of `post_save`."""

    def receiver(**_: Any) -> None:
        pass

    if request.param == "one by one":
        post_save.connect(receiver, sender=Task)
    yield
    post_save.disconnect(receiver, sender=Task)


@pytest.mark.seam
def test_the_cause_and_the_schedule_are_written_with_the_row(writer: None) -> None:
    save_results.save_or_raise(
        [outcome(schedule="nightly"), outcome(id="t2"), outcome(B), outcome(id="t3", success=True)]
    )
    assert causes() == {"t1": ("NoMoney", "nightly", False), "t2": ("NoMoney", "", False)}
    assert causes(B) == {"t1": ("NoMoney", "", False)}
    assert entries()["t1"][0] == "tests.tasks.add"


def test_a_success_that_replaces_a_failure_removes_its_entry(writer: None) -> None:
    save_results.save_or_raise([outcome()])
    save_results.save_or_raise([outcome(success=True, after=9)])
    assert causes() == {}


def test_a_later_failure_replaces_the_entry_and_opens_it_again(writer: None) -> None:
    save_results.save_or_raise([outcome()])
    Failure.rows().update(again="new")
    save_results.save_or_raise([outcome(after=9)])
    assert [(one.stopped - STOPPED, one.again, one.cause) for one in Failure.rows()] == [
        (timedelta(seconds=9), "", "NoMoney")
    ]


def test_a_failure_does_not_replace_the_entry_of_a_cancelled_task(writer: None) -> None:
    save_results.save_or_raise([give_up(outcome().package, TaskCancelled("cancelled: no longer wanted"))])
    save_results.save_or_raise([outcome(after=9)])
    assert causes() == {"t1": ("TaskCancelled", "", False)}


def test_a_failure_after_the_success_of_another_delivery_has_no_entry(writer: None) -> None:
    save_results.save_or_raise([outcome(success=True)])
    save_results.save_or_raise([outcome(after=9)])
    assert causes() == {}


def test_a_success_costs_no_more_statements_and_a_failure_no_more_round_trips() -> None:
    def sent(*outcomes: Outcome) -> list[str]:
        with on_the_wire() as found:
            save_results.save_or_raise(outcomes)
        return found

    sent(outcome(id="t0"), outcome(B, "t0"))
    (successes,) = sent(outcome(success=True), outcome(B, success=True))
    assert "tenant_q_failure" not in successes
    (mixed,) = sent(outcome(id="t2", success=True), outcome(B, "t2"))
    assert mixed.count("tenant_q_failure") == 1


@pytest.mark.seam
def test_a_worker_enters_what_fails(worker: Any) -> None:
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.fail", "a secret")
        QUtilities.create_async_tasks_chain([("tests.tasks.fail", ()), ("tests.tasks.nothing", ())])
        QUtilities.add_async_tasks_from_iter("tests.tasks.fail", [("a secret",)])
    work(worker)
    rows = list(Failure.rows().filter(schema_name=A))
    with in_schema(A):
        assert {one.task_id for one in rows} == set(Task.objects.filter(success=False).values_list("id", flat=True))
    assert len(rows) == 4, "the part of an iter, and the iter"
    assert {one.cause for one in rows} == {"ValueError"}
    assert not any(one.is_pending for one in rows)
    assert "secret" not in str([vars(one) for one in rows])


def test_a_schedule_that_cannot_fire_is_entered(make_scheduler: Any) -> None:
    insert(A, STOPPED, args="(", name="nightly")
    make_scheduler().tick()
    ((cause, schedule, is_pending),) = causes().values()
    assert (cause, schedule, is_pending) == ("ScheduleFailed", "nightly", False)


# From before the index


def before(schema: str = A) -> None:
    """Take a schema out of the index, as before the upgrade: its rows stay."""
    index_upkeep.forget(schema, FAILURES)


@pytest.mark.seam
def test_failures_from_before_the_upgrade_are_filled_in(make_scheduler: Any) -> None:
    made = [outcome(schedule="nightly", group="nightly"), outcome(id="t2"), outcome(id="t3", success=True)]
    save_results.save_or_raise([*made, give_up(outcome(id="t4").package, TaskCancelled("cancelled: no longer wanted"))])
    fail(id="t5")
    before()
    assert causes() == {}
    make_scheduler().tick()
    assert causes() == {
        "t1": ("NoMoney", "nightly", False),
        "t2": ("NoMoney", "", False),
        "t4": ("TaskCancelled", "", False),
        "t5": ("", "", False),
    }
    assert failure_upkeep.unfinished() == []


def test_they_are_filled_in_by_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    save_results.save_or_raise([outcome(id=f"t{number}", success=number % 2 == 0) for number in range(10)])
    before()
    index_upkeep.install(A, FAILURES)
    monkeypatch.setattr(failure_upkeep, "SWEPT_AT_ONCE", 4)
    monkeypatch.setattr(failure_upkeep, "FILLED_AT_ONCE", 2)
    found = []
    while failure_upkeep.work_on(A):
        found.append((len(causes()), sum(not is_pending for _, _, is_pending in causes().values())))
    assert found == [(2, 0), (4, 0), (5, 2), (5, 4)]
    assert sorted(causes()) == ["t1", "t3", "t5", "t7", "t9"]


def test_large_results_are_read_by_portions_and_too_large_ones_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    save_results.save_or_raise([outcome(id=f"t{number}") for number in range(3)])
    sql(f"UPDATE {TASKS} SET result = repeat('x', 10000) WHERE id = 't2'")
    before()
    index_upkeep.install(A, FAILURES)
    monkeypatch.setattr(failure_upkeep, "MOST_BYTES", 100)
    assert failure_upkeep.work_on(A)
    assert [is_pending for _, _, is_pending in causes().values()].count(False) == 1
    complete()
    assert set(causes().values()) == {("", "", False)}
    monkeypatch.undo()
    Failure.rows().update(is_pending=True)
    complete()
    assert causes()["t1"] == ("NoMoney", "", False)


HOSTILE = {
    "tuples whose text is too long": pickled_tuples(40) + b".",
    "a key whose hash takes too long": b"}" + pickled_tuples(40) + b"Ns.",
    "a number that has no text": b"\x8b" + (5000).to_bytes(4, "little") + b"\x01" * 5000 + b".",
    "tuples in tuples": b")" + b"\x85" * 100_000 + b".",
    "no pickle": b"\x80\x04X",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_value_that_a_tenant_writes_keeps_the_scheduler(make_scheduler: Any, name: str) -> None:
    fail(), fail(B)
    sql(f"UPDATE {TASKS} SET result = %s", b64encode(HOSTILE[name]).decode())
    make_scheduler().tick()
    assert causes()["t1"][0] in ("", "IterPartFailed")
    assert not Failure.rows().filter(is_pending=True).exists()


def test_an_error_in_completing_the_index_keeps_no_schedule(worker: Any, make_scheduler: Any, monkeypatch: Any) -> None:
    fail()
    monkeypatch.setattr(failure_upkeep, "_fill", Mock(side_effect=RecursionError))
    insert(A, STOPPED, func="tests.tasks.add", args="(1, 2)", name="nightly", repeats=1, schedule_type="O")
    make_scheduler().tick()
    work(worker)
    with in_schema(A):
        assert Task.objects.get(group="nightly").success


def test_a_row_that_goes_while_it_is_swept_leaves_no_entry() -> None:
    fail()
    before()
    index_upkeep.install(A, FAILURES)
    with elsewhere() as other:
        other.execute(f"DELETE FROM {TASKS}")
        with pytest.raises(tenancy.DATABASE_ERRORS):
            failure_upkeep.work_on(A)
        other.commit()
    complete()
    assert entries() == {}


def test_an_entry_that_a_transaction_has_locked_is_left() -> None:
    fail(), fail(id="t2")
    with elsewhere() as other:
        other.execute("DELETE FROM acme_corp.django_q_task WHERE id = 't1'")
        assert not failure_upkeep.work_on(A)
        assert [id for id, (_, _, is_pending) in causes().items() if is_pending] == ["t1"]


def test_a_schema_that_cannot_be_completed_keeps_no_other(make_scheduler: Any, caplog: Any) -> None:
    fail(), fail(B)
    with elsewhere() as other:
        other.execute(f"LOCK TABLE {TASKS} IN ACCESS EXCLUSIVE MODE")
        scheduler = make_scheduler()
        scheduler.tick(), scheduler.tick()
    assert [one.is_pending for one in Failure.rows().order_by("schema_name")] == [True, False]
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "failure_index.left"]
    assert record.schema == A


def test_all_of_a_tenants_rows_are_compared_once() -> None:
    complete()
    assert not IndexedFailures.objects.filter(schema_name=A, swept__isnull=False).exists()


def test_the_index_is_right_after_workers_staff_and_schedulers_were_at_it_at_once() -> None:
    """No deadlock ends a tenant's transaction, and each failed row has its entry in the end."""
    errors: list[BaseException] = []

    def save() -> None:
        for number in range(30):
            made = [
                outcome(schema, f"t{10 + number % 13 + place}", success=place == 7, after=number)
                for schema in (A, B)
                for place in range(8)
            ]
            save_results.save_or_raise(made)

    def delete(schema: str) -> None:
        with elsewhere() as other:
            for number in range(30):
                for id in sorted(random.Random(number).sample(range(10, 30), 5)):  # as all lock rows in one order
                    other.execute(f"DELETE FROM {schema}.django_q_task WHERE id = %s", [f"t{id}"])
                other.commit()

    def keep_up() -> None:
        for _ in range(12):
            for schema in (A, B):
                index_upkeep.install(schema, FAILURES)
                with contextlib.suppress(OperationalError):  # a table that stayed locked
                    complete(schema)

    def guarded(act: Callable[..., None], *args: Any) -> None:
        try:
            act(*args)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    acts = [(save,), (delete, A), (delete, B), (keep_up,)]
    threads = [threading.Thread(target=guarded, args=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for schema in (A, B):
        complete(schema)
        failed = {id for (id,) in sql(f"SELECT id FROM {schema}.django_q_task WHERE NOT success")}
        assert set(entries(schema)) == failed
        assert {cause for cause, _, _ in causes(schema).values()} <= {"NoMoney"}
        assert is_right(schema)
