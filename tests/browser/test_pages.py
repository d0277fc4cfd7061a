"""What a user does, in a real browser at the running test project with a real cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.models import AuditRecord, TenantConfiguration, TenantPolicy, TenantRole
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until

A = "acme_corp"


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    for model in (TenantPolicy, TenantRole, TenantConfiguration, AuditRecord):
        model.objects.all().delete()
    tenancy.forget_tenants()


def done(schema: str, **wanted: Any) -> Callable[[], Any]:
    """Whether there is a success in a tenant's table."""

    def look() -> Any:
        with in_schema(schema):
            return Task.objects.filter(success=True, **wanted).first()

    return look


def test_a_schedule_is_added_and_run(visit, mscluster):
    page = visit(A, "/admin/django_q/schedule/add/")
    page.fill("[name=name]", "by hand")
    page.select_option("[name=func]", "tests.tasks.add")
    page.fill("[name=args]", "20, date.today()")
    page.select_option("[name=schedule_type]", "D")
    page.click("[name=_save]")
    assert "at column 5: this is not a literal" in page.text_content(".field-args .errorlist")
    page.fill("[name=args]", "20, 22")
    page.wait_for_selector("#tenant-q-upcoming time >> nth=4")
    page.fill("[name=next_run_0]", "2090-01-01")
    page.click("[name=_save]")
    page.click("#result_list >> text=by hand")
    mscluster()
    page.click("text=Run now")
    assert "1 task was queued." in page.text_content(".messagelist")
    wait_until(done(A, group="by hand"), what="the task to be done")
    with in_schema(A):
        assert Schedule.objects.get().next_run.year == 2090
    page.click("#nav-sidebar >> text=Successful tasks")
    page.click("#result_list tbody a >> nth=0")
    assert page.text_content(".field-shown_result pre") == "42"


def test_an_operator_pauses_a_tenant_and_lets_it_go_on(visit, mscluster):
    page = visit("public", "/admin/tenant_q/tenantpolicy/")
    row = page.locator("#result_list tr", has_text=A)
    row.get_by_role("button").click()
    page.wait_for_selector(".messagelist")
    assert "Paused" in row.text_content()
    assert policies.is_paused(A)
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 40, 2)
    with in_schema("globex_inc"):
        other = QUtilities.add_async_task("tests.tasks.add", 1, 2)
    mscluster()
    wait_until(done("globex_inc", id=other), what="the other tenant's task to be done")
    assert not done(A, id=id)()
    row.get_by_role("button").click()
    wait_until(done(A, id=id), what="the task to be done once its tenant goes on")
    page.click("#nav-sidebar >> text=Clusters")
    page.wait_for_selector(".tenant-q-cluster >> text=scheduler")
    page.click("#nav-sidebar >> text=Audit records")
    page.wait_for_selector("#result_list tbody tr >> nth=1")
    assert page.locator("#result_list tbody tr").count() == 2


def test_an_operator_configures_a_tenant_on_every_screen(visit):
    TenantRole.objects.create(
        schema_name=A, role="a_database_with_a_long_name_acme_corp_1f2e3d4c5b6a", state="repair", crossings=2,
        problem="FATAL: " + "password authentication failed " * 6, probed=timezone.now(),
    )  # fmt: skip
    policies.configure(
        A, actor="t", settings={"report": {"to": ["ops@acme.example.com"] * 9}, "a_long_key" * 9: "x" * 500}
    )
    page = visit("public", "/admin/tenant_q/tenantpolicy/")
    page.click(f"#result_list >> text={A}")
    page.wait_for_selector("text=2 crossings")
    check_widths(page)
    page.click("text=Edit configuration")
    page.fill("[name=features]", "{audit: true}")
    page.get_by_role("button", name="Save").click()
    assert "Enter a valid JSON." in page.text_content(".field-features .errorlist")
    check_widths(page)
    page.fill("[name=features]", '{"audit": true}')
    page.fill("[name=display_name]", "Acme Corp.")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("h1 >> text=Acme Corp.")
    assert "audit" in page.text_content("#content-main")
    assert tenancy.config(A).features == {"audit": True}
    page.click("#content-main >> text=Audit records")
    page.wait_for_selector("#result_list >> text=configure")


def check_widths(page: Any) -> None:
    """The page is nowhere wider than a desktop's or a phone's screen, light or dark."""
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)


def test_the_test_projects_page_follows_a_task(visit, mscluster):
    mscluster()
    page = visit(A, "/")
    page.click("text=Make a report")
    page.wait_for_selector("text=A report is on the queue.")
    page.wait_for_selector("table >> text=revenue report")
    wait_until(done(A, func="shop.tasks.revenue_report"), what="the report to be made")


def test_a_tasks_progress_is_seen_and_it_is_cancelled(visit, mscluster):
    mscluster()
    page = visit(A, "/")
    page.click("text=Import the catalogue")
    row = page.locator("[data-task]").first
    page.wait_for_selector("[data-task] .text:has-text('page ')")
    assert 0 < float(row.locator("progress").get_attribute("value") or 0) < 1
    row.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("[data-task].cancelled")
    with in_schema(A):
        failed = wait_until(lambda: Task.objects.filter(success=False).first(), what="the row of what was cancelled")
    assert failed.result.startswith("TaskCancelled")


def test_selected_tasks_are_cancelled_and_stay_selected_meanwhile(visit):
    with in_schema(A):
        for number in range(3):
            QUtilities.add_async_task("tests.tasks.add", number, 2)
    page = visit(A, "/admin/tenant_q/livetask/")
    boxes = page.locator("#result_list tbody input[type=checkbox]")
    boxes.first.check()
    page.mouse.click(5, 5)
    with page.expect_response(lambda response: True, timeout=10_000), in_schema(A):  # what another page asks for
        page.evaluate("fetch('?part=table')")
    assert boxes.first.is_checked(), "the list is not refreshed while tasks are selected"
    page.check("[data-select-all]")
    assert boxes.evaluate_all("all => all.every(one => one.checked)")
    page.get_by_role("button", name="Cancel selected tasks").click()
    page.get_by_role("button", name="Yes, cancel them").click()
    page.wait_for_selector("text=3 tasks were cancelled.")


def test_a_failed_task_tells_why_and_is_run_again(visit, mscluster):
    with in_schema(A):
        id = QUtilities.add_async_task("math.sqrt", -1, task_name="root")
    mscluster()
    with in_schema(A):
        wait_until(lambda: Task.objects.filter(pk=id, success=False).first(), what="the task to fail")
    page = visit(A, "/admin/django_q/failure/")
    page.click("#result_list tbody a >> text=root")
    assert "ValueError" in page.text_content("#content")
    page.click("text=Run again")
    assert "1 task was queued again." in page.text_content(".messagelist")
    with in_schema(A):
        wait_until(lambda: Task.objects.filter(name="root").count() == 2, what="the second failure")


def test_an_operator_edits_a_policy_and_purges_what_is_dead(visit):
    broker = get_broker()
    broker.enqueue([Message(id="d" * 32, schema=A, func="tests.tasks.add", payload="nothing that was signed")])
    (lease,) = broker.fetch("w").leases
    broker.dead_letter("w", lease, "Because: a test")
    page = visit("public", "/admin/tenant_q/tenantpolicy/")
    row = page.locator("#result_list tr", has_text=A)
    row.get_by_role("link", name="Edit").click()
    page.fill("[name=weight]", "4")
    page.get_by_role("button", name="Save").click()
    wait_until(lambda: broker.policies().get(A), what="the policy to be in force")
    assert broker.policies()[A].weight == 4
    page.click("#nav-sidebar >> text=Dead tasks")
    page.check("#result_list tbody input[type=checkbox]")
    page.get_by_role("button", name="Purge selected tasks").click()
    page.get_by_role("button", name="Yes, purge").click()
    page.wait_for_selector("text=1 task was purged.")
    assert broker.counts().dead == 0
    with in_public():
        assert {record.act for record in AuditRecord.objects.all()} >= {"purge"}
