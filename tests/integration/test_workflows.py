"""Workflows in one process: what a run comes to."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone
from django_q.models import Schedule

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tests import tasks
from tests.flows import workflows as flows
from tests.integration.conftest import make_runs_due, sql, work


def test_a_run_passes_outputs_and_context_along(tenants):
    with in_schema("acme_corp"):
        run = flows.line.run_here({"number": 4})
        assert run.state == "succeeded"
        assert dict(run.results) == {"first": {"numbers": [4, 5, 6]}, "second": 15}
        assert run.context == {"number": 4, "seen": ["first", "second"]}
        assert run.progress == (2, 2)


def test_a_step_runs_once_for_each_item(tenants):
    with in_schema("acme_corp"):
        run = flows.mapped.run_here({"items": [1, 2, 3, 4, 5]})
        assert run.results["double"] == [2, 4, 6, 8, 10]
        assert run.results["total"] == 30
        assert run.results["on_end"] == "succeeded: "
        assert run.context == {"items": [1, 2, 3, 4, 5]}


def test_a_failed_item_fails_the_run_and_resume_runs_it_alone(tenants):
    with in_schema("acme_corp"):
        run = flows.mapped.run_here({"items": [1, 2, 3], "fail": [2]})
        assert run.state == "failed"
        assert "no 2" in run.error
        assert run.preview_resume() == ["double", "total"]


def test_workers_run_a_workflow(tenants, make_worker):
    worker = make_worker()
    with in_schema("acme_corp"):
        run = flows.mapped.start({"items": [1, 2, 3, 4, 5]}, key="a")
        assert flows.mapped.start({"items": [1, 2, 3, 4, 5]}, key="a").id == run.id
    work(worker)
    run.refresh()
    assert run.state == "succeeded"
    assert run.results["total"] == 30


def test_the_scheduler_pushes_what_was_lost(tenants, worker, scheduler):
    with in_schema("acme_corp"):
        run = flows.mapped.start({"items": [1, 2, 3, 4, 5]})
    tasks.client().flushdb()
    make_runs_due()
    scheduler.tick()
    work(worker)
    assert run.refresh().state == "succeeded"


def test_a_schedule_starts_a_workflow_once_for_each_planned_time(tenants, worker, scheduler):
    with in_schema("acme_corp"):
        flows.line.schedule(input={"number": 1}, cron="* * * * *")
        Schedule.objects.update(next_run=timezone.now() - timedelta(seconds=1))
    scheduler.tick()
    work(worker)
    with in_schema("acme_corp"):
        (run,) = flows.line.runs()
        assert run.state == "succeeded"
        assert run.key.startswith("schedule:")


def test_a_run_that_ended_meanwhile_is_not_deleted(tenants, worker, scheduler):
    with in_schema("acme_corp"):
        run = flows.line.start({"number": 1})
    work(worker)
    make_runs_due()  # as the scheduler saw it, before the run ended
    scheduler.tick()
    assert run.refresh().state == "succeeded"


def test_a_tenant_whose_dead_step_cannot_be_ended_stops_no_other(tenants, worker, scheduler):
    other = flows.line.start({"number": 1}, schema_name="globex_inc")
    tasks.client().flushdb()
    broken = flows.line.start({"number": 1}, schema_name="acme_corp")
    (lease,) = get_broker().fetch("w", limit=1).leases
    get_broker().dead_letter("w", lease, "TenantBroken: for the test")
    sql("ALTER TABLE acme_corp.django_q_task RENAME TO elsewhere")
    try:
        make_runs_due()
        scheduler.tick()
        work(worker)
        assert other.refresh().state == "succeeded"
    finally:
        sql("ALTER TABLE acme_corp.elsewhere RENAME TO django_q_task")
    assert broken.refresh().state == "running"
