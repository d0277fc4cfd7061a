"""The operators' admin: in the public site only, and right about every tenant in a few statements."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.connection
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import Task

from tenant_q import audit, policies
from tenant_q.admin import operators
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.models import AuditRecord, TenantPolicy
from tenant_q.support import workflows_app
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.test_figures import make_many  # noqa: F401  (a fixture)
from tests.runs import delete_runs, make_run

A, B = "acme_corp", "globex_inc"
TENANTS, CLUSTERS, DEAD, AUDIT = (
    f"/admin/tenant_q/{model}/" for model in ("tenantpolicy", "cluster", "deadtask", "auditrecord")
)
PAGES = (TENANTS, CLUSTERS, DEAD, AUDIT)


@pytest.fixture
def site(public_site) -> Callable[..., Client]:
    return public_site


def kill(*ids: str, schema: str = A, func: str = "tests.tasks.add") -> None:
    """Packages that are dead."""
    broker = get_broker()
    broker.enqueue([Message(id=id, schema=schema, func=func, payload="payload") for id in ids])
    for _ in ids:
        for lease in broker.fetch("w").leases:
            broker.dead_letter("w", lease, "Cause: a test")


def filled_in(client: Client) -> dict[str, str]:
    """What a browser sends of the form of a tenant's policy, as it stands there."""
    page = client.get(f"{TENANTS}?edit={A}").content.decode()
    form = page[page.index('<tr class="tenant-q-edit">') :].partition("</form>")[0]
    fields = [dict(re.findall(r'(name|value)="([^"]*)"', field)) for field in re.findall("<input [^>]*>", form)]
    return {field["name"]: field.get("value", "") for field in fields if "name" in field}


def later() -> None:
    """What died so far died a second earlier."""
    client, dead = get_broker().client, f"{get_broker().tag}:dead"
    for id in client.zrange(dead, 0, -1):
        client.zincrby(dead, -1000, id)


def rows_of(page: Any) -> list[str]:
    return [row["schema"] for row in page.context["rows"]]


def counts_in(cells: str) -> list[int]:
    """The numbers in cells of a row, with or without a link."""
    return [int(number) for number in re.findall(r">(\d+)<", cells)]


@pytest.mark.seam
def test_one_table_tells_of_every_tenant(site, make_worker):
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", 1)
        QUtilities.add_async_task("tests.tasks.fail")
    make_worker().tick()
    with in_schema(B):
        QUtilities.add_async_task("tests.tasks.add", 1)
        QUtilities.add_async_task("tests.tasks.add", 1, q_options={"delay": 600})
    page = site().get(TENANTS)
    assert page.status_code == 200
    counts = {row["schema"]: counts_in(row["counts"]) for row in page.context["rows"]}
    assert counts[B][:3] == [1, 0, 1]
    assert sum(counts[A][4:]) >= 1
    assert counts["initech_llc"] == [0] * 6


def test_the_table_counts_workflow_runs(site):
    ago = timezone.now() - timedelta(minutes=10)
    for state, look_at in (("running", None), ("running", ago), ("pending", None), ("failed", None)):
        make_run(A, state=state, look_at=look_at)
    make_run(B, state="succeeded")
    client = site()
    try:
        with CaptureQueriesContext(connection) as found:
            page = client.get(f"{TENANTS}?o=-runs_open")
        assert sum("tenant_q_dueworkflow" in query["sql"] for query in found) == 1
        assert not any("tenant_q_workflows_run" in query["sql"] for query in found)
        counts = {row["schema"]: counts_in(row["runs"]) for row in page.context["rows"]}
        assert counts[A] == [3, 1, 1]
        assert counts[B] == [0, 0, 0]
        assert rows_of(page)[0] == A
    finally:
        delete_runs(A, B)


def test_without_the_app_of_workflows_nothing_is_shown_or_asked_of_them(site, monkeypatch):
    monkeypatch.setattr(workflows_app, "is_installed", lambda: False)
    client = site()
    with CaptureQueriesContext(connection) as found:
        page = client.get(f"{TENANTS}?o=-runs_open")
    assert not any("tenant_q_dueworkflow" in query["sql"] for query in found)
    assert not any(head["name"].startswith("runs_") for head in page.context["heads"])
    assert "Overdue" not in page.content.decode()


def test_the_table_is_ordered_and_searched(site):
    with in_schema(B):
        QUtilities.add_async_task("tests.tasks.add", 1)
    client = site()
    assert rows_of(client.get(f"{TENANTS}?o=-queued"))[0] == B
    assert rows_of(client.get(f"{TENANTS}?o=queued"))[-1] == B
    assert rows_of(client.get(f"{TENANTS}?o=-schema")) == ["initech_llc", B, A]
    assert rows_of(client.get(f"{TENANTS}?q=GLOBEX")) == [B]
    for column in ("wait", "-run", "next", "weight", "nonsense"):
        assert len(rows_of(client.get(f"{TENANTS}?o={column}"))) == 3


@pytest.mark.seam
def test_a_policy_is_changed_in_its_row(site):
    client = site()
    page = client.get(f"{TENANTS}?o=-queued&edit={A}").content.decode()
    assert 'name="max_running"' in page
    values = filled_in(client) | {"weight": "2", "max_running": "3"}
    answer = client.post(f"{TENANTS}{A}/policy/?o=-queued", values)
    assert answer.status_code == 302 and answer["Location"].endswith("?o=-queued")
    assert get_broker().policies()[A].weight == 2 and get_broker().policies()[A].max_running == 3
    record = AuditRecord.objects.get()
    assert (record.actor, record.act, record.schema_name) == ("olga0", "limit", A)
    assert (record.before["weight"], record.after["weight"]) == (1, 2)


def test_what_others_changed_meanwhile_stays(site):
    """The form was opened before the tenant was paused and limited, and is sent after it."""
    client = site()
    values = filled_in(client)
    assert "paused" not in values
    policies.change(A, actor="ada", act="pause", paused=True)
    policies.change(A, actor="ada", act="limit", max_queued=7, max_results=5)
    client.post(f"{TENANTS}{A}/policy/", values | {"weight": "2", "max_results": "9"})
    policy = TenantPolicy.objects.get()
    assert (policy.paused, policy.max_queued, policy.weight, policy.max_results) == (True, 7, 2, 9)
    assert get_broker().policies()[A].paused
    client.post(f"{TENANTS}{A}/policy/", filled_in(client) | {"max_queued": "", "max_running": "1"})
    policy.refresh_from_db()
    assert (policy.paused, policy.max_queued, policy.max_running) == (True, None, 1)
    count = AuditRecord.objects.count()
    answer = client.post(f"{TENANTS}{A}/policy/", filled_in(client), follow=True)
    assert [str(m) for m in answer.context["messages"]][-1] == "Nothing was changed."
    assert AuditRecord.objects.count() == count


def test_a_value_that_cannot_be_is_told_in_the_row(site):
    answer = site().post(f"{TENANTS}{A}/policy/", {"weight": "0", "max_running": "-1"})
    assert answer.status_code == 200
    assert set(answer.context["form"].errors) == {"weight", "max_running"}
    assert not TenantPolicy.objects.exists() and not AuditRecord.objects.exists()


def test_a_tenant_is_paused_and_goes_on(site):
    client = site()
    client.post(f"{TENANTS}{A}/pause/")
    assert policies.is_paused(A) and not policies.is_paused(B)
    assert "Resume" in client.get(TENANTS).content.decode()
    client.post(f"{TENANTS}{A}/pause/", {"resume": ""})
    assert not policies.is_paused(A)
    assert list(AuditRecord.objects.order_by("id").values_list("act", flat=True)) == ["pause", "resume"]


def test_a_tenant_that_is_not_there(site):
    answer = site().post(f"{TENANTS}nobody/pause/", follow=True)
    assert "No tenant has the schema name" in answer.content.decode()


def test_dead_tasks_are_queued_again_or_purged(site):
    kill("d1", "d2", "d3")
    client = site()
    page = client.get(DEAD).content.decode()
    assert "Cause: a test" in page and 'value="d1"' in page
    client.post(f"{DEAD}act/", {"act": "retry", "id": ["d1"]})
    assert get_broker().place(A, "d1") == "queued"
    question = client.post(f"{DEAD}act/", {"act": "purge", "id": ["d2"]})
    assert "cannot be restored" in question.content.decode() and get_broker().place(A, "d2") == "dead"
    client.post(f"{DEAD}act/", {"act": "purge", "id": ["d2"], "confirmed": "yes"})
    assert get_broker().place(A, "d2") is None and get_broker().place(A, "d3") == "dead"
    records = AuditRecord.objects.order_by("id").values_list("actor", "act", "schema_name", "target")
    assert list(records) == [("olga0", "retry", A, "d1"), ("olga0", "purge", A, "d2")]


def test_what_is_chosen_is_all_that_is_read(site, monkeypatch):
    kill("d1", "d2")
    read: list[str] = []
    real = get_broker().dead

    def dead(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        read.extend(one.id for one in found)
        return found

    monkeypatch.setattr(get_broker(), "dead", dead)
    client = site()
    client.post(f"{DEAD}act/", {"act": "retry", "id": ["d1", "unknown"]})
    assert read == ["d1"] and get_broker().place(A, "d1") == "queued"
    client.post(f"{DEAD}act/", {"act": "purge", "confirmed": "yes"})
    assert read == ["d1"] and get_broker().place(A, "d2") == "dead"


def test_of_many_dead_tasks_the_latest_are_shown(site, monkeypatch):
    monkeypatch.setattr(operators, "DEAD_SHOWN", 2)
    for id in ("a first", "d second", "b third", "c last"):
        kill(id)
        later()
    kill("e other", schema=B)
    client = site()
    page = client.get(DEAD)
    assert [row["id"] for row in page.context["rows"]] == ["e other", "c last"] and page.context["has_more"]
    page = client.get(f"{DEAD}?schema={A}")
    assert [row["id"] for row in page.context["rows"]] == ["c last", "b third"]
    assert "The latest 2. Filter by a tenant to see older ones." in page.content.decode()


def test_the_audit_trail_is_read_only(site):
    record = audit.record("olga", "limit", schema=A, before={"weight": 1.0}, after={"weight": 2.0})
    client = site()
    page = client.get(AUDIT).content.decode()
    assert "weight 1.0 → 2.0" in page and "olga" in page
    assert len(client.get(f"{AUDIT}?q=globex").context["cl"].result_list) == 0
    assert client.get(f"{AUDIT}?act=limit").status_code == 200
    assert client.get(f"{AUDIT}{record.pk}/change/").status_code == 200
    for door in ("add/", f"{record.pk}/delete/"):
        assert client.post(AUDIT + door, {"post": "yes"}).status_code == 403
    assert AuditRecord.objects.filter(pk=record.pk).exists()


# Who may what


def test_who_may_only_look_changes_nothing(site):
    kill("d1")
    client = site("view_tenantpolicy", "view_deadtask", "view_cluster", "view_auditrecord")
    for url in PAGES:
        page = client.get(url)
        assert page.status_code == 200 and "/pause/" not in page.content.decode()
    assert client.post(f"{TENANTS}{A}/pause/").status_code == 403
    assert client.post(f"{TENANTS}{A}/policy/", {"weight": "2"}).status_code == 403
    for act in ("retry", "purge"):
        assert client.post(f"{DEAD}act/", {"act": act, "id": ["d1"], "confirmed": "yes"}).status_code == 403
    assert get_broker().place(A, "d1") == "dead" and not policies.is_paused(A)


def test_without_a_permission_there_is_no_page(site):
    client = site("view_group")
    for url in PAGES:
        assert client.get(url).status_code == 403


def test_an_act_is_a_post_with_a_token(site):
    client = site()
    assert client.get(f"{TENANTS}{A}/pause/").status_code == 405
    assert client.get(f"{DEAD}act/").status_code == 405
    strict = Client(HTTP_HOST="public-site.localhost", enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post(f"{TENANTS}{A}/pause/").status_code == 403
    assert not policies.is_paused(A)


@pytest.mark.seam
def test_in_a_tenants_site_there_are_no_such_pages(site):
    kill("d1", schema=B)
    audit.record("olga", "limit", schema=B)
    client = site(schema=A)
    index = client.get("/admin/").content.decode()
    for url in PAGES:
        assert url not in index
        assert client.get(url).status_code == 404
    record = AuditRecord.objects.get()
    doors = [f"{AUDIT}{record.pk}/change/", f"{AUDIT}{record.pk}/history/", f"{AUDIT}{record.pk}/delete/"]
    for url in (f"{TENANTS}{B}/pause/", f"{TENANTS}{B}/policy/", f"{TENANTS}{A}/pause/", f"{DEAD}act/", *doors):
        assert client.post(url, {"act": "purge", "id": ["d1"], "confirmed": "yes"}).status_code == 404
    assert not policies.paused() and get_broker().place(B, "d1") == "dead"


@pytest.mark.seam
def test_in_the_public_site_there_are_no_tenants_pages(site):
    client = site()
    index = client.get("/admin/").content.decode()
    assert all(url in index for url in PAGES)
    for url in (
        "/admin/django_q/",
        "/admin/django_q/schedule/",
        "/admin/django_q/success/",
        "/admin/django_q/failure/",
    ):
        assert url not in index
        assert client.get(url).status_code == 404
    for url in ("/admin/django_q/schedule/add/", "/admin/django_q/failure/x/change/", "/admin/tenant_q/livetask/"):
        assert client.get(url).status_code == 404


# Many


def test_many_tenants_cost_no_more_than_three(site, make_many, monkeypatch):  # noqa: F811
    real = redis.connection.AbstractConnection.send_packed_command
    sent: list[Any] = []

    def send(*args: Any, **kwargs: Any) -> Any:
        sent.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", send)
    client = site()

    def cost() -> tuple[int, int, int]:
        sent.clear()
        with CaptureQueriesContext(connection) as statements:
            page = client.get(TENANTS)
        return len(rows_of(page)), len(statements), len(sent)

    cost()
    _, *few = cost()
    make_many(300)
    rows, *many = cost()
    assert rows == 303 and many == few
    assert few[0] <= 14 and few[1] <= 6  # one counts workflow runs, and django-tenants sets its search path before


@pytest.mark.seam
def test_the_clusters_are_told_with_what_they_run(site, mscluster):
    with in_schema(A):
        QUtilities.add_async_task("time.sleep", 600)
    mscluster("--workers", "1")
    client = site()
    from tests.conftest import wait_until

    page = wait_until(
        lambda: "time.sleep" in (text := client.get(f"{CLUSTERS}?part=table").content.decode()) and text,
        what="the page to show what the worker runs",
    )
    assert "scheduler" in page and "worker" in page and A in page and "<html" not in page
    with in_schema(A):
        assert not Task.objects.exists()
        assert QUtilities.cancel(next(one.id for one in get_broker().live(A)))
