# ruff: noqa: F811  (`site` is a fixture)
"""The admin's lists: what they link, filter and find, and how they show moments."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q.admin import own_failures
from tenant_q.brokers import get_broker
from tenant_q.models import AuditRecord, Failure
from tenant_q.operations.published_status import ClusterStat
from tenant_q.operations.status import ClusterState, Process
from tenant_q.support import moments
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import work
from tests.integration.test_admin import change_url, make_schedule, make_task, site  # noqa: F401
from tests.runs import delete_runs, make_run

A, B = "acme_corp", "globex_inc"
SUCCESSES, FAILURES, LIVE = "/admin/django_q/success/", "/admin/django_q/failure/", "/admin/tenant_q/livetask/"
RUNS = "/admin/tenant_q_workflows/workflowrun/"


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    delete_runs(A)
    schemas.truncate(schemas.TENANTS)
    AuditRecord.objects.all().delete()
    for schema in (A, B):
        with in_schema(schema):
            get_user_model().objects.all().delete()


def names(client: Client, url: str) -> list[str]:
    """The names of the tasks, or of the schedules, that a list shows."""
    answer = client.get(url, follow=True)
    assert answer.status_code == 200, url
    return sorted(row.name for row in answer.context["cl"].result_list)


def text_of(client: Client, url: str) -> str:
    return client.get(url).content.decode()


# Moments


def test_a_moment_is_shown_in_one_format_in_the_time_zone_of_the_page():
    moment = datetime(2026, 5, 17, 20, 30, 0, 999, tzinfo=UTC)
    with timezone.override("Asia/Tokyo"):
        assert moments.shown(moment) == '<time datetime="2026-05-18T05:30:00+09:00">2026-05-18 05:30:00</time>'
    assert moments.text(datetime(2026, 5, 17, 9, 5)) == "2026-05-17 09:05:00"
    assert moments.shown(None) == "-"


@pytest.mark.parametrize("url", [SUCCESSES, FAILURES, "/admin/django_q/schedule/", RUNS])
def test_every_moment_of_a_list_has_that_format(site, url):
    make_task(id="1" * 32)
    make_task(id="2" * 32, success=False, result="ValueError: no")
    make_schedule(task="1" * 32)
    make_run(A)
    page = text_of(site(A), url)
    found = re.findall(r"<time[^>]*>([^<]*)</time>", page)
    assert found and all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", one) for one in found)
    assert not re.search(r"\d (a|p)\.m\.", page)


# Cards


@pytest.mark.parametrize("url", [SUCCESSES, "/admin/django_q/schedule/"])
def test_each_cell_has_the_label_of_its_column(site, url):
    make_task(id="1" * 32)
    make_schedule()
    page = text_of(site(A), url)
    table = page.partition('id="result_list"')[2].partition("</table>")[0]
    heads = re.findall(r'<div class="text">(?:<a[^>]*>|<span>)([^<]+)<', table)
    labels = re.findall(r'<t[hd] data-label="([^"]+)"', table)
    assert labels == heads[-len(labels) :] and len(labels) >= 5


def test_a_function_stands_first_and_the_random_name_below(site):
    make_task(name="juliet-four-early")
    page = text_of(site(A), SUCCESSES)
    assert re.search(r'tests\.tasks\.add<span class="tenant-q-under">juliet-four-early</span></a></th>', page)


def test_a_name_is_never_markup_and_controls_nothing(site):
    make_task(func="shop.<b>x", name="n\u202e<i>", group="<u>g")
    page = text_of(site(A), SUCCESSES)
    cells = re.findall(r"<t[hd] data-label.*?</t[hd]>", page)
    assert len(cells) == 5
    assert not any(bad in cell for bad in ("<b>", "<i>", "<u>", "\u202e") for cell in cells)


# Links between tasks, schedules and runs


@pytest.mark.seam
def test_a_task_leads_to_its_schedule_and_back(site, make_worker):
    row = make_schedule(name="nightly books")
    client = site(A)
    client.post(f"/admin/django_q/schedule/{row.pk}/act/run_now/")
    make_worker().tick()
    make_task(name="another", group="by hand", id="9" * 32)
    with in_schema(A):
        task = Task.objects.get(group="nightly books")
    for url in (SUCCESSES, change_url("success", task.pk)):
        assert f'href="{change_url("schedule", row.pk)}"' in text_of(client, url)
    back = f"{SUCCESSES}?schedule={row.pk}"
    for url in ("/admin/django_q/schedule/", change_url("schedule", row.pk)):
        assert f'href="{back}"' in text_of(client, url)
    assert names(client, back) == [task.name]
    assert names(client, f"{FAILURES}?schedule={row.pk}") == []


def test_what_is_not_there_is_a_dash(site):
    task = make_task(group=None)
    make_schedule()
    client = site(A)
    for url in (SUCCESSES, change_url("success", task.pk), "/admin/django_q/schedule/"):
        page = text_of(client, url)
        cells = re.findall(r'<(?:t[hd] data-label|div class="readonly)[^>]*>(.*?)</(?:t[hd]|div)>', page)
        assert "-" in cells and "None" not in cells, url
    assert "field-tasks" not in text_of(client, "/admin/django_q/schedule/add/")


def test_a_schedule_without_a_name_is_found_by_its_id(site):
    row = make_schedule(name=None)
    make_schedule(name=str(row.pk + 1000))
    make_task(name="own", group=str(row.pk))
    make_task(name="other", group=str(row.pk + 1000), id="9" * 32)
    client = site(A)
    assert names(client, f"{SUCCESSES}?schedule={row.pk}") == ["own"]
    assert f'href="{change_url("schedule", row.pk)}"' in text_of(client, SUCCESSES)


@pytest.mark.parametrize("wrong", ["0", "9" * 30, "x", "1; DROP TABLE", "²"])
def test_a_schedule_that_is_not_there_has_no_tasks(site, wrong):
    make_task()
    assert names(site(A), f"{SUCCESSES}?schedule={wrong}") == []


def test_who_may_not_see_schedules_gets_no_link_to_them(site):
    row = make_schedule(name="nightly")
    make_task(group="nightly")
    page = text_of(site(A, "view_success"), SUCCESSES)
    assert "nightly" in page and change_url("schedule", row.pk) not in page


def test_a_list_costs_as_many_statements_with_many_rows(site):
    client = site(A)
    make_schedule(name="s0")
    make_task(id="0" * 32, group="s0")
    client.get(SUCCESSES)
    with CaptureQueriesContext(connection) as one:
        client.get(SUCCESSES)
    for number in range(1, 8):
        make_schedule(name=f"s{number}")
        make_task(id=f"{number:032}", group=f"s{number}")
    with CaptureQueriesContext(connection) as many:
        page = text_of(client, SUCCESSES)
    assert page.count("/admin/django_q/schedule/") >= 8
    assert len(many) == len(one)


def test_a_run_leads_to_its_schedule_and_the_schedule_to_its_runs(site):
    row = make_schedule(name="orders", func="shop.workflows.order")
    run = make_run(A, key="schedule:" + "0" * 32, by="orders")
    make_run(A, key="task:" + "0" * 32, by="orders")
    client = site(A)
    for url in (RUNS, f"{RUNS}{run.pk}/change/"):
        assert f'href="{change_url("schedule", row.pk)}"' in text_of(client, url)
    back = f"{RUNS}?schedule={row.pk}"
    assert [one.pk for one in client.get(back).context["cl"].result_list] == [run.pk]


def test_a_step_leads_to_its_run(site):
    run = make_run(A)
    make_task(func="tenant_q.workflows.step.shop.workflows.order.pick", group=run.pk, success=False, result="E: no")
    assert f'href="{RUNS}{run.pk}/change/"' in text_of(site(A), FAILURES)


# Filters


def test_the_outcome_is_chosen_and_the_other_filters_stay(site):
    make_task(name="good", id="1" * 32)
    make_task(name="bad", id="2" * 32, success=False, result="ValueError: no")
    client = site(A)
    page = text_of(client, f"{SUCCESSES}?func=tests.tasks.add&p=1")
    assert f'href="{FAILURES}?func=tests.tasks.add"' in page
    assert names(client, f"{FAILURES}?func=tests.tasks.add") == ["bad"]


def test_schedules_are_filtered_by_their_last_outcome_and_their_function(site):
    make_task(id="1" * 32)
    make_task(id="2" * 32, success=False, result="ValueError: no")
    make_schedule(name="good", task="1" * 32)
    make_schedule(name="bad", task="2" * 32)
    make_schedule(name="new", func="math.sqrt")
    client = site(A)
    url = "/admin/django_q/schedule/"
    assert [names(client, f"{url}?last={one}") for one in ("success", "failure", "none")] == [
        ["good"],
        ["bad"],
        ["new"],
    ]
    assert names(client, f"{url}?func=math.sqrt") == ["new"]


# Causes


@pytest.mark.seam
def test_failures_are_found_by_their_cause(site, make_worker):
    with in_schema(A):
        QUtilities.add_async_task("math.sqrt", -1, task_name="root")
        QUtilities.add_async_task("builtins.len", 1, task_name="length")
    with in_schema(B):
        QUtilities.add_async_task("math.sqrt", -1, task_name="of another")
        QUtilities.add_async_task("operator.getitem", {}, 1, task_name="key")
    work(make_worker())
    client = site(A)
    assert names(client, f"{FAILURES}?q=valueerr") == ["root"]
    assert names(client, f"{FAILURES}?q=length") == ["length"], "as before, by the name"
    assert names(client, f"{FAILURES}?q=KeyError") == [], "what only another tenant has"
    assert names(client, f"{FAILURES}?cause=TypeError") == ["length"]
    page = text_of(client, FAILURES)
    assert "?cause=ValueError" in page and "KeyError" not in page


def test_a_table_of_the_tenants_in_the_place_of_the_index_is_not_read(site):
    make_task(id="1" * 32, success=False, result="ValueError: no", name="own")
    Failure.rows().filter(schema_name=A).update(cause="ValueError", is_pending=False)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {A}.tenant_q_failure (LIKE public.tenant_q_failure)")
        try:
            assert names(site(A), f"{FAILURES}?q=ValueError") == ["own"]
            with in_schema(A):
                assert own_failures.causes(10) == ["ValueError"]
        finally:
            cursor.execute(f"DROP TABLE {A}.tenant_q_failure")


# Schedules have names


def test_a_schedule_is_named_in_titles_questions_and_messages(site):
    row = make_schedule(name="nightly books")
    client = site(A)
    assert str(row) == "nightly books" and str(Schedule(func="a.b")) == "a.b"
    assert "nightly books" in text_of(client, f"/admin/django_q/schedule/{row.pk}/delete/")
    chosen = {"action": "delete_selected", "_selected_action": [row.pk]}
    assert "nightly books" in client.post("/admin/django_q/schedule/", chosen).content.decode()
    answer = client.post(f"/admin/django_q/schedule/{row.pk}/delete/", {"post": "yes"}, follow=True)
    assert ["nightly books" in str(message) for message in answer.context["messages"]] == [True]


# Live tasks


def publish(*processes: Process) -> None:
    ClusterStat(
        cluster_id=uuid.uuid4(), parent=1, started=timezone.now(), state=ClusterState.WORKING, workers_wanted=1,
        has_scheduler=False, processes=processes, reincarnations=0,
    ).publish(get_broker())  # fmt: skip


def test_a_running_task_shows_since_when_its_attempt_and_its_worker(site):
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2, task_name="sum")
    broker = get_broker()
    broker.fetch("w1")
    broker.reclaim("w1", running=id)
    broker.fetch("w2")
    of_others = Process("worker", 4711, "w3", task_id=id, schema=B, func="f", seconds=5.0)
    publish(Process("worker", 4242, "w2", task_id=id, schema=A, func="f", seconds=75.0), of_others)
    page = text_of(site(A), LIVE)
    cells = dict(re.findall(r'<td[^>]*data-label="([^"]+)">(.*?)</td>', page, re.S))
    assert "attempt 2" in cells["State"] and cells["Worker"] == "4242"
    shown = re.search(r">(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)<", cells["Running since"])
    since = datetime.strptime(shown[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    assert 70 <= (timezone.now() - since).total_seconds() <= 135
    assert "for 75 s" in cells["Running since"]
    assert id in page


def test_no_page_of_a_tenant_names_a_host(site):
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2)
    get_broker().fetch("w1")
    publish(Process("worker", 4242, "some-host:4242", task_id=id, schema=A, func="f", seconds=1.0))
    page = text_of(site(A), LIVE + "?part=table")
    assert "4242" in page and "some-host" not in page


def test_a_live_task_of_a_schedule_leads_to_it(site):
    row = make_schedule(name="nightly")
    client = site(A)
    client.post(f"/admin/django_q/schedule/{row.pk}/act/run_now/")
    assert f'href="{change_url("schedule", row.pk)}"' in text_of(client, LIVE)


# Operators


@pytest.fixture
def operators(site) -> Iterator[Callable[..., Client]]:
    def visit(*permissions: str) -> Client:
        return site("public", *permissions)

    yield visit
    with in_public():
        get_user_model().objects.filter(username__in=("boss", "clerk")).delete()


def test_a_schema_leads_to_its_tenants_page(operators):
    AuditRecord.objects.create(actor="ada", act="pause", schema_name=A, after={"paused": True})
    url = f'href="/admin/tenant_q/tenantpolicy/{A}/"'
    assert url in text_of(operators(), "/admin/tenant_q/auditrecord/")
    clerk: Any = operators("view_auditrecord")
    page = text_of(clerk, "/admin/tenant_q/auditrecord/")
    assert A in page and url not in page
