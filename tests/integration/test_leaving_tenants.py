"""A tenant that is being decommissioned takes no more tasks, whichever call and process would enqueue them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django_q.models import Schedule, Task
from django_q.tasks import async_task

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.exceptions import TenantLeaving
from tenant_q.models import DueSchedule
from tenant_q.schedules import by_hand, due_index
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tests import tasks_declared, tasks_django
from tests.integration.conftest import work
from tests.integration.planning import PAST
from tests.runs import make_run

A, B = "acme_corp", "globex_inc"
ADD = "tests.tasks.add"

ENQUEUEING: dict[str, Callable[[], Any]] = {
    "add_async_task": lambda: QUtilities.add_async_task(ADD, 1),
    "delayed": lambda: QUtilities.add_async_task(ADD, 1, q_options={"delay": 60}),
    "unique": lambda: QUtilities.add_async_task(ADD, 1, q_options={"unique": "k"}),
    "on commit": lambda: QUtilities.add_async_task(ADD, 1, q_options={"on_commit": True}),
    "add_async_tasks_from_iter": lambda: QUtilities.add_async_tasks_from_iter(ADD, [1, 2]),
    "create_async_tasks_chain": lambda: QUtilities.create_async_tasks_chain([(ADD, (1,)), (ADD, (2,))]),
    "aadd_async_task": lambda: asyncio.run(QUtilities.aadd_async_task(ADD, 1, schema_name=A)),
    "Django-Q2's async_task": lambda: async_task(ADD, 1),
    "AsyncTask": lambda: AsyncTask(ADD, 1).run(),
    "Iter": lambda: Iter(ADD, [1, 2]).run(),
    "Chain": lambda: Chain([(ADD, (1,))]).run(),
    "a declared task": lambda: tasks_declared.plain.enqueue(1),
    "a task of Django": lambda: tasks_django.echo.enqueue(1),
    "a schedule run by hand": lambda: by_hand.run_now(Schedule(func=ADD, args="1"), actor="test"),
}


@pytest.fixture
def leaving(tenants) -> Iterator[str]:
    get_broker().drain_tenant(A, tenancy.keys_of([A])[A])
    yield A


@pytest.mark.seam
@pytest.mark.parametrize("name", ENQUEUEING)
def test_every_call_that_enqueues_is_refused(leaving, name):
    with in_schema(A), pytest.raises(TenantLeaving, match=f"its tenant '{A}' is being decommissioned"):
        ENQUEUEING[name]()
    assert get_broker().counts().open == 0
    with in_schema(B):
        if "aadd" not in name:
            ENQUEUEING[name]()
    assert get_broker().queue_size(A) == 0


def test_a_transaction_that_enqueues_on_commit_raises_when_it_has_committed(leaving):
    with in_schema(A):
        with pytest.raises(TenantLeaving), transaction.atomic():
            QUtilities.add_async_task(ADD, 1, q_options={"on_commit": True})
            Schedule.objects.create(func=ADD, args="1", name="kept")
        assert Schedule.objects.filter(name="kept").exists()


# Schedules


@pytest.mark.seam
def test_its_schedules_are_not_fired_and_stay_as_they_are(leaving, scheduler, caplog):
    for schema in (A, B):
        with in_schema(schema):
            Schedule.objects.create(id=7, func=ADD, args="1", schedule_type="H", next_run=PAST, repeats=3)
    scheduler.tick()
    assert get_broker().queue_size(A) == 0
    assert get_broker().queue_size(B) == 1
    with in_schema(A):
        assert not Task.objects.exists()
        row = Schedule.objects.get(pk=7)
    assert (row.next_run, row.repeats) == (PAST, 3)
    assert DueSchedule.objects.get(schema_name=A, schedule_id=7).held == due_index.UNREADY
    assert "Schedules of acme_corp are put off" in caplog.text
    assert "Traceback" not in caplog.text


def test_many_tenants_are_fired_although_one_of_them_leaves(leaving, scheduler, monkeypatch):
    monkeypatch.setattr("tenant_q.cluster.scheduler_firing.FEW", 0)
    for schema in (A, B):
        with in_schema(schema):
            Schedule.objects.create(func=ADD, args="1", schedule_type="H", next_run=PAST)
    scheduler.tick()
    assert (get_broker().queue_size(A), get_broker().queue_size(B)) == (0, 1)


# What runs


@pytest.mark.seam
def test_what_runs_ends_and_saves_its_result_but_starts_nothing(tenants, worker):
    with in_schema(A):
        first = QUtilities.create_async_tasks_chain([(f"{__name__}.leave", (A,)), (ADD, (2,))], group="chain")
    work(worker)
    connection.set_schema_to_public()
    with in_schema(A):
        done, refused = Task.objects.order_by("started")
    assert (first, done.success, done.result) == ("chain", True, "left")
    assert not refused.success
    assert "TenantLeaving" in refused.result


def leave(schema: str) -> str:
    """A task whose tenant is decommissioned while it runs."""
    get_broker().drain_tenant(schema, tenancy.keys_of([schema])[schema])
    return "left"


# Workflows


@pytest.mark.seam
def test_a_workflow_is_not_started(leaving, no_runs, define):
    flow = define()
    flow.step(first)
    with in_schema(A):
        with pytest.raises(TenantLeaving):
            flow.start({})
        assert not WorkflowRun.objects.exists()
        assert not WorkflowStep.objects.exists()
    with in_schema(B):
        assert flow.start({}).state == "running"


def test_a_workflow_is_not_resumed(leaving, no_runs, define):
    flow = define()
    flow.step(first)
    with in_schema(A):
        run = make_run(A, flow.plan, {"first": "failed"}, state="failed", workflow=flow.path)
        with pytest.raises(TenantLeaving):
            QUtilities.get_workflow(run.id).resume()


def first(ctx):
    return None
