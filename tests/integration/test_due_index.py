"""The due index is what the tenants' schedules say, whoever writes them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import scheduler as scheduler_module
from tenant_q.cluster import scheduler_firing
from tenant_q.exceptions import DatabaseAway
from tenant_q.schedules import due_index, index_upkeep
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import sql
from tests.integration.planning import (
    LATER,
    PAST,
    due_schemas,
    elsewhere,
    entries,
    insert,
    is_right,
    write_past_the_triggers,
)

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


@pytest.mark.parametrize("column", ["id", "next_run", "repeats", "cluster"])
def test_a_migration_may_change_a_column(spare, column):
    """A trigger that named its columns would keep their types from being changed."""
    old = {"id": "integer", "next_run": "timestamptz", "repeats": "integer", "cluster": "varchar(100)"}[column]
    new = {"id": "bigint", "next_run": "timestamptz(0)", "repeats": "bigint", "cluster": "varchar(200)"}[column]
    insert(spare, id=1)
    for type in (new, old):
        sql(f"ALTER TABLE spare.django_q_schedule ALTER COLUMN {column} TYPE {type}")
        sql("UPDATE spare.django_q_schedule SET next_run = next_run + interval '1 day'")
        assert is_right(spare)
    assert list(entries(spare)) == [1]


@pytest.mark.parametrize("column", ["id", "next_run", "repeats", "cluster"])
def test_a_tenant_edits_schedules_of_another_shape(spare, column):
    """A column was removed: what the trigger can no longer do is no error of the tenant's."""
    insert(spare, id=1)
    sql(f"ALTER TABLE spare.django_q_schedule DROP COLUMN {column}")
    sql("UPDATE spare.django_q_schedule SET name = 'n'")
    sql("DELETE FROM spare.django_q_schedule")


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


@pytest.mark.seam
def test_only_what_comes_earlier_than_before_and_within_the_hour_is_notified(tenants, told):
    """A scheduler looks twice a minute, and who notifies waits for all others who do."""
    soon, hour = datetime.now(UTC) + timedelta(minutes=30), timedelta(hours=1)
    first = insert(next_run=LATER)
    assert told() == [], "it is looked at in time"
    insert("globex_inc", soon)
    assert told() == [""]
    sql("UPDATE globex_inc.django_q_schedule SET next_run = %s", soon + timedelta(minutes=1))
    sql("UPDATE globex_inc.django_q_schedule SET name = 'n', args = '1'")
    assert told() == [], "it comes later than before"
    sql("UPDATE globex_inc.django_q_schedule SET next_run = %s", soon)
    assert told() == [""]
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s WHERE id = %s", soon - hour, first)
    assert told() == [""]
    sql("UPDATE globex_inc.django_q_schedule SET cluster = 'long'")
    assert told() == ["long"], "another cluster's scheduler is to know"
    sql("UPDATE globex_inc.django_q_schedule SET repeats = 0")
    assert told() == []
    sql("UPDATE globex_inc.django_q_schedule SET repeats = 3")
    assert told() == ["long"]
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


def test_a_lost_notification_is_made_up_for_by_the_next_poll(tenants, scheduler, monkeypatch):
    monkeypatch.setattr(scheduler_module, "POLL_SECONDS", 0.05)
    pause = scheduler.tick()
    connection.cursor().execute("UNLISTEN *")
    with elsewhere() as other:
        other.execute(
            "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) "
            "VALUES ('tests.tasks.nothing', 'D', -1, now())"
        )
        other.commit()
    assert scheduler.stopping.wait(pause, *scheduler.files()) == [], "no notification came"
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1


def test_a_lost_session_is_told_and_listened_on_anew(tenants, scheduler):
    scheduler.tick()
    schemas.terminate(connection.connection.info.backend_pid)
    with pytest.raises(DatabaseAway), tenancy.detect_outages():
        scheduler.tick()
    assert scheduler.files() == []
    scheduler.tick()
    assert scheduler.files() == [connection.connection.fileno()]
    channels = {channel for (channel,) in sql("SELECT * FROM pg_listening_channels()")}
    assert channels == {due_index.CHANNEL, due_index.UNSURE}


# What fires no trigger


@pytest.mark.seam
def test_a_restored_schema(spare, make_scheduler):
    insert(spare, id=1)
    sql(f"CREATE TABLE {spare}.restored (LIKE {spare}.django_q_schedule INCLUDING ALL)")
    sql(
        f"INSERT INTO {spare}.restored (id, func, schedule_type, repeats, next_run) VALUES (7, 'f', 'D', -1, %s)", LATER
    )
    sql(f"DROP TABLE {spare}.django_q_schedule")
    sql(f"ALTER TABLE {spare}.restored RENAME TO django_q_schedule")
    assert index_upkeep.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert index_upkeep.stale_schemas() == []
    assert list(entries(spare)) == [7]
    sql(f"DELETE FROM {spare}.django_q_schedule")
    assert entries(spare) == {}, "its triggers are there again"


def test_a_renamed_schema(spare, make_scheduler):
    insert(spare, id=1)
    sql(f"ALTER SCHEMA {spare} RENAME TO moved")
    sql(f"UPDATE {tenancy.tenant_model()._meta.db_table} SET schema_name = 'moved' WHERE schema_name = 'spare'")
    assert sorted(index_upkeep.stale_schemas()) == [("moved", False), (spare, True)]
    make_scheduler().tick()
    assert index_upkeep.stale_schemas() == []
    assert (entries(spare), list(entries("moved"))) == ({}, [1])
    sql("UPDATE moved.django_q_schedule SET repeats = 0")
    assert entries("moved") == {}


@pytest.mark.parametrize("how", ["DROP SCHEMA {} CASCADE", "DROP TABLE {}.django_q_schedule"])
def test_a_dropped_schema(spare, make_scheduler, how):
    insert(spare, id=1)
    sql(how.format(spare))
    assert index_upkeep.stale_schemas() == [(spare, True)]
    make_scheduler().tick()
    assert (index_upkeep.stale_schemas(), entries(spare)) == ([], {})
    assert spare not in index_upkeep.indexed_schemas()


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
    assert index_upkeep.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert index_upkeep.stale_schemas() == []
    assert list(entries(spare)) == [1]
    insert(spare, id=2)
    assert list(entries(spare)) == [1, 2]
    sql("TRUNCATE spare.django_q_schedule")
    assert entries(spare) == {}


def test_a_scheduler_that_starts_finds_what_was_written_past_the_triggers(tenants, make_scheduler):
    write_past_the_triggers(
        "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) "
        "VALUES ('tests.tasks.nothing', 'D', -1, now())"
    )
    assert index_upkeep.stale_schemas() == []
    assert index_upkeep.errors("acme_corp") == 1
    make_scheduler().tick()
    assert is_right()
    assert get_broker().queue_size("acme_corp") == 1


def test_what_is_due_in_the_index_alone_does_not_spin_the_scheduler(tenants, scheduler, caplog):
    """And is put right after some rounds."""
    scheduler.tick()
    insert(next_run=PAST)
    write_past_the_triggers("DELETE FROM acme_corp.django_q_schedule")
    with caplog.at_level(logging.WARNING, "tenant_q"):
        pauses = [scheduler.tick() for _ in range(scheduler_firing.DOUBTFUL_ROUNDS)]
    assert pauses[:-1] == [pytest.approx(scheduler_firing.AGAIN_SECONDS * 2**n) for n in range(len(pauses) - 1)]
    assert pauses[-1] == 0, "a correction is notified"
    assert entries() == {}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["Corrected the due index, which was wrong about acme_corp"]
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
        assert "newcomer" not in index_upkeep.indexed_schemas()
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()


def test_a_tenant_that_is_deleted_leaves_the_index_though_its_schema_stays(spare):
    insert(spare, id=1)
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    assert list(entries(spare)) == []


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
            assert index_upkeep.bring_up_to_date([("leaving", False)]) == [], "it went after it was found"
            make_scheduler().tick()
        assert "leaving" not in index_upkeep.indexed_schemas()
        due_index.release(due_index.FAILED)
        make_scheduler().tick()
        assert get_broker().queue_size("globex_inc") == 1
    finally:
        schemas.drop_tenant("leaving")
        tenancy.forget_tenants()
        index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())


def test_a_table_that_is_locked_is_installed_later(spare, make_scheduler, caplog):
    sql("DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule")
    insert("acme_corp", PAST)
    scheduler = make_scheduler()
    with elsewhere() as migrating, caplog.at_level(logging.WARNING, "tenant_q"):
        migrating.execute("LOCK TABLE spare.django_q_schedule IN ROW EXCLUSIVE MODE")
        scheduler.tick()
    assert caplog.records[0].getMessage() == ("Schedules of spare are not in the index yet: its table is locked")
    assert get_broker().queue_size("acme_corp") == 1, "nobody else waits"
    assert index_upkeep.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert index_upkeep.stale_schemas() == []


def test_an_installation_keeps_no_reader_out(tenants):
    with elsewhere() as reader:
        reader.execute("SELECT * FROM acme_corp.django_q_schedule")
        assert index_upkeep.install("acme_corp")
