"""The overview of a tenant and of all tenants: its numbers are right, its counts are links, and it costs little."""

from __future__ import annotations

import html
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis.connection
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.brokers.adapter import AdaptedBroker
from tenant_q.brokers.protocol import Message, Settled
from tenant_q.exceptions import BrokerError
from tenant_q.models import DueSchedule, Failure
from tenant_q.operations import overview
from tenant_q.operations.overview import read_overview
from tenant_q.schedules import index_upkeep
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import work
from tests.integration.planning import on_the_wire
from tests.integration.test_admin_operators import kill
from tests.integration.test_figures import make_many, messages_for  # noqa: F401  (one is a fixture)

A, B = "acme_corp", "globex_inc"
SITE, TENANT, START = "/admin/tenant_q/siteoverview/", "/admin/tenant_q/overview/", "/admin/tenant_q/"


@pytest.fixture
def site(public_site: Callable[..., Client]) -> Callable[..., Client]:
    return public_site


@pytest.fixture(autouse=True)
def clean(tenants: tuple[str, ...], unlimited: None) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    Failure.rows().all().delete()
    DueSchedule.objects.all().delete()


def tiles_of(page: Any) -> dict[str, tuple[str, str]]:
    """The numbers that a page shows and the URLs of their links, by label."""
    found = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", page.content.decode(), re.DOTALL)
    return {
        label: (re.sub("<[^>]*>", "", shown).strip(), html.unescape(link[1]) if link else "")
        for label, shown in found
        for link in [re.search('href="([^"]*)"', shown)]
    }


def table_of(page: Any, title: str) -> dict[str, list[str]]:
    """The cells of a table of the page as text, by the name of the row."""
    text = page.content.decode()
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index(title) :].partition("</section>")[0], re.DOTALL)
    cells = [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.split("</t[dh]>", row)[:-1]] for row in rows]
    return {name: own for name, *own in cells[1:]}


def listed(page: Any) -> list[str]:
    """The ids of the tasks that a list shows, whichever it is."""
    if "cl" in page.context:
        return sorted(str(row.pk) for row in page.context["cl"].result_list)
    return sorted(row["id"] if isinstance(row, dict) else row.id for row in page.context["rows"])


def enqueue(schema: str, *calls: Any) -> list[str]:
    with in_schema(schema):
        return [QUtilities.add_async_task(*call) for call in calls]


def plan(schema: str, name: str, **later: float) -> int:
    with in_schema(schema):
        row = Schedule.objects.create(
            name=name,
            func="tests.tasks.add",
            schedule_type=Schedule.DAILY,
            next_run=timezone.now() + timedelta(**later),
        )
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())
    return int(row.pk)


# Numbers


@pytest.mark.seam
def test_the_numbers_of_a_tenant_are_links_to_what_they_count(site, worker):
    (failed,) = enqueue(A, ("tests.tasks.fail",))
    work(worker)
    queued = enqueue(A, ("tests.tasks.add", 1), ("tests.tasks.add", 2))
    with in_schema(A):
        delayed = QUtilities.add_async_task("tests.tasks.add", 3, q_options={"delay": 600})
    schedule = plan(A, "nightly", hours=3)
    enqueue(B, ("tests.tasks.add", 1))
    client = site(schema=A)
    page = client.get(TENANT)
    tiles = tiles_of(page)
    assert {label: shown for label, (shown, url) in tiles.items() if label != "Next run"} == {
        "Queued": "2",
        "Running": "0",
        "Delayed": "1",
        "Failed": "1",
    }
    for label, ids in (("Queued", queued), ("Delayed", [delayed]), ("Failed", [failed])):
        assert listed(client.get(tiles[label][1])) == sorted(ids), label
    assert tiles["Running"][1] == "", "nothing is linked to an empty list"
    assert tiles["Next run"][1] == f"/admin/django_q/schedule/{schedule}/change/"
    assert "nightly" in page.content.decode()


@pytest.mark.seam
def test_the_numbers_of_all_tenants_are_links_to_what_they_count(site, worker):
    enqueue(A, ("tests.tasks.fail",))
    work(worker)
    kill("d1")
    enqueue(A, ("tests.tasks.add", 1))
    enqueue(B, ("tests.tasks.add", 1), ("tests.tasks.add", 2))
    plan(A, "later", hours=3)
    plan(B, "sooner", hours=2)
    client = site()
    page = client.get(SITE)
    tiles = tiles_of(page)
    shown = {label: value for label, (value, url) in tiles.items() if label != "Next run"}
    assert shown == {"Queued": "3", "Running": "0", "Delayed": "0", "Failed": "1", "Dead": "1", "Workers": "0"}
    assert [row["schema"] for row in client.get(tiles["Queued"][1]).context["rows"]] == [B, A]
    assert listed(client.get(tiles["Dead"][1])) == ["d1"]
    assert client.get(tiles["Failed"][1]).status_code == 200
    assert client.get(tiles["Next run"][1]).context["rows"][0]["schema"] == B
    assert f"{B} · sooner" in page.content.decode()


def test_the_next_run_of_all_tenants_is_one_that_is_not_held(site):
    plan(A, "of a paused tenant", hours=1)
    plan(B, "of another", hours=2)
    DueSchedule.objects.filter(schema_name=A).update(held="paused", due=None)
    page = site().get(SITE).content.decode()
    assert "of another" in page and "of a paused tenant" not in page
    assert "paused" in site(schema=A).get(TENANT).content.decode(), "the tenant sees why its own does not run"


def test_the_numbers_alone(site):
    enqueue(A, ("tests.tasks.add", 1))
    for client, url in ((site(), SITE), (site(schema=A), TENANT)):
        part = client.get(f"{url}?part=numbers")
        assert tiles_of(part)["Queued"][0] == "1"
        assert "<html" not in part.content.decode() and "<svg" not in part.content.decode()


def test_operators_see_whether_a_cluster_runs(site):
    assert "No cluster is running." in site().get(SITE).content.decode()
    assert "No cluster" not in site(schema=A).get(TENANT).content.decode()


# Charts and tables


@pytest.mark.seam
def test_what_was_done_is_drawn_and_listed(site, worker):
    ids = enqueue(A, *[("tests.tasks.add", n) for n in range(3)])
    (failed,) = enqueue(A, ("tests.tasks.fail",))
    enqueue(B, ("tests.tasks.add", 1))
    work(worker)
    client = site(schema=A)
    for hours in (1, 24):
        page = client.get(f"{TENANT}?hours={hours}")
        tasks, _queue, waits, runs, _workers = page.context["charts"]
        done, failures = (one.total for one in tasks.series)
        assert (done[0], failures[0]) == ("3", "1")
        assert listed(client.get(done[1])) == sorted(ids)
        assert listed(client.get(failures[1])) == [failed]
        assert [len(chart.shapes) for chart in (waits, runs)] == [3, 3], "p50, p95 and the area below"
        assert re.findall(r">(\d+)</a>", tasks.rows) == ["3", "1"]
    table = table_of(page, "Top functions")
    assert table["tests.tasks.add"][:2] == ["3", "0"] and table["tests.tasks.fail"][:2] == ["0", "1"]
    assert set(table_of(page, "Slowest functions")) == {"tests.tasks.add", "tests.tasks.fail"}
    assert B not in page.content.decode()


@pytest.mark.seam
def test_the_tenants_that_did_most(site, worker):
    enqueue(A, ("tests.tasks.add", 1), ("tests.tasks.fail",))
    enqueue(B, ("tests.tasks.add", 1), ("tests.tasks.add", 2))
    work(worker)
    client = site()
    for hours in (1, 24):
        page = client.get(f"{SITE}?hours={hours}")
        table = table_of(page, "Top tenants")
        assert {name: cells[:2] for name, cells in table.items()} == {A: ["1", "1"], B: ["2", "0"]}
        text = html.unescape(page.content.decode())
        assert f'"/admin/tenant_q/tenantpolicy/{A}/"' in text
        urls = re.findall(r'"(/admin/tenant_q/failedtask/[^"]*)"', text)
        assert any(f"schema={A}" in url for url in urls) and any("func=tests.tasks.fail" in url for url in urls)
        assert {client.get(url).status_code for url in urls} == {200}


def test_names_of_functions_are_shown_as_text(site, make_worker):
    broker = get_broker()
    broker.enqueue([Message(id="x", schema=A, func="<script>\x1b[2J", payload="p")])
    (lease,) = broker.fetch("w").leases
    broker.acknowledge("w", [Settled(lease, 0.1)])
    for client, url in ((site(), SITE), (site(schema=A), TENANT)):
        assert "&lt;script&gt;\\x1b[2J" in client.get(url).content.decode()


# Who sees what


def test_pages_and_their_permissions(site):
    assert site("view_siteoverview").get(SITE).status_code == 200
    assert site("view_overview").get(SITE).status_code == 403
    assert site().get(TENANT).status_code == 404, "no tasks run in the public schema"
    assert site("view_overview", schema=A).get(TENANT).status_code == 200
    assert site("view_siteoverview", schema=A).get(TENANT).status_code == 403
    assert site(schema=A).get(SITE).status_code == 404
    assert Permission.objects.filter(content_type__app_label="tenant_q", codename__endswith="overview").count() == 2


def test_no_count_is_a_link_for_who_may_not_follow_it(site):
    enqueue(A, ("tests.tasks.add", 1))
    assert tiles_of(site("view_siteoverview").get(SITE))["Queued"] == ("1", "")
    assert tiles_of(site("view_overview", schema=A).get(TENANT))["Queued"] == ("1", "")


@pytest.mark.seam
def test_the_start_page_of_the_app_shows_the_overview(site):
    enqueue(A, ("tests.tasks.add", 1))
    for client, word in ((site(), "Workers"), (site(schema=A), "Next run")):
        page = client.get(START)
        assert tiles_of(page)["Queued"][0] == "1" and word in tiles_of(page)
        assert "tenant_q/charts.css" in page.content.decode()
        assert page.content.decode().count("<h1>") == 1 and "Overview" in page.content.decode()


def test_the_start_page_of_the_app_without_the_permission(site):
    for client in (site("view_cluster"), site("view_livetask", schema=A)):
        page = client.get(START)
        assert page.status_code == 200 and tiles_of(page) == {}
        assert "tenant_q/charts.css" not in page.content.decode()


def test_a_broker_with_one_queue_for_all_tells_a_tenant_nothing_of_others(site, monkeypatch):
    enqueue(B, ("tests.tasks.add", 1))
    shared = AdaptedBroker("shared", None)
    monkeypatch.setattr(overview, "site_brokers", lambda: [shared])
    page = site(schema=A).get(TENANT)
    assert {tiles_of(page)[label][0] for label in ("Queued", "Running", "Delayed")} == {"-"}
    assert "The broker keeps no figures" in page.content.decode()


def test_a_broker_that_is_away_is_an_error_on_the_page(site, monkeypatch):
    def away() -> Any:
        raise BrokerError("Redis at queue.internal is away.")

    monkeypatch.setattr(overview, "site_brokers", away)
    operators, tenants = "Redis at queue.internal is away.", "The task queue does not answer at the moment."
    for client, url, text in ((site(), SITE, operators), (site(schema=A), TENANT, tenants)):
        for part in ("", "?part=numbers"):
            page = client.get(url + part)
            assert page.status_code == 200 and text in page.content.decode()
            assert ("queue.internal" in page.content.decode()) == (url == SITE), "a tenant's page names no server"


# Cost


@pytest.mark.parametrize("schema", [None, A])
def test_statements_and_round_trips_are_the_same_for_any_number_of_tenants(schema, make_many, monkeypatch):  # noqa: F811
    real = redis.connection.AbstractConnection.send_packed_command
    sent: list[Any] = []
    monkeypatch.setattr(
        redis.connection.AbstractConnection,
        "send_packed_command",
        lambda *args, **kwargs: sent.append(1) or real(*args, **kwargs),
    )
    plan(A, "nightly", hours=3)

    def cost() -> tuple[int, int]:
        read_overview(schema, of_day=True)
        sent.clear()
        with on_the_wire() as messages:
            read_overview(schema, of_day=True)
        return len(messages), len(sent)

    few = cost()
    names = make_many(100)
    get_broker().enqueue(messages_for(names, 2))
    now = timezone.now()
    Failure.rows().bulk_create(Failure(schema_name=name, task_id="x", func="f", stopped=now) for name in names)
    assert cost() == few
    print(f"\nstatements, round trips: {few}", end="")
    assert few[0] <= 12 and few[1] <= 6


def run_one_of_each(names: list[str]) -> None:
    """One task of each tenant is done, and what the workers hold of the others goes back."""
    broker, left = get_broker(), set(names)
    while left:
        leases = broker.fetch("w").leases
        done = {lease.schema: lease for lease in leases if lease.schema in left}
        broker.acknowledge("w", [Settled(lease, 0.1) for lease in done.values()])
        broker.give_back("w", [lease for lease in leases if lease not in done.values()])
        left -= done.keys()


def test_a_thousand_tenants_with_much_to_show(site, make_many):  # noqa: F811
    """The times are printed only, as another test of this machine may run. `make chaos` has 1,000 tenants."""
    count = 1000 if os.environ.get("CHAOS") == "long" else 50
    names = make_many(count)
    now = timezone.now()
    get_broker().enqueue(messages_for(names, 6))
    run_one_of_each(names)
    Failure.rows().bulk_create(
        Failure(schema_name=name, task_id=f"{n}", func="f", cause="ValueError", stopped=now)
        for name in names
        for n in range(5)
    )
    DueSchedule.objects.bulk_create(
        [
            DueSchedule(schema_name=name, schedule_id=n, cluster="", next_run=now + timedelta(days=1), due=now)
            for name in names
            for n in range(10)
        ],
        batch_size=10_000,
    )
    client = site()
    print()
    for url in (SITE, f"{SITE}?hours=24", f"{SITE}?part=numbers", START):
        client.get(url)
        begun = time.perf_counter()
        page = client.get(url)
        print(f"{time.perf_counter() - begun:6.3f} s  {count} tenants, {5 * count} failures: {url}")
        assert tiles_of(page)["Failed"][0] == f"{5 * count:,}"
        assert tiles_of(page)["Queued"][0] == f"{5 * count:,}"


def test_no_tenants_rows_are_counted(site):
    """What happened long ago costs nothing: only the index and the broker are read."""
    with in_schema(A):
        Task.objects.create(id="x", name="x", func="f", started=timezone.now(), stopped=timezone.now(), success=True)
    with on_the_wire() as messages:
        read_overview()
        read_overview(A)
    assert not [one for one in messages if "django_q_task" in one]
    assert policies.policies() == []
