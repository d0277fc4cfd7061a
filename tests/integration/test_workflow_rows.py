"""Rows of runs that a tenant's own role has changed."""

from __future__ import annotations

import json

from tenant_q.workflows.advancing import advance
from tenant_q.workflows.step_packages import packages_of
from tests.integration.conftest import sql

A = "acme_corp"


def fail(ctx):
    raise ValueError("no")


def change_plan(run, act):
    plan = json.loads(run.plan.text)
    act(plan)
    sql(f"UPDATE {A}.tenant_q_workflows_run SET plan = %s, version = 'changed'", json.dumps(plan))


def test_errors_to_retry_on_are_those_of_the_code(tenants, define):
    flow = define()
    flow.step(retry_on=[ValueError], max_attempts=2)(fail)
    run = flow.start(schema_name=A)
    change_plan(run, lambda plan: plan["steps"][0]["options"].update(retry_on=["this.Zen"], max_attempts=3))
    (package,) = packages_of(advance({A: [run.id]}, again={A: [run.id]}).ready)
    assert (package.option("retry_on"), package.option("max_attempts")) == (("builtins.ValueError",), 3)


def test_an_option_that_is_none_of_a_step_is_refused_for_on_end_too(tenants, define):
    flow = define()
    flow.on_end(fail)
    flow.step(first)
    run = flow.start(schema_name=A)
    change_plan(run, lambda plan: plan.update(on_end={"hook": "this.Zen"}))
    advance({A: [run.id]})
    assert "unknown option 'hook'" in run.refresh().error


def first(ctx):
    """A step."""


def test_a_database_that_is_gone_breaks_no_run(tenants, define):
    flow = define()
    flow.step(first)
    run = flow.start(schema_name=A)
    change_plan(run, lambda plan: plan["steps"][0]["options"].update(databases=["gone"]))
    advance({A: [run.id]})
    assert run.refresh().state == "running"
