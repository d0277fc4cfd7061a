"""A tenant's admin of workflow runs: their list, the page of a run, and its cancel, resume, skip and delete."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_q.models import Schedule, Task

from tenant_q.admin.run_values import READ_BYTES
from tenant_q.exceptions import WorkflowError
from tenant_q.schedules import offered
from tenant_q.tenancy import in_schema
from tenant_q.workflows import Workflow, registry
from tenant_q.workflows.drawing import LABELS
from tenant_q.workflows.models import WorkflowRun
from tenant_q.workflows.plan import Plan, PlanStep
from tests.integration.test_admin import make_task, posted, site  # noqa: F401  (a fixture)
from tests.runs import FAILED, ORDER, delete_runs, make_run

A, B = "acme_corp", "globex_inc"
LIST = "/admin/tenant_q_workflows/workflowrun/"


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    delete_runs(A, B)
    for schema in (A, B):
        with in_schema(schema):
            get_user_model().objects.all().delete()


class Control(ModuleType):
    """Takes the place of what changes runs, and keeps its calls."""

    def __init__(self) -> None:
        super().__init__("tenant_q.workflows.control")
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.preview = ["charge", "ship"]

    def _note(self, *call: Any) -> bool:
        if self.error:
            raise self.error
        self.calls.append(call)
        return True

    def cancel(self, schema: str, id: str, *, by: str = "") -> bool:
        return self._note("cancel", schema, id, by)

    def preview_resume(self, schema: str, id: str, steps: Any = None) -> list[str]:
        return self.preview

    def resume(self, schema: str, id: str, steps: Any = None, *, by: str = "") -> Any:
        return self._note("resume", schema, id, by)

    def skip(self, schema: str, id: str, step: str, *, by: str = "", why: str = "") -> Any:
        return self._note("skip", schema, id, step, by, why)

    def delete(self, schema: str, ids: Any, *, by: str = "") -> int:
        self._note("delete", schema, list(ids), by)
        return WorkflowRun.objects.filter(pk__in=ids).delete()[0]


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    import tenant_q.workflows
    from tenant_q.workflows import run

    double = Control()
    monkeypatch.setattr(run, "control", double)
    monkeypatch.setitem(sys.modules, "tenant_q.workflows.control", double)
    monkeypatch.setattr(tenant_q.workflows, "control", double, raising=False)
    return double


def page_of(run: WorkflowRun, part: str = "") -> str:
    return f"{LIST}{run.pk}/{part or 'change/'}"


def text_of(answer: Any) -> str:
    """The words of a page."""
    shown = re.sub(r"<script.*?</script>|<[^>]+>", " ", answer.content.decode(), flags=re.DOTALL)
    return " ".join(shown.split())


def shown_in(answer: Any) -> set[str]:
    return {run.pk for run in answer.context["cl"].result_list}


# The list


def test_the_list_shows_a_tenants_own_runs(site):  # noqa: F811
    run = make_run(A, key="order-17", by="Ada")
    make_run(B)
    answer = site(A).get(LIST)
    assert shown_in(answer) == {run.pk}
    assert re.search(rf"shop\.workflows\.order\s*{run.pk}\s*Running", text_of(answer))
    assert "order-17" in text_of(answer)
    assert "1 of 5" in text_of(answer)
    assert site(B).get(page_of(run)).status_code == 404


def test_the_list_takes_the_same_statements_for_any_number_of_runs(site):  # noqa: F811
    client = site(A)
    make_run(A)
    client.get(LIST)
    counts = []
    for more in (0, 20):
        for _ in range(more):
            make_run(A)
        with CaptureQueriesContext(connection) as found:
            client.get(LIST)
        counts.append(len(found))
    assert counts[0] == counts[1]


def test_the_list_is_filtered_and_searched(site):  # noqa: F811
    client = site(A)
    other = Plan("shop.workflows.other", (PlanStep("one"),))
    running, failed = make_run(A, key="k-1"), make_run(A, state="failed", states=FAILED)
    pending = make_run(A, other, {}, state="pending")
    assert shown_in(client.get(LIST, {"state": "open"})) == {running.pk, pending.pk}
    assert shown_in(client.get(LIST, {"state": "failed"})) == {failed.pk}
    assert shown_in(client.get(LIST, {"workflow": other.workflow})) == {pending.pk}
    assert shown_in(client.get(LIST, {"q": "k-1"})) == {running.pk}
    assert shown_in(client.get(LIST, {"q": failed.pk})) == {failed.pk}


def test_runs_are_neither_added_nor_edited(site):  # noqa: F811
    run = make_run(A)
    client = site(A)
    assert client.get(f"{LIST}add/").status_code == 403
    client.post(page_of(run), {"state": "succeeded"})
    with in_schema(A):
        assert WorkflowRun.objects.get().state == "running"


def test_the_public_site_and_a_tenant_without_the_tables_have_no_page(site):  # noqa: F811
    client = site(A)
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER TABLE "{A}".tenant_q_workflows_run RENAME TO gone')
    try:
        assert client.get(LIST).status_code == 404
        assert "Workflow" not in text_of(client.get("/admin/"))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER TABLE "{A}".gone RENAME TO tenant_q_workflows_run')
    assert client.get(LIST).status_code == 200


# The page of a run


def test_the_page_shows_graph_steps_and_values(site):  # noqa: F811
    values = {"reserve": {"output": {"lines": [1, 2]}, "context": {"reserved": True}}}
    run = make_run(A, items={"pick": ["succeeded", "failed", "ready", "waiting"]}, values=values)
    answer = site(A).get(page_of(run))
    text = text_of(answer)
    assert 'class="tenant-q-graph"' in answer.content.decode()
    assert text.count("2 of 4, 1 failed") == 3  # the title and the words of its box, and its row
    assert "{&quot;lines&quot;: [1, 2]}" in text
    assert "&quot;reserved&quot;: true" in text
    assert "&quot;order&quot;: 17" in text
    assert [step.name for step in answer.context["view"].steps] == list(ORDER.by_name)


def test_the_refreshed_part_has_what_changes(site):  # noqa: F811
    run = make_run(A)
    client = site(A)
    part = client.get(page_of(run), {"part": "live"}).content.decode()
    assert "tenant-q-graph" in part
    assert "<html" not in part
    assert "data-live-ended" not in part
    ended = make_run(A, state="failed", states=FAILED)
    assert "data-live-ended" in client.get(page_of(ended), {"part": "live"}).content.decode()


def test_the_page_takes_the_same_statements_for_any_number_of_steps_and_items(site):  # noqa: F811
    client = site(A)
    few = make_run(A, items={"pick": ["ready"]})
    many = make_run(A, Plan("w", tuple(PlanStep(f"s{n}") for n in range(50))), {}, items={"s1": ["ready"] * 500})
    client.get(page_of(few))
    counts = []
    for run in (few, many):
        with CaptureQueriesContext(connection) as found:
            assert client.get(page_of(run)).status_code == 200
        counts.append(len(found))
    assert counts[0] == counts[1]


def test_a_failed_step_leads_to_its_task(site):  # noqa: F811
    task = make_task(success=False, result="ValueError: no card")
    values: dict[str, dict[str, Any]] = {
        "charge": {"error": "ValueError: no card", "task_id": task.id},
        "pick": {"task_id": "f" * 32},
    }
    run = make_run(A, state="failed", states=FAILED, values=values, error="step charge failed")
    page = site(A).get(page_of(run)).content.decode()
    assert f"/admin/django_q/failure/{task.id}/change/" in page
    assert f"/admin/django_q/failure/{'f' * 32}/change/" not in page
    assert f"failure/{task.id}" not in site(A, "view_workflowrun").get(page_of(run)).content.decode()
    with in_schema(A):
        Task.objects.all().delete()


def test_large_values_are_not_read(site):  # noqa: F811
    import random

    large = "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=4 * READ_BYTES))
    values: Any = {"reserve": {"output": large, "context": {"large": large}}, "charge": {"output": "x" * 1000}}
    run = make_run(A, values=values)
    client = site(A)
    answer = client.get(page_of(run))
    assert len(answer.content) < 60_000
    assert "A large value" in text_of(answer)
    assert "Large parts are left out" in text_of(answer)
    step = client.get(page_of(run, "step/reserve/")).content.decode()
    assert large[:1000] in step
    assert len(step) < 80_000


def test_the_items_of_a_step_come_in_pages(site):  # noqa: F811
    run = make_run(A, items={"pick": ["succeeded"] * 240 + ["failed"]})
    client = site(A)
    answer = client.get(page_of(run, "step/pick/"))
    assert [item.index for item in answer.context["items"]] == list(range(100))
    assert "Page 1 of 3" in text_of(answer)
    assert [item.index for item in client.get(page_of(run, "step/pick/?p=3")).context["items"]] == list(range(200, 241))
    assert [item.index for item in client.get(page_of(run, "step/pick/?state=failed")).context["items"]] == [240]
    assert "&quot;line&quot;: 240" in text_of(client.get(page_of(run, "step/pick/240/")))
    assert client.get(page_of(run, "step/nothing/")).status_code == 404


def test_what_a_tenant_wrote_is_escaped(site):  # noqa: F811
    bad = "<script>alert(1)</script>"
    plan = Plan(f"w{bad}", (PlanStep(bad), PlanStep("\x1b[0m/../x", after=(bad,))))
    values = {bad: {"error": bad, "output": {bad: bad}, "context": {bad: bad}}}
    run = make_run(
        A, plan, {bad: bad[:12]}, items={bad: ["failed", bad[:12]]}, values=values, key=bad, error=bad, by=bad
    )
    client = site(A)
    with in_schema(A):
        WorkflowRun.objects.update(input={bad: bad}, config=bad)
    shown = client.get(page_of(run)).context["view"].steps
    pages = [LIST, page_of(run), page_of(run, "cancel/")]
    links = set(re.findall(r'href="([^"]*/step/[^"]*)"', client.get(page_of(run)).content.decode()))
    assert len(links) == len(shown)
    for url in [*pages, *links]:
        answer = client.get(url)
        assert answer.status_code == 200, url
        assert "<script>alert" not in answer.content.decode()


@pytest.mark.parametrize("stored", [None, 17, {"steps": "all"}, {"steps": [{"name": "a", "after": ["b"]}]}])
def test_a_run_whose_plan_cannot_be_read_is_shown(site, stored):  # noqa: F811
    run = make_run(A)
    with in_schema(A):
        WorkflowRun.objects.update(plan=stored if stored is not None else [])
    answer = site(A).get(page_of(run))
    assert "cannot be read" in text_of(answer)
    assert len(answer.context["view"].steps) == len(ORDER.by_name)


# Schedules


@pytest.fixture
def monthly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workflow]:
    """A workflow of a tenants' app, as its module declares it, and a private one."""
    module = ModuleType("shop.workflows.of_this_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    code = """
from tenant_q.workflows import Workflow
monthly, _private = Workflow("monthly"), Workflow("_private")
@monthly.step
@_private.step
def only(ctx): ...
"""
    exec(code, vars(module))
    yield vars(module)["monthly"]
    for name in ("monthly", "_private"):
        del registry._workflows[f"{module.__name__}.{name}"]


def test_a_schedule_may_name_a_workflow(site, monthly):  # noqa: F811
    client = site(A)
    form = client.get("/admin/django_q/schedule/add/").content.decode()
    assert f'<option value="{monthly.path}">' in form
    assert "_private" not in form
    answer = posted(client, "/admin/django_q/schedule/add/", name="m", func=monthly.path, args="{'customer': 17}")
    assert answer.status_code == 302, answer.context["errors"]
    with in_schema(A):
        assert Schedule.objects.get(name="m").func == monthly.path


def test_naming_a_workflow_imports_nothing(tenants, monthly, monkeypatch):
    monkeypatch.delitem(sys.modules, monthly.module)
    for path in ("shop.workflows.of_this_test.other", "shop.workflows.unknown.order", "tests.tasks.workflows.x"):
        assert not offered.is_offered(path)
    assert not offered.is_offered(monthly.path)  # it is not found at its path any more
    assert monthly.module not in sys.modules


def test_workflows_of_other_modules_are_not_offered(tenants, monthly):
    monthly.module = "billing.workflows"
    assert not offered.is_offered("billing.workflows.monthly")
    monthly.module = "shop.workflows_of_someone"
    assert not offered.is_offered("shop.workflows_of_someone.monthly")
    monthly.module = "shop.workflows.of_this_test"


# What is done


def test_a_run_is_cancelled_after_a_confirmation(site, control):  # noqa: F811
    run = make_run(A)
    client = site(A)
    assert "Cancel this run" in text_of(client.get(page_of(run, "cancel/")))
    assert control.calls == []
    answer = client.post(page_of(run, "cancel/"), follow=True)
    assert control.calls == [("cancel", A, run.pk, "boss")]
    assert "The run was cancelled." in text_of(answer)


def test_what_resume_would_run_is_shown_first(site, control):  # noqa: F811
    run = make_run(A, state="failed", states=FAILED)
    client = site(A)
    confirm = client.get(page_of(run, "resume/"))
    assert confirm.context["steps"] == ["charge", "ship"]
    client.post(page_of(run, "resume/"), {"step": ["charge", "ship"]})
    assert control.calls == [("resume", A, run.pk, "boss")]


def test_another_set_than_was_shown_is_not_resumed(site, control):  # noqa: F811
    run = make_run(A, state="failed", states=FAILED)
    control.preview = ["charge", "pick", "ship"]
    answer = site(A).post(page_of(run, "resume/"), {"step": ["charge", "ship"]})
    assert control.calls == []
    assert answer.context["steps"] == ["charge", "pick", "ship"]
    assert "The steps have changed meanwhile" in text_of(answer)


def test_a_step_is_skipped_with_a_reason(site, control):  # noqa: F811
    run = make_run(A)
    client = site(A)
    assert "Skip the step “ship”" in text_of(client.get(page_of(run, "skip/ship/")))
    client.post(page_of(run, "skip/ship/"), {"why": "no stock"})
    assert control.calls == [("skip", A, run.pk, "ship", "boss", "no stock")]


def test_what_is_not_possible_is_not_done(site, control):  # noqa: F811
    running, failed = make_run(A), make_run(A, state="failed", states=FAILED)
    client = site(A)
    for url in (
        page_of(running, "resume/"),
        page_of(running, "skip/reserve/"),
        page_of(failed, "cancel/"),
        page_of(failed, "skip/reserve/"),
        page_of(failed, "skip/on_end/"),
    ):
        assert "Nothing was done" in text_of(client.post(url, follow=True)), url
    assert control.calls == []


def test_an_error_is_shown_on_the_page(site, control):  # noqa: F811
    run = make_run(A)
    control.error = WorkflowError("The broker does not answer.")
    assert "The broker does not answer." in text_of(site(A).post(page_of(run, "cancel/"), follow=True))


def test_who_may_only_view_changes_nothing(site, control):  # noqa: F811
    run = make_run(A)
    client = site(A, "view_workflowrun")
    page = client.get(page_of(run))
    assert page.status_code == 200
    assert "Cancel…" not in text_of(page)
    assert "Skip…" not in text_of(page)
    for part in ("cancel/", "resume/", "skip/ship/", "delete/"):
        assert client.post(page_of(run, part)).status_code == 403
    assert control.calls == []


def test_who_may_not_view_sees_nothing(site):  # noqa: F811
    run = make_run(A)
    client = site(A, "view_schedule")
    for url in (LIST, page_of(run), page_of(run, "step/pick/")):
        assert client.get(url).status_code == 403


def test_only_ended_runs_are_deleted(site, control):  # noqa: F811
    running, failed = make_run(A), make_run(A, state="failed", states=FAILED)
    ending = make_run(A, state="failed", states=FAILED, ended=None)
    client = site(A)
    chosen = {"action": "delete_ended", "_selected_action": [running.pk, failed.pk, ending.pk]}
    confirm = client.post(LIST, chosen)
    assert "2 runs have not ended, and stay." in text_of(confirm)
    client.post(LIST, {**chosen, "post": "yes"})
    assert control.calls == [("delete", A, [failed.pk], "boss")]
    assert client.post(page_of(running, "delete/"), {"post": "yes"}).status_code == 403
    again = make_run(A, state="failed", states=FAILED)
    client.post(page_of(again, "delete/"), {"post": "yes"})
    assert control.calls[1:] == [("delete", A, [again.pk], "boss")]


def test_each_state_has_words(site):  # noqa: F811
    run = make_run(A, Plan("w", tuple(PlanStep(f"s_{state}") for state in LABELS)), {f"s_{one}": one for one in LABELS})
    text = text_of(site(A).get(page_of(run)))
    assert all(str(label) in text for label in LABELS.values())
