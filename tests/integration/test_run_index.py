"""The due index of runs is what the tenants' runs say, whoever writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from tenant_q import tenancy
from tenant_q.operations import workflow_runs
from tenant_q.workflows import run_index
from tests import schemas
from tests.integration.conftest import sql
from tests.integration.planning import LATER, elsewhere, on_the_wire, write_past_the_triggers

A, B = "acme_corp", "globex_inc"
PAST = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
OURS = ["ours"]


@pytest.fixture(autouse=True)
def no_runs(tenants):
    yield
    connection.set_schema_to_public()
    for schema in schemas.TENANTS:
        sql(f"TRUNCATE {schema}.tenant_q_workflows_run")
    assert sql("SELECT * FROM tenant_q_dueworkflow WHERE schema_name = ANY(%s)", list(schemas.TENANTS)) == []


def insert(schema: str = A, id: str = "r1", look_at: Any = LATER, state: str = "running", cluster: str = "ours") -> str:
    """A run of a tenant. Returns its id."""
    sql(INSERT.format(schema), id, cluster, state, look_at)
    if state in ("succeeded", "failed", "cancelled"):
        sql(f'UPDATE "{schema}".tenant_q_workflows_run SET ended = now() WHERE id = %s', id)
    return id


INSERT = (
    'INSERT INTO "{}".tenant_q_workflows_run '
    "(id, workflow, version, cluster, state, plan, input, config, generation, created, look_at, error, by) "
    "VALUES (%s, 'w', '', %s, %s, '{{}}', '{{}}', '{{}}', 1, now(), %s, '', '')"
)


def entries(schema: str = A) -> dict[str, tuple[str, str, Any]]:
    """What the index has of a schema: cluster, state and moment, by run."""
    rows = sql("SELECT run, cluster, state, due FROM tenant_q_dueworkflow WHERE schema_name = %s", schema)
    return {row[0]: row[1:] for row in rows}


def is_right(schema: str = A) -> bool:
    return run_index.errors(schema) == 0 and schema not in dict(run_index.stale_schemas())


def due() -> list[tuple[str, str]]:
    return [(one.schema, one.run) for one in run_index.look(OURS).due]


# Kept, whoever writes


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("UPDATE {} SET state = 'succeeded', ended = now()", {"r1": ("ours", "succeeded", LATER)}),
        # Its last step is not over, and would be lost with the broker's data.
        ("UPDATE {} SET state = 'succeeded'", {"r1": ("ours", "running", LATER)}),
        ("UPDATE {} SET look_at = NULL", {"r1": ("ours", "running", None)}),
        ("UPDATE {} SET look_at = 'infinity'", {"r1": ("ours", "running", None)}),
        ("UPDATE {} SET look_at = look_at + interval '1 day'", {"r1": ("ours", "running", LATER + timedelta(days=1))}),
        ("UPDATE {} SET cluster = 'long'", {"r1": ("long", "running", LATER)}),
        ("UPDATE {} SET error = 'e', by = 'Ada'", {"r1": ("ours", "running", LATER)}),
        ("UPDATE {} SET id = 'r2'", {"r2": ("ours", "running", LATER)}),
        ("DELETE FROM {}", {}),
        ("TRUNCATE {}", {}),
    ],
)
@pytest.mark.seam
def test_it_is_kept(tenants, change, left):
    insert(), insert(B)
    assert entries() == {"r1": ("ours", "running", LATER)}
    sql(change.format("acme_corp.tenant_q_workflows_run"))
    assert entries() == left
    assert entries(B) == {"r1": ("ours", "running", LATER)}, "another tenant's is not touched"
    assert is_right()
    assert is_right(B)


def test_nothing_is_written_for_what_the_index_does_not_hold(tenants):
    insert()
    before = sql("SELECT xmin, ctid FROM tenant_q_dueworkflow")
    sql("UPDATE acme_corp.tenant_q_workflows_run SET error = 'e', started = now(), generation = 2")
    assert sql("SELECT xmin, ctid FROM tenant_q_dueworkflow") == before


def test_nobody_is_notified(tenants):
    with elsewhere() as other:
        other.execute("LISTEN tenant_q_due; LISTEN tenant_q_unsure")
        other.commit()
        insert(look_at=PAST)
        sql("DELETE FROM acme_corp.tenant_q_workflows_run")
        assert list(other.notifies(timeout=0)) == []


def test_a_rollback_takes_the_entry_back(tenants):
    with elsewhere() as other:
        other.execute(INSERT.format(A), ["r1", "ours", "running", PAST])
        assert due() == []
        other.rollback()
    assert entries() == {}


def test_a_tenant_keeps_its_runs_when_the_index_is_gone(tenants):
    sql("ALTER TABLE tenant_q_dueworkflow RENAME TO away")
    try:
        insert()
        sql("DELETE FROM acme_corp.tenant_q_workflows_run")
    finally:
        sql("ALTER TABLE away RENAME TO tenant_q_dueworkflow")
    assert is_right()


@pytest.mark.parametrize("column", ["id", "state", "cluster"])
def test_a_migration_may_change_a_column(spare, column):
    insert(spare)
    table = f"{spare}.tenant_q_workflows_run"
    for type in ("varchar(400)", "varchar(30)"):
        sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type}")
        sql(f"UPDATE {table} SET look_at = look_at + interval '1 day'")
        assert is_right(spare)
    sql(f"UPDATE {table} SET look_at = now()")
    assert run_index.look(OURS).due[0].schema == spare


@pytest.mark.parametrize("column", ["state", "look_at", "cluster"])
def test_a_tenant_writes_runs_of_another_shape(spare, column):
    insert(spare)
    sql(f"ALTER TABLE {spare}.tenant_q_workflows_run DROP COLUMN {column}")
    sql(f"UPDATE {spare}.tenant_q_workflows_run SET error = 'e'")
    sql(f"DELETE FROM {spare}.tenant_q_workflows_run")


# Isolation levels


def change_in(isolation: str, *statements: str, meanwhile: Any = None) -> None:
    with elsewhere() as other:
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        other.execute("SELECT 1 FROM acme_corp.tenant_q_workflows_run")
        if meanwhile:
            meanwhile()
        for statement in statements:
            other.execute(statement)
        other.commit()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_run_is_entered_and_changed_in_any_isolation_level(tenants, isolation):
    with elsewhere() as other:
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        other.execute(INSERT.format(A), ["r1", "ours", "running", PAST])
        other.execute("UPDATE acme_corp.tenant_q_workflows_run SET look_at = %s", [LATER])
        other.commit()
    assert entries() == {"r1": ("ours", "running", LATER)}


def test_a_run_that_is_deleted_in_serializable_becomes_due_and_is_removed_then(tenants):
    insert(state="succeeded")
    change_in("SERIALIZABLE", "DELETE FROM acme_corp.tenant_q_workflows_run")
    assert due() == [(A, "r1")]
    run_index.remove(A, "r1")
    assert entries() == {}


def test_a_table_that_is_emptied_in_serializable_is_written_anew(tenants, make_scheduler):
    insert()
    change_in("SERIALIZABLE", "TRUNCATE acme_corp.tenant_q_workflows_run")
    assert run_index.stale_schemas() == [(A, False)]
    insert(id="r2")
    assert list(entries()) == ["r1", "r2"], "the table is still in the index"
    make_scheduler().tick()
    assert list(entries()) == ["r2"]
    assert is_right()


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_what_an_old_snapshot_cannot_write_is_written_anew(tenants, make_scheduler, isolation):
    """The scheduler has written to the entry since; the tenant's transaction does not fail."""
    insert(look_at=PAST)
    change_in(
        isolation,
        "UPDATE acme_corp.tenant_q_workflows_run SET state = 'cancelling'",
        meanwhile=lambda: run_index.put_off(A, ["r1"], 60),
    )
    assert entries()["r1"][1] == "running"
    assert run_index.stale_schemas() == [(A, False)]
    make_scheduler().tick()
    assert entries() == {"r1": ("ours", "cancelling", PAST)}
    assert is_right()


def test_serializable_transactions_of_two_tenants_do_not_conflict(tenants):
    insert(), insert(B)
    with elsewhere() as one, elsewhere() as other:
        for session, schema in ((one, A), (other, B)):
            session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            session.execute(f"SELECT count(*) FROM {schema}.tenant_q_workflows_run")
        for session, schema in ((one, A), (other, B)):
            session.execute(INSERT.format(schema), ["r2", "ours", "running", LATER])
            session.execute(f"DELETE FROM {schema}.tenant_q_workflows_run WHERE id = 'r1'")
        one.commit()
        other.commit()
    assert sorted(due()) == [(A, "r1"), (B, "r1")]


# What fires no trigger


@pytest.mark.seam
def test_a_restored_schema(spare, make_scheduler):
    insert(spare)
    sql(f"CREATE TABLE {spare}.restored (LIKE {spare}.tenant_q_workflows_run INCLUDING ALL)")
    sql(f"INSERT INTO {spare}.restored SELECT * FROM {spare}.tenant_q_workflows_run")
    sql(f"UPDATE {spare}.restored SET id = 'r7'")
    sql(f"DROP TABLE {spare}.tenant_q_workflows_run")
    sql(f"ALTER TABLE {spare}.restored RENAME TO tenant_q_workflows_run")
    assert run_index.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert run_index.stale_schemas() == []
    assert list(entries(spare)) == ["r7"]
    sql(f"DELETE FROM {spare}.tenant_q_workflows_run")
    assert entries(spare) == {}, "its triggers are there again"


@pytest.mark.seam
def test_a_renamed_schema(spare, make_scheduler):
    insert(spare)
    sql(f"ALTER SCHEMA {spare} RENAME TO moved")
    sql(f"UPDATE {tenancy.tenant_model()._meta.db_table} SET schema_name = 'moved' WHERE schema_name = 'spare'")
    assert sorted(run_index.stale_schemas()) == [("moved", False), (spare, True)]
    make_scheduler().tick()
    assert (run_index.stale_schemas(), entries(spare), list(entries("moved"))) == ([], {}, ["r1"])
    sql("DELETE FROM moved.tenant_q_workflows_run")
    assert entries("moved") == {}


def test_a_schema_that_our_command_renames(tenants):
    schemas.make_tenant("newcomer")
    try:
        insert("newcomer")
        call_command("mstenant", "rename", "newcomer", "moved", verbosity=0)
        assert (run_index.stale_schemas(), entries("newcomer"), list(entries("moved"))) == ([], {}, ["r1"])
    finally:
        for name in ("newcomer", "moved"):
            schemas.drop_tenant(name)
        tenancy.forget_tenants()
        run_index.bring_up_to_date(run_index.stale_schemas())


@pytest.mark.parametrize("how", ["DROP SCHEMA {} CASCADE", "DROP TABLE {}.tenant_q_workflows_run"])
def test_a_dropped_schema(spare, make_scheduler, how):
    insert(spare)
    sql(how.format(spare))
    assert run_index.stale_schemas() == [(spare, True)]
    make_scheduler().tick()
    assert (run_index.stale_schemas(), entries(spare)) == ([], {})


def test_a_tenant_that_is_deleted_leaves_the_index_though_its_schema_stays(spare):
    insert(spare)
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    assert entries(spare) == {}
    assert run_index.stale_schemas() == [], "the table is no tenant's"


@pytest.mark.parametrize(
    "how",
    [
        "ALTER TABLE spare.tenant_q_workflows_run DISABLE TRIGGER tenant_q_index_truncate",
        "DROP TRIGGER tenant_q_index_run ON spare.tenant_q_workflows_run",
    ],
)
def test_a_trigger_that_is_off(spare, make_scheduler, how):
    sql(how)
    insert(spare)
    assert run_index.stale_schemas() == [(spare, False)]
    make_scheduler().tick()
    assert list(entries(spare)) == ["r1"]
    sql("TRUNCATE spare.tenant_q_workflows_run")
    assert entries(spare) == {}


def test_a_scheduler_that_starts_finds_what_was_written_past_the_triggers(tenants, make_scheduler):
    write_past_the_triggers(INSERT.format(A), "r1", "ours", "running", LATER)
    assert run_index.stale_schemas() == []
    assert run_index.errors(A) == 1
    make_scheduler().tick()
    assert is_right()
    assert list(entries()) == ["r1"]


@pytest.mark.seam
def test_a_tenant_is_in_the_index_as_soon_as_it_is_created(tenants):
    schemas.make_tenant("newcomer")
    try:
        assert is_right("newcomer")
        insert("newcomer")
        assert list(entries("newcomer")) == ["r1"]
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()
        run_index.bring_up_to_date(run_index.stale_schemas())


# Read


def test_a_look(tenants):
    now = datetime.now(UTC)
    assert run_index.look(OURS) == run_index.Look((), False, None)
    insert(id="kept", look_at=None, state="succeeded")
    insert(id="other", look_at=PAST, cluster="long")
    assert run_index.look(OURS) == run_index.Look((), False, None)
    insert(B, "soon", now + timedelta(hours=1), "pending")
    found = run_index.look(OURS)
    assert (found.due, found.is_any_open) == ((), True)
    assert found.next_seconds == pytest.approx(3600, abs=60)
    insert(id="late", look_at=PAST)
    insert(id="old", look_at=PAST - timedelta(days=1), state="failed")
    first, second = run_index.look(OURS).due
    assert (first.schema, first.run, first.state) == (A, "old", "failed")
    assert second.run == "late"
    assert second.late == pytest.approx((now - PAST).total_seconds(), abs=60)
    assert [one.run for one in run_index.look([*OURS, "long"], 1).due] == ["old", "other"]


def test_counts(tenants):
    insert(id="r1"), insert(id="r2", look_at=PAST), insert(id="r3", look_at=PAST, state="failed"), insert(B)
    found = workflow_runs.count_runs()
    assert {name: counts.states for name, counts in found.items()} == {
        A: {"running": 2, "failed": 1},
        B: {"running": 1},
    }
    assert {name: counts.overdue for name, counts in found.items() if counts.overdue} == {A: 1}


def fill(number: int, state: str) -> None:
    sql(
        "INSERT INTO tenant_q_dueworkflow SELECT 'tenant' || n, n::text, 'ours', %s, '2999-01-01' "
        "FROM generate_series(1, %s) AS n",
        state,
        number,
    )


@pytest.fixture
def filled():
    yield fill
    sql("DELETE FROM tenant_q_dueworkflow")


def pages_of_a_look() -> int:
    """The pages that one look reads, as PostgreSQL counts them."""
    text = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + run_index.look_query(OURS).as_string(connection.connection)
    plan = sql(text.replace("%", "%%"))[0][0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_a_look_reads_as_much_whatever_the_index_holds(tenants, filled, state):
    """A full scan of 20,000 entries would be hundreds of pages."""
    filled(20000, state)
    sql("VACUUM ANALYZE tenant_q_dueworkflow")
    assert pages_of_a_look() <= 12
    with on_the_wire() as found:
        look = run_index.look(OURS)
    assert len(found) == 1
    assert (look.due, look.is_any_open) == ((), state == "running")


# Hold and release


def test_runs_of_a_tenant_that_cannot_be_served_are_put_off(tenants):
    insert(id="r1", look_at=PAST), insert(id="r2", look_at=PAST), insert(id="r3", look_at=LATER)
    run_index.put_off(A, ["r1", "r3"], 60)
    assert due() == [(A, "r2")]
    assert entries()["r3"][2] == LATER
    assert is_right(), "they are held, not wrong"
    sql("UPDATE acme_corp.tenant_q_workflows_run SET look_at = now() WHERE id = 'r1'")
    assert len(due()) == 2, "an earlier moment of the row releases it"


def test_an_entry_that_a_tenant_writes_to_is_not_waited_for(tenants):
    insert(look_at=PAST)
    with elsewhere() as other:
        other.execute("UPDATE acme_corp.tenant_q_workflows_run SET look_at = now()")
        run_index.put_off(A, ["r1"], 60)
        run_index.remove(A, "r1")
        other.commit()
    assert due() == [(A, "r1")]


def test_a_new_run_of_the_same_id_is_not_removed(tenants):
    insert()
    run_index.remove(A, "r1")
    assert list(entries()) == ["r1"]


# After a loss


def seconds_until_due(schema: str = A) -> list[float]:
    now = datetime.now(UTC)
    return sorted((moment - now).total_seconds() for _, _, moment in entries(schema).values())


def test_all_open_runs_become_due_the_first_at_once(tenants):
    for number in range(6):
        insert(id=f"r{number}")
    insert(id="none", look_at=None), insert(B), insert(B, "late", look_at=PAST)
    insert(id="ended", state="succeeded"), insert(id="other", cluster="long")
    assert run_index.make_all_due(OURS, spread=1000, at_once=4) == (8, [])
    assert len(due()) == 4
    assert (B, "late") in due()
    assert (B, "r1") in due(), "tenants take turns"
    assert entries()["ended"][2] == entries()["other"][2] == LATER
    waits = [wait for wait in seconds_until_due() if 0 < wait < 10000]
    assert waits == [pytest.approx(200 * place, abs=60) for place in range(1, 6)]
    before = entries()
    assert run_index.make_all_due(OURS, spread=1000, at_once=4) == (0, [])
    assert entries() == before
    assert is_right()


def test_two_schedulers_that_make_all_due_change_as_much_as_one(tenants):
    for number in range(3):
        insert(id=f"r{number}")
    assert run_index.make_all_due(OURS) == (3, [])
    assert run_index.make_all_due(OURS) == (0, [])


def test_a_run_that_was_looked_at_after_a_loss_is_due_again_when_its_row_says(tenants):
    """Otherwise it would be looked at in each tick, though its row does not change."""
    insert(id="r1"), insert(id="none", look_at=None), insert(id="late", look_at=PAST)
    run_index.make_all_due(OURS)
    assert len(due()) == 3
    run_index.settle(A, ["r1", "none", "late"])
    assert due() == [(A, "late")]
    assert entries()["r1"][2] == LATER
    assert entries()["none"][2] is None


def test_an_entry_that_is_locked_is_made_due_later(tenants):
    insert(id="r1"), insert(id="r2")
    with elsewhere() as other:
        other.execute("UPDATE acme_corp.tenant_q_workflows_run SET state = 'cancelling' WHERE id = 'r1'")
        count, locked = run_index.make_all_due(OURS)
        assert (count, locked) == (1, [(A, "r1")])
        assert run_index.make_due(locked) == locked
        other.commit()
    assert run_index.make_due(locked) == []
    assert sorted(due()) == [(A, "r1"), (A, "r2")]
    assert run_index.make_due([(A, "gone")]) == []
