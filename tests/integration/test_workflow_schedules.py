"""Schedules that name a workflow: each planned time starts one run."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django_q.models import Schedule

from tenant_q.lifecycle import push
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import WorkflowError
from tests.integration.conftest import sql, work
from tests.integration.planning import PAST, fire_due

A = "acme_corp"
FLOW = "tests.flows.workflows.line"


@pytest.fixture
def line(tenants):
    from tests.flows import workflows

    with in_schema(A):
        yield workflows.line


def make_schedule_due():
    sql(f"UPDATE {A}.django_q_schedule SET next_run = %s", PAST)


def runs():
    return sql(f"SELECT key, state, input FROM {A}.tenant_q_workflows_run")


def test_a_planned_time_starts_one_run_however_often_it_is_delivered(line, worker):
    line.schedule(name="monthly", cron="0 6 1 * *", input={"number": 4})
    make_schedule_due()
    fired = []
    fire_due(A, fired.extend)
    (package,) = fired
    push.push([package])
    work(worker)
    push.push([package])
    work(worker)
    ((key, state, _),) = runs()
    assert state == "succeeded"
    assert key.startswith("schedule:")


def test_the_schedule_of_a_workflow_is_checked(line):
    with pytest.raises(WorkflowError, match="lacks the key 'number'"):
        line.schedule(name="monthly", cron="0 6 1 * *")
    with pytest.raises(ValidationError, match="cron"):
        line.schedule(name="monthly", cron="nonsense", input={"number": 4})
    assert not Schedule.objects.exists()
    line.schedule(cron="0 6 1 * *", input={"number": 4})
    line.schedule(cron="0 7 1 * *", input={"number": 5})
    assert [row.name for row in Schedule.objects.all()] == [FLOW]


def test_a_task_may_name_a_workflow(line, worker):
    QUtilities.add_async_task(FLOW, {"number": 1})
    work(worker)
    assert [state for _, state, _ in runs()] == ["succeeded"]


def test_a_workflow_cannot_be_called_outside_of_a_task(line):
    with pytest.raises(WorkflowError, match=r"was called outside of a task; start a run with its method start\(\)"):
        line({"number": 1})
