"""`python manage.py msworkflow`, and what `msinfo`, `mshealth` and `QUtilities` say of workflow runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.utils import timezone

from tenant_q import audit, tenancy
from tenant_q.brokers import get_broker
from tenant_q.models import AuditRecord, DueWorkflow
from tenant_q.operations import workflow_check, workflow_runs
from tenant_q.support import workflows_app
from tenant_q.workflows import Run, Workflow, registry, run_index
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tests.integration.conftest import sql
from tests.integration.planning import on_the_wire, write_past_the_triggers
from tests.integration.test_metrics import told, value
from tests.integration.test_msinfo import CLUSTER, WORKER, msinfo, problems

order = Workflow("order", input={"number": int})


@order.step
def reserve(ctx):
    return {"lines": [1, 2, 3]}


@order.step(after=reserve, max_attempts=2, retry_on="django.db.OperationalError")
def charge(ctx): ...


@order.step(each=(reserve, "lines"), at_once=2)
def pick(ctx): ...


@order.step(after=[charge, pick], when="any_failed", optional=True)
def undo(ctx): ...


@order.on_end
def tell(ctx): ...


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests declare workflows too, wrong ones among them."""
    monkeypatch.setattr(registry, "_workflows", {order.path: order})


@pytest.fixture
def add_run(no_runs):
    """Write the rows of a run, as `start` and the engine leave them behind."""

    def add(schema: str = "acme_corp", state: str = "running", *, steps: Any = None, **fields: Any) -> str:
        now, id = timezone.now(), uuid.uuid4().hex
        ended = now if state in ("succeeded", "failed", "cancelled") else None
        values = {"created": now, "ended": ended, "look_at": now + timedelta(minutes=1)} | fields
        plan = order.plan
        with tenancy.in_schema(schema):
            WorkflowRun.objects.create(
                id=id, workflow=values.pop("workflow", plan.workflow), version=plan.version, state=state,
                cluster=values.pop("cluster", get_broker().cluster), plan=json.loads(plan.text), input={"number": 17},
                config=values.pop("config", {"limits": {"orders": 3}}), **values,
            )  # fmt: skip
            WorkflowStep.objects.bulk_create(
                WorkflowStep(run=id, name=name, state=(steps or {}).get(name, "waiting")) for name in plan.by_name
            )
        return id

    return add


def msworkflow(*arguments: str) -> str:
    out = StringIO()
    call_command("msworkflow", *arguments, stdout=out)
    return out.getvalue()


def as_json(*arguments: str) -> Any:
    return json.loads(msworkflow(*arguments, "--json"))


# Runs


@pytest.mark.seam
def test_the_runs_of_a_tenant(add_run):
    first = add_run(key="order-17", by="Ada", steps={"reserve": "succeeded", "charge": "failed", "on_end": "succeeded"})
    second = add_run(state="failed", workflow="shop.workflows.other")
    head, *rows = msworkflow("list", "--schema", "acme_corp").splitlines()
    assert head.split() == ["run", "workflow", "key", "state", "steps", "created", "ended", "by"]
    assert [row.split()[0] for row in rows] == [second, first], "the newest first"
    assert rows[1].split()[1:5] == [order.path, "order-17", "running", "2/4"]
    (one,) = as_json("--schema", "acme_corp", "--workflow", order.path)
    assert (one["id"], one["progress"], one["by"]) == (first, {"ended": 2, "steps": 4}, "Ada")
    assert datetime.fromisoformat(one["created"]) <= timezone.now()
    assert [one["id"] for one in as_json("--schema", "acme_corp", "--state", "failed")] == [second]
    assert "--limit N lists more" in msworkflow("--schema", "acme_corp", "--limit", "1")
    assert msworkflow("--schema", "globex_inc") == "globex_inc has no such workflow runs.\n"


def test_a_list_costs_the_same_for_one_run_and_for_many(add_run):
    def statements() -> int:
        with on_the_wire() as asked:
            as_json("--schema", "acme_corp")
        return len(asked)

    add_run()
    statements()
    one = statements()
    for _ in range(5):
        add_run()
    assert statements() == one


@pytest.mark.seam
def test_the_counts_of_all_tenants_cost_one_statement_on_the_index(add_run):
    add_run(look_at=timezone.now() - timedelta(seconds=workflow_runs.OVERDUE_SECONDS + 1))
    add_run(state="pending")
    add_run("globex_inc", state="failed", look_at=timezone.now() - timedelta(days=1))
    with on_the_wire() as asked:
        rows = as_json("list")
    assert [(one["schema"], one["pending"], one["running"], one["failed"], one["overdue"]) for one in rows] == [
        ("acme_corp", 1, 1, 0, 1),
        ("globex_inc", 0, 0, 1, 0),
    ]
    assert sum("tenant_q_dueworkflow" in text for text in asked) == 1
    assert not any("tenant_q_workflows_run" in text for text in asked)
    assert msworkflow().splitlines()[1].split() == ["acme_corp", "1", "1", *["-"] * 4, "1"]


def test_no_run_at_all(no_runs):
    assert msworkflow().startswith("No tenant has workflow runs; `msworkflow start PATH")


@pytest.mark.seam
def test_show_finds_the_run_without_the_tenant(add_run):
    id = add_run("globex_inc", steps={"reserve": "succeeded", "pick": "mapping"}, error="it broke\nhere", key="k")
    with tenancy.in_schema("globex_inc"):
        for index, state in enumerate(["succeeded", "failed", "ready"]):
            WorkflowStep.objects.create(run=id, name="pick", index=index, state=state)
    text = msworkflow("show", id)
    assert f"{id} of globex_inc" in text and "1 of 4 steps have ended" in text and '{"number": 17}' in text
    assert '{"limits": {"orders": 3}}' in text
    (line,) = [line for line in text.splitlines() if line.startswith("pick")]
    assert line.split()[:6] == ["pick", "mapping", "2", "of", "3,", "1"]
    found = as_json("show", id, "--schema", "globex_inc")
    assert (found["schema"], found["state"], found["key"], found["input"]) == (
        "globex_inc",
        "running",
        "k",
        {"number": 17},
    )
    assert found["config"] == {"limits": {"orders": 3}}
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == ["reserve", "charge", "pick", "undo", "on_end"]
    assert steps["pick"]["items"] == {"succeeded": 1, "failed": 1, "ready": 1}
    assert steps["charge"]["items"] is None


def test_a_large_input_is_cut_on_the_screen(add_run):
    id = add_run(config={"text": "x" * 5000})
    text = msworkflow("show", id)
    assert "x" * 900 in text and "x" * 1000 not in text and "… (5012 characters; --json shows all)" in text
    assert as_json("show", id)["config"] == {"text": "x" * 5000}


def test_control_characters_of_a_tenant_are_escaped(add_run):
    id = add_run(error="evil \x1b[2J", key="k\x1b[2J")
    for text in (msworkflow("show", id), msworkflow("--schema", "acme_corp")):
        assert "\x1b" not in text and "\\x1b[2J" in text


def test_a_run_id_that_two_tenants_have_needs_the_tenant(add_run):
    id = add_run()
    DueWorkflow.objects.create(schema_name="globex_inc", run=id, cluster="c", state="running")
    with pytest.raises(CommandError, match=r"Several tenants \(acme_corp, globex_inc\) have a workflow run"):
        msworkflow("show", id)
    assert as_json("show", id, "--schema", "acme_corp")["id"] == id


# What happens to a run


@pytest.mark.seam
def test_start_cancel_and_resume(no_runs):
    arguments = ("start", order.path, "--schema", "acme_corp", "--input", '{"number": 17}', "--key", "k")
    found = as_json(*arguments)
    id = found["id"]
    assert (found["state"], found["key"], found["by"]) == ("running", "k", audit.operator())
    assert msworkflow(*arguments) == f"Run {id} of {order.path} for acme_corp is running.\n", "the same run"
    with pytest.raises(CommandError, match="another input"):
        msworkflow(*arguments[:5], '{"number": 18}', *arguments[6:])
    with pytest.raises(CommandError, match="lacks the key 'number'"):
        msworkflow(*arguments[:4])
    assert msworkflow("cancel", id, "--schema", "acme_corp").startswith(f"Run {id} of acme_corp is cancel")
    run = Run.get(id, schema_name="acme_corp")
    assert run.state == "cancelled"
    actors = list(AuditRecord.objects.filter(target=id).values_list("actor", "act"))
    assert actors == [(audit.operator(), "cancel workflow")]
    with pytest.raises(CommandError, match=f"Run {id} of acme_corp is cancelled: there is nothing to cancel"):
        msworkflow("cancel", id, "--schema", "acme_corp")
    sql("UPDATE acme_corp.tenant_q_workflows_run SET ended = now()")  # its on_end step is over
    sql("UPDATE acme_corp.tenant_q_workflows_step SET state = 'succeeded' WHERE name = 'on_end'")
    again = "reserve, charge, pick, undo"
    preview = msworkflow("resume", id, "--schema", "acme_corp", "--dry-run")
    assert preview == f"These steps would run again, or are skipped: {again}.\n"
    assert run.refresh().state == "cancelled", "nothing was done"
    first, second = msworkflow("resume", id, "--schema", "acme_corp").splitlines()
    assert first == f"These steps run again, or are skipped: {again}."
    assert second == f"Run {id} of acme_corp is running."
    with pytest.raises(CommandError, match="running"):
        msworkflow("resume", id, "--schema", "acme_corp")


def test_the_steps_to_resume_may_be_named(add_run):
    ended = dict.fromkeys(order.plan.by_name, "succeeded") | {"charge": "failed", "undo": "failed"}
    id = add_run("globex_inc", "failed", steps=ended)
    found = as_json("resume", id, "undo", "--dry-run")
    assert (found["state"], found["resumed"], found["steps"]) == ("failed", False, ["undo"])
    assert as_json("resume", id, "--dry-run")["steps"] == ["charge", "undo"]
    with pytest.raises(CommandError, match="no step 'udno'"):
        msworkflow("resume", id, "udno")
    found = as_json("resume", id, "charge")
    assert (found["state"], found["resumed"], found["steps"]) == ("running", True, ["charge", "undo"])


# Graphs


def test_the_graph_of_a_workflow_and_of_a_run(add_run):
    head, *rows = msworkflow("graph", order.path).splitlines()
    assert head.split() == ["level", "step", "after", "when", "each", "optional"]
    assert [row.split()[:2] for row in rows] == [
        ["1", "reserve"], ["2", "charge"], ["2", "pick"], ["3", "undo"], ["last", "on_end"],
    ]  # fmt: skip
    assert "reserve.lines, 2 at once" in rows[2] and "charge, pick  any_failed" in rows[3]
    text = msworkflow("graph", order.path, "--mermaid")
    assert text.startswith("flowchart TD\n") and text.count(" --> ") == 4
    id = add_run(steps={"reserve": "succeeded", "charge": "failed"})
    found = as_json("graph", id)
    states = {step["name"]: (step["level"], step["state"]) for step in found["steps"]}
    assert states["charge"] == (2, "failed") and states["on_end"] == (None, "waiting")
    assert "succeeded" in msworkflow("graph", id, "--mermaid")


# What is wrong with the call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show",), r"Give it a name: `msworkflow show RUN`; `msworkflow list --schema SCHEMA` shows"),
        (("start", "--schema", "acme_corp"), r"Give it a name: `msworkflow start PATH`; the workflows are "),
        (("show", "nothing"), "No tenant has a workflow run 'nothing'; name the tenant with --schema"),
        (("show", "nothing", "--schema", "acme_corp"), "Tenant 'acme_corp' has no workflow run 'nothing'"),
        (("show", "nothing", "--schema", "nobody"), "No tenant has the schema name 'nobody'"),
        (("graph", "shop.wokflows.order"), "There is no workflow 'shop.wokflows.order'"),
        (("start", order.path), "Name the tenant that the run is for"),
        (("start", order.path, "--schema", "acme_corp", "--input", "{"), "--input is no JSON"),
        (("list", "x"), "`msworkflow list` takes no 'x'"),
        (("list", "--state", "failed"), "--state is for the runs of one tenant; give --schema too"),
        (("show", "x", "--dry-run"), "--dry-run belongs to `msworkflow resume`, not to `msworkflow show`"),
        (("cancel", "x", "y"), "y belongs to `msworkflow resume`"),
        (("graph", order.path, "--mermaid", "--json"), "give one of them"),
        (("--limit", "0", "--schema", "acme_corp"), "not a whole number"),
        (("--state", "lost"), "invalid choice"),
    ],
)
def test_what_is_wrong_with_the_call(no_runs, arguments, words):
    with pytest.raises(CommandError, match=words):
        msworkflow(*arguments)


def test_without_the_app_it_says_how_to_add_it(tenants, monkeypatch):
    without_the_app(monkeypatch)
    with pytest.raises(CommandError, match=r"add 'tenant_q\.workflows' to TENANT_APPS and run"):
        msworkflow("list")


def test_a_tenant_that_is_not_migrated_is_named(spare):
    for table in ("run", "step"):
        sql(f"DROP TABLE spare.tenant_q_workflows_{table}")
    with pytest.raises(CommandError, match=r"Tenant 'spare' has no tables of workflows: .*migrate_schemas"):
        msworkflow("list", "--schema", "spare")


# The check


def check_lines() -> list[str]:
    out = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("msworkflow", "check", stdout=out)
    assert error.value.returncode == 1 and str(error.value).endswith("attention; each line above says what to do.")
    return out.getvalue().splitlines()


@pytest.mark.seam
def test_check_finds_nothing(add_run):
    add_run()
    add_run(state="failed", workflow="gone.workflows.old", cluster="elsewhere")
    assert msworkflow("check") == "1 workflow and the runs of 3 schemas are in order.\n"
    found = as_json("check")
    assert (found["schemas"], found["workflows"], found["runs"]) == (3, [], [])


@pytest.mark.seam
def test_check_finds_runs_without_an_entry_in_the_index(add_run):
    id = add_run()
    sql("DELETE FROM tenant_q_dueworkflow")
    assert check_lines() == [
        f"acme_corp: run {id} of {order.path} has no entry in the index of runs; run in PostgreSQL: "
        'UPDATE "acme_corp".tenant_q_workflows_run SET look_at = now() WHERE ended IS NULL'
    ]


def test_check_finds_runs_that_nobody_will_look_at(add_run):
    id = add_run(look_at=None)
    add_run("globex_inc")
    DueWorkflow.objects.filter(schema_name="globex_inc").update(due=None)
    first, second = check_lines()
    assert first.startswith(f"acme_corp: run {id} of {order.path} has no time for the next look; run in PostgreSQL")
    assert second.startswith("globex_inc: run ")


def test_check_finds_a_schema_that_is_not_in_the_index(add_run):
    add_run()
    add_run()
    sql("ALTER TABLE acme_corp.tenant_q_workflows_run DISABLE TRIGGER USER")
    try:
        (line,) = check_lines()
    finally:
        run_index.bring_up_to_date(run_index.stale_schemas())
    assert "are in order" in msworkflow("check")
    assert line.startswith("acme_corp: 2 runs, such as ") and "have a table that is not in the index" in line


def test_check_finds_clusters_and_workflows_that_nobody_knows(add_run, monkeypatch):
    one, two = add_run(cluster="misspelt"), add_run("globex_inc", workflow="gone.workflows.old")
    assert check_lines() == [
        f"acme_corp: run {one} of {order.path} belongs to the cluster 'misspelt', which no setting names and which "
        "does not run; start it with `python manage.py mscluster --name misspelt`, and add it to "
        "Q_CLUSTER['ALT_CLUSTERS']",
        f"globex_inc: run {two} of gone.workflows.old belongs to a workflow that this code does not declare; declare "
        "it in a module 'workflows' of an installed app, or cancel what is left of it: `msworkflow cancel "
        f"{two} --schema globex_inc`",
    ]
    monkeypatch.setattr(workflow_check.status, "clusters", lambda broker: [replace(CLUSTER, name="misspelt")])
    assert len(check_lines()) == 1, "a cluster of that name runs"


def test_check_reports_a_graph_that_is_wrong(no_runs):
    wrong = Workflow("wrong")
    assert check_lines() == [f"Workflow {wrong.path} has 0 steps; it must have 1 to 1000."]


def test_check_reads_schemas_together_and_goes_on_where_one_cannot_be_read(add_run, monkeypatch):
    id = add_run("globex_inc", look_at=None)
    tenants = tenancy.tenant_model()._meta.db_table
    sql(f"UPDATE {tenants} SET schema_name = schema_name WHERE schema_name = 'acme_corp'")  # its row is the last now
    monkeypatch.setattr(workflow_check, "AT_ONCE", 2)
    with on_the_wire() as asked:
        as_lines = check_lines()
    assert len(as_lines) == 1 and id in as_lines[0]
    read = [text for text in asked if "tenant_q_workflows_run AS run" in text or '_run" AS run' in text]
    assert len(read) == 2, "two for three schemas"
    write_past_the_triggers("ALTER TABLE acme_corp.tenant_q_workflows_run RENAME COLUMN look_at TO gone")
    try:
        lines = check_lines()
        assert lines[0].startswith("acme_corp: its table tenant_q_workflows_run cannot be read: ")
        assert len(lines) == 2 and id in lines[1]
    finally:
        sql("ALTER TABLE acme_corp.tenant_q_workflows_run RENAME COLUMN gone TO look_at")


# msinfo and mshealth


def without_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    is_installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name != workflows_app.NAME and is_installed(name))


def test_msinfo_counts_runs(add_run):
    add_run()
    add_run(look_at=timezone.now() - timedelta(hours=1))
    add_run("globex_inc", state="failed")
    text = msinfo()
    assert "workflow runs: 2 open, 1 failed, 1 overdue" in text.splitlines()[0]
    (line,) = [line for line in text.splitlines() if line.startswith("acme_corp")]
    assert "2 open, 1 overdue" in line
    found = json.loads(msinfo("--json"))
    assert found["workflow_runs"]["open"] == 2
    runs = {one["schema"]: one["workflow_runs"] for one in found["tenants"]}
    assert (runs["globex_inc"]["failed"], runs["acme_corp"]["running"], runs["initech_llc"]["open"]) == (1, 2, 0)


def test_without_the_app_nothing_is_asked(tenants, monkeypatch):
    without_the_app(monkeypatch)
    with on_the_wire() as asked:
        text, found = msinfo(), json.loads(msinfo("--json"))
        problems(monkeypatch, CLUSTER)
        told()
    assert not any("workflow" in one for one in asked)
    assert "runs" not in text.replace("process", "").split("schema")[-1].splitlines()[0]
    assert not any("workflow" in name for name, _ in told())
    assert "workflow_runs" not in found and "workflow_runs" not in found["tenants"][0]


@pytest.mark.seam
def test_metrics_count_runs(add_run, settings):
    settings.TENANT_Q = {"metrics_labels": 1}
    add_run(look_at=timezone.now() - timedelta(hours=1))
    for _ in range(2):
        add_run("globex_inc", state="failed")
    found = told()
    assert value(found, "tenant_q_workflow_runs", schema="acme_corp", state="running") == 1
    assert value(found, "tenant_q_workflow_runs", schema="acme_corp", state="failed") == 0
    assert value(found, "tenant_q_workflow_runs", schema="other", state="failed") == 2
    assert value(found, "tenant_q_workflow_runs_overdue") == 1


WITHOUT = """
import sys
from tests.settings import *

if "with" not in sys.argv:
    INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "tenant_q.workflows"]
    TENANT_APPS = [app for app in TENANT_APPS if app != "tenant_q.workflows"]
"""
PROGRAM = """
import sys
import django
from django.core.management import CommandError, call_command

django.setup()
from tenant_q.cluster import parent, scheduler, worker  # noqa: F401
from tenant_q.operations.metrics import SiteCollector

call_command("msinfo")
list(SiteCollector().collect())
print("imported", sorted(name for name in sys.modules if name.startswith("tenant_q.workflows")))
try:
    call_command("msworkflow")
except CommandError as error:
    print(error)
"""


@pytest.mark.seam
def test_a_project_without_the_app_imports_nothing_of_it(tenants, tmp_path):
    (tmp_path / "without_workflows.py").write_text(WITHOUT)

    def output(*arguments: str) -> str:
        path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
        environment = os.environ | {"DJANGO_SETTINGS_MODULE": "without_workflows", "PYTHONPATH": path}
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout

    assert output().splitlines()[-2:] == [
        "imported []",
        "Workflows are not installed: add 'tenant_q.workflows' to TENANT_APPS and run `python manage.py "
        "migrate_schemas`.",
    ]
    assert "tenant_q.workflows.models" in output("with"), "otherwise this test sees nothing"


def late_run(add_run: Any, **fields: Any) -> str:
    return str(add_run(look_at=timezone.now() - timedelta(seconds=workflow_runs.OVERDUE_SECONDS + 20), **fields))


def test_mshealth_fails_when_a_run_is_overdue(add_run, monkeypatch):
    cluster = replace(CLUSTER, name=get_broker().cluster)
    add_run(look_at=timezone.now() - timedelta(seconds=workflow_runs.OVERDUE_SECONDS - 60))
    late_run(add_run, state="failed")  # it waits for its deletion
    assert problems(monkeypatch, cluster).is_well
    late_run(add_run)
    (problem,) = problems(monkeypatch, cluster).problems
    assert problem.startswith(f"Cluster {cluster.name}: 1 workflow run should have been looked at 2")
    assert "`msworkflow check`" in problem
    assert problems(monkeypatch, replace(cluster, started=timezone.now())).is_well, "its scheduler has just started"
    assert problem not in problems(monkeypatch, cluster, cluster="other").problems
    without = replace(cluster, has_scheduler=False, processes=(WORKER,))
    (problem,) = problems(monkeypatch, without).problems
    assert problem.startswith("1 workflow run waits for a scheduler of the cluster")
