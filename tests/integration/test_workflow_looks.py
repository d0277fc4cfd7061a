"""The scheduler's looks at runs, beside workers and beside tenants that cannot be served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.workflows import control, here, looks, run_index
from tenant_q.workflows.advancing import advance, plan_looks
from tenant_q.workflows.transactions import TABLES
from tests.flows import workflows as flows
from tests.integration.conftest import make_due, make_runs_due, sql, work

A, B = "acme_corp", "globex_inc"


def due_at_once(*, deadline: bool = False) -> None:
    sql(f"UPDATE {A}.tenant_q_workflows_run SET look_at = now()" + (", deadline = now()" if deadline else ""))


@contextmanager
def no_task_rows() -> Iterator[None]:
    """A tenant's role lets no failed row of a task be written."""
    sql(f"ALTER TABLE {A}.django_q_task ADD CONSTRAINT none CHECK (success)")
    yield
    sql(f"ALTER TABLE {A}.django_q_task DROP CONSTRAINT none")


def test_a_run_that_ends_before_the_scheduler_reads_it_is_kept(tenants, scheduler):
    run = flows.line.start({"number": 1}, schema_name=A)
    due_at_once()
    found = run_index.look([run.row.cluster])
    assert [one.run for one in found.due] == [run.id]
    here.drive(run)
    looks._drive(found.due)
    assert run.refresh().has_ended


def test_a_run_that_cannot_be_read_is_kept_as_failed(tenants, scheduler):
    run = flows.line.start({"number": 1}, schema_name=A)
    sql(f"UPDATE {A}.tenant_q_workflows_run SET plan = '[]', version = 'x', look_at = now()")
    scheduler.tick()
    assert run.refresh().has_ended
    assert (run.row.state, "cannot be read" in run.error) == ("failed", True)
    due_at_once()
    scheduler.tick()
    assert sql(f"SELECT count(*) FROM {A}.tenant_q_workflows_run") == [(0,)]


def test_a_look_at_the_deadline_is_left_to_the_scheduler(tenants, scheduler):
    run = flows.line.start({"number": 1}, schema_name=A)
    due_at_once(deadline=True)
    advance({A: [run.id]})
    scheduler.tick()
    assert run.refresh().error.startswith("RunTimeout")


def test_a_cancel_that_was_interrupted_is_left_to_the_scheduler(tenants, scheduler, monkeypatch):
    run = flows.line.start({"number": 1}, schema_name=A)
    with monkeypatch.context() as killed:
        killed.setattr(control, "finish_cancel", lambda *_, **__: None)
        run.cancel()
    advance({A: [run.id]})
    scheduler.tick()
    assert run.refresh().state == "cancelled"


def test_the_first_look_is_not_after_the_deadline(tenants, define):
    flow = define(timeout=2)
    flow.step(first)
    row = flow.start(schema_name=A).row
    assert row.look_at == row.deadline


def first(ctx):
    """A step."""


def test_a_tenant_whose_dead_step_cannot_be_saved_is_alone(tenants, define, scheduler):
    flow = define()
    flow.step(first)
    ours, others = (flow.start(schema_name=schema) for schema in (A, B))
    broker = get_broker()
    while leases := broker.fetch("w").leases:
        for lease in leases:
            broker.dead_letter("w", lease, "WorkerDied: it was killed")
    with no_task_rows():
        make_runs_due()
        scheduler.tick()
    assert (ours.refresh().state, others.refresh().state) == ("running", "failed")
    make_runs_due()
    scheduler.tick()
    assert ours.refresh().state == "failed"


def test_a_tenant_whose_failed_step_cannot_be_saved_is_alone(tenants, define, make_worker):
    flow = define()
    flow.step(fail)
    ours, others = (flow.start(schema_name=schema) for schema in (A, B))
    worker = make_worker()
    with no_task_rows():
        work(worker)
    assert (ours.refresh().state, others.refresh().state) == ("running", "failed")
    make_due()
    work(worker)
    assert ours.refresh().state == "failed"


def fail(ctx):
    raise ValueError("no")


def test_a_schema_name_with_a_percent_sign(tenants):
    sql('CREATE SCHEMA "a%b"')
    for table in TABLES:
        sql(f'CREATE TABLE "a%b".{table} (LIKE {A}.{table})')
    try:
        assert advance({"a%b": ["none"]}).gone == {"a%b": {"none"}}
    finally:
        sql('DROP SCHEMA "a%b" CASCADE')


def test_the_limits_of_the_callers_transaction_are_kept(tenants, define):
    flow = define()
    flow.step(fail)
    with in_schema(A), transaction.atomic():
        before = limits("777ms")
        assert flow.run_here().state == "failed"
        assert limits() == before


def limits(lock_timeout: str = "") -> tuple[str, str]:
    with connection.cursor() as cursor:
        if lock_timeout:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [lock_timeout])
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('search_path')")
        return cursor.fetchone()


@pytest.mark.parametrize("moment", ["2025-11-02 01:30:00-04", "-infinity"])
def test_a_look_at_a_time_that_python_cannot_tell(tenants, settings, moment):
    run = flows.line.start({"number": 1}, schema_name=A)
    settings.USE_TZ, settings.TIME_ZONE = False, "America/New_York"  # the clocks went back, so the hour came twice
    connection.close()
    sql(f"UPDATE {A}.tenant_q_workflows_run SET look_at = %s", moment)
    plan_looks(advance({A: [run.id]}, keeps_looks=True))
    assert sql(f"SELECT look_at > now() FROM {A}.tenant_q_workflows_run") == [(True,)]
    connection.close()
