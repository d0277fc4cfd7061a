"""A tenant that is not ready, broken or gone holds up no other one, and is never served from the schema public."""

from __future__ import annotations

import logging
import os
from typing import Any

import psycopg
import pytest
from django.db import connections

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.checks import check_all, configuration_problems
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.exceptions import EnqueueError, SchemaMissing
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import make_due, sql, work
from tests.integration.crossing.conftest import SEEN, add, elsewhere, note_in_seen, path_of, result

pytestmark = pytest.mark.seam
HERE = __name__


# The project's own say in which tenants are ready


def only_acme(tenants: Any) -> Any:
    return tenants.filter(schema_name="acme_corp")


def ready_raises(tenants: Any) -> Any:
    raise ValueError("no plan")


def ready_asks_amiss(tenants: Any) -> Any:
    return tenants.extra(where=["no_such_column"])


@pytest.mark.parametrize("path", ["no.such.function", "tests.tasks.no_such", f"{HERE}.HERE"])
def test_ready_tenants_that_is_no_function_is_a_problem(tenants, settings, path):
    settings.TENANT_Q = {"ready_tenants": path}
    assert [message.id for message in check_all() if message.is_serious()] == ["tenant_q.E008"]


@pytest.mark.parametrize("path", ["no.such.function", path_of(ready_raises), path_of(ready_asks_amiss)])
def test_ready_tenants_that_fails_puts_off_and_buries_nothing(tenants, worker, scheduler, settings, path):
    id = add("acme_corp", "tests.tasks.add", 1)
    QUtilities.create_schedule("tests.tasks.add", 2, name="fired", schema_name="acme_corp")
    tenancy.forget_tenants()
    settings.TENANT_Q = {"ready_tenants": path}
    for _ in range(MOST_PUT_OFFS + 3):
        make_due()
        work(worker)
        scheduler.tick()
    assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
    assert result(id, "acme_corp") is None
    settings.TENANT_Q = {}
    make_due()
    again = Scheduler(worker.slot)
    again.tick()
    again.stopping.restore()
    work(worker)
    assert result(id, "acme_corp") == 1
    assert QUtilities.get_result_group("fired", schema_name="acme_corp") == [2]


def test_a_tenant_held_back_can_be_enqueued_for_and_asked(tenants, worker, settings):
    settings.TENANT_Q = {"ready_tenants": path_of(only_acme)}
    tenancy.forget_tenants()
    id = add("globex_inc", "tests.tasks.add", 1)
    assert result(id, "globex_inc") is None
    with in_schema("globex_inc"):
        assert QUtilities.get_result(id) is None
    assert QUtilities.get_queue_size(schema_name="globex_inc") == 1
    work(worker)
    assert result(id, "globex_inc") is None
    settings.TENANT_Q = {}
    make_due()
    work(worker)
    assert result(id, "globex_inc") == 1


# Broken tables


def test_a_tenant_whose_task_table_lacks_a_column_is_waited_for(newcomer, worker):
    sql("ALTER TABLE newcomer.django_q_task DROP COLUMN attempt_count")
    id = add(newcomer, path_of(note_in_seen))
    other = add("acme_corp", "tests.tasks.add", 2)
    for _ in range(MOST_PUT_OFFS + 3):
        make_due()
        work(worker)
    assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
    assert SEEN == []
    assert result(other, "acme_corp") == 2
    sql("ALTER TABLE newcomer.django_q_task ADD COLUMN attempt_count integer NOT NULL DEFAULT 0")
    make_due()
    work(worker)
    assert [newcomer] == SEEN
    assert QUtilities.fetch_task(id, schema_name=newcomer).success


RAISING_VIEW = """
    ALTER TABLE newcomer.{table} RENAME TO whole;
    CREATE FUNCTION newcomer.boom() RETURNS SETOF newcomer.whole LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'boom'; END $$;
    CREATE VIEW newcomer.{table} AS SELECT * FROM newcomer.boom();
"""


def test_a_tenant_whose_task_table_cannot_be_read_is_put_off(newcomer, worker):
    id = add(newcomer, path_of(note_in_seen))
    get_broker().fetch("gone")
    get_broker().reclaim("gone", running=None)  # whether a redelivered package has succeeded is asked of the table
    sql(RAISING_VIEW.format(table="django_q_task"))
    for n in range(3):
        other = add("acme_corp", "tests.tasks.add", n)
        make_due()
        work(worker)
        assert result(other, "acme_corp") == n
    assert get_broker().counts().delayed == 1
    assert SEEN == []
    sql("DROP VIEW newcomer.django_q_task; ALTER TABLE newcomer.whole RENAME TO django_q_task")
    make_due()
    work(worker)
    assert [newcomer] == SEEN
    assert QUtilities.fetch_task(id, schema_name=newcomer).success


@pytest.mark.parametrize(
    "breakage",
    [
        "ALTER TABLE newcomer.django_q_schedule ALTER repeats TYPE text",
        RAISING_VIEW.format(table="django_q_schedule"),
        "ALTER TABLE newcomer.django_q_schedule RENAME TO whole; "
        "CREATE INDEX django_q_schedule ON newcomer.whole (func)",
    ],
    ids=["repeats as text", "a view that raises", "an index of that name"],
)
def test_a_broken_table_of_schedules_is_told_once(newcomer, worker, scheduler, records, breakage):
    scheduler.tick()  # that the table is broken later is not what the look at the start finds
    QUtilities.create_schedule("tests.tasks.add", 0, schema_name=newcomer)
    QUtilities.create_schedule("tests.tasks.add", 1, name="fired", schema_name="acme_corp")
    sql(breakage)
    for _ in range(3):
        scheduler.tick()
    work(worker)
    assert QUtilities.get_result_group("fired", schema_name="acme_corp") == [1]
    told = [record.schema for record in records if record.levelno >= logging.WARNING]
    assert told == [newcomer]


def test_a_tenant_whose_task_table_stays_locked_is_never_buried(tenants, worker, monkeypatch):
    monkeypatch.setattr(tenancy.connection, "LOCK_MS", 10)
    id = add("acme_corp", path_of(note_in_seen))
    get_broker().fetch("gone")
    get_broker().reclaim("gone", running=None)
    with psycopg.connect(os.environ["DATABASE_URL"]) as locker:
        locker.execute("LOCK TABLE acme_corp.django_q_task")
        for n in range(MOST_PUT_OFFS + 3):
            other = add("globex_inc", "tests.tasks.add", n)
            make_due()
            work(worker)
            assert result(other, "globex_inc") == n
        assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
        assert SEEN == []
        locker.rollback()
    make_due()
    work(worker)
    assert SEEN == ["acme_corp"]
    assert QUtilities.fetch_task(id, schema_name="acme_corp").success


# A tenant whose schema is gone, in the caller's own process


def test_sync_mode_is_not_run_in_public(newcomer, public_tables):
    with in_schema(newcomer):
        sql("DROP SCHEMA newcomer CASCADE")
        with pytest.raises(SchemaMissing, match="'newcomer' does not exist"):
            add(newcomer, path_of(note_in_seen), sync=True)
    with pytest.raises(SchemaMissing):
        QUtilities.create_async_tasks_chain([(path_of(note_in_seen), ())], sync=True, schema_name=newcomer)
    assert SEEN == []
    assert sql("SELECT count(*) FROM public.django_q_task") == [(0,)]


@pytest.mark.parametrize(
    "call",
    [
        lambda **where: QUtilities.create_schedule("tests.tasks.add", 1, **where),
        lambda **where: QUtilities.fetch_task("a" * 32, **where),
        lambda **where: QUtilities.get_result("public's name", **where),
        lambda **where: QUtilities.fetch_task_group("public's group", **where),
        lambda **where: QUtilities.get_group_count("public's group", **where),
        lambda **where: QUtilities.delete_task_group("public's group", **where),
        lambda **where: QUtilities.delete_task_group("public's group", tasks=True, **where),
    ],
    ids=["create_schedule", "fetch_task", "get_result", "fetch_task_group", "count", "ungroup", "delete"],
)
@pytest.mark.parametrize("how", ["schema_name", "current"])
def test_calls_for_a_tenant_whose_schema_is_gone_touch_nothing_in_public(newcomer, public_tables, call, how):
    sql(
        'INSERT INTO public.django_q_task (id, name, func, "group", started, stopped, success, attempt_count) VALUES '
        f"('{'a' * 32}', 'public''s name', 'f', 'public''s group', now(), now(), true, 1)"
    )
    tenancy.get_tenant(newcomer)
    sql("DROP SCHEMA newcomer CASCADE")
    if how == "schema_name":
        with pytest.raises(SchemaMissing):
            call(schema_name=newcomer)
    else:
        with in_schema(newcomer), pytest.raises(SchemaMissing):
            call()
    assert elsewhere('SELECT "group" FROM public.django_q_task') == [("public's group",)]
    assert elsewhere("SELECT count(*) FROM public.django_q_schedule") == [(0,)]


# Other databases


@pytest.mark.parametrize("alias", ["elsewhere", "nowhere"])
def test_a_database_that_does_not_switch_schemas_is_refused(tenants, alias):
    with pytest.raises(EnqueueError, match="must be aliases of databases with tenants: default, replica"):
        add("acme_corp", "tests.tasks.add", 1, q_options={"databases": ["default", alias]})
    assert get_broker().counts().open == 0


def test_a_setting_of_a_database_that_does_not_switch_schemas_is_a_problem(tenants, settings):
    settings.TENANT_Q = {"databases": ["elsewhere"]}
    found = configuration_problems()
    settings.TENANT_Q = {}
    assert [problem for problem in found if "names 'elsewhere', which does not switch schemas" in problem]


def test_a_replica_that_is_down_holds_up_its_own_tasks_alone(tenants, worker, monkeypatch):
    replica = connections["replica"]
    replica.close()
    with monkeypatch.context() as down:
        down.setitem(replica.settings_dict, "HOST", "127.0.0.1")
        down.setitem(replica.settings_dict, "PORT", "1")
        waiting = add("acme_corp", "tests.tasks.add", 1, q_options={"databases": ["replica"]})
        for n in range(MOST_PUT_OFFS + 3):
            other = add("globex_inc", "tests.tasks.add", n)
            make_due()
            work(worker)
            assert result(other, "globex_inc") == n
        assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
    make_due()
    work(worker)
    assert result(waiting, "acme_corp") == 1
