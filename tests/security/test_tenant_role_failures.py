"""The attacker is the database role of a tenant that owns the tenant's task table, from which failures are indexed."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from tenant_q import tenancy
from tenant_q.exceptions import ForeignCode
from tenant_q.operations import failure_upkeep, failures
from tenant_q.operations.failures import FailureFilter
from tenant_q.schedules import index_upkeep
from tenant_q.schedules.schema_indexes import FAILURES
from tests.conftest import wait_until
from tests.integration.conftest import sql
from tests.integration.planning import elsewhere
from tests.security.roles import CAST, MADE, OWNER, TRIGGER, arm, as_role, prize

TASK = "django_q_task"
COLUMN = "whose type or value is not one of PostgreSQL's own"
INSERT = (
    "INSERT INTO spare.django_q_task (id, name, func, started, stopped, success, attempt_count) "
    "VALUES ('t1', 'n', 'f', now(), '2026-01-31 12:30+00', false, 1)"
)
CONDITION = (
    "CREATE TRIGGER tenant_q_failure_gone AFTER DELETE ON spare.django_q_task FOR EACH ROW WHEN ({}) "
    "EXECUTE FUNCTION public.tenant_q_index_failure('spare')"
)

ATTACKS = {
    "a trigger": (TRIGGER.format(when="BEFORE UPDATE", table=TASK, each="ROW"), "has the trigger evil"),
    "a trigger with our trigger's name": (
        f"DROP TRIGGER tenant_q_failure_gone ON spare.{TASK};"
        + TRIGGER.format(when="AFTER DELETE", table=TASK, each="ROW").replace("evil", "tenant_q_failure_gone"),
        "has the trigger tenant_q_failure_gone",
    ),
    "a success of an enum with a cast to a truth value": (
        "DROP TRIGGER tenant_q_failure_added ON spare.django_q_task;"
        "DROP TRIGGER tenant_q_failure_changed ON spare.django_q_task;"
        "DROP TRIGGER tenant_q_failure_gone ON spare.django_q_task;"
        + CAST.format(type="boolean", value="false", volatile="IMMUTABLE")
        + f"ALTER TABLE spare.{TASK} ALTER COLUMN success TYPE spare.mood USING '1'",
        COLUMN,
    ),
    "an end of an enum with a cast to a moment": (
        CAST.format(type="timestamptz", value="now()", volatile="IMMUTABLE")
        + f"ALTER TABLE spare.{TASK} ALTER COLUMN stopped TYPE spare.mood USING '1'",
        COLUMN,
    ),
    "an index over an expression": (
        MADE.format(type="text", value="$1") + f"CREATE INDEX ON spare.{TASK} (spare.made(func))",
        "has the index",
    ),
    "a view in the place of the tasks": (
        f"ALTER TABLE spare.{TASK} RENAME TO kept;"
        f"CREATE VIEW spare.{TASK} AS SELECT * FROM spare.kept WHERE spare.take()",
        "is no plain table",
    ),
    "a table that inherits": (f"CREATE TABLE spare.child () INHERITS (spare.{TASK})", "inherits"),
}


def entries(schema: str = "spare") -> list[tuple[Any, ...]]:
    return sql("SELECT task_id, func FROM tenant_q_failure WHERE schema_name = %s ORDER BY 1", schema)


def attempt(text: str) -> None:
    """Have the role write its tasks; an error is as good as an answer here."""
    with as_role(OWNER) as raw:
        try:
            raw.execute(text)
        except psycopg.Error:
            return


def complete(schema: str, _: Any) -> None:
    while failure_upkeep.work_on(schema):
        pass


@pytest.mark.parametrize("name", ATTACKS)
def test_no_code_of_the_role_runs_with_our_rights(spare: str, name: str) -> None:
    """Neither in the trigger's function, nor where rows are compared and read, run again or deleted."""
    attempt(INSERT)
    arm(ATTACKS[name][0])
    sql("DELETE FROM tq_test_prize")
    attempt(INSERT.replace("'t1'", "'t2'").replace("false", "'1'").replace("'2026-01-31 12:30+00'", "'1'"))
    attempt(INSERT.replace("'t1'", "'t3'"))
    attempt(f"UPDATE spare.{TASK} SET func = 'g'")
    index_upkeep.install("spare", FAILURES)
    for act in (index_upkeep.errors, complete, complete):
        try:
            act("spare", FAILURES)
        except (ForeignCode, *tenancy.DATABASE_ERRORS):
            sql("UPDATE tenant_q_indexedfailures SET swept = NULL")  # as if all its rows had been compared before
    failures.retry(FailureFilter(), actor="Ada")
    failures.delete(FailureFilter(), actor="Ada")
    attempt(f"DELETE FROM spare.{TASK}")
    assert prize() == []


@pytest.mark.parametrize("name", ATTACKS)
def test_each_is_refused_and_named(spare: str, name: str) -> None:
    text, reason = ATTACKS[name]
    arm(text)
    ((found,),) = sql("SELECT tenant_q_foreign_code('spare')")
    assert reason in found
    with pytest.raises(ForeignCode), transaction.atomic():
        tenancy.require_plain_tables(["spare"], TASK)


@pytest.mark.parametrize("condition", ["spare.take()", "NOT OLD.success AND spare.take()", "OLD.func = 'f'"])
def test_a_condition_of_a_trigger_with_our_function_is_refused_unless_it_is_ours(spare: str, condition: str) -> None:
    """As a role may make one that migrates tenants."""
    assert sql("SELECT tenant_q_foreign_code('spare')") == [(None,)]
    sql(f"GRANT EXECUTE ON FUNCTION tenant_q_index_failure() TO {OWNER}")
    try:
        arm(f"DROP TRIGGER tenant_q_failure_gone ON spare.{TASK};")
        with as_role(OWNER) as raw:
            raw.execute(CONDITION.format(condition))
    finally:
        sql(f"REVOKE EXECUTE ON FUNCTION tenant_q_index_failure() FROM {OWNER}")
    ((found,),) = sql("SELECT tenant_q_foreign_code('spare')")
    assert "has the trigger tenant_q_failure_gone" in found


def test_plain_tables_of_a_role_are_used(spare: str) -> None:
    attempt(INSERT)
    assert entries() == [("t1", "f")]
    assert index_upkeep.errors("spare", FAILURES) == 0
    assert index_upkeep.install("spare", FAILURES)
    complete("spare", FAILURES)
    assert entries() == [("t1", "f")]


@pytest.mark.parametrize("act", ["retry", "complete"])
def test_whoever_waits_for_a_table_of_a_role_has_locked_no_entry(spare: str, act: str) -> None:
    """A worker that saves a row has locked the table, and may wait for the entry of a former failure."""
    while failure_upkeep.work_on("spare"):
        pass
    attempt(INSERT)
    with elsewhere() as other:
        other.execute(f"LOCK TABLE spare.{TASK} IN SHARE UPDATE EXCLUSIVE MODE")
        thread = threading.Thread(target=in_thread, args=[act])
        thread.start()
        try:
            wait_until(lambda: has_waiting(other), what="the table to be waited for")
            assert other.execute("SELECT FROM tenant_q_failure FOR UPDATE SKIP LOCKED").rowcount == 1
        finally:
            other.rollback()
            thread.join()


def in_thread(act: str) -> None:
    try:
        failures.retry(FailureFilter(), actor="Ada") if act == "retry" else failure_upkeep.work_on("spare")
    except tenancy.DATABASE_ERRORS:
        pass
    finally:
        connection.close()


def has_waiting(other: psycopg.Connection[Any]) -> bool:
    found = other.execute("SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass", [f"spare.{TASK}"])
    return found.rowcount > 0


def test_a_row_that_the_role_wrote_is_not_run_again(spare: str) -> None:
    attempt(INSERT.replace("'f'", "'os.system'"))
    done = failures.retry(FailureFilter(), actor="Ada")
    ((reason,),) = [list(done.errors.values())]
    assert "are not signed by a cluster of this site" in reason


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "place", [f"CREATE TEMP TABLE {TASK}", "CREATE TABLE spare.other", f"CREATE TABLE tq_test_own.{TASK}"]
)
@pytest.mark.parametrize("argument", ["acme_corp", "spare"])
def test_who_may_put_the_trigger_on_tables_writes_no_entries_of_others(
    spare: str, isolation: str, place: str, argument: str
) -> None:
    sql(f"GRANT EXECUTE ON FUNCTION tenant_q_index_failure() TO {OWNER}")
    sql(f"CREATE SCHEMA tq_test_own AUTHORIZATION {OWNER}")
    table = place.rpartition(" ")[2]
    try:
        with as_role(OWNER) as raw:
            raw.execute(f"{place} (id text, success boolean, func text, attempt_count int, stopped timestamptz)")
            for each, act in (("ROW", "INSERT OR UPDATE OR DELETE"), ("STATEMENT", "TRUNCATE")):
                raw.execute(
                    f"CREATE TRIGGER mine_{each} AFTER {act} ON {table} FOR EACH {each} "
                    f"EXECUTE FUNCTION public.tenant_q_index_failure('{argument}')"
                )
            raw.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            raw.execute(f"INSERT INTO {table} VALUES ('t1', false, 'f', 1, now())")
            raw.execute(f"UPDATE {table} SET id = 't2'")
            raw.execute(f"TRUNCATE {table}")
            raw.execute("COMMIT")
        assert sql("SELECT * FROM tenant_q_failure") == []
        assert index_upkeep.stale_schemas(index=FAILURES) == [], "nor is another schema doubted"
    finally:
        sql("DROP SCHEMA tq_test_own CASCADE")
        sql(f"REVOKE EXECUTE ON FUNCTION tenant_q_index_failure() FROM {OWNER}")


def test_a_moment_is_read_alike_in_any_date_style_and_zone(spare: str) -> None:
    for style, zone in (("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "America/New_York"), ("German", "UTC")):
        with as_role(OWNER) as raw:
            raw.execute(f"DELETE FROM spare.{TASK}")
            raw.execute(f"SET datestyle = '{style}'; SET timezone = '{zone}'")
            raw.execute(INSERT.replace("2026-01-31 12:30+00", "2026-01-31T12:30:00+00"))
        ((stopped,),) = sql("SELECT stopped FROM tenant_q_failure WHERE schema_name = 'spare'")
        assert stopped.isoformat() == "2026-01-31T12:30:00+00:00"


@pytest.mark.parametrize("type", ["text", "varchar(400)", "timestamp", "date"])
def test_the_role_writes_its_tasks_whatever_their_columns_are(spare: str, type: str) -> None:
    """What the trigger cannot read is no error of the tenant's."""
    with as_role(OWNER) as raw:
        raw.execute(INSERT)
        raw.execute(f"ALTER TABLE spare.{TASK} ALTER COLUMN stopped TYPE {type}")
        raw.execute(f"UPDATE spare.{TASK} SET stopped = '2999-01-03 00:00'")
        if type.startswith(("text", "varchar")):
            raw.execute(f"UPDATE spare.{TASK} SET stopped = 'soon'")
        raw.execute(f"ALTER TABLE spare.{TASK} ALTER COLUMN id TYPE text, ALTER COLUMN func DROP NOT NULL")
        raw.execute(f"UPDATE spare.{TASK} SET id = repeat('x', 100), func = NULL")
        raw.execute(f"DELETE FROM spare.{TASK}")
    assert [id for id, _ in entries()] in ([], ["t1"]), "an id that the index cannot hold leaves the old entry"


def test_a_scheduler_goes_on_when_it_refuses_the_tables_of_a_role(spare: str, make_scheduler: Any, caplog: Any) -> None:
    attempt(INSERT)
    sql("UPDATE tenant_q_indexedfailures SET swept = NULL")
    arm(ATTACKS["a trigger"][0])
    scheduler = make_scheduler()
    scheduler.tick()
    (record,) = [one for one in caplog.records if getattr(one, "event", "") == "failure_index.left"]
    assert "has the trigger evil" in record.getMessage()
