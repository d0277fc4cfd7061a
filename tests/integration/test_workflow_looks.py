"""The scheduler's looks at runs, beside workers and beside tenants that cannot be served."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenant_q import tenancy
from tenant_q.tenancy import in_schema
from tenant_q.workflows import here, looks, run_index
from tenant_q.workflows.advancing import advance
from tenant_q.workflows.models import WorkflowRun
from tenant_q.workflows.run import Run
from tests.flows import workflows as flows
from tests.integration.conftest import make_runs_due, sql, states, work

A, B = "acme_corp", "globex_inc"


def due_at_once(*, deadline: bool = False) -> None:
    sql(f"UPDATE {A}.tenant_q_workflows_run SET look_at = now()" + (", deadline = now()" if deadline else ""))


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
    assert run.refresh().state != "running"
