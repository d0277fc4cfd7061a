"""Each count on a page is a link to what it counts, for those who may see it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q.admin import tenant_lists
from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import work
from tests.integration.test_admin_operators import kill
from tests.runs import delete_runs, make_run

A, B = "acme_corp", "globex_inc"
TENANTS, LIVE = "/admin/tenant_q/tenantpolicy/", "/admin/tenant_q/livetask/"


@pytest.fixture
def site(public_site) -> Callable[..., Client]:
    return public_site


def counts_of(page: Any, row: str) -> dict[str, tuple[str, str]]:
    """The counts of a row of the table of tenants and the URLs of their links, by the column's name."""
    text = page.content.decode()
    heads = [head["name"] for head in page.context["heads"]]
    (found,) = [one for one in re.findall(r"<tr[ >].*?</tr>", text, re.DOTALL) if re.search(rf"<th[^>]*>.*{row}", one)]
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", found, re.DOTALL)
    links = [re.fullmatch(r'<a href="([^"]*)">(\d+)</a>', cell) for cell in cells]
    return {
        name: (html.unescape(link[1]), link[2]) if link else ("", cell)
        for name, link, cell in zip(heads, links, cells, strict=False)
    }


def ids_of(page: Any) -> list[str]:
    return [row["id"] if isinstance(row, dict) else row.id for row in page.context["rows"]]


@pytest.mark.seam
def test_a_count_of_a_tenants_tasks_leads_to_these_tasks(site, worker):
    with in_schema(A):
        done = QUtilities.add_async_task("tests.tasks.add", 1, 2)
        QUtilities.add_async_task("tests.tasks.fail")
    work(worker)
    kill("d1")
    with in_schema(A):
        queued = [QUtilities.add_async_task("tests.tasks.add", number, 2) for number in range(2)]
        delayed = QUtilities.add_async_task("tests.tasks.add", 1, q_options={"delay": 600})
    client = site()
    counts = counts_of(client.get(TENANTS), A)
    for column, count, ids in (
        ("queued", "2", queued),
        ("delayed", "1", [delayed]),
        ("dead", "1", ["d1"]),
        ("done", "1", [done]),
    ):
        url, shown = counts[column]
        assert shown == count, column
        assert ids_of(client.get(url)) == ids, column
    assert counts["running"] == ("", "0")
    assert "tests.tasks.add" in client.get(counts["queued"][0]).content.decode()
    others = counts_of(client.get(TENANTS), B)
    assert {url for url, _ in (others[name] for name in ("queued", "dead", "done", "failed"))} == {""}


def test_a_sum_leads_to_the_tenants_that_have_a_part_in_it(site):
    for schema, count in ((B, 2), (A, 1)):
        with in_schema(schema):
            for number in range(count):
                QUtilities.add_async_task("tests.tasks.add", number)
    client = site()
    url, shown = counts_of(client.get(TENANTS), "All")["queued"]
    assert shown == "3"
    page = client.get(url)
    assert [row["schema"] for row in page.context["rows"]] == [B, A]
    assert "show all" in page.content.decode()


def test_a_count_of_workflow_runs_leads_to_these_runs(site):
    ago = timezone.now() - timedelta(minutes=10)
    overdue = make_run(A, state="running", look_at=ago)
    pending = make_run(A, state="pending")
    failed = make_run(A, state="failed")
    make_run(B, state="failed")
    client = site()
    try:
        counts = counts_of(client.get(TENANTS), A)
        for column, runs in (("runs_open", [overdue, pending]), ("runs_failed", [failed]), ("runs_overdue", [overdue])):
            url, shown = counts[column]
            assert shown == str(len(runs))
            assert set(ids_of(client.get(url))) == {run.pk for run in runs}, column
    finally:
        delete_runs(A, B)


def test_a_list_of_a_tenant_shows_no_arguments_and_no_names(site, worker):
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", 1, 2, task_name="a secret name")
    work(worker)
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", "a secret", q_options={"task_name": "a secret name"})
    client = site()
    for place in ("", "queued", "done"):
        page = client.get(f"{TENANTS}{A}/tasks/?place={place}").content.decode()
        assert "tests.tasks.add" in page and "secret" not in page


def test_the_functions_of_a_tenant_are_shown_as_text(site):
    with in_schema(A):
        now = timezone.now()
        Task.objects.create(id="x", name="n", func="<script>\x1b[2J", started=now, stopped=now, success=True)
    page = site().get(f"{TENANTS}{A}/tasks/?place=done").content.decode()
    assert "&lt;script&gt;\\x1b[2J" in page


def test_a_long_list_says_that_it_is_cut(site, monkeypatch):
    monkeypatch.setattr(tenant_lists, "LISTED", 2)
    with in_schema(A):
        for number in range(3):
            QUtilities.add_async_task("tests.tasks.add", number)
    page = site().get(f"{TENANTS}{A}/tasks/?place=queued")
    assert len(ids_of(page)) == 2 and "The first 2 are listed." in page.content.decode()


def test_the_lists_of_a_tenant_are_for_operators(site):
    for part in ("tasks", "runs"):
        assert site("view_group").get(f"{TENANTS}{A}/{part}/").status_code == 403
        assert site(schema=A).get(f"{TENANTS}{B}/{part}/").status_code == 404
        assert site("view_tenantpolicy").get(f"{TENANTS}{A}/{part}/").status_code == 200


def test_a_tenant_that_is_gone(site):
    page = site().get(f"{TENANTS}nobody/tasks/?place=done").content.decode()
    assert "nobody" in page and "errornote" in page


def test_no_link_where_the_user_may_not_follow_it(site):
    kill("d1")
    assert counts_of(site("view_tenantpolicy").get(TENANTS), A)["dead"] == ("", "1")


def test_the_live_list_shows_one_place(site):
    with in_schema(A):
        queued = QUtilities.add_async_task("tests.tasks.add", 1)
        delayed = QUtilities.add_async_task("tests.tasks.add", 1, q_options={"delay": 600})
    client = site(schema=A)
    assert ids_of(client.get(LIVE)) == [queued, delayed]
    assert ids_of(client.get(f"{LIVE}?place=queued")) == [queued]
    assert ids_of(client.get(f"{LIVE}?place=nonsense")) == [queued, delayed]
    page = client.get(f"{LIVE}?place=delayed")
    assert ids_of(page) == [delayed]
    assert 'data-url="?part=table&amp;place=delayed"' in page.content.decode()
    assert "No such task." in client.get(f"{LIVE}?part=table&place=leased").content.decode()
    assert get_broker().queue_size(A) == 1


def test_the_page_of_a_tenant_leads_to_its_lists(site):
    page = site().get(f"{TENANTS}{A}/").content.decode()
    for url in ("tasks/", f"/admin/tenant_q/failedtask/?schema={A}", f"/admin/tenant_q/deadtask/?schema={A}", "runs/"):
        assert f'href="{url}"' in page
    page = site("view_tenantpolicy").get(f"{TENANTS}{A}/").content.decode()
    assert 'href="tasks/"' in page and "failedtask" not in page and "deadtask" not in page


def test_the_counts_of_a_workflow_run_lead_to_its_steps_and_failed_tasks(site):
    with in_schema(A):
        now = timezone.now()
        failed = Task.objects.create(id="f" * 32, name="n", func="f", started=now, stopped=now, success=False)
    values = {"charge": {"task_id": failed.id, "attempts": 3, "error": "declined"}}
    run = make_run(A, states={"charge": "failed", "pick": "mapping"}, items={"pick": ["ready"]}, values=values)
    client = site(schema=A)
    try:
        runs = "/admin/tenant_q_workflows/workflowrun/"
        assert f'href="{runs}{run.pk}/change/#changelist"' in client.get(runs).content.decode()
        page = client.get(f"{runs}{run.pk}/change/").content.decode()
        assert f'<a href="/admin/django_q/failure/{failed.id}/change/">3</a>' in page
        assert re.search(rf'<a href="{runs}{run.pk}/step/pick/">0 of 1</a>', page)
        assert client.get(f"{runs}{run.pk}/step/pick/").status_code == 200
    finally:
        delete_runs(A)


def test_the_number_that_a_message_names_leads_to_these(site):
    client = site(schema=A)
    with in_schema(A):
        row = Schedule.objects.create(name="s", func="tests.tasks.add", next_run=timezone.now() + timedelta(hours=1))
    sent = {"action": "pause", "_selected_action": [row.pk]}
    page = client.post("/admin/django_q/schedule/", sent, follow=True).content.decode()
    assert re.search(r'<a href="/admin/django_q/schedule/\?state=paused"[^>]*>1 schedule was paused.</a>', page)
