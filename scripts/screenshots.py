#!/usr/bin/env python
"""Pictures of every page of the testproject, from a running one with a real cluster.

    .venv/bin/pip install -e '.[browser]'
    .venv/bin/python scripts/screenshots.py [--only NAME ...] [--out DIRECTORY]
    .venv/bin/python scripts/screenshots.py --docs

Starts PostgreSQL, Valkey, web server and cluster, gives three tenants some work, and takes each page at the width of a
desktop and of a phone, light and dark. `--docs` takes those that the documentation shows, into docs/assets. Chromium
must be installed (Debian: apt install chromium).
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "testproject")]

import demo  # noqa: E402
from servers import Servers, ServersError, start_servers  # noqa: E402

if TYPE_CHECKING:
    import playwright.sync_api as playwright

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# As high as the admin's menu; what a page has more is in its picture too.
SIZE_IN_DOCS = (1280, 620)
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
DOCS = ROOT / "docs" / "assets"
TENANT, ADMIN, OPERATORS = "acme_corp", "/admin/django_q", "/admin/tenant_q"
WORKFLOWS = "/admin/tenant_q_workflows/workflowrun"


@dataclass(frozen=True)
class Page:
    """One page: whose site, as whom, where, and what is done there before the picture is taken."""

    schema: str
    path: str | Callable[[], str]
    act: Callable[[playwright.Page], None] | None = None


def first(model: str, **wanted: Any) -> Callable[[], str]:
    """The address of a row's page in the tenant's admin."""

    def path() -> str:
        import django_q.models

        from tenant_q.tenancy import in_schema

        with in_schema(TENANT):
            row = getattr(django_q.models, model).objects.filter(**wanted).first()
            assert row is not None, f"no {model} with {wanted}"
            return f"{ADMIN}/{model.lower()}/{row.pk}/change/"

    return path


def run_of(key: str, part: str = "change/") -> Callable[[], str]:
    """The address of a workflow run's page in the tenant's admin, or of a part of it."""

    def path() -> str:
        from tenant_q.tenancy import in_schema
        from tenant_q.workflows.models import WorkflowRun

        with in_schema(TENANT):
            return f"{WORKFLOWS}/{WorkflowRun.objects.get(key=key).pk}/{part}"

    return path


def live_id(func: str) -> str:
    from tenant_q.brokers import get_broker

    return next(one.id for one in get_broker().live(TENANT) if one.func == func)


def send_wrong_schedule(page: playwright.Page) -> None:
    page.select_option("[name=func]", "shop.tasks.revenue_report")
    page.fill("[name=args]", "1, date.today()")
    page.select_option("[name=schedule_type]", "C")
    page.fill("[name=cron]", "0 25 * * *")
    page.click("[name=_save]")


def preview_cron(page: playwright.Page) -> None:
    page.select_option("[name=func]", "shop.tasks.revenue_report")
    page.select_option("[name=schedule_type]", "C")
    page.fill("[name=cron]", "0 6 * * 1-5")
    page.wait_for_selector("#tenant-q-upcoming li:nth-child(5)")


def move_to_srv(page: playwright.Page) -> None:
    """A traceback shows where the code is; let that be a place that says nothing of this machine."""
    script = """root => document.querySelectorAll("pre").forEach(
        block => { block.textContent = block.textContent.replaceAll(root, "/srv/shop"); })"""
    page.evaluate(script, str(ROOT))


def purge_first(page: playwright.Page) -> None:
    page.check("[name=id] >> nth=0")
    page.click("[name=act][value=purge]")


PAGES: dict[str, Page] = {
    "dashboard": Page(TENANT, "/"),
    "tenant-index": Page(TENANT, "/admin/"),
    "start": Page(TENANT, f"{OPERATORS}/"),
    "overview": Page(TENANT, f"{OPERATORS}/overview/"),
    "overview-day": Page(TENANT, f"{OPERATORS}/overview/?hours=24"),
    "schedules": Page(TENANT, f"{ADMIN}/schedule/"),
    "schedule": Page(TENANT, first("Schedule", name="nightly report")),
    "schedule-paused": Page(TENANT, first("Schedule", next_run=None)),
    "schedule-unlisted": Page(TENANT, first("Schedule", name="rebuild the index")),
    "schedule-add": Page(TENANT, f"{ADMIN}/schedule/add/", preview_cron),
    "schedule-wrong": Page(TENANT, f"{ADMIN}/schedule/add/", send_wrong_schedule),
    "successes": Page(TENANT, f"{ADMIN}/success/"),
    "success": Page(TENANT, first("Success", func="shop.tasks.revenue_report")),
    "failures": Page(TENANT, f"{ADMIN}/failure/"),
    "failure": Page(TENANT, first("Failure", func="shop.tasks.charge_card"), move_to_srv),
    "live": Page(TENANT, "/admin/tenant_q/livetask/"),
    "live-cancel": Page(TENANT, lambda: f"/admin/tenant_q/livetask/{live_id('shop.tasks.import_catalogue')}/cancel/"),
    "workflows": Page(TENANT, f"{WORKFLOWS}/"),
    "workflow": Page(TENANT, run_of("sold out")),
    "workflow-step": Page(TENANT, run_of("sold out", "step/pick/")),
    "workflow-item": Page(TENANT, run_of("sold out", "step/pick/2/")),
    "workflow-resume": Page(TENANT, run_of("sold out", "resume/")),
    "tenants": Page("public", "/"),
    "operators-index": Page("public", "/admin/"),
    "operators-start": Page("public", f"{OPERATORS}/"),
    "operators-overview": Page("public", f"{OPERATORS}/siteoverview/"),
    "operators-overview-day": Page("public", f"{OPERATORS}/siteoverview/?hours=24"),
    "operators-tenants": Page("public", f"{OPERATORS}/tenantpolicy/"),
    "operators-policy": Page("public", f"{OPERATORS}/tenantpolicy/?o=-queued&edit=globex_inc"),
    "operators-tenant": Page("public", f"{OPERATORS}/tenantpolicy/{TENANT}/"),
    "operators-configuration": Page("public", f"{OPERATORS}/tenantpolicy/{TENANT}/configuration/"),
    "operators-tasks": Page("public", f"{OPERATORS}/tenantpolicy/{TENANT}/tasks/"),
    "operators-done": Page("public", f"{OPERATORS}/tenantpolicy/{TENANT}/tasks/?place=done"),
    "operators-runs": Page("public", f"{OPERATORS}/tenantpolicy/{TENANT}/runs/"),
    "operators-failures": Page("public", f"{OPERATORS}/failedtask/"),
    "operators-failures-tenants": Page("public", f"{OPERATORS}/failedtask/?show=tenants"),
    "operators-failures-all": Page("public", f"{OPERATORS}/failedtask/?show=all"),
    "operators-failures-retry": Page("public", f"{OPERATORS}/failedtask/act/?act=retry"),
    "operators-clusters": Page("public", f"{OPERATORS}/cluster/"),
    "operators-dead": Page("public", f"{OPERATORS}/deadtask/"),
    "operators-purge": Page("public", f"{OPERATORS}/deadtask/", purge_first),
    "operators-audit": Page("public", f"{OPERATORS}/auditrecord/"),
    "operators-record": Page("public", f"{OPERATORS}/auditrecord/1/change/"),
}
# What the documentation shows, and in which scheme.
SHOWN: tuple[tuple[str, Scheme], ...] = (
    ("live", "light"),
    ("schedule-add", "light"),
    ("failure", "light"),
    ("workflow", "light"),
    ("workflow", "dark"),
    ("operators-overview-day", "light"),
    ("operators-overview-day", "dark"),
    ("operators-policy", "light"),
    ("operators-policy", "dark"),
    ("operators-failures", "light"),
    ("operators-clusters", "light"),
)


@dataclass(frozen=True)
class Picture:
    """A page in one size and scheme, and the file that it goes to."""

    page: str
    size: tuple[int, int]
    scheme: Scheme
    path: Path


def all_pictures(pages: list[str], out: Path) -> list[Picture]:
    return [
        Picture(page, size, scheme, out / f"{page}-{name}-{scheme}.png")
        for name, size in SIZES.items()
        for scheme in SCHEMES
        for page in pages
    ]


def pictures_of_docs() -> list[Picture]:
    return [Picture(page, SIZE_IN_DOCS, scheme, DOCS / f"{page}-{scheme}.png") for page, scheme in SHOWN]


def fill(servers: Servers) -> None:
    """Work of every kind, done, failed, running, queued, planned and dead."""
    from django.utils import timezone
    from django_q.models import Schedule

    from tenant_q import policies
    from tenant_q.brokers import get_broker
    from tenant_q.brokers.protocol import Message
    from tenant_q.schedules import by_hand
    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities

    add_past_day()
    report = "shop.tasks.revenue_report"
    for tenant in demo.TENANTS:
        demo.enqueue(demo.Work(tenant, "demo"))
        with in_schema(tenant):
            QUtilities.add_async_task("shop.tasks.charge_card", 1, task_name="charge card", group="payments")
            QUtilities.add_async_task("shop.tasks.gone", task_name="of an old release")
    with in_schema(TENANT):
        later = timezone.now().replace(hour=2, minute=30, second=0, microsecond=0) + timedelta(days=1)
        for name, kind, more in (
            ("nightly report", Schedule.DAILY, {"next_run": later}),
            ("work days at six", Schedule.CRON, {"cron": "0 6 * * 1-5"}),
            ("every five minutes", Schedule.MINUTES, {"minutes": 5, "next_run": later}),
            ("clean up", Schedule.WEEKLY, {"next_run": later}),
        ):
            QUtilities.create_schedule(report, name, name=name, schedule_type=kind, **more)
        words = {"name": "rebuild the index", "schedule_type": Schedule.MONTHLY, "next_run": later}
        QUtilities.create_schedule("shop.search.rebuild", "orders", **words)
        by_hand.pause(Schedule.objects.get(name="clean up").pk, actor="admin")
    policies.change("globex_inc", actor="operator", act="limit", weight=2.0, max_running=3, max_queued=1000)
    policies.change("initech_llc", actor="operator", act="pause", paused=True)
    policies.configure(
        TENANT,
        actor="operator",
        display_name="Acme Corp.",
        settings={"plan": "gold", "report": {"language": "en", "to": ["ops@acme.example.com"]}},
        features={"audit": True, "exports": False},
        limits={"max_items": 500, "max_connections": 4, "seats": 25},
    )
    moved = [Message(id=f"{n:032x}", schema="globex_inc", func="shop.tasks.ship", payload="moved") for n in range(3)]
    get_broker().enqueue(moved)
    start_workflows()
    wait_until(lambda: not get_broker().counts().runnable, "The first tasks are not done")
    with in_schema(TENANT):
        imported = QUtilities.add_async_task(
            "shop.tasks.import_catalogue", seconds=600, task_name="import the catalogue", timeout=3600
        )
    with in_schema("globex_inc"):
        QUtilities.add_async_task("shop.tasks.import_catalogue", seconds=600, timeout=3600)
    with in_schema(TENANT):
        wait_until(lambda: QUtilities.get_progress(imported), "The import tells no progress")
        for number in range(3):
            QUtilities.add_async_task(report, f"Revenue {number}", task_name=f"report {number}", group="reports")
        QUtilities.add_async_task(report, "Later", q_options={"delay": 3600, "task_name": "report in an hour"})


def add_past_day() -> None:
    """Figures of the last day, as a site that has run for longer has them: more by day, and an hour with failures."""
    from tenant_q.brokers import get_broker
    from tenant_q.brokers.days import DAY_PERIODS, Histogram, Period
    from tenant_q.brokers.loads import PERIOD_SECONDS
    from tenant_q.brokers.redis import day_elements

    broker: Any = get_broker()
    this_period = int(time.time() // PERIOD_SECONDS)
    for key, share in ((f"{broker.tag}:day", 1.0), (f"{broker.tag}:day:{TENANT}", 0.4)):
        for number in range(1, DAY_PERIODS - 1):
            height = 0.55 - 0.45 * math.cos(2 * math.pi * number / DAY_PERIODS) + 0.04 * (number * 7 % 5)
            done, is_bad = round(share * 900 * height), 190 < number < 205
            failed = round(share * (180 if is_bad else number % 3))
            times = [round(done * part) for part in (0.1, 0.35, 0.3, 0.15, 0.07, 0.03)]
            waits = Histogram((0, *times, 0, 0, 0, 0) if not is_bad else (0, 0, 0, *times, 0, 0))
            runs = Histogram((*times, 0, 0, 0, 0, 0))
            queued = round(share * (4000 * height if is_bad else 60 * height * (number % 4)))
            begun = float((this_period - DAY_PERIODS + number) * PERIOD_SECONDS)
            period = Period(begun, done, failed, waits, runs, 6 * share * height * PERIOD_SECONDS, queued)
            broker.client.rpush(key, day_elements.pack(period))


def start_workflows() -> None:
    """A workflow that fails at one of its items, beside the ones that demo starts."""
    from shop import workflows
    from shop.models import Line, Order
    from tenant_q.tenancy import in_schema

    with in_schema(TENANT):
        order = Order.objects.create(number=f"{TENANT}-sold-out", buyer="Ada", amount="250.00")
        articles = [Line(order=order, article=name, is_sold_out=name == "table") for name in demo.ARTICLES]
        Line.objects.bulk_create(articles)
        run = workflows.order.start({"order": order.pk}, key="sold out", by="admin")
        wait_until(lambda: run.refresh().has_ended, "The workflow has not ended")


def wait_until(is_so: Callable[[], Any], complaint: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise demo.DemoError(f"{complaint} within {seconds:g} s.")
        time.sleep(0.1)


@contextmanager
def running_project() -> Iterator[int]:
    """The testproject with its web server and a cluster. Gives the port."""
    with start_servers() as servers:
        demo.prepare(servers)
        port = demo.free_port(8000)
        children = {
            "mscluster": demo.start_child(servers, "mscluster", "mscluster"),
            "web": demo.start_child(servers, "web", "runserver", "--noreload", f"127.0.0.1:{port}"),
        }
        demo.wait_for_web(servers, children, port)
        fill(servers)
        yield port


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise demo.DemoError("Chromium is not installed; install it (on Debian: apt install chromium).")
    return found


def take_pictures(port: int, wanted: list[Picture]) -> list[str]:
    """Take them. Returns what is wrong with the pages: those that are wider than a phone."""
    from playwright.sync_api import sync_playwright

    problems = []
    # Before Playwright starts its event loop, in which Django asks no database.
    paths = {name: page.path if isinstance(page.path, str) else page.path() for name, page in PAGES.items()}
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        states = {schema: log_in(browser, port, schema) for schema in (TENANT, "public")}
        for picture in wanted:
            page = PAGES[picture.page]
            width, height = picture.size
            context = browser.new_context(
                viewport={"width": width, "height": height},
                is_mobile=picture.size == SIZES["phone"],
                color_scheme=picture.scheme,
                storage_state=states[page.schema],
            )
            tab = context.new_page()
            answer = tab.goto(url_of(page.schema, port) + paths[picture.page])
            if answer is None or answer.status != 200:
                problems.append(f"{picture.page}: {answer and answer.status}")
            if page.act:
                page.act(tab)
            tab.wait_for_load_state("networkidle")
            overflow = tab.evaluate("document.documentElement.scrollWidth") - width
            if overflow > 0:
                problems.append(f"{picture.page} is {overflow} px wider than {width} px")
            picture.path.parent.mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=picture.path, full_page=True)
            context.close()
        browser.close()
    return problems


def url_of(schema: str, port: int) -> str:
    host = "localhost" if schema == "public" else f"{schema.replace('_', '-')}.localhost"
    return f"http://{host}:{port}"


def log_in(browser: playwright.Browser, port: int, schema: str) -> playwright.StorageState:
    """The cookies of a user who may do everything."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(url_of(schema, port) + "/admin/")
    name, password = ("operator", "operator") if schema == "public" else ("admin", schema)
    tab.fill("[name=username]", name)
    tab.fill("[name=password]", password)
    tab.click("[type=submit]")
    tab.wait_for_url("**/admin/")
    state = context.storage_state()
    context.close()
    return state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), metavar="NAME", help=", ".join(PAGES))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "screenshots", help="build/screenshots by default")
    parser.add_argument("--docs", action="store_true", help="those of the documentation, into docs/assets")
    options = parser.parse_args()
    wanted = pictures_of_docs() if options.docs else all_pictures(options.only, options.out)
    try:
        with running_project() as port:
            problems = take_pictures(port, wanted)
    except (demo.DemoError, ServersError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{len(wanted)} pictures in {wanted[0].path.parent}")
    for problem in problems:
        print(f"- {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
