"""The operators' page of failures in a real browser: it fits, and its progress goes on by itself or by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Task

from tenant_q.models import AuditRecord, Failure
from tenant_q.tenancy import in_schema

A = "acme_corp"
FAILURES = "/admin/tenant_q/failedtask/"
LONG = "customers.billing.invoices.monthly.a_long_name_of_a_module.and_another_part_of_it.send_all_the_reminders"
OUTSIDE = """() => [...document.querySelectorAll(["a", "td", "th", "button", "input"].map(one => `#content ${one}`))]
  .filter(one => one.checkVisibility() && !one.closest(".visually-hidden"))
  .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1 || one.getBoundingClientRect().left < -1)
  .map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture
def failed(tenants) -> Iterator[int]:
    """Failures with long names, whose rows nothing can run again, since nobody has signed them."""
    count, now = 250, timezone.now()
    with in_schema(A):
        Task.objects.bulk_create(
            Task(id=f"{n:032}", name="n", func=LONG, started=now, stopped=now, success=False, result="Bad: it is bad")
            for n in range(count)
        )
    Failure.rows().filter(schema_name=A).delete()
    Failure.rows().bulk_create(
        Failure(
            schema_name=A,
            task_id=f"{n:032}",
            func=LONG,
            cause="E" * 100,
            schedule="s" * 100,
            stopped=now,
            is_pending=False,
        )
        for n in range(count)
    )
    yield count
    with in_schema(A):
        Task.objects.all().delete()
    connection.set_schema_to_public()
    Failure.rows().all().delete()
    AuditRecord.objects.all().delete()


def outside(page: Any) -> list[str]:
    """What of a page's content lies outside of the window, by its HTML."""
    found: list[str] = page.evaluate(OUTSIDE)
    return found


def test_every_column_and_action_fits_on_every_screen(visit, failed):
    page = visit("public", FAILURES)
    for show in ("", "tenants", "schedules", "all"):
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            page.goto(page.url.split("/admin/")[0] + f"{FAILURES}?show={show}")
            assert outside(page) == [], (show, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            row = page.locator("#result_list tbody tr").first
            assert row.evaluate("one => getComputedStyle(one).display") == ("table-row" if width == 1280 else "block")


def test_a_thousand_are_deleted_with_progress(visit, failed):
    page = visit("public", FAILURES)
    assert page.locator("#result_list tbody tr").count() == 1
    page.get_by_role("link", name=f"Delete all {failed}…").click()
    page.get_by_role("button", name="Yes, delete them").click()
    page.wait_for_selector(f"text={failed} failures were deleted.")
    assert page.get_by_role("button", name="Continue").count() == 0
    page.get_by_role("link", name="Back to the failures").click()
    page.wait_for_selector("text=No failures.")
    with in_schema(A):
        assert not Task.objects.exists()


def test_the_script_continues_where_a_slice_has_ended_and_stops_at_an_outage(visit, failed):
    """The server of the page is played here, so that each slice ends where the test wants."""
    page = visit("public", f"{FAILURES}act/?act=delete")
    sent: list[str] = []

    def answer(route: Any) -> None:
        sent.append(route.request.post_data or "")
        if len(sent) == 3:
            route.abort()
            return
        end = '<p id="end">All is done</p>'
        fields = f'<input name="slice" value="{len(sent)}"><button>Continue</button>'
        form = f'<form method="post" action="./" data-next-slice>{fields}</form>'
        part = end if len(sent) == 5 else form
        is_part = route.request.headers.get("x-requested-with") == "XMLHttpRequest"
        page_of_it = f'<script src="/static/tenant_q/failures.js"></script><div id="tenant-q-acting">{part}</div>'
        route.fulfill(status=200, content_type="text/html", body=part if is_part else page_of_it)

    page.route("**/failedtask/act/", answer)
    page.get_by_role("button", name="Yes, delete them").click()
    button = page.get_by_role("button", name="Continue")
    button.wait_for(state="visible")
    assert len(sent) == 3, "the third was not answered, and the script waits for the operator"
    button.click()
    page.wait_for_selector("#end")
    assert len(sent) == 5
