"""The attacker is the database role of a tenant that owns the tables of the tenant's workflows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import transaction

from tenant_q import tenancy
from tenant_q.exceptions import ForeignCode
from tenant_q.workflows import run_index
from tests.integration.conftest import sql
from tests.integration.planning import LATER
from tests.security.roles import CAST, MADE, OWNER, TRIGGER, arm, as_role, prize

RUN, STEP, SIGNAL = "tenant_q_workflows_run", "tenant_q_workflows_step", "tenant_q_workflows_signal"
COLUMN, TRIGGERED = "whose type or value is not one of PostgreSQL's own", "has the trigger evil"
INSERT = (
    "INSERT INTO spare.tenant_q_workflows_run "
    "(id, workflow, version, cluster, state, plan, input, config, generation, created, look_at, error, by) "
    "VALUES ('r1', 'w', '', 'ours', 'running', '{}', '{}', '{}', 1, now(), '2999-01-01 00:00+00', '', '')"
)


def entries(schema: str = "spare") -> list[tuple[Any, ...]]:
    return sql("SELECT run, cluster, state, due FROM tenant_q_dueworkflow WHERE schema_name = %s", schema)


def change(table: str, text: str) -> str:
    return f"ALTER TABLE spare.{table} {text}"


ATTACKS = {
    "a trigger on runs": (TRIGGER.format(when="BEFORE UPDATE", table=RUN, each="ROW"), TRIGGERED),
    "a trigger on steps": (TRIGGER.format(when="BEFORE UPDATE", table=STEP, each="ROW"), TRIGGERED),
    "a trigger on signals": (TRIGGER.format(when="AFTER INSERT", table=SIGNAL, each="STATEMENT"), TRIGGERED),
    "a trigger with our trigger's name": (
        f"DROP TRIGGER tenant_q_index_run ON spare.{RUN};"
        + TRIGGER.format(when="AFTER UPDATE", table=RUN, each="ROW").replace("evil", "tenant_q_index_run"),
        "has the trigger tenant_q_index_run",
    ),
    "a state of an enum with a cast to text": (
        CAST.format(type="text", value="'running'", volatile="IMMUTABLE")
        + change(RUN, "ALTER COLUMN state TYPE spare.mood USING '1'"),
        COLUMN,
    ),
    "a moment of an enum with a cast to a moment": (
        CAST.format(type="timestamptz", value="now()", volatile="IMMUTABLE")
        + change(RUN, "ALTER COLUMN look_at TYPE spare.mood USING '1'"),
        COLUMN,
    ),
    "a default": (change(STEP, "ALTER COLUMN attempts SET DEFAULT spare.take()::int"), "with a default"),
    "a check": (change(STEP, "ADD CHECK (spare.take())"), "has the constraint"),
    "an index over an expression": (
        MADE.format(type="text", value="$1") + f"CREATE INDEX ON spare.{RUN} (spare.made(state))",
        "has the index",
    ),
    "a rule": (f"CREATE RULE evil AS ON INSERT TO spare.{SIGNAL} DO ALSO SELECT spare.take()", "has the rule evil"),
    "a view in the place of the runs": (
        f"ALTER TABLE spare.{RUN} RENAME TO kept;"
        f"CREATE VIEW spare.{RUN} AS SELECT * FROM spare.kept WHERE spare.take()",
        "is no plain table",
    ),
    "a table that inherits": (f"CREATE TABLE spare.child () INHERITS (spare.{RUN})", "inherits"),
}


def attempt(text: str) -> None:
    """Have the role write its runs; an error is as good as an answer here."""
    with as_role(OWNER) as raw:
        try:
            raw.execute(text)
        except psycopg.Error:
            return


@pytest.mark.parametrize("name", ATTACKS)
def test_no_code_of_the_role_runs_with_our_rights(spare, name):
    """Neither in the trigger's function, nor where the index is compared and written anew."""
    attempt(INSERT)
    arm(ATTACKS[name][0])
    sql("DELETE FROM tq_test_prize")
    attempt(INSERT.replace("'r1'", "'r2'").replace("'running'", "'1'").replace("'2999-01-01 00:00+00'", "'1'"))
    attempt(INSERT.replace("'r1'", "'r3'").replace("'running'", "'1'"))
    attempt(INSERT.replace("'r1'", "'r4'").replace("'2999-01-01 00:00+00'", "'1'"))
    attempt(f"UPDATE spare.{RUN} SET error = 'e', cluster = 'long'")
    attempt(f"DELETE FROM spare.{RUN}")
    run_index.install("spare")
    try:
        run_index.errors("spare")
    except tenancy.DATABASE_ERRORS:
        pass
    assert prize() == []


@pytest.mark.parametrize("name", ATTACKS)
def test_each_is_refused_and_named(spare, name):
    text, reason = ATTACKS[name]
    arm(text)
    ((found,),) = sql("SELECT tenant_q_foreign_code('spare')")
    assert reason in found
    with pytest.raises(ForeignCode), transaction.atomic():
        tenancy.require_plain_tables(["spare"], RUN, STEP, SIGNAL)


def test_plain_tables_of_a_role_are_used(spare):
    assert sql("SELECT tenant_q_foreign_code('spare')") == [(None,)]
    with as_role(OWNER) as raw:
        raw.execute(INSERT)
    assert entries() == [("r1", "ours", "running", LATER)]
    assert run_index.errors("spare") == 0
    assert run_index.install("spare")
    assert entries() == [("r1", "ours", "running", LATER)]


def test_a_schema_is_foreign_if_only_a_table_of_workflows_is(spare):
    sql(f"ALTER SCHEMA spare OWNER TO postgres; GRANT USAGE ON SCHEMA spare TO {OWNER}")
    for (table,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'spare'"):
        if table != STEP:
            sql(f'ALTER TABLE spare."{table}" OWNER TO postgres')
    with as_role(OWNER) as raw:
        raw.execute(
            f"CREATE TRIGGER evil BEFORE UPDATE ON spare.{STEP} FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        )
    ((found,),) = sql("SELECT tenant_q_foreign_code('spare')")
    assert TRIGGERED in found


@pytest.mark.parametrize("table", [RUN, STEP, SIGNAL])
def test_the_tables_cannot_be_changed_between_the_question_and_the_statement(spare, table):
    with transaction.atomic(), as_role(OWNER) as raw:
        tenancy.require_plain_tables(["spare"], table)
        raw.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            raw.execute(
                f"CREATE TRIGGER evil BEFORE UPDATE ON spare.{table} FOR EACH ROW "
                "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            )


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "place", [f"CREATE TEMP TABLE {RUN}", "CREATE TABLE spare.other", f"CREATE TABLE tq_test_own.{RUN}"]
)
@pytest.mark.parametrize("argument", ["acme_corp", "spare"])
def test_who_may_put_the_trigger_on_tables_writes_no_entries_of_others(spare, isolation, place, argument):
    sql(f"GRANT EXECUTE ON FUNCTION tenant_q_index_run() TO {OWNER}")
    sql(f"CREATE SCHEMA tq_test_own AUTHORIZATION {OWNER}")
    table = place.rpartition(" ")[2]
    try:
        with as_role(OWNER) as raw:
            raw.execute(f"{place} (id text, state text, look_at timestamptz, cluster text)")
            for each, act in (("ROW", "INSERT OR UPDATE OR DELETE"), ("STATEMENT", "TRUNCATE")):
                raw.execute(
                    f"CREATE TRIGGER mine_{each} AFTER {act} ON {table} FOR EACH {each} "
                    f"EXECUTE FUNCTION public.tenant_q_index_run('{argument}')"
                )
            raw.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            raw.execute(f"INSERT INTO {table} VALUES ('r1', 'running', now(), 'ours')")
            raw.execute(f"UPDATE {table} SET id = 'r2'")
            raw.execute(f"TRUNCATE {table}")
            raw.execute("COMMIT")
        assert sql("SELECT * FROM tenant_q_dueworkflow") == []
        assert run_index.stale_schemas() == [], "nor is another schema doubted"
    finally:
        sql("DROP SCHEMA tq_test_own CASCADE")
        sql(f"REVOKE EXECUTE ON FUNCTION tenant_q_index_run() FROM {OWNER}")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_older_than_the_index_of_its_tenant_is_seen(spare, isolation):
    sql("DELETE FROM tenant_q_indexedruns WHERE schema_name = 'spare'")
    with as_role(OWNER) as raw:
        raw.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        raw.execute("SELECT 1 FROM spare.django_q_task")
        assert run_index.install("spare")
        raw.execute(INSERT)
        raw.execute("COMMIT")
    assert entries() == [("r1", "ours", "running", LATER)]


@pytest.mark.parametrize("type", ["text", "varchar(400)", "timestamp", "date", "timestamptz(0)"])
def test_the_role_writes_its_runs_whatever_their_columns_are(spare, type):
    """What the trigger cannot read is no error of the tenant's."""
    with as_role(OWNER) as raw:
        raw.execute(INSERT)
        raw.execute(f"ALTER TABLE spare.{RUN} ALTER COLUMN look_at TYPE {type}")
        raw.execute(f"UPDATE spare.{RUN} SET look_at = '2999-01-03 00:00'")
        if type.startswith(("text", "varchar")):
            raw.execute(f"UPDATE spare.{RUN} SET look_at = 'soon'")
        raw.execute(f"ALTER TABLE spare.{RUN} ALTER COLUMN id TYPE text, ALTER COLUMN cluster DROP NOT NULL")
        raw.execute(f"UPDATE spare.{RUN} SET id = repeat('x', 100), cluster = NULL, state = '|'")
        raw.execute(f"DELETE FROM spare.{RUN}")
    assert [run for run, *_ in entries()] in ([], ["r1"]), "an id that the index cannot hold leaves the old entry"


def test_a_moment_is_read_alike_in_any_date_style_and_zone(spare):
    for style, zone in (("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "America/New_York"), ("German", "UTC")):
        with as_role(OWNER) as raw:
            raw.execute(f"DELETE FROM spare.{RUN}")
            raw.execute(f"SET datestyle = '{style}'; SET timezone = '{zone}'")
            raw.execute(INSERT)
        assert entries() == [("r1", "ours", "running", LATER)]
