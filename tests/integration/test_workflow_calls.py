"""`QUtilities` starts and finds workflow runs, and the system checks of workflows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks

from tenant_q import brokers
from tenant_q.exceptions import ConfigurationError, InEventLoop, NoTenant, UnknownTenant, WorkflowError, WrongArgument
from tenant_q.support import workflows_app
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import Run, Workflow, registry
from tests.integration.conftest import work

greet = Workflow("greet", input={"name": str})


@greet.step
def hello(ctx):
    return f"hello {ctx.input['name']}"


CALLS = {
    "start_workflow": lambda **given: QUtilities.start_workflow(greet.path, {"name": "Ada"}, **given),
    "get_workflow": lambda **given: QUtilities.get_workflow("nothing", **given),
}


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests declare workflows too, wrong ones among them."""
    monkeypatch.setattr(registry, "_workflows", {greet.path: greet})


@pytest.fixture
def without_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    is_installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name != workflows_app.NAME and is_installed(name))


# Calls


@pytest.mark.seam
def test_a_run_is_started_and_found(no_runs):
    with in_schema("acme_corp"):
        run = QUtilities.start_workflow(greet.path, {"name": "Ada"}, key="k")
    assert isinstance(run, Run) and (run.schema, run.workflow, run.key) == ("acme_corp", greet.path, "k")
    assert QUtilities.start_workflow(greet.path, {"name": "Ada"}, key="k", schema_name="acme_corp").id == run.id
    assert QUtilities.get_workflow(run.id, schema_name="acme_corp").input == {"name": "Ada"}
    with pytest.raises(WorkflowError, match="Tenant 'globex_inc' has no workflow run"):
        QUtilities.get_workflow(run.id, schema_name="globex_inc")


@pytest.mark.seam
def test_a_worker_runs_what_a_call_has_started(no_runs, worker):
    run = QUtilities.start_workflow(greet.path, {"name": "Ada"}, schema_name="acme_corp")
    work(worker)
    found = QUtilities.get_workflow(run.id, schema_name="acme_corp")
    assert (found.state, dict(found.results)) == ("succeeded", {"hello": "hello Ada"})


@pytest.mark.seam
def test_coroutines_start_and_find_runs_of_their_own_tenants(tenants, no_runs):
    async def start(schema: str) -> Run:
        async with in_schema(schema):
            run = await QUtilities.astart_workflow(greet.path, {"name": schema})
            return await QUtilities.aget_workflow(run.id)

    async def start_in_all() -> list[Run]:
        return await asyncio.gather(*map(start, tenants))

    found = asyncio.run(start_in_all())
    assert [(run.schema, run.input["name"]) for run in found] == [(name, name) for name in tenants]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_needs_a_tenant(tenants, call):
    with pytest.raises(NoTenant):
        call()
    with pytest.raises(UnknownTenant):
        call(schema_name="nobody")
    with pytest.raises(WrongArgument):
        call(schema_name=5)

    async def in_a_loop() -> None:
        call(schema_name="acme_corp")

    with pytest.raises(InEventLoop):
        asyncio.run(in_a_loop())


def test_an_unknown_workflow_names_the_nearest(tenants):
    with pytest.raises(WorkflowError, match=f"There is no workflow '{greet.path}s': .*{greet.path}"):
        QUtilities.start_workflow(f"{greet.path}s", schema_name="acme_corp")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_without_the_app_a_call_says_how_to_add_it(tenants, without_the_app, call):
    with pytest.raises(ConfigurationError, match=r"add 'tenant_q\.workflows' to TENANT_APPS and run `python manage"):
        call(schema_name="acme_corp")


# System checks


def checks(number: str) -> list[Any]:
    return [one for one in run_checks(tags=["tenant_q"]) if one.id == f"tenant_q.{number}"]


def test_nothing_is_wrong_with_the_test_project(tenants):
    assert not [one for number in ("E015", "E016", "E017", "W012", "W013") for one in checks(number)]


def test_the_app_must_be_a_tenants_app(tenants, settings):
    settings.TENANT_APPS = [app for app in settings.TENANT_APPS if app != workflows_app.NAME]
    (found,) = checks("E015")
    assert "is not in TENANT_APPS" in found.msg and "migrate_schemas" in found.hint
    settings.SHARED_APPS = [*settings.SHARED_APPS, workflows_app.NAME]
    (found,) = checks("E015")
    assert "is only in SHARED_APPS" in found.msg and found.hint.startswith("Move 'tenant_q.workflows' to TENANT_APPS")


def test_declared_workflows_need_the_app(tenants, settings, without_the_app):
    assert "Workflows are declared, and their app is not installed." in [one.msg for one in checks("E015")]


def test_a_tenant_type_with_tasks_and_without_workflows_is_named(tenants, settings):
    settings.HAS_MULTI_TYPE_TENANTS = True
    settings.TENANT_TYPES = {
        "public": {"APPS": settings.SHARED_APPS},
        "shop": {"APPS": ["django_q", workflows_app.NAME]},
        "blog": {"APPS": ["django_q"]},
        "static": {"APPS": []},
    }
    (found,) = checks("W012")
    assert found.msg.startswith("The tenant type 'blog' of TENANT_TYPES has django_q and lacks tenant_q.workflows")
    assert not checks("E015")


def test_workflows_need_redis(tenants, monkeypatch):
    monkeypatch.setattr(brokers, "uses_redis", lambda: False)
    (found,) = checks("E016")
    assert "Set Q_CLUSTER['redis']" in found.hint


def test_wrong_graphs_and_unknown_errors_are_named(tenants, monkeypatch):
    odd = Workflow("odd")
    monkeypatch.setattr(registry, "is_at_its_path", lambda workflow: True)
    (found,) = checks("E017")
    assert found.msg == f"Workflow {odd.path} has 0 steps; it must have 1 to 1000."
    odd.step(retry_on=("django.db.OperationalError", "shop.Nothing"), no_retry_on=ValueError)(hello)
    (found,) = checks("W013")
    assert f"step 'hello' of workflow {odd.path} names 'shop.Nothing'" in found.msg
