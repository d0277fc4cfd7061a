"""Cancel runs in each state, let them run out of time, and delete them when they are old."""

from __future__ import annotations

import pytest
from django.db import connection

from tenant_q import policies, tenancy
from tenant_q.models import AuditRecord, TenantConfiguration, TenantPolicy
from tenant_q.tenancy import in_schema
from tenant_q.workflows import Run, WorkflowError
from tests.integration.conftest import errors, make_due, make_runs_due, sql, states, work

A = "acme_corp"
RAN: list[str] = []
STEP = f"{A}.tenant_q_workflows_step"


@pytest.fixture(autouse=True)
def clean(tenants):
    RAN.clear()
    yield
    connection.set_schema_to_public()
    for model in (AuditRecord, TenantPolicy, TenantConfiguration):
        model.objects.all().delete()
    tenancy.forget_tenants()


@pytest.fixture
def flow(define):
    """Two steps and one that runs last; the first does what a test says."""
    flow = define(timeout="1h")

    @flow.step(max_attempts=2, retry_delay=3600)
    def first(ctx):
        RAN.append("first")
        if do := DO.pop("first", None):
            do(ctx)

    @flow.step(after=first)
    def second(ctx):
        RAN.append("second")

    @flow.on_end
    def note(ctx):
        RAN.append(f"{ctx.state}: {ctx.error}")

    return flow


DO = {}


def start(flow, input=None):
    return flow.start(input, schema_name=A)


def check_cancelled(run, worker, ran=()):
    """It is cancelled, nothing is left in the queue, and only on_end ran since."""
    work(worker)
    assert run.refresh().state == "cancelled"
    assert run.has_ended
    assert [*ran, "cancelled: "] == RAN
    assert worker.broker.counts().queued == worker.broker.counts().delayed == 0
    assert not run.cancel(), "there is nothing to cancel any more"


def test_queued(flow, worker):
    run = start(flow)
    assert run.cancel(by="Ada")
    check_cancelled(run, worker)
    assert states(run) == {"first": "cancelled", "second": "cancelled", "on_end": "succeeded"}
    assert AuditRecord.objects.filter(actor="Ada", act="cancel workflow", target=run.id).count() == 1


def test_running(flow, worker):
    """The step ends by its own outcome; what is behind it does not start."""
    run = start(flow)
    DO["first"] = lambda ctx: run.cancel() and RAN.append(run.refresh().state)
    check_cancelled(run, worker, ran=["first", "cancelling"])
    assert states(run) == {"first": "succeeded", "second": "cancelled", "on_end": "succeeded"}


def test_a_cancelling_run_cannot_be_resumed(flow, worker):
    run = start(flow)

    def cancel(ctx):
        run.cancel()
        with pytest.raises(WorkflowError, match="is cancelling and has not ended"):
            run.resume()

    DO["first"] = cancel
    check_cancelled(run, worker, ran=["first"])


def test_delayed(flow, worker):
    run = start(flow)
    DO["first"] = lambda ctx: 1 / 0
    work(worker)
    assert worker.broker.counts().delayed == 1
    run.cancel()
    check_cancelled(run, worker, ran=["first"])
    make_due()
    work(worker)
    assert RAN == ["first", "cancelled: "]


def test_pending(flow, worker):
    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    run, pending = start(flow), start(flow)
    assert (run.refresh().state, pending.refresh().state) == ("running", "pending")
    pending.cancel()
    work(worker)
    assert pending.refresh().state == "cancelled"
    assert run.refresh().state == "succeeded"


def test_in_a_paused_tenant(flow, worker):
    run = start(flow)
    policies.change(A, actor="t", act="pause", paused=True)
    run.cancel()
    assert states(run) == {"first": "cancelled", "second": "cancelled", "on_end": "ready"}
    policies.change(A, actor="t", act="resume", paused=False)
    check_cancelled(run, worker)


def test_in_a_map(define, worker):
    flow = define()

    @flow.step
    def source(ctx):
        return [0, 1, 2, 3, 4]

    @flow.step(each=source, at_once=2)
    def book(ctx):
        RAN.append(ctx.item)
        if ctx.item == 1:
            run.cancel()
            RAN.append(run.refresh().state)

    run = start(flow)
    work(worker)
    assert RAN[:3] == [0, 1, "cancelling"]
    assert len(RAN) <= 4, "the next item may be with the worker already, which its sentinel would interrupt"
    assert run.refresh().state == "cancelled"
    assert states(run) == {"source": "succeeded", "book": "cancelled"}
    items = sql(f"SELECT state, count(*) FROM {STEP} WHERE index >= 0 GROUP BY state ORDER BY state")
    assert items == [("cancelled", 6 - len(RAN)), ("succeeded", len(RAN) - 1)]
    run.resume()
    work(worker)
    assert [item for item in RAN if item != "cancelling"] == [0, 1, 2, 3, 4]
    assert run.refresh().state == "succeeded"


def test_a_cancel_whose_process_died_is_finished_by_the_scheduler(flow, worker, scheduler, monkeypatch):
    from tenant_q.workflows import control

    run = start(flow)
    monkeypatch.setattr(control, "_finish_or_leave", lambda *args: None)
    run.cancel()
    assert run.refresh().state == "cancelling"
    scheduler.tick()
    check_cancelled(run, worker)


def test_a_rolled_back_cancel_is_none(flow, worker):
    from django.db import transaction

    run = start(flow)
    with in_schema(A), pytest.raises(ZeroDivisionError), transaction.atomic():
        run.cancel()
        raise ZeroDivisionError
    work(worker)
    assert run.refresh().state == "succeeded"


# Deadline


def be_late(run):
    sql(f"UPDATE {A}.tenant_q_workflows_run SET deadline = now(), look_at = now() WHERE id = %s", run.id)


def test_a_run_that_takes_too_long_fails(flow, worker, scheduler):
    run = start(flow)
    be_late(run)
    scheduler.tick()
    work(worker)
    assert run.refresh().state == "failed"
    assert run.error == "RunTimeout: it did not end within 60 min; give it more time, or resume it."
    assert [f"failed: {run.error}"] == RAN
    run.resume()
    work(worker)
    assert run.refresh().state == "succeeded"
    assert run.row.deadline is not None


def test_a_pending_run_that_waits_too_long_fails(flow, worker, scheduler):
    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    start(flow)
    pending = start(flow)
    be_late(pending)
    scheduler.tick()
    assert pending.refresh().state == "failed"
    assert pending.error.startswith("RunTimeout")


# Open runs of a tenant


def test_pending_runs_begin_in_their_order(flow, worker):
    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    runs = [start(flow) for _ in range(4)]
    assert [run.refresh().state for run in runs] == ["running"] + ["pending"] * 3
    assert worker.broker.counts().queued == 1
    work(worker)
    assert [run.refresh().state for run in runs] == ["succeeded"] * 4
    begun = [run.row.started for run in runs]
    assert begun == sorted(begun)


def test_the_scheduler_admits_when_the_limit_is_gone(flow, worker, scheduler):
    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    runs = [start(flow) for _ in range(3)]
    policies.configure(A, actor="t", limits={"max_open_workflows": None})
    make_runs_due()
    scheduler.tick()
    assert [run.refresh().state for run in runs] == ["running"] * 3
    work(worker)
    assert [run.refresh().state for run in runs] == ["succeeded"] * 3


def test_pending_runs_begin_after_the_limit_was_removed_and_a_run_ended(flow, worker, scheduler):
    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    runs = [start(flow) for _ in range(3)]
    policies.configure(A, actor="t", limits={"max_open_workflows": None})
    work(worker)
    make_runs_due()
    scheduler.tick()
    work(worker)
    assert [run.refresh().state for run in runs] == ["succeeded"] * 3


def test_a_killed_admission_is_made_up_for(flow, worker, scheduler, monkeypatch):
    from tenant_q.workflows import admission

    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    runs = [start(flow) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(admission, "admit", lambda schemas: [])
        work(worker)
    assert [run.refresh().state for run in runs] == ["succeeded", "pending"]
    make_runs_due()
    scheduler.tick()
    work(worker)
    assert runs[1].refresh().state == "succeeded"


def test_a_resumed_run_waits_for_its_turn(flow, worker):
    policies.configure(A, actor="t", limits={"max_open_workflows": 1})
    run = start(flow)
    run.cancel()
    work(worker)
    other = start(flow)
    assert run.refresh().resume().state == "pending"
    work(worker)
    assert {run.refresh().state, other.refresh().state} == {"succeeded"}


# Retention


def test_ended_runs_are_deleted_when_they_are_old(define, worker, scheduler):
    flow = define(retention="1h")

    @flow.step
    def source(ctx):
        return [1, 2]

    @flow.step(each=source)
    def book(ctx):
        return ctx.item

    old, kept = start(flow), start(flow)
    work(worker)
    scheduler.tick()
    assert old.refresh().has_ended
    sql(f"UPDATE {A}.tenant_q_workflows_run SET look_at = now() WHERE id = %s", old.id)
    scheduler.tick()
    with pytest.raises(WorkflowError, match="has no workflow run"):
        old.refresh()
    assert sql(f"SELECT DISTINCT run FROM {STEP}") == [(kept.id,)]
    assert sql("SELECT run FROM tenant_q_dueworkflow WHERE schema_name = %s", A) == [(kept.id,)]


def test_runs_are_kept_for_good_without_retention(define, worker):
    flow = define(retention=None)

    @flow.step
    def only(ctx):
        return None

    run = start(flow)
    work(worker)
    assert run.refresh().has_ended
    assert run.row.look_at is None


def test_an_open_run_is_never_deleted(flow, worker):
    from tenant_q.workflows import control

    run = start(flow)
    assert control.delete(A, [run.id]) == 0
    assert Run.get(run.id, schema_name=A)
    assert errors(run) == {}
