"""The attacker is a visitor, or a user of the admin without the permission: on every page, by every method.

The pages are those that the URL resolver has, so a new one is covered by itself. A parameter of a URL that is not known
here fails the test until it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, path
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy, views
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.models import AuditRecord, Cluster, DeadTask, FailedTask, Failure, SiteOverview, TenantPolicy
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.rows import sign

A, B, PUBLIC = "acme_corp", "globex_inc", "public"
SECRET = "s3cret-of-acme"
DEAD = "d" * 32
FAILED = "9" * 32
METHODS = ("get", "post")
OTHER_METHODS = ("head", "options", "put", "patch", "delete")
QUERIES = ("?part=table", "?part=numbers", "?hours=24", f"?edit={A}", "?id=1", "?_popup=1")
_CONVERTERS = {"StringConverter": "str", "PathConverter": "path", "SlugConverter": "slug"}
OPERATORS = (SiteOverview, TenantPolicy, Cluster, FailedTask, DeadTask, AuditRecord)


@dataclass(frozen=True)
class Page:
    """A URL of the admin, and the model whose page it is."""

    url: str
    route: str
    model: Any

    @property
    def is_for_operators(self) -> bool:
        return self.model in OPERATORS


@dataclass
class World:
    """A tenant with one of everything, and browsers."""

    hosts: dict[str, str]
    ids: dict[str, str]

    def pages(self) -> list[Page]:
        """Every page that tenant_q has in the admin."""
        found: list[Page] = []
        for entry in admin.site.get_urls():
            if isinstance(entry, URLResolver) and str(entry.pattern).startswith(("django_q/", "tenant_q/")):
                app, name = str(entry.pattern).split("/")[:2]
                model = next(m for m in admin.site._registry if m._meta.label_lower == f"{app}.{name}")
                for inner in entry.url_patterns:
                    assert isinstance(inner, URLPattern)
                    found += self._of_pattern(f"/admin/{entry.pattern}", inner, model)
        return found

    def _of_pattern(self, base: str, pattern: URLPattern, model: Any) -> Iterator[Page]:
        acts = ["run_now", "pause", "resume", "run_again"]
        known = {"object_id": [self.ids[model._meta.model_name]], "schema": [A], "action": acts}
        routes = [str(pattern.pattern)]
        for name, converter in pattern.pattern.converters.items():
            prefix = {"StringConverter": "str", "PathConverter": "path", "SlugConverter": "slug"}[
                type(converter).__name__
            ]
            routes = [r.replace(f"<{prefix}:{name}>", value) for r in routes for value in known[name]]
        for route in routes:
            yield Page(base + route, str(pattern.pattern), model)

    def browser(self, schema: str, host: str | None = None, **options: Any) -> Client:
        return Client(HTTP_HOST=self.hosts[host or schema], **options)

    def user(self, schema: str, *, permissions: Any = (), **fields: Any) -> Any:
        with in_schema(schema) if schema != PUBLIC else tenancy.in_public():
            user = get_user_model().objects.create(username=f"u{get_user_model().objects.count()}", **fields)
            user.user_permissions.set(permissions)
        return user

    def logged_in(self, schema: str, user: Any, **options: Any) -> Client:
        client = self.browser(schema, **options)
        with in_schema(schema) if schema != PUBLIC else tenancy.in_public():
            client.force_login(user)
        return client

    def boss(self, schema: str, **options: Any) -> Client:
        return self.logged_in(schema, self.user(schema, is_staff=True, is_superuser=True), **options)

    def payloads(self, page: Page) -> list[dict[str, Any]]:
        """What makes a page act, whichever it is, where it may."""
        pk = self.ids[page.model._meta.model_name]
        schedule = {
            "name": "by the attacker", "func": "tests.tasks.add", "args": "1", "kwargs": "", "schedule_type": "D",
            "minutes": "", "cron": "", "repeats": "-1", "hook": "", "cluster": "", "intended_date_kwarg": "",
            "next_run_0": "2030-01-01", "next_run_1": "12:00:00",
        }  # fmt: skip
        common = schedule | {
            "post": "yes", "confirmed": "1", "id": [DEAD], "weight": "5", "initial-weight": "1",
            "_selected_action": [pk], "index": "0",
        }  # fmt: skip
        if not page.route:  # a list
            actions = ("run_now", "pause", "run_again", "delete_selected")
            return [common | {"action": action} for action in actions]
        common |= {"_save": "Save"}
        if page.model is FailedTask:
            common |= {"func": "", "id": [f"{B}/{FAILED}"]}
            return [common | {"act": act} for act in ("retry", "delete")]
        return [common | {"act": act} for act in (("retry", "purge") if page.model is DeadTask else ("",))]


@pytest.fixture
def world(tenants) -> Iterator[World]:
    now = timezone.now()
    ids: dict[str, str] = {
        "overview": "1",
        "siteoverview": "1",
        "cluster": "1",
        "tenantpolicy": A,
        "failedtask": "1",
        "deadtask": DEAD,
    }
    with in_schema(A):
        row = Schedule.objects.create(
            name=SECRET,
            func="tests.tasks.add",
            args=f"'{SECRET}'",
            next_run=now + timedelta(hours=1),
            schedule_type="D",
        )
        ids["schedule"] = str(row.pk)
        for name, success in (("success", True), ("failure", False)):
            ids[name] = name[0] * 32
            task = Task.objects.create(
                id=ids[name], name=SECRET, func="tests.tasks.add", args=(SECRET,), kwargs={}, result=SECRET,
                started=now, stopped=now, success=success,
            )  # fmt: skip
            sign(task)
        ids["livetask"] = QUtilities.add_async_task("tests.tasks.add", SECRET, task_name=SECRET)
    with in_schema(B):
        called = {"name": "n", "func": "tests.tasks.add", "args": (1,), "kwargs": {}}
        sign(Task.objects.create(id=FAILED, started=now, stopped=now, success=False, **called))
    Failure.rows().filter(schema_name=A).update(cause=SECRET, is_pending=False)
    broker = get_broker()
    broker.enqueue([Message(id=DEAD, schema=B, func=SECRET, payload="payload")])
    while not broker.counts().dead:
        for lease in broker.fetch("w").leases:  # one at a time: nothing is known of their functions
            if lease.id == DEAD:
                broker.dead_letter("w", lease, SECRET)
            else:
                broker.put_off("w", lease, delay=600.0)
    with ExitStack() as stack:
        hosts = {}
        for schema in (PUBLIC, A, B):
            hosts[schema] = f"{schema.replace('_', '-')}-site.localhost"
            stack.enter_context(schemas.served_at(schema, hosts[schema]))
        policies.change(A, actor=SECRET, act="limit", weight=2.0)
        ids["auditrecord"] = str(AuditRecord.objects.get(actor=SECRET).pk)
        yield World(hosts, ids)
    connection.set_schema_to_public()
    Failure.rows().all().delete()
    TenantPolicy.objects.all().delete()
    AuditRecord.objects.all().delete()
    for schema in (PUBLIC, A, B):
        with in_schema(schema) if schema != PUBLIC else tenancy.in_public():
            LogEntry.objects.all().delete()
            get_user_model().objects.exclude(username="operator").delete()


def state() -> Any:
    """All that an act could change."""
    broker = get_broker()
    found: list[Any] = []
    for schema in (A, B):
        with in_schema(schema):
            found.append(list(Schedule.objects.order_by("pk").values()))
            found.append(list(Task.objects.order_by("pk").values_list("pk", "success", "stopped")))
            found.append(LogEntry.objects.count())
    with tenancy.in_public():
        found.append(list(TenantPolicy.objects.order_by("pk").values()))
        found.append(list(Failure.rows().order_by("schema_name", "task_id").values()))
        found.append(list(AuditRecord.objects.order_by("pk").values_list("pk", flat=True)))
        found.append(LogEntry.objects.count())
    counts = broker.counts()
    return [*found, counts.queued, counts.delayed, counts.dead, [one.give_up_reason for one in broker.live(A)]]


def is_refused(client: Client, page: Page, answer: Any) -> bool:
    """Whether nothing was shown, and the way leads nowhere but to the log-in."""
    if SECRET.encode() in answer.content:
        return False
    if answer.status_code == 302 and "/login/" not in answer["Location"]:
        # Django's own redirect from an object's bare URL to its page.
        return page.route == "<path:object_id>/" and is_refused(client, page, client.get(answer["Location"]))
    return answer.status_code in (302, 400, 403, 404, 405)


def try_everything(client: Client, pages: list[Page], world: World) -> None:
    """Ask for each page, and have it act; all is refused, and nothing has changed."""
    before = state()
    for page in pages:
        for method in METHODS:
            for payload in world.payloads(page) if method == "post" else [{}]:
                _try(client, page, method, payload=payload)
    assert state() == before


def try_every_way(client: Client, pages: list[Page], world: World) -> None:
    """The same by every method, with the parts of pages, and in disguise."""
    try_everything(client, pages, world)
    before = state()
    for page in pages:
        for method in OTHER_METHODS:
            _try(client, page, method)
        for query in QUERIES:
            _try(client, page, "get", query)
        for header in ("X-HTTP-Method-Override", "X-Method-Override"):
            _try(client, page, "get", headers={header: "POST"})
    assert state() == before


def _try(client: Client, page: Page, method: str, query: str = "", payload: Any = None, **more: Any) -> None:
    answer = getattr(client, method)(page.url + query, payload or None, **more)
    connection.set_schema_to_public()
    assert is_refused(client, page, answer), (method, page, query, answer.status_code)


def of(world: World, *, operators: bool) -> list[Page]:
    return [page for page in world.pages() if page.is_for_operators == operators]


# The test itself


def test_every_page_is_found(world):
    found = {(page.model._meta.model_name, page.route) for page in world.pages()}
    assert {model for model, _ in found} == set(world.ids)
    assert len(found) >= 30
    for one in (
        ("schedule", "preview/"),
        ("schedule", "<path:object_id>/act/<slug:action>/"),
        ("livetask", "<path:object_id>/cancel/"),
        ("tenantpolicy", "<str:schema>/pause/"),
        ("deadtask", "act/"),
        ("failedtask", "act/"),
        ("tenantpolicy", "<str:schema>/tasks/"),
        ("tenantpolicy", "<str:schema>/runs/"),
    ):
        assert one in found


def test_what_is_tried_works_for_those_who_may(world):
    """So that it is the permission that refuses it."""
    acted = set()
    for schema, operators in ((A, False), (PUBLIC, True)):
        client = world.boss(schema)
        for page in of(world, operators=operators):
            for payload in world.payloads(page):
                before = state()
                client.post(page.url, payload)
                connection.set_schema_to_public()
                if state() != before:
                    acted.add((page.model._meta.model_name, page.route))
    assert acted >= {
        ("schedule", ""),
        ("schedule", "add/"),
        ("schedule", "<path:object_id>/act/<slug:action>/"),
        ("success", ""),
        ("success", "<path:object_id>/act/<slug:action>/"),
        ("livetask", "<path:object_id>/cancel/"),
        ("tenantpolicy", "<str:schema>/policy/"),
        ("tenantpolicy", "<str:schema>/pause/"),
        ("deadtask", "act/"),
        ("failedtask", "act/"),
    }


@pytest.mark.parametrize("is_open", [True, False])
def test_it_sees_a_page_without_a_gate(world, monkeypatch, is_open):
    page_admin = admin.site._registry[Schedule]
    before = page_admin.get_urls()

    def view(request: Any) -> HttpResponse:
        return HttpResponse("nothing secret, and still not refused")

    opened = path("new/", view if is_open else admin.site.admin_view(view), name="new")
    monkeypatch.setattr(page_admin, "get_urls", lambda: [opened, *before])
    client = world.logged_in(A, world.user(A, is_staff=True))
    pages = [page for page in world.pages() if page.route == "new/"]
    assert len(pages) == 1
    with pytest.raises(AssertionError):
        is_known = is_refused(client, pages[0], view(None))
        assert is_known


# The attackers


@pytest.mark.parametrize("schema", [A, PUBLIC])
def test_a_visitor(world, schema):
    try_everything(world.browser(schema), world.pages(), world)
    try_every_way(world.browser(schema), of(world, operators=schema == PUBLIC), world)


@pytest.mark.parametrize("schema", [A, PUBLIC])
def test_a_user_who_is_not_staff(world, schema):
    everything = _all_permissions(schema)
    client = world.logged_in(schema, world.user(schema, permissions=everything))
    try_everything(client, world.pages(), world)


@pytest.mark.parametrize("schema", [A, PUBLIC])
def test_a_superuser_who_was_dismissed(world, schema):
    user = world.user(schema, is_staff=True, is_superuser=True)
    client = world.logged_in(schema, user)
    with in_schema(schema) if schema == A else tenancy.in_public():
        get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    try_everything(client, world.pages(), world)


@pytest.mark.seam
@pytest.mark.parametrize("schema", [A, PUBLIC])
def test_staff_without_any_permission(world, schema):
    client = world.logged_in(schema, world.user(schema, is_staff=True))
    try_everything(client, world.pages(), world)
    try_every_way(client, of(world, operators=schema == PUBLIC), world)


@pytest.mark.parametrize(
    ("schema", "model"),
    [(A, name) for name in ("schedule", "success", "failure", "overview", "livetask")]
    + [(PUBLIC, name) for name in ("siteoverview", "tenantpolicy", "cluster", "failedtask", "deadtask", "auditrecord")],
)
def test_staff_with_the_permissions_of_all_other_models(world, schema, model):
    others = [one for one in _all_permissions(schema) if one.codename.partition("_")[2] != model]
    client = world.logged_in(schema, world.user(schema, is_staff=True, permissions=others))
    try_everything(client, [page for page in world.pages() if page.model._meta.model_name == model], world)


@pytest.mark.parametrize("schema", [A, PUBLIC])
def test_staff_who_may_only_look_change_nothing(world, schema):
    view_only = [one for one in _all_permissions(schema) if one.codename.startswith("view_")]
    client = world.logged_in(schema, world.user(schema, is_staff=True, permissions=view_only))
    before = state()
    for page in world.pages():
        for method in METHODS:
            for payload in world.payloads(page) if method == "post" else [{}]:
                getattr(client, method)(page.url, payload or None)
                connection.set_schema_to_public()
        assert state() == before, page


@pytest.mark.seam
@pytest.mark.parametrize("host", [A, PUBLIC])
def test_a_superuser_of_another_tenant_brings_its_session(world, host):
    """The cookie of one site, at another's."""
    own = world.boss(B)
    assert own.get("/admin/django_q/schedule/").status_code == 200
    client = world.browser(host)
    client.cookies = own.cookies
    try_everything(client, world.pages(), world)


def test_an_operator_brings_its_session_to_a_tenant(world):
    own = world.boss(PUBLIC)
    assert own.get("/admin/tenant_q/tenantpolicy/").status_code == 200
    client = world.browser(A)
    client.cookies = own.cookies
    try_everything(client, world.pages(), world)


@pytest.mark.seam
def test_a_superuser_of_a_tenant_at_the_operators_pages(world):
    try_everything(world.boss(B), of(world, operators=True), world)


def test_a_superuser_of_another_tenant_with_this_ones_ids(world):
    """In its own site, where pages answer; nothing of the neighbour is shown or done."""
    client = world.boss(B)
    with in_schema(A):
        kept = list(Schedule.objects.values()), list(Task.objects.values_list("pk", "stopped"))
    live = [one.give_up_reason for one in get_broker().live(A)]
    for page in of(world, operators=False):
        for method in METHODS:
            for payload in world.payloads(page) if method == "post" else [{}]:
                answer = getattr(client, method)(page.url, payload or None)
                connection.set_schema_to_public()
                assert SECRET.encode() not in answer.content, (method, page)
    with in_schema(A):
        assert kept == (list(Schedule.objects.values()), list(Task.objects.values_list("pk", "stopped")))
    assert live == [one.give_up_reason for one in get_broker().live(A)]


@pytest.mark.seam
def test_an_operator_has_no_tenants_pages_in_the_public_site(world):
    try_everything(world.boss(PUBLIC), of(world, operators=False), world)


@pytest.mark.parametrize("schema", [A, PUBLIC])
def test_another_site_cannot_act_with_a_superusers_cookie(world, schema):
    """Forged requests: no page acts without its token, and none acts by GET."""
    client = world.boss(schema, enforce_csrf_checks=True)
    before = state()
    for page in of(world, operators=schema == PUBLIC):
        for payload in world.payloads(page):
            assert client.post(page.url, payload).status_code in (403, 404, 405), page
            client.get(page.url, payload)
            client.post(page.url, payload, headers={"X-CSRFToken": "x" * 32, "Origin": "https://evil.example"})
            connection.set_schema_to_public()
        assert state() == before, page


# The metrics


@pytest.mark.seam
@pytest.mark.parametrize("schema", [A, B])
def test_the_metrics_are_in_no_tenants_site(world, schema):
    with in_schema(schema):
        for method in METHODS:
            with pytest.raises(Http404):
                views.metrics(getattr(RequestFactory(), method)("/metrics/"))


def _all_permissions(schema: str) -> list[Permission]:
    with in_schema(schema) if schema != PUBLIC else tenancy.in_public():
        return list(Permission.objects.all())
