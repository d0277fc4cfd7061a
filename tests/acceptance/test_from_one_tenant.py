"""`docs/how-to/from-one-tenant-to-many.md`, carried out: Django-Q2 alone, tenants beside `public`, then the move."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import tasks
from tests.conftest import RunningCluster, wait_until
from tests.documents import DOCS, blocks
from tests.one_tenant import WITH_TENANTS, WITHOUT_TENANTS, Site

pytestmark = pytest.mark.seam

PAGE = blocks(DOCS / "how-to/from-one-tenant-to-many.md")
PACKAGE = "With django-tenants" if os.environ.get("TENANCY") == "django_tenants" else "With django-tenant-schemas"
TENANT = "acme_corp"

BEFORE = """
from datetime import timedelta
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone
from django_q.models import Task
from django_q.tasks import schedule
from shop.models import Order

User.objects.create_superuser("ann", password="ann")
ContentType.objects.get_for_model(Order)
session = SessionStore()
session["user"] = "ann"
session.create()
for number in "123":
    Order.objects.create(number=number, buyer="ann", amount=3).lines.create(article="chair")
Order.objects.get(number="2").delete()
Task.objects.create(id="a" * 32, name="old", func="f", started=timezone.now(), stopped=timezone.now(), success=True)
schedule("tests.tasks.note_where", "KEY-due", schedule_type="D", name="due", next_run=timezone.now())
schedule("tests.tasks.note_where", "KEY-later", schedule_type="D", name="later", next_run=timezone.now() + timedelta(9))
"""
ROWS = """
SELECT (SELECT array_agg(number ORDER BY id) FROM {0}.shop_order),
    (SELECT array_agg(order_id ORDER BY id) FROM {0}.shop_line),
    (SELECT array_agg(username) FROM {0}.auth_user),
    (SELECT array_agg(session_key) FROM {0}.django_session),
    (SELECT array_agg(id ORDER BY id) FROM {0}.django_content_type),
    (SELECT count(*) FROM {0}.auth_permission)
"""


def block(title: str) -> str:
    """A block of the page by its title, or that of this tenancy package."""
    (found,) = (one for one in PAGE if one.title in (title, PACKAGE + title))
    return found.text.replace('"django_tenants"', f'"{os.environ.get("TENANCY", "tenant_schemas")}"')


def type_in(site: Site, title: str) -> list[str]:
    """Type the commands of a block; return what each prints."""
    lines = [line.split() for line in block(title).splitlines()]
    assert all(words[:2] == ["python", "manage.py"] for words in lines)
    return [site.manage(*words[2:]) for words in lines]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site as the first half of the page leaves it. It began with Django-Q2 and one customer."""
    made = Site(tmp_path_factory.mktemp("grown"))
    try:
        made.configure(WITHOUT_TENANTS)
        made.manage("migrate", "-v0")
        made.python(BEFORE)
        made.configure(WITH_TENANTS + block("settings.py"))
        assert "no issues" in type_in(made, "The new tables")[0]
        made.python(block(""))
        yield made
    finally:
        made.end()


@pytest.fixture
def site(grown: Site, tmp_path: Path) -> Iterator[Site]:
    """A copy of that site. Its schedules leave notes of its own."""
    made = Site(tmp_path, like=grown)
    try:
        made.sql(f"UPDATE django_q_schedule SET args = replace(args, 'KEY', '{made.name}')")
        yield made
    finally:
        made.end()


def places(site: Site, what: str) -> list[str]:
    return [note["schema"] for note in tasks.notes(f"{site.name}-{what}")]


def wait_for(site: Site, cluster: RunningCluster, condition: Callable[[], Any], what: str) -> None:
    wait_until(condition, 120, f"{what}: {cluster.log}")


def rows_of(site: Site, schema: str) -> tuple[Any, ...]:
    return site.sql(ROWS.format(schema))[0]


def queued(site: Site, schema: str) -> dict[str, int]:
    (load,) = [one for one in json.loads(site.manage("msinfo", "--json"))["tenants"] if one["schema"] == schema]
    return {name: load[name] for name in ("queued", "leased", "delayed", "dead")}


SIDE_BY_SIDE = """
from django.db import connection
from django_q.tasks import async_task
from tenant_q import tenancy
from tenant_q.exceptions import NoTenant
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities

found = {}
for schema in ("public", "globex_inc"):
    with in_schema(schema):
        plain = async_task("tests.tasks.where")
        ids = [
            QUtilities.add_async_task("tests.tasks.where", hook="tests.tasks.hook"),
            QUtilities.add_async_tasks_from_iter("tests.tasks.add", [(1,), (2,), (3,)]),
            QUtilities.add_async_task("tests.tasks.fail", q_options={"max_attempts": 2, "retry_delay": 0}),
        ]
        chain = QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.where", ())])
        cached = QUtilities.add_async_task("tests.tasks.where", cached=60)
        where, parts, failed = [QUtilities.fetch_task(id, wait=30000) for id in ids]
        links = QUtilities.get_result_group(chain, count=2, wait=30000)
        found[schema] = {
            "where": [
                one["schema"]
                for one in (
                    where.result,
                    QUtilities.get_result(plain, wait=30000),
                    links[1],
                    QUtilities.get_result(cached, cached=True, wait=30000),
                )
            ],
            "iter": parts.result,
            "failed": [failed.success, failed.attempt_count],
            "config": dict(tenancy.config().settings),
        }
with in_schema("public"):
    try:
        QUtilities.start_workflow("shop.workflows.order", {"order": 1})
    except NoTenant:
        found["workflows"] = "none in public"
"""
ADMIN = """
from django.contrib.auth import get_user_model
from django.test import Client
from tenant_q.tenancy import in_schema
client = Client(HTTP_HOST="acme.example.com")
with in_schema("SCHEMA"):
    client.force_login(get_user_model().objects.get(username="ann"))
pages = ("schedule", "success", "failure")
found = [client.get(f"/admin/django_q/{page}/") for page in pages]
"""


def pages_of(site: Site, schema: str) -> tuple[list[int], str]:
    """What the first customer's admin answers, and its list of schedules."""
    values = "[one.status_code for one in found], found[0].content.decode()"
    statuses, shown = site.ask(ADMIN.replace("SCHEMA", schema), f"[{values}]")
    return statuses, shown


def test_public_and_a_tenant_are_served_side_by_side(site):
    cluster = site.start_cluster()
    wait_for(site, cluster, lambda: places(site, "due"), "the schedule that Django-Q2 made")
    found = site.ask(SIDE_BY_SIDE, "found")
    for schema in ("public", "globex_inc"):
        assert found[schema] == {
            "where": [schema] * 4,
            "iter": [1, 2, 3],
            "failed": [False, 2],
            "config": {},
        }
    assert found["workflows"] == "none in public"
    assert places(site, "due") == ["public"]
    assert places(site, "later") == []
    site.manage("mshealth")
    site.manage("mstenant", "pause", "public")
    info = site.manage("msinfo")
    assert "no tenant" not in info
    assert "paused" in info
    assert json.loads(site.manage("msinfo", "--json", "--schema", "public"))["tenants"][0]["done"]
    assert "later" in site.manage("msschedules", "--schema", "public")
    statuses, shown = pages_of(site, "public")
    assert statuses == [200] * 3
    assert "later" in shown
    assert cluster.stop() == 0


QUEUED = """
from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities

with in_schema("public"):
    delayed = QUtilities.add_async_task("tests.tasks.note_where", "KEY-delayed", q_options={"delay": 10})
    QUtilities.add_async_task("tests.tasks.note_where", "KEY-dead")
    for lease in get_broker().fetch("w").leases:
        get_broker().dead_letter("w", lease, "for the test")
    QUtilities.add_async_task("tests.tasks.note_where", "KEY-queued")
    QUtilities.create_async_tasks_chain([("tests.tasks.note_where", ("KEY-chain",))] * 2)
"""
AFTER = """
from tenant_q.tenancy import in_schema
from shop.models import Order

with in_schema("acme_corp"):
    new = Order.objects.create(number="4", buyer="ann", amount=3)
    line = new.lines.create(article="lamp")
"""


def test_the_first_customer_becomes_a_tenant_and_nothing_is_lost_or_done_twice(site):
    cluster = site.start_cluster()
    wait_for(site, cluster, lambda: places(site, "due"), "the schedule that Django-Q2 made")
    wait_for(site, cluster, lambda: not any(queued(site, "public").values()), "an empty queue")
    assert cluster.stop() == 0
    site.manage("mstenant", "limit", "public", "--weight", "3")
    site.python(QUEUED.replace("KEY", site.name))
    site.sql("UPDATE django_q_schedule SET next_run = now() WHERE name = 'due'")
    assert queued(site, "public") == {"queued": 2, "leased": 0, "delayed": 1, "dead": 1}
    before = rows_of(site, "public")
    assert before[:3] == (["1", "3"], [1, 3], ["ann"])

    type_in(site, "The same migrations")
    site.python(block(", the tenant"))
    site.sql(block("move.sql"))
    site.configure(WITH_TENANTS + block("settings.py") + block("settings.py, after the move"))
    site.python(block(", the hosts"))
    checked, migrated, schedules = type_in(site, "Before the start")
    assert "no issues" in checked
    assert migrated.count("No migrations to apply") == 3
    assert schedules == "The index agrees with the schedules of 2 schemas.\n"

    assert rows_of(site, TENANT) == before
    left = {name for (name,) in site.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert not {name for name in left if name.startswith(("django_q", "shop"))}
    assert {"auth_user", "django_content_type", "django_session", "customers_customer"} <= left
    assert site.sql("SELECT (SELECT count(*) FROM auth_user), (SELECT count(*) > 0 FROM auth_permission)") == [
        (0, True)
    ]
    crossing = (
        "SELECT conname FROM pg_constraint "
        "JOIN pg_class AS a ON a.oid = conrelid JOIN pg_class AS b ON b.oid = confrelid "
        "WHERE a.relnamespace <> b.relnamespace"
    )
    assert site.sql(crossing) == []

    cluster = site.start_cluster()
    runs = {"due": 2, "queued": 1, "chain": 2, "delayed": 1, "dead": 0, "later": 0}
    wait_for(site, cluster, lambda: len(places(site, "delayed")), "the delayed task")
    wait_for(site, cluster, lambda: len(places(site, "chain")) == 2, "the chain")
    wait_for(site, cluster, lambda: len(places(site, "due")) == 2, "the schedule")
    site.manage("msdead", "retry", "--schema", "public")
    wait_for(site, cluster, lambda: places(site, "dead"), "the dead task")
    assert {what: len(places(site, what)) for what in runs} == runs | {"dead": 1}
    assert places(site, "due") == ["public", TENANT]
    assert {place for what in ("queued", "chain", "delayed", "dead") for place in places(site, what)} == {TENANT}
    assert site.ask(AFTER, "[new.pk, line.pk]") == [4, 4]
    assert site.sql(f"SELECT count(*) FROM {TENANT}.django_q_task WHERE success") == [(8,)], (
        "the old one, and all of it"
    )
    assert site.sql(f"SELECT name FROM {TENANT}.django_q_schedule WHERE next_run > now() ORDER BY 1") == [
        ("due",),
        ("later",),
    ]
    assert site.sql("SELECT schema_name, weight FROM tenant_q_tenantpolicy") == [(TENANT, 3.0)]
    assert pages_of(site, TENANT)[0] == [200] * 3
    site.manage("mshealth")
    assert cluster.stop() == 0


def test_the_script_refuses_what_it_would_break_and_changes_nothing(site):
    site.python(block(", the tenant"))

    def refusal() -> str:
        before = site.sql("SELECT oid, relnamespace FROM pg_class WHERE relkind IN ('r', 'S', 'i') ORDER BY oid")
        with pytest.raises(psycopg.errors.RaiseException) as caught:
            site.sql(block("move.sql"))
        assert (
            site.sql("SELECT oid, relnamespace FROM pg_class WHERE relkind IN ('r', 'S', 'i') ORDER BY oid") == before
        )
        return str(caught.value).partition("\n")[0]

    site.sql("ALTER TABLE customers_customer ADD owner integer REFERENCES auth_user")
    assert refusal() == (
        "Nothing was moved: tables that stay refer to tables that move: customers_customer_owner_fkey of "
        "customers_customer."
    )
    site.sql("ALTER TABLE shop_order ADD extra text")
    assert refusal() == "Nothing was moved: the two schemas differ in shop_order."
    site.sql(f"INSERT INTO {TENANT}.django_q_schedule (func, schedule_type, repeats) VALUES ('f', 'D', 1)")
    assert refusal() == "Nothing was moved: the new tenant has tasks or schedules already."


def test_public_gets_the_tables_of_an_app_that_becomes_a_shared_one(site):
    """As `site-wide.md` says, for a site whose `public` has recorded the migrations without the tables."""
    site.sql("DROP TABLE django_q_task, django_q_schedule, django_q_ormq")
    (words,) = (one.text for one in blocks(DOCS / "how-to/site-wide.md") if one.title == "The tables of public")
    assert "No migrations to apply" in site.manage("migrate_schemas", "--shared")
    for line in words.splitlines():
        site.manage(*line.split()[2:])
    assert site.sql("SELECT count(*) FROM django_q_task") == [(0,)]
    assert site.sql("SELECT schema_name FROM tenant_q_indexedschema ORDER BY 1") == [("globex_inc",), ("public",)]
