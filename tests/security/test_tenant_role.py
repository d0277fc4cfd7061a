"""The attacker is a database role of a tenant: one that owns the tenant's schema and tables, and one without any grant.

The role has SQL and its own tables, and no Python in the cluster. The prize is a table that only the cluster's role may
write to: a row in it means that code of the attacker ran with the rights of the cluster.
"""

from __future__ import annotations

import logging
import pickle
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.utils import timezone

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.exceptions import ForeignCode, TenantUnavailable
from tenant_q.lifecycle import prune_results, results, rows_one_by_one, save_results
from tenant_q.lifecycle.retention import Limits, Retention
from tenant_q.management.django_q_commands import show_all_tenants
from tenant_q.package.build import build
from tenant_q.package.outcome import Outcome
from tenant_q.schedules import index_rights, index_upkeep, planned_runs
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import sql
from tests.integration.planning import LATER, entries, insert
from tests.security.roles import CAST, MADE, OWNER, STRANGER, TAKE, TRIGGER, arm, as_role, own, prize

# With limits by age, pruning reads the table of schedules too.
KEEP = {"keep_successes": {"days": 1}, "keep_failures": {"days": 1}}
_DAY = Limits(age=timedelta(days=1))
RETENTION = Retention(_DAY, _DAY, spares_schedules=True)


@pytest.fixture
def act(spare, settings) -> Iterator[Callable[[], list[Any]]]:
    """Have the cluster, an operator and the attacker's own statements do all there is to do for the tenant."""
    settings.TENANT_Q = settings.TENANT_Q | KEEP
    scheduler = Scheduler(Slot())
    worker = Worker("w1", get_broker(), Slot(), once=True)

    def everything() -> list[Any]:
        tenancy.forget_tenants()
        with in_schema("acme_corp"):
            QUtilities.add_async_task("tests.tasks.nothing")
        with in_schema(spare):
            QUtilities.add_async_task("tests.tasks.nothing")
        with as_role(OWNER) as raw:
            for statement in (
                "INSERT INTO spare.django_q_schedule (func, schedule_type, repeats, next_run) "
                "VALUES ('tests.tasks.nothing', 'D', 2, now())",
                "UPDATE spare.django_q_schedule SET next_run = next_run - interval '1 day'",
            ):
                _try(partial(raw.execute, statement))
        for schema in ("acme_corp", spare):
            index_upkeep.install(schema)
        _try(lambda: index_upkeep.errors(spare))
        _try(lambda: planned_runs.planned_runs(10, spare))
        for _ in range(3):
            scheduler.tick()
        for _ in range(3):
            worker.tick()
        _try(lambda: prune_results.prune(spare))
        _try(_read_back)
        _try(show_all_tenants)
        _try(lambda: call_command("qinfo"))
        _try(lambda: call_command("msschedules", "--check", "--repair"))
        connection.set_schema_to_public()
        assert schemas.count_tasks("acme_corp") == 1, "another tenant is served"
        return prize()

    yield everything
    worker.stopping.restore()
    scheduler.stopping.restore()
    connections.close_all()


def _read_back() -> None:
    with tenancy.in_verified_schema("spare"):
        results.successes(["x" * 32])


def _try(act: Callable[[], Any]) -> None:
    """A refusal is as good as an answer here; the prize is what counts."""
    try:
        act()
    except (*tenancy.DATABASE_ERRORS, CommandError, TenantUnavailable):
        if connection.connection is not None and not connection.connection.closed:
            connection.connection.rollback()


OPERATOR = """
CREATE FUNCTION spare.compare({left}, {right}) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN PERFORM spare.take(); RETURN true; END$$;
CREATE OPERATOR spare.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = spare.compare)
"""
SHADOW = "CREATE FUNCTION spare.{} LANGUAGE plpgsql {} AS $$BEGIN PERFORM spare.take(); RETURN {}; END$$"

GIVE = """
CREATE FUNCTION spare.give(spare.django_q_schedule) RETURNS {type} LANGUAGE plpgsql AS
    $$BEGIN PERFORM spare.take(); RETURN '1'; END$$;
CREATE CAST (spare.django_q_schedule AS {type}) WITH FUNCTION spare.give(spare.django_q_schedule) AS IMPLICIT
"""
DOMAIN = "CREATE DOMAIN spare.word AS varchar(100) CHECK (spare.take());"
POPULATE = SHADOW.format("json_populate_recordset(spare.django_q_task, {}) RETURNS SETOF spare.django_q_task", "", "")
VIEW = """
ALTER TABLE spare.{0} RENAME TO kept; CREATE VIEW spare.{0} AS SELECT * FROM spare.kept WHERE spare.take()
"""
COLUMN, TRIGGERED = "whose type or value is not one of PostgreSQL's own", "has the trigger evil"

# What the role does, and what the cluster gives as the reason to refuse.
ATTACKS = {
    "a column of an enum with a cast to json": (
        CAST.format(type="json", value="'1'", volatile="")
        + "ALTER TABLE spare.django_q_schedule ADD COLUMN mood spare.mood DEFAULT '1'",
        COLUMN,
    ),
    "a next run of an enum with a cast to a moment": (
        CAST.format(type="timestamptz", value="now()", volatile="IMMUTABLE")
        + "ALTER TABLE spare.django_q_schedule ALTER COLUMN next_run TYPE spare.mood USING '1'",
        COLUMN,
    ),
    "a number of an enum with a cast to a number": (
        CAST.format(type="bigint", value="1", volatile="IMMUTABLE")
        + "ALTER TABLE spare.django_q_schedule ALTER COLUMN repeats TYPE spare.mood USING '1'",
        COLUMN,
    ),
    "a cast of the rows to json": (GIVE.format(type="json"), "there is a cast"),
    "a cast of the rows to text": (GIVE.format(type="text"), "there is a cast"),
    "a domain with a constraint": (
        DOMAIN + "ALTER TABLE spare.django_q_task ALTER COLUMN name TYPE spare.word;"
        "ALTER TABLE spare.django_q_schedule ALTER COLUMN task TYPE spare.word",
        COLUMN,
    ),
    "a domain inside an array": (DOMAIN + "ALTER TABLE spare.django_q_task ADD COLUMN words spare.word[]", COLUMN),
    "a function in the place of json_populate_recordset": (
        ";".join(POPULATE.format(kind).replace("RETURN ;", "RETURN;") for kind in ("text", "json")),
        "named as one of PostgreSQL's own",
    ),
    "functions in the place of now, set_config and others": (
        ";".join(
            [
                SHADOW.format("now() RETURNS timestamptz", "", "pg_catalog.now()"),
                SHADOW.format("current_schema() RETURNS name", "", "'spare'"),
                SHADOW.format("to_regclass(varchar) RETURNS regclass", "", "'spare.django_q_task'"),
                SHADOW.format("set_config(varchar, varchar, boolean) RETURNS text", "", "''"),
                SHADOW.format("pg_try_advisory_xact_lock(int) RETURNS boolean", "", "true"),
                SHADOW.format("count(varchar) RETURNS bigint", "", "1"),
            ]
        ),
        "named as one of PostgreSQL's own",
    ),
    "an operator in the place of =": (OPERATOR.format(name="=", left="varchar", right="varchar"), "has the operator"),
    "an operator in the place of = for texts": (
        OPERATOR.format(name="=", left="varchar", right="text"),
        "has the operator",
    ),
    "an operator in the place of >=": (
        OPERATOR.format(name=">=", left="timestamptz", right="text"),
        "has the operator",
    ),
    "a trigger before a result": (TRIGGER.format(when="BEFORE INSERT", table="django_q_task", each="ROW"), TRIGGERED),
    "a trigger behind a result": (
        TRIGGER.format(when="AFTER INSERT OR UPDATE", table="django_q_task", each="ROW"),
        TRIGGERED,
    ),
    "a trigger behind a pruned result": (
        TRIGGER.format(when="AFTER DELETE", table="django_q_task", each="STATEMENT"),
        TRIGGERED,
    ),
    "a trigger on a schedule that moves on": (
        TRIGGER.format(when="BEFORE UPDATE", table="django_q_schedule", each="ROW"),
        TRIGGERED,
    ),
    "a trigger with our trigger's name": (
        "DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule;"
        + TRIGGER.format(when="AFTER UPDATE", table="django_q_schedule", each="ROW").replace(
            "evil", "tenant_q_index_schedule"
        ),
        "has the trigger tenant_q_index_schedule",
    ),
    "a view in the place of the tasks": (VIEW.format("django_q_task"), "is no plain table"),
    "a view in the place of the schedules": (VIEW.format("django_q_schedule"), "is no plain table"),
    "a rule": ("CREATE RULE evil AS ON INSERT TO spare.django_q_task DO ALSO SELECT spare.take()", "has the rule evil"),
    "a rule on schedules": (
        "CREATE RULE evil AS ON UPDATE TO spare.django_q_schedule DO ALSO SELECT spare.take()",
        "has the rule evil",
    ),
    "row security": (
        "CREATE POLICY evil ON spare.django_q_task USING (spare.take());"
        "ALTER TABLE spare.django_q_task ENABLE ROW LEVEL SECURITY",
        "has row security",
    ),
    "a policy that is not in force": ("CREATE POLICY evil ON spare.django_q_task USING (spare.take())", "has a policy"),
    "a default": ("ALTER TABLE spare.django_q_task ADD COLUMN more boolean DEFAULT spare.take()", "with a default"),
    "a default that runs a query by a function of PostgreSQL's": (
        "ALTER TABLE spare.django_q_task ADD COLUMN more text "
        "DEFAULT pg_catalog.query_to_xml('SELECT spare.take()', true, true, '')::text",
        "with a default",
    ),
    "a check constraint": ("ALTER TABLE spare.django_q_task ADD CHECK (spare.take())", "has the constraint"),
    "a check constraint on schedules": (
        "ALTER TABLE spare.django_q_schedule ADD CHECK (spare.take()) NOT VALID",
        "has the constraint",
    ),
    "a generated column": (
        MADE.format(type="text", value="$1") + "ALTER TABLE spare.django_q_task ADD COLUMN more text "
        "GENERATED ALWAYS AS (spare.made(func)) STORED",
        COLUMN,
    ),
    "an index over an expression": (
        MADE.format(type="text", value="$1") + "CREATE INDEX ON spare.django_q_task (spare.made(func));"
        "CREATE INDEX ON spare.django_q_schedule (spare.made('x'))",
        "has the index",
    ),
    "an index with a condition": (
        MADE.format(type="boolean", value="true")
        + "CREATE INDEX ON spare.django_q_task (id) WHERE spare.made(func::text)",
        "has the index",
    ),
    "statistics over an expression": (
        MADE.format(type="text", value="$1")
        + "CREATE STATISTICS spare.evil ON (COALESCE(spare.made('x'), func)), id FROM spare.django_q_task",
        "has the statistics",
    ),
    "a table that inherits": (
        "CREATE TABLE spare.child () INHERITS (spare.django_q_schedule);"
        "INSERT INTO spare.child (id, func, schedule_type, repeats, next_run) VALUES (99, 'f', 'D', 1, now());"
        + TRIGGER.format(when="BEFORE UPDATE", table="child", each="ROW"),
        "inherits",
    ),
    "a table that references": (
        "CREATE TABLE spare.child (task varchar(32) REFERENCES spare.django_q_task (id) ON DELETE CASCADE);"
        + TRIGGER.format(when="AFTER DELETE", table="child", each="ROW"),
        "has the constraint child_task_fkey",
    ),
    "a partitioned table": (
        "ALTER TABLE spare.django_q_schedule RENAME TO kept;"
        "CREATE TABLE spare.django_q_schedule (LIKE spare.kept) PARTITION BY RANGE (next_run);"
        "CREATE TABLE spare.part PARTITION OF spare.django_q_schedule DEFAULT;"
        + TRIGGER.format(when="BEFORE UPDATE", table="part", each="ROW"),
        "is no plain table",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_code_of_the_role_runs_with_the_rights_of_the_cluster(act, name):
    arm(ATTACKS[name][0])
    assert act() == []


@pytest.mark.parametrize("name", ATTACKS)
def test_each_is_refused_and_named(spare, name):
    """Also where it won nothing here: because the cluster is a superuser, say, whom row security does not concern."""
    text, reason = ATTACKS[name]
    arm(text)
    ((found,),) = sql("SELECT tenant_q_foreign_code('spare')")
    assert reason in found


@pytest.mark.seam
def test_a_tenant_whose_plain_tables_belong_to_a_role_is_served(act):
    assert sql("SELECT tenant_q_foreign_code('spare')") == [(None,)]
    assert act() == []
    assert schemas.count_tasks("spare") >= 2, "the task, and the schedule's"
    assert index_upkeep.errors("spare") == 0
    insert("spare")
    assert planned_runs.planned_runs(1, "spare")[0].func == "tests.tasks.nothing"


def test_a_refused_tenant_is_told_to_the_operator(spare, caplog):
    arm(TRIGGER.format(when="BEFORE INSERT", table="django_q_task", each="ROW"))
    with in_schema("spare"):
        QUtilities.add_async_task("tests.tasks.nothing")
    worker = Worker("w1", get_broker(), Slot(), once=True)
    try:
        with caplog.at_level(logging.WARNING, "tenant_q"):
            worker.tick()
    finally:
        worker.stopping.restore()
    assert get_broker().counts().delayed == 1
    assert (
        "The tables of 'spare' belong to another role, whose code would run with the rights of postgres: "
        "spare.django_q_task has the trigger evil; remove that, or give schema and tables to postgres."
    ) in caplog.text


# The moment between the question and the statement


def outcome(schema: str = "spare") -> Outcome:
    now = timezone.now()
    package = build("tests.tasks.nothing", (), {}, schema=schema)
    return Outcome(package, success=True, result=1, started=now, stopped=now, seconds=0.0)


LATE = {
    "save": lambda: save_results.save_or_raise([outcome()]),
    "save several": lambda: save_results.save_or_raise([outcome(), outcome("acme_corp")]),
    "save one by one": lambda: rows_one_by_one.save({("spare", None): [outcome()]}),
    "prune": lambda: prune_results.prune("spare"),
    "prune by age": lambda: prune_results.prune("spare", RETENTION),
    "count outcomes": lambda: prune_results.count_outcomes({"spare": RETENTION}),
    "read back": _read_back,
    "index": lambda: index_upkeep.errors("spare"),
    "details": lambda: planned_runs.planned_runs(10, "spare"),
}


@pytest.mark.parametrize("name", LATE)
def test_what_comes_after_the_tables_were_seen_is_refused_as_well(spare, monkeypatch, name):
    """The tables are looked at in the transaction that uses them, whatever was seen before."""
    insert("spare")
    with tenancy.in_verified_schema("spare"):
        pass
    monkeypatch.setattr(tenancy.verification.foreign_schemas, "refuse_code", lambda _: None)
    arm(
        TRIGGER.format(when="BEFORE INSERT OR DELETE", table="django_q_task", each="STATEMENT")
        + ";"
        + MADE.format(type="text", value="$1")
        + "CREATE INDEX ON spare.django_q_schedule (spare.made('x'));"
        "CREATE INDEX ON spare.django_q_task (spare.made('x'))"
    )
    sql("DELETE FROM tq_test_prize")
    _try(LATE[name])
    assert prize() == []
    assert schemas.count_tasks("acme_corp") == (1 if name == "save several" else 0)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TRIGGER evil BEFORE UPDATE ON spare.django_q_task FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TABLE spare.child () INHERITS (spare.django_q_task)",
        "CREATE RULE evil AS ON INSERT TO spare.django_q_task DO ALSO SELECT 1",
        "ALTER TABLE spare.django_q_task ADD CHECK (true)",
        "DROP TABLE spare.django_q_task",
    ],
)
def test_the_tables_cannot_be_changed_between_the_question_and_the_statement(spare, text):
    with transaction.atomic(), as_role(OWNER) as raw:
        tenancy.require_plain_tables(["spare"], "django_q_task")
        raw.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            raw.execute(text)


def test_a_snapshot_that_is_too_old_to_tell_is_refused(spare):
    sql("SET default_transaction_isolation = 'repeatable read'")
    try:
        with pytest.raises(ForeignCode, match="READ COMMITTED"), transaction.atomic():
            tenancy.require_plain_tables(["spare"], "django_q_task")
    finally:
        sql("RESET default_transaction_isolation")


# Who owns nothing, and has a grant too many


@pytest.mark.parametrize("grant", ["ALL", "TRIGGER"])
def test_a_role_that_may_only_put_triggers_on_the_tables_wins_nothing(act, grant):
    own("spare", "postgres")
    sql(f"GRANT {grant} ON ALL TABLES IN SCHEMA spare TO {STRANGER}")
    sql("CREATE SCHEMA tq_test_strange")
    sql(f"GRANT CREATE, USAGE ON SCHEMA tq_test_strange TO {STRANGER}; GRANT USAGE ON SCHEMA spare TO {STRANGER}")
    try:
        with as_role(STRANGER) as raw:
            raw.execute(TAKE.format(schema="tq_test_strange"))
            text = TRIGGER.format(when="BEFORE INSERT", table="django_q_task", each="ROW")
            raw.execute(
                text.replace("FUNCTION spare.", "FUNCTION tq_test_strange.").replace(
                    "spare.take", "tq_test_strange.take"
                )
            )
        assert act() == []
    finally:
        sql("DROP SCHEMA tq_test_strange CASCADE")


def test_a_role_that_may_only_create_objects_in_the_schema_wins_nothing(act):
    own("spare", "postgres")
    sql(f"GRANT CREATE, USAGE ON SCHEMA spare TO {STRANGER}")
    arm(OPERATOR.format(name="=", left="varchar", right="varchar"), STRANGER)
    assert act() == []


def test_a_tenant_with_ordinary_grants_is_not_foreign(spare):
    own("spare", "postgres")
    sql(f"GRANT USAGE ON SCHEMA spare TO {STRANGER}; GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA spare TO {STRANGER}")
    with tenancy.in_verified_schema("spare"):
        assert tenancy.plain_tables_query(["spare"], "django_q_task") is None


# Our functions


FUNCTIONS = [name.partition("(")[0] for name in index_rights.called()]
CALLS = {
    "tenant_q_forget_schema": "SELECT public.tenant_q_forget_schema('acme_corp')",
    "tenant_q_foreign_code": "SELECT public.tenant_q_foreign_code('acme_corp')",
    "tenant_q_index_errors": "SELECT public.tenant_q_index_errors('acme_corp')",
    "tenant_q_install_index": "SELECT public.tenant_q_install_index('spare')",
    "tenant_q_install_triggers": "SELECT public.tenant_q_install_triggers('spare')",
    "tenant_q_require_plain": "SELECT public.tenant_q_require_plain('{spare}', '{django_q_task}')",
    "tenant_q_index_change": "SELECT public.tenant_q_index_change('acme_corp', 1, '', 'INSERT', '', '1|2999-01-01|1|')",
    "tenant_q_index_query": "SELECT public.tenant_q_index_query('acme_corp', 1, '', 'TRUNCATE')",
    "tenant_q_stale_schemas": "SELECT * FROM public.tenant_q_stale_schemas()",
    "tenant_q_forget_runs": "SELECT public.tenant_q_forget_runs('acme_corp')",
    "tenant_q_run_errors": "SELECT public.tenant_q_run_errors('acme_corp')",
    "tenant_q_install_runs": "SELECT public.tenant_q_install_runs('spare')",
    "tenant_q_install_run_triggers": "SELECT public.tenant_q_install_run_triggers('spare')",
    "tenant_q_doubt_runs": "SELECT public.tenant_q_doubt_runs('acme_corp')",
    "tenant_q_run_change": "SELECT public.tenant_q_run_change('acme_corp', 1, '', 'TRUNCATE', NULL, NULL)",
    "tenant_q_stale_run_schemas": "SELECT * FROM public.tenant_q_stale_run_schemas()",
    "tenant_q_forget_failures": "SELECT public.tenant_q_forget_failures('acme_corp')",
    "tenant_q_failure_errors": "SELECT public.tenant_q_failure_errors('acme_corp')",
    "tenant_q_install_failures": "SELECT public.tenant_q_install_failures('spare')",
    "tenant_q_install_failure_triggers": "SELECT public.tenant_q_install_failure_triggers('spare')",
    "tenant_q_doubt_failures": "SELECT public.tenant_q_doubt_failures('acme_corp')",
    "tenant_q_failure_change": "SELECT public.tenant_q_failure_change('acme_corp', 1, '', 'TRUNCATE', NULL, NULL)",
    "tenant_q_stale_failure_schemas": "SELECT * FROM public.tenant_q_stale_failure_schemas()",
    "tenant_q_sweep_failures": "SELECT public.tenant_q_sweep_failures('acme_corp', 1)",
    "tenant_q_index_failure": "CREATE TEMP TABLE django_q_task (id text, success boolean);"
    "CREATE TRIGGER mine AFTER INSERT ON django_q_task FOR EACH ROW "
    "EXECUTE FUNCTION public.tenant_q_index_failure('acme_corp')",
    "tenant_q_index_run": "CREATE TEMP TABLE tenant_q_workflows_run (id text, state text, look_at timestamptz, "
    "cluster text);"
    "CREATE TRIGGER mine AFTER INSERT ON tenant_q_workflows_run FOR EACH ROW "
    "EXECUTE FUNCTION public.tenant_q_index_run('acme_corp')",
    "tenant_q_index_schedule": "CREATE TEMP TABLE django_q_schedule (id int, next_run timestamptz, repeats int, "
    "cluster text); CREATE TRIGGER mine AFTER INSERT ON django_q_schedule FOR EACH ROW "
    "EXECUTE FUNCTION public.tenant_q_index_schedule('acme_corp')",
}


OURS = "proname LIKE 'tenant_q%' AND pronamespace = 'public'::regnamespace"


def test_every_function_of_ours_is_tried(tenants):
    found = sql(f"SELECT proname FROM pg_proc WHERE {OURS}")
    assert {name for (name,) in found} == set(CALLS)
    assert set(FUNCTIONS) < set(CALLS)


def test_public_may_execute_no_function_of_ours(tenants):
    """Whatever else a call would need: this alone keeps the trigger's function from tables of any role."""
    rights = "CROSS JOIN aclexplode(COALESCE(proacl, acldefault('f', proowner))) WHERE grantee = 0"
    assert sql(f"SELECT proname FROM pg_proc {rights} AND {OURS}") == []


@pytest.mark.parametrize("role", [OWNER, STRANGER])
@pytest.mark.parametrize("function", CALLS)
def test_no_function_of_ours_is_anybodys(spare, role, function):
    with as_role(role) as raw, pytest.raises(psycopg.errors.InsufficientPrivilege, match="tenant_q"):
        raw.execute(CALLS[function])


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize(
    "place",
    ["CREATE TEMP TABLE django_q_schedule", "CREATE TABLE spare.other", "CREATE TABLE tq_test_own.django_q_schedule"],
)
def test_who_may_put_the_trigger_on_tables_writes_no_entries_of_others(spare, isolation, place):
    """As a role may that creates tenants' tables. The function looks which table it is called for."""
    sql(f"GRANT EXECUTE ON FUNCTION tenant_q_index_schedule() TO {OWNER}")
    sql(f"CREATE SCHEMA tq_test_own AUTHORIZATION {OWNER}")
    table = place.rpartition(" ")[2]
    try:
        with as_role(OWNER) as raw:
            raw.execute(f"{place} (id int, next_run timestamptz, repeats int, cluster text)")
            raw.execute(
                f"CREATE TRIGGER mine AFTER INSERT ON {table} FOR EACH ROW "
                "EXECUTE FUNCTION public.tenant_q_index_schedule('acme_corp')"
            )
            raw.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            raw.execute(f"INSERT INTO {table} VALUES (1, now(), 1, '')")
            raw.execute("COMMIT")
        assert sql("SELECT * FROM tenant_q_dueschedule") == []
    finally:
        sql("DROP SCHEMA tq_test_own CASCADE")
        sql(f"REVOKE EXECUTE ON FUNCTION tenant_q_index_schedule() FROM {OWNER}")


def test_a_table_that_is_moved_takes_no_entries_along(spare):
    sql(f"CREATE SCHEMA tq_test_own AUTHORIZATION {OWNER}")
    try:
        with as_role(OWNER) as raw:
            raw.execute("ALTER TABLE spare.django_q_schedule SET SCHEMA tq_test_own")
            raw.execute(
                "INSERT INTO tq_test_own.django_q_schedule (id, func, schedule_type, repeats, next_run) "
                "VALUES (1, 'f', 'D', 1, now())"
            )
        assert sql("SELECT * FROM tenant_q_dueschedule") == []
    finally:
        sql("DROP SCHEMA tq_test_own CASCADE")


def test_the_index_is_not_the_roles(spare):
    for role in (OWNER, STRANGER):
        for table in (
            "tenant_q_dueschedule", "tenant_q_indexedschema", "tenant_q_dueworkflow", "tenant_q_indexedruns",
            "tenant_q_failure", "tenant_q_indexedfailures",
        ):  # fmt: skip
            with as_role(role) as raw, pytest.raises(psycopg.errors.InsufficientPrivilege):
                raw.execute(f"DELETE FROM public.{table}")


@pytest.mark.parametrize("type", ["text", "varchar(400)", "timestamp", "date", "timestamptz(0)"])
def test_the_role_edits_its_schedules_whatever_their_columns_are(spare, type):
    """What the trigger cannot read is no error of the tenant's."""
    insert("spare", id=1)
    with as_role(OWNER) as raw:
        raw.execute("UPDATE spare.django_q_schedule SET name = 'n'")
        raw.execute(f"ALTER TABLE spare.django_q_schedule ALTER COLUMN next_run TYPE {type}")
        raw.execute("UPDATE spare.django_q_schedule SET next_run = '2999-01-03 00:00'")
        if type.startswith(("text", "varchar")):
            raw.execute("UPDATE spare.django_q_schedule SET next_run = 'soon'")
        raw.execute("DELETE FROM spare.django_q_schedule")
    assert entries("spare") == {}


def test_a_moment_is_read_alike_in_any_date_style_and_zone(spare):
    for style, zone in (("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "America/New_York"), ("German", "UTC")):
        with as_role(OWNER) as raw:
            raw.execute("DELETE FROM spare.django_q_schedule")
            raw.execute(f"SET datestyle = '{style}'; SET timezone = '{zone}'")
            raw.execute(
                "INSERT INTO spare.django_q_schedule (id, func, schedule_type, repeats, next_run) "
                "VALUES (1, 'f', 'D', 1, '2999-01-01 00:00+00')"
            )
        assert entries("spare") == {1: ("", LATER, "")}


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_older_than_the_index_of_its_tenant_is_seen(spare, isolation):
    """It cannot see that its table was put into the index."""
    sql("DELETE FROM tenant_q_indexedschema WHERE schema_name = 'spare'")
    with as_role(OWNER) as raw:
        raw.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        raw.execute("SELECT 1 FROM spare.django_q_task")
        assert index_upkeep.install("spare")
        raw.execute(
            "INSERT INTO spare.django_q_schedule (id, func, schedule_type, repeats, next_run) "
            "VALUES (1, 'f', 'D', 1, '2999-01-01 00:00+00')"
        )
        raw.execute("COMMIT")
    assert entries("spare") == {1: ("", LATER, "")}


def test_a_trigger_that_only_has_our_name_is_replaced(spare):
    sql("DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule")
    with as_role(OWNER) as raw:
        raw.execute(
            "CREATE TRIGGER tenant_q_index_schedule AFTER UPDATE ON spare.django_q_schedule FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        )
    assert index_upkeep.stale_schemas() == [("spare", False)]
    own("spare", "postgres")
    assert index_upkeep.bring_up_to_date(index_upkeep.stale_schemas()) == []
    assert index_upkeep.stale_schemas() == []


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_another_table_of_the_schema_is_not_taken_for_its_schedules(spare, isolation):
    sql(f"GRANT EXECUTE ON FUNCTION tenant_q_index_schedule() TO {OWNER}")
    try:
        with as_role(OWNER) as raw:
            raw.execute("CREATE TABLE spare.other (LIKE spare.django_q_schedule)")
            raw.execute(
                "CREATE TRIGGER mine AFTER INSERT ON spare.other FOR EACH ROW "
                "EXECUTE FUNCTION public.tenant_q_index_schedule('spare')"
            )
            raw.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            raw.execute(
                "INSERT INTO spare.other (id, func, schedule_type, repeats, next_run) VALUES (1, 'f', 'D', 1, now())"
            )
            raw.execute("COMMIT")
        assert entries("spare") == {}
    finally:
        sql(f"REVOKE EXECUTE ON FUNCTION tenant_q_index_schedule() FROM {OWNER}")


# Its task rows


class Bomb:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("transactional", [False, True])
def test_a_worker_loads_no_pickle_that_the_role_has_written(spare, tmp_path, transactional):
    """The ids of fires can be computed by who sees the schedules, so a success can be there before the task runs."""
    path = tmp_path / "exploded"
    worker = Worker("w1", get_broker(), Slot(), once=True)
    with in_schema(spare):
        id = QUtilities.add_async_task("tests.tasks.nothing", q_options={"transactional": transactional})
    assert get_broker().fetch("dead").leases
    pickled = b64encode(pickle.dumps(Bomb(path))).decode()
    with as_role(OWNER) as raw:
        raw.execute(
            "INSERT INTO spare.django_q_task (id, name, func, args, kwargs, result, started, stopped, success, "
            "attempt_count) VALUES (%(id)s, 'x', 'x', %(bomb)s, %(bomb)s, %(bomb)s, now(), now(), true, 1)",
            {"id": id, "bomb": pickled},
        )
    get_broker().reclaim("dead", running=id)
    try:
        worker.tick()
    finally:
        worker.stopping.restore()
    assert not path.exists()
    assert get_broker().counts().open == 0
