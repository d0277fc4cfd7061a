"""The attacker is the SQL of a task, in the session that all tenants' tasks share.

It has the cluster's own role. What it writes into tables that it names is not prevented where tenants share a role.
That it reaches tasks which come later, of other tenants, is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import preflight
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.schedules import due_index, index_upkeep
from tenant_q.scrubbing import sessions
from tenant_q.tenancy import in_schema, role_settings
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until
from tests.integration.conftest import sql, work
from tests.integration.planning import insert

SQL = "tests.tasks_hostile._execute"
OTHER = "tq_test_other"


@contextmanager
def elsewhere() -> Iterator[psycopg.Connection[Any]]:
    """A session that is none of Django's, with none of the settings of role and database."""
    path = "-c search_path=public -c role=none -c statement_timeout=0 -c default_transaction_read_only=off"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, options=path) as raw:
        yield raw


def settings_of_roles() -> list[tuple[Any, ...]]:
    with elsewhere() as raw:
        return raw.execute(
            "SELECT setdatabase, setrole, entry FROM pg_db_role_setting, unnest(setconfig) AS entry ORDER BY 1, 2, 3"
        ).fetchall()


@pytest.fixture
def clean(tenants) -> Iterator[None]:
    """Nothing of it is left for the tests that follow."""
    connection.ensure_connection()
    database = connection.settings_dict["NAME"]
    with elsewhere() as raw:
        raw.execute(f"CREATE ROLE {OTHER}")
    yield
    role_settings.unwatch_role_settings()
    role_settings.forget()
    connections.close_all()
    with elsewhere() as raw:
        for whose in ("ROLE CURRENT_USER", f'ROLE CURRENT_USER IN DATABASE "{database}"', f'DATABASE "{database}"'):
            raw.execute(f"ALTER {whose} RESET ALL")
        raw.execute("ALTER ROLE ALL RESET ALL")
        raw.execute(f"DROP ROLE {OTHER}")


@pytest.fixture
def started(clean) -> Callable[[], None]:
    """Do in this process what a cluster does when it starts, and what each process does that it forks."""

    def start() -> None:
        connections.close_all()
        role_settings.note_role_settings()
        role_settings.watch_role_settings()
        connections.close_all()

    return start


def show(name: str) -> str:
    connection.ensure_connection()
    with psycopg.ClientCursor(connection.connection) as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


ROLE = 'ROLE "postgres"'
SETTINGS = {
    "search_path": ("search_path = acme_corp, public", '"$user", public'),
    "statement_timeout": ("statement_timeout = '1min'", "0"),
    "default_transaction_read_only": ("default_transaction_read_only = on", "off"),
    "role": (f"role = {OTHER}", "none"),
    "session_replication_role": ("session_replication_role = replica", "origin"),
    "datestyle": ("datestyle = 'German'", "ISO, MDY"),
    "work_mem": ("work_mem = '64kB'", "4MB"),
    "evil.key": ("evil.key = '1'", ""),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("whose", ["ROLE CURRENT_USER", "ROLE CURRENT_USER IN DATABASE {}", "DATABASE {}", "ROLE ALL"])
def test_a_setting_of_the_role_is_overridden_and_named(started, caplog, whose, name):
    started()
    text, value = SETTINGS[name]
    database = f'"{connection.settings_dict["NAME"]}"'
    before = settings_of_roles()
    with elsewhere() as raw:
        raw.execute(f"ALTER {whose.format(database)} SET {text}")
    with caplog.at_level(logging.ERROR, "tenant_q"):
        assert show(name) == value
        sessions.watch()
        with connection.cursor() as cursor:
            cursor.execute("SET work_mem = '1MB'")
        sessions.clean_up()
        assert show(name) == value, "also in a session that was scrubbed"
    (record,) = caplog.records
    statement = record.getMessage().partition("run ")[2].partition(";")[0]
    quoted = ".".join(f'"{part}"' for part in name.split("."))
    assert statement == f"ALTER {whose.format(database)} RESET {quoted}".replace("CURRENT_USER", '"postgres"')
    with elsewhere() as raw:
        raw.execute(statement)
    assert settings_of_roles() == before


def test_a_limit_that_ends_every_statement_is_overridden_too(started, monkeypatch):
    started()
    with elsewhere() as raw:
        raw.execute("ALTER ROLE CURRENT_USER SET statement_timeout = '250ms'")
    execute, late = psycopg.ClientCursor.execute, iter(["opened", "opened"])

    def slow(cursor, query, *args, **kwargs):
        """The first statements that are neither Django's nor the scrub's reach the server when the limit is over."""
        if type(cursor) is psycopg.ClientCursor and "CLOSE ALL" not in query and next(late, None):
            query = "SELECT pg_sleep(5)"
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.ClientCursor, "execute", slow)
    connection.ensure_connection()
    sessions.watch()
    with connection.cursor() as cursor:
        cursor.execute("SET work_mem = '1MB'")
    late = iter(["scrubbed", "scrubbed"])
    sessions.clean_up()
    assert next(late, None) is None
    assert show("statement_timeout") == "0"


@pytest.mark.parametrize("how", ["SET search_path = acme_corp", "RESET search_path"])
def test_what_the_operator_had_set_before_is_kept(started, caplog, how):
    with elsewhere() as raw:
        raw.execute(
            "ALTER ROLE CURRENT_USER SET search_path = public, \"$user\"; ALTER ROLE CURRENT_USER SET work_mem = '5MB'"
        )
    before = settings_of_roles()
    started()
    with caplog.at_level(logging.ERROR, "tenant_q"):
        assert (show("search_path"), show("work_mem")) == ('public, "$user"', "5MB")
        assert caplog.records == []
        with elsewhere() as raw:
            raw.execute(f"ALTER ROLE CURRENT_USER {how}")
        connections.close_all()
        assert (show("search_path"), show("work_mem")) == ('public, "$user"', "5MB")
    (record,) = caplog.records
    statement = record.getMessage().partition("run ")[2].partition(";")[0]
    with elsewhere() as raw:
        raw.execute(statement)
    assert settings_of_roles() == before


def test_what_was_set_before_is_shown_when_a_cluster_starts(clean):
    database = f'"{connection.settings_dict["NAME"]}"'
    for whose in ("ROLE CURRENT_USER", f"ROLE CURRENT_USER IN DATABASE {database}", f"DATABASE {database}"):
        with elsewhere() as raw:
            raw.execute(f"ALTER {whose} SET search_path = acme_corp; ALTER {whose} SET work_mem = '5MB'")
        connections.close_all()
        before = settings_of_roles()
        (warning,) = [one for one in preflight.survey().warnings if "for each session" in one]
        assert warning.startswith("search_path is set to 'acme_corp' for each session of the cluster's role.")
        assert settings_of_roles() == before, "it is the operator's"
        with elsewhere() as raw:
            raw.execute(warning.partition("run ")[2].partition(";")[0])
            raw.execute(f"ALTER {whose} RESET work_mem")
    connections.close_all()
    assert settings_of_roles() == []
    assert [one for one in preflight.survey().warnings if "for each session" in one] == []


def test_the_time_zone_stays_djangos(started):
    started()
    with elsewhere() as raw:
        raw.execute("ALTER ROLE CURRENT_USER SET timezone = 'Asia/Kolkata'")
    for _ in range(2):
        assert show("timezone") == "UTC"
        sessions.watch()
        connection.cursor().execute("SELECT 1")
        sessions.clean_up()


def test_a_role_that_the_project_assumes_stays(started, monkeypatch):
    monkeypatch.setitem(
        connection.settings_dict, "OPTIONS", connection.settings_dict["OPTIONS"] | {"assume_role": OTHER}
    )
    started()
    with elsewhere() as raw:
        raw.execute("ALTER ROLE CURRENT_USER SET role = none")
    assert show("role") == OTHER
    sessions.watch()
    connection.connection.execute("RESET ROLE")
    sessions.clean_up()
    assert show("role") == OTHER


def test_it_costs_a_query_a_session_and_nothing_a_task(started, monkeypatch):
    started()
    asked = []
    monkeypatch.setattr(
        role_settings, "_read", lambda cursor, real=role_settings._read: asked.append(1) or real(cursor)
    )
    for _ in range(3):
        connection.ensure_connection()
        sessions.watch()
        connection.cursor().execute("SELECT 1")
        sessions.clean_up()
    assert asked == [1]


@pytest.mark.seam
def test_a_cluster_overrides_what_a_task_leaves(clean, mscluster):
    cluster = mscluster("--workers", "1")
    with in_schema("acme_corp"):
        QUtilities.add_async_task(SQL, "ALTER ROLE CURRENT_USER SET work_mem = '64kB'")
        wait_until(lambda: schemas.count_tasks("acme_corp") == 1)
        QUtilities.add_async_task("tests.tasks_hostile.close_connection")
        wait_until(lambda: schemas.count_tasks("acme_corp") == 2)
    with in_schema("globex_inc"):
        id = QUtilities.add_async_task("tests.tasks.setting", "work_mem")
        assert QUtilities.get_result(id, wait=30_000) == "4MB"
    wait_until(lambda: 'ALTER ROLE "postgres" RESET "work_mem";' in cluster.log)
    assert "ERROR" in cluster.log


# What a task leaves in the database and in the session


@pytest.fixture
def prize(clean) -> Iterator[Callable[[], list[Any]]]:
    """A table; a row in it means that code left in a tenant's schema was called by the cluster itself."""
    sql("CREATE TABLE public.tq_test_prize (winner text)")
    yield lambda: sql("SELECT * FROM public.tq_test_prize")
    connection.set_schema_to_public()
    sql("DROP TABLE public.tq_test_prize")
    sql("DROP SCHEMA IF EXISTS tq_test_left CASCADE")
    for name in (
        "now()",
        "json_populate_recordset(acme_corp.django_q_task, text)",
        "json_populate_recordset(acme_corp.django_q_task, json)",
        "set_config(varchar, varchar, boolean)",
        "to_regclass(varchar)",
        "current_schema()",
    ):
        sql(f"DROP FUNCTION IF EXISTS acme_corp.{name} CASCADE")


SHADOW = """
CREATE FUNCTION acme_corp.{} LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.tq_test_prize VALUES ('{}'); RETURN {}; END$$
"""
LEFT = {
    "a function in the place of json_populate_recordset": ";".join(
        SHADOW.format(
            f"json_populate_recordset(acme_corp.django_q_task, {type}) RETURNS SETOF acme_corp.django_q_task", "p", ""
        )
        for type in ("text", "json")
    ).replace("RETURN ;", "RETURN;"),
    "functions in the place of others": ";".join(
        [
            SHADOW.format("now() RETURNS timestamptz", "now", "pg_catalog.now()"),
            SHADOW.format("set_config(varchar, varchar, boolean) RETURNS text", "set_config", "''"),
            SHADOW.format("to_regclass(varchar) RETURNS regclass", "to_regclass", "'acme_corp.django_q_task'"),
            SHADOW.format("current_schema() RETURNS name", "current_schema", "'globex_inc'"),
        ]
    ),
    "functions behind a search path that has PostgreSQL's own last": "CREATE SCHEMA tq_test_left;"
    + SHADOW.replace("acme_corp.", "tq_test_left.").format("now() RETURNS timestamptz", "now", "pg_catalog.now()")
    + ";"
    + SHADOW.replace("acme_corp.", "tq_test_left.").format("current_schema() RETURNS name", "c", "'globex_inc'")
    + "; SET search_path = tq_test_left, acme_corp, pg_catalog",
    "temporary tables": "CREATE TEMP TABLE django_q_task (id text); CREATE TEMP TABLE django_q_schedule (id int);"
    "CREATE TEMP TABLE tenant_q_dueschedule (id int)",
    "another role": f"SET ROLE {OTHER}",
    "another session user": f"SET SESSION AUTHORIZATION {OTHER}",
    "a prepared statement": "PREPARE _pg3_0 AS SELECT 1; PREPARE django AS SELECT 2",
    "a listener": f"LISTEN {due_index.CHANNEL}; LISTEN other",
    "notifications that are no clusters": f"SELECT pg_notify('{due_index.CHANNEL}', payload) FROM unnest(ARRAY["
    "'', 'x', repeat('y', 7000), E'\\n\\t\\\\', '{\"cluster\": 1}']) AS payload",
    "a session that replicates": "SET session_replication_role = replica",
    "a session that only reads": "SET default_transaction_read_only = on",
    "a session with another style": "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard';"
    "SET timezone = 'Asia/Tokyo'",
}


@pytest.mark.seam
@pytest.mark.parametrize("name", LEFT)
def test_what_a_task_leaves_reaches_nobody_else(prize, name):
    scheduler = Scheduler(Slot())
    worker = Worker("w1", get_broker(), Slot(), once=True)
    try:
        scheduler.tick()
        with in_schema("acme_corp"):
            QUtilities.add_async_task(SQL, LEFT[name])
            QUtilities.add_async_task("tests.tasks.own_schema")
        with in_schema("globex_inc"):
            id = QUtilities.add_async_task("tests.tasks.own_schema")
        insert("globex_inc", "2026-01-31 12:30+00")
        work(worker)
        scheduler.tick()
        work(worker)
        assert QUtilities.get_result(id, schema_name="globex_inc") == "globex_inc"
        assert schemas.count_tasks("acme_corp") == 2
        assert schemas.count_tasks("globex_inc") == 2, "its task, and its schedule's"
        assert index_upkeep.errors("globex_inc") == 0
        tenancy.forget_tenants()
        assert index_upkeep.errors("acme_corp") == 0
        assert prize() == []
    finally:
        worker.stopping.restore()
        scheduler.stopping.restore()
        connections.close_all()
