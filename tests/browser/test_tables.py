"""Every list of the admin with long names: nothing lies outside of a desktop's screen, and a phone shows cards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.models import AuditRecord, Failure, TenantPolicy
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.rows import sign
from tests.runs import delete_runs, make_run

A = "acme_corp"
FUNC = "shop.tasks." + "a_function_with_a_name_of_one_hundred_characters_" * 2
NAME = "a-name-that-somebody-has-chosen-with-great-care-and-" * 2
GROUP = "quarterly-reports-of-all-departments-and-subsidiaries-" * 2
TEXT = "x" * 100
MESSAGE = "the-message-of-an-error-without-a-single-blank-" * 6
CAUSE = "VeryParticular" * 6 + "Error"
DROPPED = "a_schema_with_a_name_that_is_as_long_as_postgresql_lets_it_be_63"[:63]
IMPORT = "shop.tasks.import_catalogue"
SECONDS = 60.0
"""How long an import takes: for as long as its page is measured."""
PICTURES = os.environ.get("TABLES_PICTURES", "")
"""A directory for pictures of all lists, to look at."""

OUTSIDE = """() => {
  const right = document.documentElement.clientWidth;
  const cells = [...document.querySelectorAll("table.tenant-q-cards th, table.tenant-q-cards td, .tenant-q-cards a, "
    + ".tenant-q-cards button, .tenant-q-cards input, .tenant-q-choice, .actions select, .submit-row button")];
  const seen = cells.filter(cell => cell.getClientRects().length && !cell.closest(".visually-hidden")
    && (cell.closest("thead")?.clientWidth ?? 2) > 1);
  const frames = cell => {
    let left = 0, most = right;
    for (let one = cell.parentElement; one; one = one.parentElement) {
      if (getComputedStyle(one).overflowX !== "visible" && one !== document.body && one !== document.documentElement) {
        const box = one.getBoundingClientRect();
        [left, most] = [Math.max(left, box.left), Math.min(most, box.right)];
      }
    }
    return [left, most];
  };
  return seen.filter(cell => {
    const box = cell.getBoundingClientRect(), [left, most] = frames(cell);
    return box.width > 1 && (box.right > most + 1 || box.left < left - 1);
  }).map(cell => `${cell.tagName}.${cell.className}: ${cell.textContent.trim().slice(0, 40)}`);
}"""
TOO_WIDE_TEXT = """() => [...document.querySelectorAll(".tenant-q-cards th, .tenant-q-cards td")].filter(
  cell => cell.scrollWidth > cell.clientWidth + 1 && (cell.closest("thead")?.clientWidth ?? 2) > 1).map(
  cell => `${cell.className}: ${cell.textContent.trim().slice(0, 40)}`)"""
NOT_CARDS = """() => [...document.querySelectorAll(".tenant-q-cards tbody tr:not(.tenant-q-edit)")].flatMap(row => {
  const box = row.getBoundingClientRect();
  const cells = [...row.cells].filter(cell => cell.getClientRects().length && !cell.matches(".action-checkbox"));
  return cells.filter((cell, place) => {
    const own = cell.getBoundingClientRect(), before = place && cells[place - 1].getBoundingClientRect();
    const label = getComputedStyle(cell, "::before").content.replaceAll('"', "");
    const isLabelled = cell.tagName === "TH" || !cell.dataset.label || label === cell.dataset.label;
    return !isLabelled || own.left < box.left || own.right > box.right || (place && own.top < before.bottom - 1);
  }).map(cell => cell.textContent.trim().slice(0, 40));
})"""


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    for model in (TenantPolicy, AuditRecord):
        model.objects.all().delete()
    delete_runs(A)


def check(page: Any, name: str, *, rows: int) -> None:
    """Measure the lists of a page on a desktop and on a phone, in both colour schemes."""
    page.locator(".tenant-q-cards tbody tr").nth(rows - 1).wait_for()
    found = look(page, name, OUTSIDE, TOO_WIDE_TEXT)
    page.set_viewport_size({"width": 390, "height": 900})
    found["not cards"] = page.evaluate(NOT_CARDS)
    assert {what: cells for what, cells in found.items() if cells} == {}
    page.set_viewport_size({"width": 1280, "height": 900})


def check_filters(page: Any) -> None:
    """Open each filter of a list: its choices lie within the window."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for choice in page.locator(".tenant-q-choice").all():
            choice.locator("summary").click()
            left, right = choice.locator("> :not(summary)").evaluate(
                "one => [one.getBoundingClientRect().left, one.getBoundingClientRect().right]"
            )
            assert left >= 0 and right <= width and page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})


def look(page: Any, name: str, *measures: str) -> dict[str, list[str]]:
    """Measure a page at both widths in both colour schemes, and return what does not fit."""
    found = {}
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            if PICTURES:
                page.wait_for_timeout(400)  # the colours change slowly
                page.screenshot(path=str(Path(PICTURES) / f"{name}-{width}-{scheme}.png"), full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        found[f"{name} at {width}"] = [f"{wide} px"] * (wide > width) + [
            cell for measure in measures for cell in page.evaluate(measure)
        ]
    page.set_viewport_size({"width": 1280, "height": 900})
    return found


def end(*ids: str) -> None:
    """Cancel running tasks, for which a cluster that is stopped would wait."""
    with in_schema(A):
        for id in ids:
            QUtilities.cancel(id)


def make_task(number: int, *, success: bool, result: Any, **fields: Any) -> Task:
    now = timezone.now()
    values: dict[str, Any] = {
        "name": f"{NAME}{number}"[-100:],
        "func": FUNC[:100],
        "args": (TEXT,),
        "kwargs": {"key": TEXT},
    }
    values |= {"started": now - timedelta(seconds=75), "stopped": now, "attempt_count": 3, "group": GROUP[:100]}
    task = Task.objects.create(
        id=f"{number:032}", success=success, result=result, **{**values, "cluster": "testproject", **fields}
    )
    sign(task)
    return task


def schedules() -> list[Schedule]:
    moment = timezone.now() + timedelta(hours=1)
    common = {"args": repr((TEXT,)), "kwargs": repr({"key": TEXT}), "next_run": moment}
    return [
        Schedule.objects.create(
            name=GROUP[:100], func="tests.tasks.add", schedule_type="C", cron="*/5 8-18 * * 1-5", **common
        ),
        Schedule.objects.create(name="nightly", func="tests.tasks.add", schedule_type="D", task=f"{2:032}", **common),
        Schedule.objects.create(func="shop.workflows.import_catalogue", schedule_type="I", minutes=15, **common),
    ]


def test_a_tenants_tasks_and_schedules(visit):
    with in_schema(A):
        own = schedules()
        for number in range(4):
            error = f"{MESSAGE} : Traceback (most recent call last):\n  File\n{CAUSE}: {MESSAGE}"
            make_task(number, success=number % 2 == 0, result={"total": TEXT} if number % 2 == 0 else error)
        make_task(
            4, success=True, result=42, group="nightly", name="juliet-four-early-spring", func="shop.tasks.report"
        )
        make_task(5, success=False, result="ValueError: no", group="nightly", func="shop.tasks.report")
    page = visit(A, "/admin/django_q/success/")
    check(page, "successes", rows=3)
    page.goto(page.url.replace("success", "failure"))
    check(page, "failures", rows=3)
    page.click(".tenant-q-choice >> text=Function")
    page.click(f".tenant-q-choice li >> text={FUNC[:100]}")
    page.wait_for_selector(".tenant-q-chosen >> nth=1")
    check_filters(page)
    page.click("#result_list tbody th a >> nth=0")
    assert not any(look(page, "failure").values())
    page.click("#nav-sidebar >> text=Successful tasks")
    page.click("#result_list tbody th a >> nth=0")
    assert not any(look(page, "success").values())
    page.click("#nav-sidebar >> text=Scheduled tasks")
    check(page, "schedules", rows=3)
    page.click("#result_list tbody th a >> text=nightly")
    assert not any(look(page, "schedule").values())
    page.click(".deletelink")
    assert "nightly" in page.text_content("#content")
    assert str(own[1].pk)


def test_live_tasks(visit, mscluster):
    with in_schema(A):
        busy = [  # all workers are
            QUtilities.add_async_task(IMPORT, seconds=SECONDS, task_name=NAME[:100], group=GROUP[:100])
            for _ in range(2)
        ]
    mscluster()
    page = visit(A, "/admin/tenant_q/livetask/")
    page.wait_for_selector("progress")
    page.wait_for_selector("td[data-label='Running since'] time")
    with in_schema(A):
        for number in range(3):
            arguments: dict[str, Any] = {
                "key": TEXT,
                "task_name": f"{NAME}{number}"[-100:],
                "group": GROUP[:100],
                "delay": 60 * number,
            }
            QUtilities.add_async_task("tests.tasks.add", TEXT, **arguments)
    page.reload()
    check(page, "live", rows=5)
    end(*busy)


def test_workflow_runs(visit):
    run = make_run(A, key="k" * 200, error=MESSAGE, state="failed", items={"pick": ["succeeded", "failed"]})
    make_run(A, key="schedule:" + "0" * 32, by="nightly")
    with in_schema(A):
        schedules()
    page = visit(A, "/admin/tenant_q_workflows/workflowrun/")
    check(page, "runs", rows=2)
    page.goto(page.url + f"{run.pk}/change/")
    check(page, "run", rows=3)
    page.goto(page.url.replace("change/", "step/pick/"))
    check(page, "items", rows=2)


def test_the_operators_lists(visit, mscluster):
    broker = get_broker()
    for number in range(3):
        func = FUNC[:100]
        broker.enqueue([Message(id=f"{number:032}", schema=A, func=func, payload="nothing that was signed")])
        (lease,) = broker.fetch("w").leases
        broker.dead_letter("w", lease, f"BadPackage: {MESSAGE}")
    broker.enqueue([Message(id="5" * 32, schema=DROPPED, func=FUNC[:100], payload="of a tenant that is gone")])
    policies.change(
        A,
        act="limit",
        actor="an-operator-with-a-name@of-a-large-company.example.com",
        weight=4,
        max_running=100,
        max_queued=100000,
        max_results=1000000,
        success_days=36500,
        max_failures=1000000,
        failure_days=0.125,
    )
    AuditRecord.objects.create(
        actor="somebody@" + TEXT, act="run task again", schema_name=A, target=TEXT, after={"name": NAME, "func": FUNC}
    )
    policies.change("globex_inc", actor="t", act="pause", paused=True)
    with in_schema(A):
        schedules()
        busy = QUtilities.add_async_task(IMPORT, seconds=SECONDS)
    mscluster()
    page = visit("public", "/admin/tenant_q/cluster/")
    page.wait_for_selector(".tenant-q-cluster .tenant-q-good.tenant-q-any")
    check(page, "clusters", rows=3)
    end(busy)
    page.click("#nav-sidebar >> text=Dead tasks")
    check(page, "dead", rows=3)
    page.click("#nav-sidebar >> text=Tenant policies")
    check(page, "tenants", rows=3)
    page.click("#result_list tbody >> text=Edit >> nth=0")
    check(page, "tenant-edit", rows=3)
    page.click("#nav-sidebar >> text=Audit records")
    check(page, "audit", rows=3)
    page.click("#result_list tbody th a >> text=run task again")
    assert not any(look(page, "audit-record").values())


def test_the_operators_lists_of_one_tenant(visit):
    with in_schema(A):
        for number in range(3):
            QUtilities.add_async_task("tests.tasks.add", TEXT, q_options={"delay": 60.0 * number})
        make_task(0, success=True, result=42)
        make_task(1, success=False, result=f"ValueError: {MESSAGE}")
    Failure.rows().filter(schema_name=A).update(cause=CAUSE, schedule=GROUP[:100], is_pending=False)
    make_run(A)
    page = visit("public", f"/admin/tenant_q/tenantpolicy/{A}/tasks/")
    check(page, "tenant-tasks", rows=3)
    page.goto(page.url + "?place=done")
    check(page, "tenant-done", rows=1)
    page.goto(page.url.partition("tasks/")[0] + "runs/")
    check(page, "tenant-runs", rows=1)
    for number, show in enumerate(("", "?show=tenants", "?show=schedules", "?show=all")):
        page.goto(page.url.partition("/admin/")[0] + f"/admin/tenant_q/failedtask/{show}")
        check(page, f"all-failures-{number}", rows=1)
