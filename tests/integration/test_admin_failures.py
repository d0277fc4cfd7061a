"""The operators' page of all tenants' failures: what it lists, and what is done to many at once."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tenant_q.admin import failure_acts
from tenant_q.admin import failures as page_module
from tenant_q.brokers import get_broker
from tenant_q.exceptions import BrokerError
from tenant_q.models import AuditRecord, Failure, IndexedFailures
from tenant_q.operations import failures
from tenant_q.operations.failures import FailureFilter, FailuresDone, Key
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import work

A, B = "acme_corp", "globex_inc"
FAILURES, TENANTS = "/admin/tenant_q/failedtask/", "/admin/tenant_q/tenantpolicy/"
ACT = f"{FAILURES}act/"
NOW = timezone.now()


@pytest.fixture
def site(public_site) -> Iterator[Callable[..., Client]]:
    Failure.rows().all().delete()
    yield public_site
    Failure.rows().all().delete()


def fail(schema: str, id: str, *, hours: float = 0, **values: Any) -> None:
    """An entry of a task that failed some hours ago."""
    made = {"func": "shop.tasks.bill", "cause": "ValueError", "attempts": 1, "is_pending": False} | values
    Failure.rows().create(schema_name=schema, task_id=id, stopped=NOW - timedelta(hours=hours), **made)


def fail_in_many_ways() -> None:
    fail(A, "a", hours=30, schedule="nightly")
    fail(A, "b", hours=2)
    fail(B, "c", schedule="nightly")
    fail(B, "d", cause="KeyError")
    fail(B, "e", cause="", func="shop.tasks.ship")


def cells(page: Any, row: str) -> list[tuple[str, str]]:
    """The cells of the row of a page's table that begins with a text: their texts, and the URLs of their links."""
    text = page.content.decode()
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    (found,) = [one for one in table.split("<tr>") if row in one]
    parts = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", found, re.DOTALL)
    links = [re.search(r'href="([^"]*)"', part) for part in parts]
    texts = [re.sub(r"<[^>]*>", "", part).strip() for part in parts]
    return [(text, html.unescape(link[1]) if link else "") for text, link in zip(texts, links, strict=True)]


def ids_of(page: Any) -> list[str]:
    return [row["id"] for row in page.context["rows"]]


def hidden(page: Any) -> list[tuple[str, str]]:
    """The hidden fields of the form of a page, without the token."""
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.content.decode())
    return [(name, html.unescape(value)) for name, value in found if name != "csrfmiddlewaretoken"]


def send(client: Client, page: Any, **headers: str) -> Any:
    """Send the form of a page, as a browser does."""
    values: dict[str, list[str]] = {}
    for name, value in hidden(page):
        values.setdefault(name, []).append(value)
    return client.post(ACT, values, headers=headers)


class Acts:
    """Stands in for the operations: it does `a_call` of the failures that are open, in order, until it is refused."""

    def __init__(self, a_call: int = 2) -> None:
        self.a_call = a_call
        self.calls: list[tuple[FailureFilter, str]] = []
        self.error: Exception | None = None
        self.refused: dict[Key, str] = {}

    def __call__(self, wanted: FailureFilter, *, actor: str, limit: int, after: Key | None) -> FailuresDone:
        if self.error:
            raise self.error
        self.calls.append((wanted, actor))
        keys = sorted((one.schema_name, one.task_id) for one in failures.failures(wanted, limit=1000))
        chosen = [key for key in keys if after is None or key > after][: min(limit, self.a_call)]
        errors = {key: self.refused[key] for key in chosen if key in self.refused}
        done = [key for key in chosen if key not in errors]
        if done:
            Failure.rows().filter(pk__in=done).update(again="new")
        return FailuresDone(len(done), 0, errors, chosen[-1] if len(chosen) == self.a_call else None)


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> Acts:
    """Each request does one step."""
    made = Acts()
    monkeypatch.setattr(failures, "retry", made)
    monkeypatch.setattr(failures, "delete", made)
    monkeypatch.setattr(failure_acts, "SLICE_SECONDS", 0.0)
    return made


# What it lists


def test_failures_are_grouped_by_cause_and_function(site):
    fail_in_many_ways()
    client = site()
    page = client.get(FAILURES)
    assert page.status_code == 200
    row = cells(page, "ValueError")
    assert [text for text, _ in row[:5]] == ["shop.tasks.bill", "ValueError", "3", "2", "1"]
    assert row[5][0] != row[6][0], "first and last seen"
    assert [text for text, _ in cells(page, "unknown")[:3]] == ["shop.tasks.ship", "unknown", "1"]
    assert "5 failures" in page.content.decode()


def test_each_count_of_a_group_leads_to_what_it_counts(site):
    fail_in_many_ways()
    client = site()
    function, _, count, tenants, schedules, *_ = cells(client.get(FAILURES), "ValueError")
    assert ids_of(client.get(FAILURES + count[1])) == ids_of(client.get(FAILURES + function[1])) == ["c", "b", "a"]
    page = client.get(FAILURES + tenants[1])
    assert [(row["name"], row["count"]) for row in page.context["rows"]] == [(A, 2), (B, 1)]
    name, count, *_ = cells(page, A)
    assert name[1] == f"{TENANTS}{A}/" and ids_of(client.get(FAILURES + count[1])) == ["b", "a"]
    page = client.get(FAILURES + schedules[1])
    assert [(row["name"], row["count"]) for row in page.context["rows"]] == [("nightly", 2)]
    assert ids_of(client.get(FAILURES + cells(page, "nightly")[1][1])) == ["c", "a"]
    unknown = cells(client.get(FAILURES), "unknown")[2]
    assert ids_of(client.get(FAILURES + unknown[1])) == ["e"]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", "dceba"),
        ("since=24h", "dceb"),
        ("since=65m", "dce"),
        ("since=nonsense", "dceba"),
        ("since=2026-02-30T00:00", "dceba"),
        (f"schema={A}", "ba"),
        ("func=shop.tasks.ship", "e"),
        ("cause=KeyError", "d"),
        ("cause=%3F", "e"),
        ("schedule=nightly", "ca"),
        (f"schema={B}&schedule=nightly", "c"),
        (f"id={A}/a&id=nonsense", "a"),
        ("id=nonsense", ""),
        ("func=%00", "dceba"),
    ],
)
def test_a_filter(site, query, ids):
    fail_in_many_ways()
    assert sorted(ids_of(site().get(f"{FAILURES}?show=all&{query}"))) == sorted(ids)


def test_the_filter_is_kept_by_the_links(site):
    fail_in_many_ways()
    client = site()
    page = client.get(f"{FAILURES}?schema={A}&since=24h")
    assert 'value="24h" selected' in page.content.decode()
    assert ids_of(client.get(FAILURES + cells(page, "ValueError")[2][1])) == ["b"]
    again = cells(page, "ValueError")[-1][1]
    assert "1 failed task again?" in client.get(FAILURES + again).content.decode()


def test_a_list_of_failures_has_their_tenants_and_schedules(site):
    fail(B, "c", schedule="nightly", attempts=3)
    page = site().get(f"{FAILURES}?show=all")
    row = cells(page, "shop.tasks.bill")
    assert [text for text, _ in row[1:6]] == ["shop.tasks.billc", "ValueError", B, "nightly", "3"]
    assert row[3][1] == f"{TENANTS}{B}/" and "schedule=nightly" in row[4][1]


def test_it_says_that_older_failures_are_still_being_read(site):
    client = site()
    IndexedFailures.objects.update(swept=None)  # as the scheduler does
    assert "still reading older failures" not in client.get(FAILURES).content.decode()
    fail(A, "a", cause="", is_pending=True)
    assert "still reading older failures" in client.get(FAILURES).content.decode()


def test_pages_of_failures(site, monkeypatch):
    monkeypatch.setattr(page_module, "A_PAGE", 2)
    for number in range(5):
        fail(A, str(number), hours=number, func=f"f{number}")
    client = site()
    for show in ("all", ""):
        seen, url = [], f"?show={show}"
        while url:
            page = client.get(FAILURES + url)
            seen += [row["func"] for row in page.context["rows"]]
            url = page.context.get("next_url")
        assert seen == ["f0", "f1", "f2", "f3", "f4"]
        assert client.get(FAILURES + page.context["previous_url"]).context["number"] == 2


def test_texts_of_tenants_are_shown_as_text(site):
    fail(A, "a", func="<b>\x1b[2J", cause="<i>", schedule="<u>&show=x")
    client = site()
    for show in ("", "all", "schedules", "tenants"):
        text = client.get(f"{FAILURES}?show={show}").content.decode()
        assert not {"<b>", "<i>", "<u>", "\x1b"} & set(re.findall(r"<[biu]>|\x1b", text))
    row = cells(client.get(FAILURES), "&lt;b&gt;\\x1b[2J")
    assert ids_of(client.get(FAILURES + row[2][1])) == ["a"]
    row = cells(client.get(f"{FAILURES}?show=schedules"), "&lt;u&gt;")
    assert ids_of(client.get(FAILURES + row[1][1])) == ["a"]


# What is done


def test_many_are_run_again_in_slices(site, acts):
    for number in range(5):
        fail(A, str(number))
    fail(A, "another", cause="KeyError")
    client = site()
    question = client.get(f"{ACT}?cause=ValueError&act=retry")
    assert "Run 5 failed tasks again?" in question.content.decode()
    assert acts.calls == []
    page = send(client, question)
    assert "2 of 5" in page.content.decode() and "data-next-slice" in page.content.decode()
    fail(A, "later", hours=-1)
    part = send(client, page, x_requested_with="XMLHttpRequest")
    assert "4 of 5" in part.content.decode() and "<html" not in part.content.decode()
    end = send(client, part)
    text = end.content.decode()
    assert "All is done." in text and "5 tasks were queued again." in text
    assert "<form" not in text.partition("tenant-q-acting")[2]
    assert f"{TENANTS}?with=queued" in text
    still_open = {one.task_id for one in failures.failures(FailureFilter(), limit=10)}
    assert still_open == {"another", "later"}
    assert {actor for _, actor in acts.calls} == {"olga0"}


def test_what_is_deleted_is_asked_for_first(site, acts):
    fail_in_many_ways()
    client = site()
    question = client.post(ACT, {"act": "delete", "schema": A})
    text = question.content.decode()
    assert "Delete 2 failed tasks?" in text and "cannot be restored" in text and acts.calls == []
    assert client.get(f"{ACT}?act=delete&confirmed=yes").status_code == 200 and acts.calls == []
    page = send(client, send(client, question))
    assert "2 failures were deleted." in page.content.decode()
    assert failures.count(FailureFilter()) == 3


def test_selected_failures(site, acts):
    fail_in_many_ways()
    client = site()
    keys = [row["key"] for row in client.get(f"{FAILURES}?show=all").context["rows"] if row["id"] in "ad"]
    question = client.post(ACT, {"act": "retry", "id": keys})
    assert "Run 2 failed tasks again?" in question.content.decode()
    send(client, send(client, question))
    assert {one.task_id for one in failures.failures(FailureFilter(), limit=10)} == set("bce")
    nothing = client.post(ACT, {"act": "retry"})
    assert "Run 3 failed tasks again?" in nothing.content.decode(), "without a filter all are meant, and asked for"


def test_what_could_not_be_run_again_is_shown(site, acts):
    for number in range(3):
        fail(A, str(number))
    acts.refused = {(A, "1"): "its arguments are not <signed>\x1b"}
    client = site()
    page = send(client, client.get(f"{ACT}?act=retry"))
    text = page.content.decode()
    assert "1 could not be run again." in text
    assert f"{A} 1: its arguments are not &lt;signed&gt;\\x1b" in text
    text = send(client, page).content.decode()
    assert "2 tasks were queued again." in text and "&lt;signed&gt;" in text
    left = html.unescape(re.findall(r'<a href="([^"]*)">1 could not', text)[0])
    assert ids_of(client.get(left)) == ["1"]


def test_an_outage_stops_it_and_continue_goes_on(site, acts):
    for number in range(4):
        fail(A, str(number))
    client = site()
    page = send(client, client.get(f"{ACT}?act=retry"))
    acts.error = BrokerError("The broker cannot be reached.")
    page = send(client, page)
    text = page.content.decode()
    assert "The broker cannot be reached." in text and "2 of 4" in text and "Continue" in text
    assert "data-next-slice" not in text, "the script waits for the operator"
    acts.error = None
    Failure.rows().filter(task_id="2").update(again="new")  # before the error
    text = send(client, page).content.decode()
    assert "3 tasks were queued again." in text and "1 had been run again or deleted already." in text


def test_nothing_left_to_do(site):
    client = site()
    text = client.get(f"{ACT}?act=retry").content.decode()
    assert "There are no such failures any more." in text and "<form method" not in text.partition("content-main")[2]
    assert "No failures." in client.get(FAILURES).content.decode()


def test_what_a_request_claims_of_its_progress_is_only_shown(site, acts):
    fail(A, "a")
    sent = {"act": "retry", "confirmed": "yes", "total": "x", "done": "9" * 50, "last": "none", "error": "<b>\x00"}
    text = site().post(ACT, sent).content.decode()
    assert "1 task was queued again." in text and "&lt;b&gt;" in text


# Who may what


@pytest.mark.seam
def test_the_page_is_for_operators_with_the_permission(site, acts):
    fail(A, "a")
    for client, status in ((site("view_group"), 403), (site(schema=A), 404)):
        assert client.get(FAILURES).status_code == status
        for act in ("retry", "delete"):
            assert client.post(ACT, {"act": act, "confirmed": "yes"}).status_code == status
    assert FAILURES not in site(schema=A).get("/admin/").content.decode()
    assert FAILURES in site().get("/admin/").content.decode()
    looking = site("view_failedtask")
    text = looking.get(FAILURES).content.decode()
    assert "shop.tasks.bill" in text and "act=retry" not in text and "act=delete" not in text
    assert "checkbox" not in looking.get(f"{FAILURES}?show=all").content.decode()
    for act in ("retry", "delete"):
        assert looking.post(ACT, {"act": act, "confirmed": "yes"}).status_code == 403
    changing = site("view_failedtask", "change_failedtask")
    assert changing.get(f"{ACT}?act=delete").status_code == 403
    assert changing.get(f"{ACT}?act=retry").status_code == 200
    assert changing.get(f"{ACT}?act=nonsense").status_code == 404
    assert acts.calls == []


def test_an_act_on_failures_needs_a_token(site, acts):
    fail(A, "a")
    client = site()
    strict = Client(HTTP_HOST="public-site.localhost", enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post(ACT, {"act": "retry", "confirmed": "yes"}).status_code == 403
    assert acts.calls == []


# Many


def test_many_failures_cost_no_more_statements(site):
    client = site()

    def cost(show: str) -> int:
        with CaptureQueriesContext(connection) as statements:
            assert client.get(f"{FAILURES}?show={show}").status_code == 200
        return len(statements)

    fail(A, "a", schedule="nightly")
    few = [(cost(show), cost(show))[1] for show in ("", "tenants", "schedules", "all")]
    now = timezone.now()
    Failure.rows().bulk_create(
        Failure(
            schema_name=f"many_{number % 1000:04}",
            task_id=str(number),
            func=f"shop.tasks.f{number % 7}",
            cause=f"Error{number % 5}",
            schedule=f"s{number % 50}",
            stopped=now,
            is_pending=False,
        )
        for number in range(5000)
    )
    assert [cost(show) for show in ("", "tenants", "schedules", "all")] == few
    assert max(few) <= 16  # django-tenants sets its search path before many of them


# With the operations themselves


@pytest.mark.seam
def test_failed_tasks_of_two_tenants_are_run_again_and_then_deleted(site, worker):
    for schema in (A, B):
        with in_schema(schema):
            QUtilities.add_async_task("tests.tasks.fail")
    work(worker)
    client = site()
    (row,) = client.get(FAILURES).context["rows"]
    assert (row["func"], row["count"], row["tenants"]) == ("tests.tasks.fail", 2, 2)
    page = send(client, client.get(f"{ACT}{row['of_group']}&act=retry"))
    assert "2 tasks were queued again." in page.content.decode()
    assert "No failures." in client.get(FAILURES).content.decode(), "they are not open any more"
    assert [get_broker().queue_size(schema) for schema in (A, B)] == [1, 1]
    assert "There are no such failures any more." in client.get(f"{ACT}?act=retry").content.decode()
    work(worker)
    page = send(client, client.get(f"{ACT}?schema={B}&act=delete"))
    assert "1 failure was deleted." in page.content.decode()
    assert [row["schema"] for row in client.get(f"{FAILURES}?show=all").context["rows"]] == [A]
    records = AuditRecord.objects.order_by("id").values_list("actor", "schema_name", "after__count")
    assert list(records) == [("olga0", A, 1), ("olga0", B, 1), ("olga0", B, 1)]
