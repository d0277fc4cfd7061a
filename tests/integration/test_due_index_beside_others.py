"""The triggers of the due index couple no tenants, and cost a tenant's transaction neither an error nor a scan."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from psycopg import IsolationLevel

from tenant_q.cluster import scheduler_session
from tenant_q.schedules import due_index, index_upkeep
from tests.integration.conftest import sql
from tests.integration.planning import PAST, entries, insert, is_right

A, B = "acme_corp", "globex_inc"
SERIALIZABLE, REPEATABLE_READ = IsolationLevel.SERIALIZABLE, IsolationLevel.REPEATABLE_READ

INSERT = (
    "INSERT INTO {schema}.django_q_schedule (id, func, schedule_type, repeats, next_run) "
    "VALUES ({id}, 'tests.tasks.nothing', 'D', -1, now() + interval '1 minute')"
)
CHANGES = {
    "insert": [INSERT],
    "move": ["UPDATE {schema}.django_q_schedule SET next_run = next_run + interval '1 day' WHERE id = 1"],
    "pause": ["UPDATE {schema}.django_q_schedule SET next_run = NULL WHERE id = 1"],
    "end": ["UPDATE {schema}.django_q_schedule SET repeats = 0 WHERE id = 1"],
    "rename": ["UPDATE {schema}.django_q_schedule SET id = 1000 WHERE id = 1"],
    "delete": ["DELETE FROM {schema}.django_q_schedule WHERE id = 1"],
    "replace": ["DELETE FROM {schema}.django_q_schedule WHERE id = 1", INSERT],
    "truncate": ["TRUNCATE {schema}.django_q_schedule", INSERT],
}


@contextmanager
def session(level: IsolationLevel) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(os.environ["DATABASE_URL"]) as raw:
        raw.isolation_level = level
        yield raw
        raw.rollback()


def settle(scheduler: Any) -> None:
    """What a user's transaction left to the scheduler is done when it has been woken."""
    for _ in range(5):
        scheduler.tick()


# Users in SERIALIZABLE


@pytest.mark.seam
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("has_statistics", [False, True])
def test_transactions_of_two_tenants_do_not_fail_each_other(tenants, scheduler, change, has_statistics):
    for schema in (A, B):
        for id in range(1, 4):
            insert(schema, id=id)
    if has_statistics:
        sql("ANALYZE tenant_q_dueschedule, tenant_q_indexedschema")
    settle(scheduler)
    for number in range(2):
        with session(SERIALIZABLE) as one, session(SERIALIZABLE) as other:
            for statement in CHANGES[change]:
                for raw, schema in ((one, A), (other, B)):
                    raw.execute(statement.format(schema=schema, id=100 + number))
            one.commit()
            other.commit()
        settle(scheduler)
        assert is_right(A)
        assert is_right(B)


def test_many_tenants_at_once(tenants, scheduler):
    with ExitStack() as stack:
        users = [(stack.enter_context(session(SERIALIZABLE)), name) for name in tenants for _ in range(3)]
        for number, (raw, name) in enumerate(users):
            raw.execute(INSERT.format(schema=name, id=number))
        for raw, _ in users:
            raw.commit()
    assert sum(len(entries(name)) for name in tenants) == len(users)


# Users with an old snapshot


@pytest.mark.parametrize("level", [REPEATABLE_READ, SERIALIZABLE])
@pytest.mark.parametrize("act", ["hold", "install", "release"])
@pytest.mark.parametrize("change", ["move", "pause", "delete", "rename"])
def test_what_the_scheduler_writes_fails_no_users_transaction(tenants, scheduler, level, act, change):
    settle(scheduler)
    insert(A, PAST, id=1, repeats=-1)
    if act == "release":
        due_index.hold(A, due_index.FAILED, 30)
    with session(level) as user:
        user.execute(f"SELECT count(*) FROM {A}.django_q_schedule")
        match act:
            case "hold":
                due_index.hold(A, due_index.FAILED, 30)
            case "install":
                assert index_upkeep.install(A)
            case "release":
                due_index.release(due_index.FAILED)
        for statement in CHANGES[change]:
            user.execute(statement.format(schema=A))
        user.commit()
    settle(scheduler)
    assert is_right(A)


def test_a_scheduler_that_was_away_meanwhile_puts_it_right_when_it_listens_again(tenants, scheduler):
    """Nobody kept the notification for it."""
    settle(scheduler)
    insert(A, PAST, id=1)
    with session(REPEATABLE_READ) as user:
        user.execute(f"SELECT count(*) FROM {A}.django_q_schedule")
        due_index.hold(A, due_index.FAILED, 30)
        user.execute(CHANGES["delete"][0].format(schema=A))
        connection.close()
        user.commit()
    assert not is_right(A)
    settle(scheduler)
    assert is_right(A)


def test_a_notification_of_a_schema_that_is_none_of_ours_is_ignored(tenants, scheduler, monkeypatch):
    """Whoever may connect may notify."""
    settle(scheduler)
    compared = []
    monkeypatch.setattr(index_upkeep, "errors", lambda schema, _: compared.append(schema))
    for name in ("nobody", "pg_catalog", B):
        sql("SELECT pg_notify('tenant_q_unsure', %s)", name)
    settle(scheduler)
    assert compared == [B]


def test_a_session_that_the_scheduler_replaces_itself_loses_no_notification(tenants, scheduler, monkeypatch):
    settle(scheduler)
    insert(A, PAST, id=1)
    with session(REPEATABLE_READ) as user:
        user.execute(f"SELECT count(*) FROM {A}.django_q_schedule")
        due_index.hold(A, due_index.FAILED, 30)
        user.execute(CHANGES["delete"][0].format(schema=A))
        user.commit()
    compared = []
    monkeypatch.setattr(index_upkeep, "errors", lambda schema, _: compared.append(schema))
    monkeypatch.setattr(scheduler_session, "TABLES_A_SESSION", 0)
    before = connection.connection
    scheduler.tick()
    assert connection.connection is not before
    assert before.closed
    assert compared == [A], "and not all of them again"


# What it costs


def reads(table: str) -> int:
    """How many rows this transaction has read by scans of a whole table."""
    query = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE schemaname = 'public' AND relname = %s"
    return int(sql(query, table)[0][0])


@pytest.mark.parametrize("change", ["INSERT", "UPDATE", "DELETE"])
def test_many_schedules_at_once_are_no_scans(tenants, change):
    """While statistics say that the index is empty, a scan of all of it looks cheap."""
    count = 300
    sql("TRUNCATE tenant_q_dueschedule")
    sql("VACUUM ANALYZE tenant_q_dueschedule, tenant_q_indexedschema")
    connection.close()  # with the plans that it keeps
    statements = {
        "INSERT": (
            f"INSERT INTO {A}.django_q_schedule (id, func, schedule_type, repeats, next_run) "
            f"SELECT n, 'f', 'D', -1, now() FROM generate_series(1, {count}) AS n"
        ),
        "UPDATE": f"UPDATE {A}.django_q_schedule SET next_run = now()",
        "DELETE": f"DELETE FROM {A}.django_q_schedule",
    }
    if change != "INSERT":
        sql(statements["INSERT"])
    with transaction.atomic():
        before = {table: reads(table) for table in ("tenant_q_dueschedule", "tenant_q_indexedschema")}
        begun = time.monotonic()
        sql(statements[change])
        print(f"\n{change} of {count} schedules: {time.monotonic() - begun:.3f} s")
        assert {table: reads(table) for table in before} == before


# Entries that no schema has


@pytest.fixture
def orphans(tenants) -> Iterator[None]:
    for number in range(3):
        sql(
            "INSERT INTO tenant_q_dueschedule (schema_name, schedule_id, cluster, next_run, due, held) "
            "VALUES ('gone', %s, '', now(), now(), '')",
            number,
        )
    yield
    index_upkeep.forget("gone")


def test_entries_of_a_schema_that_is_gone_are_forgotten(orphans, make_scheduler):
    assert index_upkeep.stale_schemas() == [("gone", True)]
    make_scheduler().tick()
    assert (index_upkeep.stale_schemas(), entries("gone")) == ([], {})


def test_the_command_says_so_and_removes_them(orphans):
    said = StringIO()
    with pytest.raises(CommandError):
        call_command("msschedules", "--check", stdout=said)
    assert "gone" in said.getvalue()
    said = StringIO()
    call_command("msschedules", "--check", "--repair", stdout=said)
    assert "gone" in said.getvalue()
    assert entries("gone") == {}
    call_command("msschedules", "--check", stdout=StringIO())
