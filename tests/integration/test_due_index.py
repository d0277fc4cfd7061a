"""The due index is what the tenants' schedules say, whoever writes them; to look at it costs little."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import due_index, policies, preflight, recurrence, schedules, tenancy
from tenant_q import scheduler as scheduler_module
from tenant_q.brokers import get_broker
from tenant_q.exceptions import ConfigurationError, DatabaseAway
from tenant_q.models import TenantPolicy
from tenant_q.package import Package
from tenant_q.scheduler import push
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import work

ROOT = Path(__file__).parents[2]
LATER = datetime(2999, 1, 1, tzinfo=UTC)
PAST = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


def insert(
    schema: str = "acme_corp", next_run: Any = LATER, *, func: str = "tests.tasks.nothing", **fields: Any
) -> int:
    """A row past the ORM. Returns its id."""
    values = {"func": func, "schedule_type": "D", "repeats": -1, "next_run": next_run} | fields
    places = ", ".join(["%s"] * len(values))
    text = f'INSERT INTO "{schema}".django_q_schedule ({", ".join(values)}) VALUES ({places}) RETURNING id'
    return int(sql(text, *values.values())[0][0])


def entries(schema: str = "acme_corp") -> dict[int, tuple[str, Any, str]]:
    """What the index has of a schema: cluster, moment, and why it is held, by schedule."""
    rows = sql(
        "SELECT schedule_id, cluster, next_run, held FROM tenant_q_dueschedule WHERE schema_name = %s",
        tenancy.physical_schema(schema),
    )
    return {row[0]: row[1:] for row in rows}


def is_right(schema: str = "acme_corp") -> bool:
    return due_index.errors(schema) == 0 and schema not in dict(due_index.stale_schemas())


def due_schemas() -> list[str]:
    return [one.schema for one in due_index.look() if one.seconds <= 0]


@contextmanager
def on_the_wire() -> Iterator[list[str]]:
    """What this process asks the server meanwhile, as libpq sees it: one entry a statement."""
    connection.ensure_connection()
    pgconn = connection.connection.pgconn
    found: list[str] = []
    path = Path(f"/tmp/tq-trace-{os.getpid()}-{threading.get_ident()}")
    try:
        with path.open("w+b") as file:
            pgconn.trace(file.fileno())
            try:
                yield found
            finally:
                pgconn.untrace()
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
        found += [line for line in lines if "\tF\t" in line and ("\tQuery" in line or "\tExecute" in line)]
    finally:
        path.unlink()


@contextmanager
def elsewhere() -> Iterator[psycopg.Connection[Any]]:
    """Another session, in a transaction that ends with the block and is rolled back."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as other:
        yield other
        other.rollback()


# Kept, whoever writes


@pytest.mark.seam
def test_it_is_kept_through_the_orm(tenants):
    with in_schema("acme_corp"):
        made = QUtilities.create_schedule("tests.tasks.nothing", next_run=LATER, schedule_type="D")
        assert entries() == {made.pk: ("", LATER, "")}
        made.next_run, made.cluster = LATER + timedelta(days=1), "long"
        made.save()
        assert entries() == {made.pk: ("long", LATER + timedelta(days=1), "")}
        Schedule.objects.update(next_run=LATER)
        assert entries() == {made.pk: ("long", LATER, "")}
        Schedule.objects.bulk_create([Schedule(func="f", next_run=LATER), Schedule(func="f", next_run=LATER)])
        assert len(entries()) == 3
        Schedule.objects.all().delete()
    assert entries() == {}
    assert is_right()


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("UPDATE {} SET repeats = 0 WHERE id = {}", None),
        ("UPDATE {} SET next_run = NULL WHERE id = {}", None),
        ("UPDATE {} SET next_run = 'infinity' WHERE id = {}", None),
        ("UPDATE {} SET next_run = '-infinity' WHERE id = {}", None),
        ("UPDATE {} SET next_run = next_run + interval '1 day' WHERE id = {}", ("", LATER + timedelta(days=1), "")),
        ("UPDATE {} SET cluster = 'long' WHERE id = {}", ("long", LATER, "")),
        ("UPDATE {} SET name = 'n', args = '1' WHERE id = {}", ("", LATER, "")),
        ("DELETE FROM {} WHERE id = {}", None),
        ("TRUNCATE {}", None),
    ],
)
def test_it_is_kept_through_sql(tenants, change, left):
    id, other = insert(), insert("globex_inc")
    assert entries() == {id: ("", LATER, "")}
    sql(change.format("acme_corp.django_q_schedule", id))
    assert entries() == ({} if left is None else {id: left})
    assert list(entries("globex_inc")) == [other], "another tenant's is not touched"
    assert is_right()


def test_what_will_not_run_comes_back_when_it_will(tenants):
    id = insert(repeats=0)
    assert entries() == {}
    sql("UPDATE acme_corp.django_q_schedule SET repeats = 3")
    assert list(entries()) == [id]
    sql("UPDATE acme_corp.django_q_schedule SET next_run = NULL")
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s", LATER)
    assert list(entries()) == [id]


def test_another_id(tenants):
    id = insert()
    sql("UPDATE acme_corp.django_q_schedule SET id = %s", id + 1000)
    assert list(entries()) == [id + 1000]
    assert is_right()


def test_upsert_and_copy(tenants):
    id = insert(name="n")
    sql(
        "INSERT INTO acme_corp.django_q_schedule (id, func, schedule_type, repeats, next_run) "
        "VALUES (%s, 'f', 'D', -1, %s) ON CONFLICT (id) DO UPDATE SET next_run = EXCLUDED.next_run",
        id,
        LATER + timedelta(days=2),
    )
    assert entries() == {id: ("", LATER + timedelta(days=2), "")}
    raw = connection.connection
    with (
        raw.cursor() as cursor,
        cursor.copy("COPY acme_corp.django_q_schedule (id, func, schedule_type, repeats, next_run) FROM STDIN") as copy,
    ):
        for n in range(3):
            copy.write_row((id + 1 + n, "f", "D", -1, LATER))
    assert len(entries()) == 4
    assert is_right()


def test_a_rollback_takes_the_entry_back(tenants):
    id = insert()
    with pytest.raises(ZeroDivisionError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM acme_corp.django_q_schedule")
        raise ZeroDivisionError
    assert list(entries()) == [id]


def test_a_tenant_edits_its_schedules_when_the_index_is_gone(tenants):
    """The app was removed, and its tables with it."""
    sql("ALTER TABLE tenant_q_dueschedule RENAME TO away")
    try:
        insert()
        sql("UPDATE acme_corp.django_q_schedule SET next_run = now()")
        sql("DELETE FROM acme_corp.django_q_schedule")
    finally:
        sql("ALTER TABLE away RENAME TO tenant_q_dueschedule")
    assert is_right()


# Notifications


@pytest.fixture
def told(tenants) -> Iterator[Callable[[], list[str]]]:
    """What was notified since it was asked last, in order."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as listener:
        listener.execute(f"LISTEN {due_index.CHANNEL}")

        def ask() -> list[str]:
            found: list[str] = []
            listener.execute("SELECT pg_notify(%s, 'the end')", [due_index.CHANNEL])
            for note in listener.notifies():
                if note.payload == "the end":
                    return found
                found.append(note.payload)
            raise AssertionError("the server left")

        ask()
        yield ask


@pytest.mark.seam
def test_only_what_comes_earlier_than_all_is_told(tenants, told):
    first = insert(next_run=LATER)
    assert told() == [""]
    insert("globex_inc", LATER + timedelta(days=1))
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s", LATER + timedelta(days=2))
    assert told() == []
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s WHERE id = %s", LATER - timedelta(days=1), first)
    assert told() == [""]
    insert("globex_inc", LATER, cluster="long")
    assert told() == ["long"], "each cluster has a first of its own"
    insert(next_run=PAST, repeats=0)
    sql("DELETE FROM globex_inc.django_q_schedule")
    assert told() == []


def test_it_is_told_after_the_commit(tenants, told):
    with elsewhere() as other:
        other.execute(
            "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) "
            "VALUES ('f', 'D', -1, now())"
        )
        assert told() == []
        assert due_schemas() == []
        other.commit()
        assert told() == [""]
    assert due_schemas() == ["acme_corp"]


def test_a_scheduler_that_sleeps_is_woken(tenants, scheduler):
    assert scheduler.tick() == scheduler_module.POLL_SECONDS
    with elsewhere() as other:
        other.execute(
            "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) "
            "VALUES ('tests.tasks.nothing', 'D', -1, now())"
        )
        other.commit()
    assert scheduler.stopping.wait(30, *scheduler.files()) == scheduler.files(), "well before the poll"
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1


def test_a_lost_session_is_told_and_listened_on_anew(tenants, scheduler):
    scheduler.tick()
    schemas.terminate(connection.connection.info.backend_pid)
    with pytest.raises(DatabaseAway), tenancy.told_when_away():
        scheduler.tick()
    assert scheduler.files() == []
    scheduler.tick()
    assert scheduler.files() == [connection.connection.fileno()]
    ((channel,),) = sql("SELECT * FROM pg_listening_channels()")
    assert channel == due_index.CHANNEL


# What fires no trigger


@pytest.fixture
def spare(tenants) -> Iterator[str]:
    schemas.clone_tenants(["spare"])
    yield "spare"
    sql("DROP SCHEMA IF EXISTS moved CASCADE")
    schemas.drop_tenant("spare")
    tenancy.forget_tenants()
    due_index.bring_up_to_date(due_index.stale_schemas())


@pytest.mark.seam
def test_a_restored_schema(spare, make_scheduler):
    insert(spare, id=1)
    sql(f"CREATE TABLE {spare}.restored (LIKE {spare}.django_q_schedule INCLUDING ALL)")
    sql(
        f"INSERT INTO {spare}.restored (id, func, schedule_type, repeats, next_run) VALUES (7, 'f', 'D', -1, %s)", LATER
    )
    sql(f"DROP TABLE {spare}.django_q_schedule")
    sql(f"ALTER TABLE {spare}.restored RENAME TO django_q_schedule")
    assert due_index.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert due_index.stale_schemas() == []
    assert list(entries(spare)) == [7]
    sql(f"DELETE FROM {spare}.django_q_schedule")
    assert entries(spare) == {}, "its triggers are there again"


def test_a_renamed_schema(spare, make_scheduler):
    insert(spare, id=1)
    sql(f"ALTER SCHEMA {spare} RENAME TO moved")
    assert sorted(due_index.stale_schemas()) == [("moved", False), (spare, True)]
    make_scheduler().tick()
    assert due_index.stale_schemas() == []
    assert (entries(spare), list(entries("moved"))) == ({}, [1])
    sql("UPDATE moved.django_q_schedule SET repeats = 0")
    assert entries("moved") == {}


@pytest.mark.parametrize("how", ["DROP SCHEMA {} CASCADE", "DROP TABLE {}.django_q_schedule"])
def test_a_dropped_schema(spare, make_scheduler, how):
    insert(spare, id=1)
    sql(how.format(spare))
    assert due_index.stale_schemas() == [(spare, True)]
    make_scheduler().tick()
    assert (due_index.stale_schemas(), entries(spare)) == ([], {})
    assert spare not in due_index.indexed_schemas()


@pytest.mark.parametrize(
    "how",
    [
        "ALTER TABLE spare.django_q_schedule DISABLE TRIGGER USER",
        "ALTER TABLE spare.django_q_schedule DISABLE TRIGGER tenant_q_index_truncate",
        "ALTER TABLE spare.django_q_schedule ENABLE REPLICA TRIGGER tenant_q_index_schedule",
        "DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule",
    ],
)
def test_a_trigger_that_is_off(spare, make_scheduler, how):
    sql(how)
    insert(spare, id=1)
    assert due_index.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert due_index.stale_schemas() == []
    assert list(entries(spare)) == [1]
    insert(spare, id=2)
    assert list(entries(spare)) == [1, 2]
    sql("TRUNCATE spare.django_q_schedule")
    assert entries(spare) == {}


def write_past_the_triggers(text: str, *parameters: Any) -> None:
    """As `pg_restore --disable-triggers` and logical replication write."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(text, parameters)


def test_a_scheduler_that_starts_finds_what_was_written_past_the_triggers(tenants, make_scheduler):
    write_past_the_triggers(
        "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) "
        "VALUES ('tests.tasks.nothing', 'D', -1, now())"
    )
    assert due_index.stale_schemas() == []
    assert due_index.errors("acme_corp") == 1
    make_scheduler().tick()
    assert is_right()
    assert get_broker().queue_size("acme_corp") == 1


def test_what_is_due_in_the_index_alone_does_not_spin_the_scheduler(tenants, scheduler, caplog):
    """And is put right after some rounds."""
    scheduler.tick()
    insert(next_run=PAST)
    write_past_the_triggers("DELETE FROM acme_corp.django_q_schedule")
    with caplog.at_level(logging.WARNING, "tenant_q"):
        pauses = [scheduler.tick() for _ in range(scheduler_module.DOUBTFUL_ROUNDS)]
    assert pauses == [pytest.approx(scheduler_module.AGAIN_SECONDS * 2**n) for n in range(len(pauses))]
    assert entries() == {}
    assert [record.getMessage() for record in caplog.records] == [
        "The due index was wrong about acme_corp and is repaired"
    ]
    assert scheduler.tick() == scheduler_module.POLL_SECONDS


def test_what_another_cluster_has_in_hand_is_tried_again_soon(tenants, scheduler):
    """It may be killed before its commit: nobody waits for the poll then."""
    scheduler.tick()
    insert(next_run=PAST)
    with elsewhere() as other:
        other.execute("SELECT * FROM acme_corp.django_q_schedule FOR UPDATE")
        assert [scheduler.tick() for _ in range(2)] == [0.1, 0.2]
        assert get_broker().counts().queued == 0
    scheduler.tick()
    assert get_broker().counts().queued == 1


# Tenants come, are migrated and go


@pytest.mark.seam
def test_a_tenant_is_in_the_index_as_soon_as_it_is_created_and_gone_with_it(tenants, make_scheduler):
    tenant = schemas.make_tenant("newcomer")
    try:
        assert is_right("newcomer")
        insert("newcomer")
        assert len(entries("newcomer")) == 1
        call_command("migrate_schemas", schema_name="newcomer", interactive=False, verbosity=0)
        assert is_right("newcomer")
        connection.set_schema_to_public()
        tenant.auto_drop_schema = True
        tenant.delete()
        assert entries("newcomer") == {}
        assert "newcomer" not in due_index.indexed_schemas()
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()


def test_a_tenant_whose_schema_stays_stays_in_the_index(spare):
    """Its row is deleted, its schema is not: that is for an operator to end."""
    insert(spare, id=1)
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    assert list(entries(spare)) == [1]


def test_what_is_not_committed_yet_is_no_error(tenants, make_scheduler):
    """A tenant is created, another dropped, a third one migrated, each in a transaction still open."""
    schemas.clone_tenants(["leaving"])
    for name in ("globex_inc", "initech_llc"):
        insert(name, PAST)
    try:
        with elsewhere() as creating, elsewhere() as dropping, elsewhere() as migrating:
            creating.execute("CREATE SCHEMA arriving")
            creating.execute("CREATE TABLE arriving.django_q_schedule (LIKE acme_corp.django_q_schedule)")
            dropping.execute("DROP SCHEMA leaving CASCADE")
            migrating.execute("ALTER TABLE globex_inc.django_q_schedule ADD COLUMN more int")
            scheduler = make_scheduler()
            scheduler.tick()
            assert get_broker().queue_size("initech_llc") == 1
            assert get_broker().queue_size("globex_inc") == 0
            assert entries("globex_inc").popitem()[1][2] == due_index.FAILED, "it is tried again later"
            dropping.commit()
            assert due_index.bring_up_to_date([("leaving", False)]) == [], "it went after it was found"
            make_scheduler().tick()
        assert "leaving" not in due_index.indexed_schemas()
        due_index.release(due_index.FAILED)
        make_scheduler().tick()
        assert get_broker().queue_size("globex_inc") == 1
    finally:
        schemas.drop_tenant("leaving")
        tenancy.forget_tenants()
        due_index.bring_up_to_date(due_index.stale_schemas())


def test_a_table_that_is_locked_is_installed_later(spare, make_scheduler, caplog):
    sql("DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule")
    insert("acme_corp", PAST)
    scheduler = make_scheduler()
    with elsewhere() as migrating, caplog.at_level(logging.WARNING, "tenant_q"):
        migrating.execute("LOCK TABLE spare.django_q_schedule IN ROW EXCLUSIVE MODE")
        scheduler.tick()
    assert caplog.records[0].getMessage() == ("Schedules of spare are not in the index yet: their tables are locked")
    assert get_broker().queue_size("acme_corp") == 1, "nobody else waits"
    assert due_index.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert due_index.stale_schemas() == []


def test_an_installation_keeps_no_reader_out(tenants):
    with elsewhere() as reader:
        reader.execute("SELECT * FROM acme_corp.django_q_schedule")
        assert due_index.install("acme_corp")


# Held


@pytest.fixture
def unlimited(tenants) -> Iterator[None]:
    yield
    TenantPolicy.objects.all().delete()


@pytest.mark.seam
def test_a_paused_tenant_is_held_and_resumed_at_once(tenants, unlimited, scheduler, told):
    policies.change("acme_corp", actor="test", act="pause", paused=True)
    id = insert(next_run=PAST)
    scheduler.tick()
    assert entries()[id][2] == due_index.PAUSED
    assert due_schemas() == []
    assert scheduler.tick() == scheduler_module.POLL_SECONDS
    told()
    policies.change("acme_corp", actor="test", act="resume", paused=False)
    assert told() == [""], "a scheduler that sleeps is woken"
    assert due_schemas() == ["acme_corp"]
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1
    assert entries()[id][2] == ""


def test_what_a_held_tenant_changes_is_looked_at_again(tenants, unlimited, scheduler):
    policies.change("acme_corp", actor="test", act="pause", paused=True)
    id = insert(next_run=PAST)
    scheduler.tick()
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s", PAST + timedelta(days=1))
    assert entries()[id] == ("", PAST + timedelta(days=1), "")
    scheduler.tick()
    assert entries()[id][2] == due_index.PAUSED
    assert get_broker().counts().queued == 0


def test_a_tenant_that_is_not_ready(tenants, scheduler, settings, caplog):
    settings.TENANT_Q = {"ready_tenants": f"{__name__}.only_globex"}
    insert("acme_corp", PAST)
    insert("globex_inc", PAST)
    scheduler.tick()
    assert [held for _, _, held in entries().values()] == [due_index.UNREADY]
    assert [get_broker().queue_size(name) for name in ("acme_corp", "globex_inc")] == [0, 1]
    assert 0 < next(one.seconds for one in due_index.look() if one.schema == "acme_corp") <= 30
    settings.TENANT_Q = {}
    tenancy.forget_tenants()
    due_index.release(due_index.UNREADY)
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1


def only_globex(tenants: Any) -> Any:
    return tenants.filter(schema_name="globex_inc")


def test_a_schema_of_no_tenant(spare, scheduler, caplog):
    insert(spare, PAST, id=1)
    insert("acme_corp", PAST)
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    for _ in range(3):
        scheduler.tick()
    assert entries(spare)[1][2] == due_index.UNREADY
    assert get_broker().queue_size("acme_corp") == 1
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1, "it is told once"


def test_a_hold_waits_for_nobody(tenants):
    """Who writes a schedule may wait for another of them; to wait for him could be to wait in a circle."""
    id = insert(next_run=PAST)
    with elsewhere() as other:
        other.execute("UPDATE acme_corp.django_q_schedule SET next_run = next_run")
        due_index.hold("acme_corp", due_index.FAILED, 30)
        due_index.release(due_index.FAILED)
    assert entries()[id][2] == ""


# What it costs


def settle(scheduler: Any) -> None:
    """All that a scheduler does when it starts is done."""
    while scheduler.tick() < 1:
        pass


@pytest.mark.seam
@pytest.mark.parametrize("tenants_more", [0, 50])
def test_an_idle_tick_is_one_statement(tenants, scheduler, tenants_more):
    names = [f"idle_{n:02}" for n in range(tenants_more)]
    schemas.clone_tenants(names)
    try:
        for name in (*tenants, *names):
            insert(name, LATER, id=1)
        settle(scheduler)
        with on_the_wire() as asked:
            assert scheduler.tick() == scheduler_module.POLL_SECONDS
        assert len(asked) == 1, asked
        assert "tenant_q_dueschedule" in asked[0]
    finally:
        for name in names:
            schemas.drop_tenant(name)
        due_index.bring_up_to_date(due_index.stale_schemas())
        tenancy.forget_tenants()


def fill(count: int, *, due: int = 0) -> None:
    """An index of `count` tenants that are planned, `due` of them now."""
    sql("DELETE FROM tenant_q_dueschedule WHERE schema_name LIKE 'filled_%%'")
    sql(
        "INSERT INTO tenant_q_dueschedule (schema_name, schedule_id, cluster, next_run, due, held) "
        "SELECT 'filled_' || n, n, '', moment, moment, '' "
        "FROM generate_series(1, %s) AS n, LATERAL (SELECT now() + (CASE WHEN n <= %s THEN -n ELSE 3600 + n END) "
        "* interval '1 second' AS moment) AS planned",
        count,
        due,
    )
    sql("VACUUM ANALYZE tenant_q_dueschedule")


@pytest.fixture
def filled(tenants) -> Iterator[None]:
    yield
    fill(0)


def buffers() -> tuple[int, str]:
    """How many pages a look reads, and how."""
    with tenancy.raw_cursor() as cursor:
        text = due_index.look_query().as_string(connection.connection)
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}")
        ((plan,),) = cursor.fetchall()
    root = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return root["Shared Hit Blocks"] + root["Shared Read Blocks"], json.dumps(root)


def test_a_look_reads_as_many_pages_whatever_the_number_of_tenants(filled):
    read = {}
    for count in (1_000, 10_000):
        fill(count)
        buffers()
        read[count], plan = buffers()
        assert "Seq Scan" not in plan
    assert read[1_000] == read[10_000] <= 20, read


def test_what_is_due_costs_what_is_due(filled):
    fill(10_000, due=3)
    assert len([one for one in due_index.look() if one.seconds <= 0]) == 3
    few, _ = buffers()
    assert few <= 30


@pytest.mark.seam
def test_a_pass_asks_as_often_for_one_as_for_fifty(tenants):
    def count_pass() -> int:
        with on_the_wire() as asked:
            assert schedules.fire_due("acme_corp", push) > 0
        return len(asked)

    insert(next_run=PAST)
    count_pass()  # what is cached is
    sql("TRUNCATE acme_corp.django_q_schedule")
    counts = []
    for number in (1, 50):
        for _ in range(number):
            insert(next_run=timezone.now() - timedelta(seconds=1))
        counts.append(count_pass())
        assert due_schemas() == []
    assert counts[0] == counts[1]


def test_a_busy_tick_ends(tenants, scheduler, monkeypatch):
    """After `BUSY_SECONDS`; the next one goes on with those that were not served."""
    settle(scheduler)
    monkeypatch.setattr(scheduler_module, "BUSY_SECONDS", 0.0)
    for name in tenants:
        insert(name, PAST, schedule_type="H")
    fired = []
    for _ in range(6):
        assert scheduler.tick() == 0
        fired.append([get_broker().queue_size(name) for name in tenants])
    assert [sum(one) for one in fired] == [1, 2, 3, 4, 5, 6], "one pass a tick"
    assert fired[2] == [1, 1, 1], "and each tenant once before one is served again"
    assert scheduler.slot.done == 1, "a round that goes on is no tick that looked at everything"


def test_a_busy_tick_ends_at_a_stop(tenants, scheduler, monkeypatch):
    settle(scheduler)
    for name in tenants:
        insert(name, PAST)
    real = schedules.fire_due

    def fire_due(schema: str, push: Any) -> int:
        scheduler.stopping.set()
        return real(schema, push)

    monkeypatch.setattr(schedules, "fire_due", fire_due)
    scheduler.tick()
    assert sum(get_broker().queue_size(name) for name in tenants) == 1


def test_a_backlog_does_not_hide_the_others(tenants, scheduler, monkeypatch):
    """More is due of one tenant than a look sees."""
    settle(scheduler)
    monkeypatch.setattr(due_index, "LOOK", 5)
    monkeypatch.setattr(schedules, "FIRES_A_PASS", 2)
    for n in range(12):
        insert("acme_corp", PAST + timedelta(seconds=n))
    insert("globex_inc", PAST + timedelta(days=1))
    scheduler.tick()
    assert get_broker().queue_size("globex_inc") == 0
    scheduler.tick()
    assert [get_broker().queue_size(name) for name in ("acme_corp", "globex_inc")] == [2, 1]


def test_what_is_left_of_a_pass_is_fired_at_once(tenants, scheduler, monkeypatch):
    """A pass takes a part only, and a schedule that catches up is due again: neither waits for the poll."""
    settle(scheduler)
    monkeypatch.setattr(schedules, "FIRES_A_PASS", 2)
    for _ in range(5):
        insert(next_run=timezone.now() - timedelta(minutes=90), schedule_type="H")
    pauses = []
    while not pauses or pauses[-1] == 0:
        pauses.append(scheduler.tick())
    assert get_broker().counts().queued == 10


def test_looked_once_is_looked_at_everything(tenants, make_scheduler, monkeypatch):
    """`--run-once` ends when nothing is due, however many ticks that takes."""
    monkeypatch.setattr(scheduler_module, "BUSY_SECONDS", 0.0)
    for name in tenants:
        insert(name, PAST, schedule_type="O")
    scheduler = make_scheduler()
    scheduler.once = True
    scheduler.run()
    assert [get_broker().queue_size(name) for name in tenants] == [1, 1, 1]


# Exactly once


class Crash(BaseException):
    """Stands for `kill -9`."""


class Killer:
    """Raises `Crash` at the `at`th step: before or after a statement, or around the push."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps: list[str] = []

    def step(self, what: str) -> None:
        self.steps.append(what)
        if len(self.steps) == self.at:
            raise Crash(what)

    def __call__(self, execute: Any, text: str, parameters: Any, many: bool, context: Any) -> Any:
        self.step(f"before {text[:60]}")
        result = execute(text, parameters, many, context)
        self.step(f"after {text[:60]}")
        return result

    def push(self, packages: Any) -> None:
        self.step("before the push")
        push(packages)
        self.step("before the commit")


@pytest.mark.seam
def test_killed_between_every_two_statements(tenants, worker):
    """A good row, one that ends with this fire and one that fails: each occurrence is one task."""
    fires = {"again": 0, "once": 0, "bad": 0}
    crashed: list[str] = []
    for at in range(1, 1000):
        sql("TRUNCATE acme_corp.django_q_schedule, acme_corp.django_q_task")
        moment = timezone.now() - timedelta(seconds=1)
        insert(next_run=moment, name="again")
        insert(next_run=moment, name="once", schedule_type="O")
        insert(next_run=moment, name="bad", args="(((")
        killer = Killer(at)
        try:
            with connection.execute_wrapper(killer):
                schedules.fire_due("acme_corp", killer.push)
        except Crash as crash:
            crashed.append(str(crash))
            assert due_schemas() == ["acme_corp"], f"lost by a kill {crash}"
            assert schedules.fire_due("acme_corp", push) == 3
        finally:
            connection.set_schema_to_public()
        assert schedules.fire_due("acme_corp", push) == 0
        work(worker)
        with in_schema("acme_corp"):
            for name in fires:
                rows = QUtilities.fetch_task_group(name)
                assert [row.success for row in rows] == [name != "bad"], (name, crashed[-1:])
        assert is_right()
        if at > len(killer.steps):
            break
    assert len(crashed) == len(killer.steps) >= 12, crashed
    kinds = ("SELECT", "UPDATE", "DELETE", "INSERT", "before the push", "before the commit")
    assert all(any(kind in one for one in crashed) for kind in kinds[:3] + kinds[4:]), crashed


@pytest.mark.parametrize("ahead", [2, -2])
def test_the_databases_clock_decides(tenants, monkeypatch, ahead):
    """Two clusters whose clocks are 2 s apart fire the same, at the same moments, and plan the same."""
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(seconds=ahead))
    pushed: list[Package] = []
    sql(
        "INSERT INTO acme_corp.django_q_schedule (func, name, schedule_type, repeats, next_run) VALUES "
        "('tests.tasks.nothing', 'soon', 'H', -1, now() + interval '1 second' + interval '1 minute'), "
        "('tests.tasks.nothing', 'due', 'H', -1, now())"
    )
    assert schedules.fire_due("acme_corp", pushed.extend) == 1
    assert [package.group for package in pushed] == ["due"]


@pytest.mark.parametrize("ahead", [2, -2])
def test_the_databases_clock_says_what_was_missed(tenants, monkeypatch, settings, ahead):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False}
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(seconds=ahead))
    planned = real() - timedelta(minutes=60) + timedelta(seconds=1)  # the second one is due in a second
    id = insert(next_run=planned, schedule_type="H")
    schedules.fire_due("acme_corp", lambda _: None)
    moment = entries()[id][1]
    assert moment > planned
    assert (moment - planned) % timedelta(hours=1) == timedelta(0)
    ((is_first,),) = sql("SELECT %s > now() AND %s - interval '1 hour' <= now()", moment, moment)
    assert is_first


# Types and time


@pytest.mark.parametrize("catch_up", [True, False])
@pytest.mark.parametrize("kind", [*recurrence.Kind])
def test_catching_up(tenants, settings, catch_up, kind):
    """With it each missed run is one fire, without it only one is, and the next is the first that is not missed."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": catch_up}
    days = {"I": 1, "H": 1, "D": 5, "C": 5, "W": 30, "BW": 60, "M": 100, "BM": 200, "Q": 300, "Y": 1100, "O": 1}[kind]
    fields = {"minutes": 300} if kind == "I" else {"cron": "15 4 * * *"} if kind == "C" else {}
    planned = timezone.now().replace(second=0, microsecond=0) - timedelta(days=days)
    if kind == "C":
        planned = planned.replace(hour=4, minute=15)
    id = insert(next_run=planned, schedule_type=kind, **fields)
    expected = [planned]
    while kind != "O" and expected[-1] <= timezone.now():
        expected.append(recurrence.next_run(kind, expected[-1], zone=ZoneInfo("UTC"), **fields))
    pushed: list[Package] = []
    fires = 0
    while schedules.fire_due("acme_corp", pushed.extend):
        fires += 1
    assert (
        fires == len({package.id for package in pushed}) == (len(expected) - 1 if catch_up else 1) if kind != "O" else 1
    )
    if kind == "O":
        assert entries() == {}
    else:
        assert fires > 2 or not catch_up
        assert entries()[id][1] == expected[-1]


@pytest.mark.parametrize(
    ("zone", "begin"),
    [
        ("Europe/Berlin", datetime(2025, 3, 28, 6)),
        ("Europe/Berlin", datetime(2025, 10, 24, 6)),
        ("America/New_York", datetime(2025, 3, 7, 6)),
        ("America/New_York", datetime(2025, 10, 31, 6)),
    ],
)
@pytest.mark.parametrize("fields", [{"schedule_type": "D"}, {"schedule_type": "C", "cron": "0 6 * * *"}])
def test_six_in_the_morning_stays_six_in_the_morning(tenants, settings, zone, begin, fields):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"time_zone": zone}
    local = ZoneInfo(zone)
    id = insert(next_run=begin.replace(tzinfo=local), **fields)
    seen = []
    for _ in range(4):
        seen.append(entries()[id][1].astimezone(local).replace(tzinfo=None))
        assert schedules.fire_due("acme_corp", lambda _: None) == 1
    assert seen == [begin + timedelta(days=n) for n in range(4)]


# Spread


def offsets(**settings_of_it: Any) -> dict[tuple[str, int], float]:
    pushed: list[Package] = []
    for name in schemas.TENANTS:
        sql(f"UPDATE {name}.django_q_schedule SET next_run = %s", PAST)
        schedules.fire_due(name, pushed.extend)
    return {(package.schema, int(package.group)): package.delay for package in pushed}


def test_spread(tenants, settings):
    """A stable place in the span for each tenant's schedule, which differs between tenants with equal ids."""
    for name in tenants:
        for id in range(1, 31):
            insert(name, PAST, id=id)
    assert set(offsets().values()) == {0}
    settings.TENANT_Q = {"schedule_spread": 600}
    found = offsets()
    assert found == offsets(), "always the same"
    assert len(set(found.values())) == 90
    assert all(0 <= delay < 600 for delay in found.values())
    assert sum(delay < 300 for delay in found.values()) in range(25, 66), "over all of the span"
    settings.TENANT_Q = {"schedule_spread": 60}
    assert offsets() == {key: pytest.approx(delay / 10) for key, delay in found.items()}


def test_spread_comes_on_top_of_a_delay_and_waits_in_the_broker(tenants, settings, scheduler):
    settings.TENANT_Q = {"schedule_spread": 600}
    id = insert(next_run=PAST, kwargs="{'q_options': {'delay': 1000}}")
    pushed: list[Package] = []
    schedules.fire_due("acme_corp", pushed.extend)
    assert 1000 <= pushed[0].delay < 1600
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s, kwargs = NULL WHERE id = %s", PAST, id)
    scheduler.tick()
    assert (get_broker().counts().queued, get_broker().counts().delayed) == (0, 1)


# The command


def msschedules(*arguments: str) -> str:
    out = StringIO()
    call_command("msschedules", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def planned(tenants, worker) -> dict[str, int]:
    """Of two tenants: one that has succeeded, one that has failed, one that has not run."""
    ids = {
        "daily": insert(next_run=timezone.now(), name="daily"),
        "broken": insert("globex_inc", timezone.now(), func="tests.tasks.fail", name="broken", schedule_type="W"),
        "cron": insert(next_run=LATER, schedule_type="C", cron="0 6 * * 1-5"),
    }
    for name in ("acme_corp", "globex_inc"):
        schedules.fire_due(name, push)
    work(worker)
    return ids


@pytest.mark.seam
def test_the_table_of_what_is_next(planned):
    head, *rows = msschedules().splitlines()
    assert head.split() == ["schema", "name", "function", "type", "next", "run", "last", "held"]
    columns = [row.split("  ") for row in rows]
    cells = [[cell.strip() for cell in row if cell] for row in columns]
    assert [row[:4] for row in cells] == [
        ["acme_corp", "daily", "tests.tasks.nothing", "daily"],
        ["globex_inc", "broken", "tests.tasks.fail", "weekly"],
        ["acme_corp", str(planned["cron"]), "tests.tasks.nothing", "cron 0 6 * * 1-5"],
    ]
    assert [row[5:] for row in cells] == [["success", "-"], ["failure", "-"], ["-", "-"]]
    assert cells[2][4] == "2999-01-01 00:00:00+00:00"
    assert "\x1b" not in msschedules(), "colours are for terminals"


def test_json_limit_and_schema(planned):
    (first,) = json.loads(msschedules("--json", "--limit", "1"))
    assert (first["schema"], first["id"], first["last_result"]) == ("acme_corp", planned["daily"], "success")
    assert (first["function"], first["type"], first["held"]) == ("tests.tasks.nothing", "daily", None)
    assert datetime.fromisoformat(first["next_run"]) > timezone.now()
    found = json.loads(msschedules("--json", "--schema", "globex_inc"))
    assert [one["name"] for one in found] == ["broken"]
    assert "--limit N lists more" in msschedules("--limit", "1")
    assert msschedules("--schema", "initech_llc") == "Nothing is planned in initech_llc.\n"


def test_it_asks_only_the_schemas_it_shows(planned):
    with on_the_wire() as asked:
        msschedules("--limit", "1")
    assert not any("globex_inc" in text for text in asked)
    assert any("acme_corp" in text for text in asked)


def test_why_a_schedule_is_held_is_told(planned, unlimited, scheduler):
    policies.change("acme_corp", actor="test", act="pause", paused=True)
    sql("UPDATE acme_corp.django_q_schedule SET next_run = now()")
    scheduler.tick()
    assert {one["held"] for one in json.loads(msschedules("--json", "--schema", "acme_corp"))} == {"paused"}


def test_a_schema_that_is_gone_is_listed_without_details(spare):
    insert(spare, id=1)
    sql("DROP SCHEMA spare CASCADE")
    (one,) = json.loads(msschedules("--json"))
    assert (one["schema"], one["id"], one["function"]) == ("spare", 1, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--schema", "nobody"), "No tenant has the schema name 'nobody'; create it"),
        (("--limit", "0"), "'0' is not a whole number of at least 1"),
        (("--limit", "x"), "'x' is not a whole number"),
        (("--repair",), "--repair belongs to `msschedules --check`; give both"),
        (("--check", "--limit", "3"), "leave one of them out"),
    ],
)
def test_what_is_wrong_with_the_call_is_told(tenants, arguments, words):
    with pytest.raises(CommandError, match=words.replace("(", r"\(")):
        msschedules(*arguments)


@pytest.mark.seam
def test_check_and_repair(spare):
    assert msschedules("--check") == "The index agrees with the schedules of 4 schemas.\n"
    write_past_the_triggers(
        "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) VALUES ('f', 'D', -1, now())"
    )
    sql("ALTER TABLE globex_inc.django_q_schedule DISABLE TRIGGER USER")
    sql("DROP SCHEMA spare CASCADE")
    out = StringIO()
    with pytest.raises(CommandError, match="wrong about 3 schemas: `msschedules --check --repair`") as error:
        call_command("msschedules", "--check", stdout=out)
    assert error.value.returncode == 1
    assert out.getvalue().splitlines() == [
        "acme_corp: 1 schedule is wrong in the index",
        "globex_inc: not in the index as it is now, or without its triggers",
        "spare: the schema, or its table django_q_schedule, is gone, and still in the index",
    ]
    assert msschedules("--check", "--schema", "initech_llc") == "The index agrees with the schedules of 1 schema.\n"
    assert msschedules("--check", "--repair", "--schema", "acme_corp") == (
        "acme_corp: 1 schedule is wrong in the index; repaired\n"
    )
    answer = json.loads(msschedules("--check", "--repair", "--json"))
    assert [(one["schema"], one["repaired"]) for one in answer["wrong"]] == [("globex_inc", True), ("spare", True)]
    assert msschedules("--check") == "The index agrees with the schedules of 3 schemas.\n"


def test_what_cannot_be_repaired_now(tenants):
    sql("ALTER TABLE acme_corp.django_q_schedule DISABLE TRIGGER USER")
    with elsewhere() as migrating:
        migrating.execute("LOCK TABLE acme_corp.django_q_schedule IN ROW EXCLUSIVE MODE")
        with pytest.raises(CommandError, match=r"still wrong about 1 schema \(acme_corp\)") as error:
            msschedules("--check", "--repair")
        assert error.value.returncode == 1
    assert msschedules("--check", "--repair").endswith("repaired\n")


def test_tables_that_are_not_migrated(tenants):
    sql("ALTER TABLE tenant_q_dueschedule RENAME TO away")
    try:
        for ask in (preflight.survey, msschedules):
            with pytest.raises((ConfigurationError, CommandError), match=r"no table tenant_q_dueschedule.*--shared"):
                ask()
    finally:
        sql("ALTER TABLE away RENAME TO tenant_q_dueschedule")
    sql("ALTER FUNCTION tenant_q_install_index(text) RENAME TO away")
    try:
        with pytest.raises(ConfigurationError, match="no function tenant_q_install_index"):
            preflight.survey()
    finally:
        sql("ALTER FUNCTION away(text) RENAME TO tenant_q_install_index")


def test_every_schema_is_right_at_the_end():
    """What the tests before did to schemas, they have put right."""
    connections["default"].ensure_connection()
    assert due_index.stale_schemas() == []
