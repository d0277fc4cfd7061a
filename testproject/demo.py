"""Three tenants at work: `make demo`, or `make demo DEMO_ARGS=--once` to do the main job once and check it.

Starts PostgreSQL and Valkey (unless DATABASE_URL and REDIS_URL name others), makes the tenants, starts the web server
and `mscluster`, and shows each tenant's tasks until Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servers import Servers, ServersError, start_servers

if TYPE_CHECKING:
    from rich.table import Table

HERE = Path(__file__).resolve().parent
TENANTS = ["acme_corp", "globex_inc", "initech_llc"]
REPORTS = 5
ITER_PARTS = 6
CHAIN = ("pick", "pack", "ship")
ARTICLES = ("chair", "lamp", "table", "vase", "clock")
STEPS = 5
# How long a running task may take to end, and a cluster that must kill it.
CALM_SECONDS = 1.5
END_SECONDS = 5.0


class DemoError(Exception):
    """The demo cannot go on, or what it saw is wrong. The text says what."""


@dataclass
class Work:
    """What one tenant was given to do. The names carry the tenant, so that a stray row shows whose it is."""

    tenant: str
    run: str
    tasks: list[str] = field(default_factory=list)
    chain: str = ""
    iter: str = ""
    order: int = 0
    parts: int = 0
    workflow: str = ""
    bought: int = 0

    @property
    def name(self) -> str:
        return f"{self.tenant} {self.run}"

    @property
    def schedule(self) -> str:
        return f"{self.name} hourly"


@dataclass
class Done:
    """What of it is in the tenant's schema."""

    tasks: int
    scheduled: int
    chain: int
    iter: int
    workflow: int
    rows: int
    failed: list[str]


# The parts that Ctrl-C ends

_children: list[subprocess.Popen[bytes]] = []
_signals: list[int] = []


class Ended(BaseException):
    """A signal ended the demo. `number` is the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def listen() -> None:
    """Answer Ctrl-C and `kill`, even if a shell started the demo in the background, with SIGINT ignored."""

    def note(number: int, _: Any) -> None:
        if not _signals:
            os.write(sys.stdout.fileno(), b"\nEnding the cluster and the servers ...\n")
        _signals.append(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, note)


def end_if_signalled() -> None:
    """Raise `Ended` once a signal has come: between two steps, as a statement must not be cut in its middle."""
    if _signals:
        raise Ended(_signals[0])


def pause(seconds: float) -> None:
    """Wait. Raises `Ended` when a signal has come."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        end_if_signalled()
        time.sleep(min(left, 0.1))
    end_if_signalled()


def end_children() -> None:
    """End the web server and the cluster within seconds, even while a task runs: a second signal kills it."""
    for child in _children:
        child.terminate()
    for seconds in (CALM_SECONDS, END_SECONDS):
        deadline = time.monotonic() + seconds
        for child in _children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.terminate()


def start_child(servers: Servers, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run a command of manage.py, with its output in a file."""
    with log_of(servers, name).open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "manage.py"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the demo, which ends its children in order.
            start_new_session=True,
        )
    servers.adopt(child, name)
    _children.append(child)
    return child


def log_of(servers: Servers, name: str) -> Path:
    return servers.directory / f"{name}.log"


def check_children(servers: Servers, children: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            raise DemoError(f"{name} ended with exit code {child.returncode}.\n{tail(servers, name)}")


def tail(servers: Servers, name: str, lines: int = 30) -> str:
    text = log_of(servers, name).read_text(errors="replace").strip()
    return f"The end of the log of {name}:\n" + "\n".join(text.splitlines()[-lines:])


def free_port(wanted: int) -> int:
    """`wanted`, or another when that is taken."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("No TCP port is free on 127.0.0.1; end another program that listens there.")


def wait_for_web(servers: Servers, children: dict[str, subprocess.Popen[bytes]], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        check_children(servers, children)
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise DemoError(f"The web server does not answer.\n{tail(servers, 'web')}") from None
            pause(0.1)


# Work


@contextmanager
def as_demo_error() -> Iterator[None]:
    """An error of tenant_q, such as Redis away, ends the demo with its text and no traceback."""
    from tenant_q.exceptions import TenantQError

    try:
        yield
    except TenantQError as error:
        raise DemoError(str(error)) from None


def enqueue(work: Work) -> None:
    """Give one tenant some of everything. The middleware does in a request what `in_schema` does here."""
    from django_q.models import Schedule

    from shop import workflows
    from shop.models import Line, Order
    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities

    with in_schema(work.tenant), as_demo_error():
        work.tasks = [
            QUtilities.add_async_task("shop.tasks.revenue_report", work.name, group=f"{work.name} tasks")
            for _ in range(REPORTS)
        ]
        QUtilities.create_schedule(
            "shop.tasks.revenue_report", work.name, name=work.schedule, schedule_type=Schedule.HOURLY
        )
        order = Order.objects.create(number=f"{work.tenant}-{work.run}", buyer="Demo", amount="100.00")
        work.order = order.pk
        work.chain = QUtilities.create_async_tasks_chain([(f"shop.tasks.{link}", (order.pk,)) for link in CHAIN])
        bought = Order.objects.create(number=f"{work.tenant}-{work.run}-workflow", buyer="Demo", amount="250.00")
        work.bought = bought.pk
        Line.objects.bulk_create(Line(order=bought, article=article) for article in ARTICLES)
        work.workflow = workflows.order.start({"order": bought.pk}, key=work.name).id
        orders = list(Order.objects.order_by("id").values_list("pk", flat=True)[:ITER_PARTS])
        work.parts = len(orders)
        work.iter = QUtilities.add_async_tasks_from_iter("shop.tasks.total_with_tax", orders)


def look(work: Work) -> Done:
    """What has been done so far."""
    from django.db.models import Q
    from django_q.models import Task

    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities
    from tenant_q.workflows import Run

    ours = Q(id__in=[*work.tasks, work.iter]) | Q(group__in=[work.schedule, work.chain, work.workflow])
    with in_schema(work.tenant):
        run = Run.get(work.workflow)
        return Done(
            tasks=Task.objects.filter(id__in=work.tasks, success=True).count(),
            scheduled=Task.objects.filter(group=work.schedule, success=True).count(),
            chain=Task.objects.filter(group=work.chain, success=True).count(),
            iter=len(QUtilities.get_result(work.iter) or []),
            workflow=run.progress[0] if run.has_ended else 0,
            rows=Task.objects.count(),
            failed=[
                f"{work.tenant}: {task.func} failed: {task.result}" for task in Task.objects.filter(ours, success=False)
            ],
        )


def missing(work: Work, done: Done) -> list[str]:
    """What of the work is not done yet, in words."""
    found = {
        "tasks": (done.tasks, len(work.tasks)),
        "scheduled tasks": (min(done.scheduled, 1), 1),
        "links of the chain": (done.chain, len(CHAIN)),
        "parts of the iter": (done.iter, work.parts),
        "steps of the workflow": (done.workflow, STEPS),
    }
    return [f"{work.tenant}: {have} of {want} {what}" for what, (have, want) in found.items() if have != want]


def strays(works: list[Work]) -> list[str]:
    """Every row that is in a schema it does not belong to, in words. An empty list: nobody holds another's."""
    from django.db import connection
    from django_q.models import Schedule, Task

    from shop.models import Order, Report
    from tenant_q.exceptions import WorkflowError
    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities
    from tenant_q.workflows import Run

    found = []
    for work in works:
        others = [other for other in works if other is not work]
        with in_schema(work.tenant):
            if Order.objects.get(pk=work.order).status != Order.Status.SHIPPED:
                found.append(f"{work.tenant}: the chain ended, but order {work.order} is not shipped")
            found += [f"{work.tenant}: {text}" for text in wrong_effects(work)]
            for order in Order.objects.exclude(number__startswith=f"{work.tenant}-"):
                found.append(f"{work.tenant} holds the order {order.number}")
            for report in Report.objects.exclude(made_in=work.tenant):
                found.append(f"{work.tenant} holds a report made in {report.made_in}")
            for task in Task.objects.filter(func="shop.tasks.revenue_report"):
                if task.success and task.result["schema"] != work.tenant:
                    found.append(f"{work.tenant} holds task {task.id}, which ran in {task.result['schema']}")
            for other in others:
                ids = [*other.tasks, other.iter]
                held = Task.objects.filter(id__in=ids) | Task.objects.filter(group__startswith=other.name)
                held |= Task.objects.filter(group=other.chain)
                found += [f"{work.tenant} holds task {task.id} of {other.tenant}" for task in held]
                if Schedule.objects.filter(name=other.schedule).exists():
                    found.append(f"{work.tenant} holds the schedule of {other.tenant}")
                with suppress(WorkflowError):
                    found.append(f"{work.tenant} holds the workflow run {Run.get(other.workflow).id} of {other.tenant}")
                if any(QUtilities.get_result(task_id) is not None for task_id in ids):
                    found.append(f"{work.tenant} can read a result of {other.tenant}")
    with connection.cursor() as cursor:
        for table in ("django_q_task", "django_q_schedule", "tenant_q_workflows_run", "shop_order", "shop_report"):
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{table}"])
            if cursor.fetchone()[0]:
                found.append(f"the schema public has a table {table}")
    return found


def wrong_effects(work: Work) -> list[str]:
    """What the workflow has not done exactly once, in words."""
    from shop.models import Line, Order, Payment
    from tenant_q.workflows import Run

    order, run = Order.objects.get(pk=work.bought), Run.get(work.workflow)
    found = [] if run.state == "succeeded" else [f"its workflow has {run.state}: {run.error}"]
    if order.status != Order.Status.SHIPPED or str(order.status) not in order.message:
        found.append(f"the workflow ended, but order {order.number} is {order.status}")
    if [line.picked for line in Line.objects.filter(order=order)] != [1] * len(ARTICLES):
        found.append(f"the lines of order {order.number} are not picked once each")
    if (payments := Payment.objects.filter(order=order).count()) != 1:
        found.append(f"order {order.number} is paid {payments} times")
    return found


# Once


def once(servers: Servers, works: list[Work], seconds: float) -> None:
    """Do it, wait for it, show it, check it. Raises `DemoError`."""
    from rich.console import Console
    from rich.table import Table

    children = {"mscluster": start_child(servers, "mscluster", "mscluster")}
    for work in works:
        end_if_signalled()
        enqueue(work)
    deadline = time.monotonic() + seconds
    while True:
        done = {work.tenant: look(work) for work in works}
        undone = [text for work in works for text in missing(work, done[work.tenant])]
        if not undone:
            break
        check_children(servers, children)
        failed = [text for have in done.values() for text in have.failed]
        if failed:
            raise DemoError("\n".join(failed))
        if time.monotonic() > deadline:
            raise DemoError(f"Not done in {seconds:g} s: {'; '.join(undone)}.\n{tail(servers, 'mscluster')}")
        pause(0.1)

    table = Table(title="Done, each in its own schema")
    table.add_column("tenant")
    for heading in ("tasks", "schedules", "chain", "iter", "workflow", "rows in schema"):
        table.add_column(heading, justify="right")
    for work in works:
        have = done[work.tenant]
        table.add_row(
            work.tenant,
            f"{have.tasks}/{len(work.tasks)}",
            str(have.scheduled),
            f"{have.chain}/{len(CHAIN)}",
            f"{have.iter}/{work.parts}",
            f"{have.workflow}/{STEPS}",
            str(have.rows),
        )
    Console().print(table)
    wrong = strays(works)
    if wrong:
        raise DemoError("Tenants are not apart:\n" + "\n".join(f"- {text}" for text in wrong))
    print("No tenant holds another's row, and public holds none.")


# Live


def live(servers: Servers, works: list[Work], port: int) -> None:
    """Web server and cluster, some work, and a table until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from customers.models import Customer
    from shop import workflows
    from shop.models import Line, Order
    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities

    console = Console()
    children = {
        "mscluster": start_child(servers, "mscluster", "mscluster"),
        "web": start_child(servers, "web", "runserver", "--noreload", f"127.0.0.1:{port}"),
    }
    wait_for_web(servers, children, port)
    console.print(f"\nAll tenants: http://localhost:{port}/\n", highlight=False)
    console.print(f"{'Operators':<12} {f'http://localhost:{port}/admin/':<40} operator / operator", highlight=False)
    for customer in Customer.objects.filter(schema_name__in=TENANTS).order_by("schema_name"):
        url = f"http://{customer.host}:{port}/admin/"
        console.print(f"{customer.name:<12} {url:<40} admin / {customer.schema_name}", highlight=False)
    console.print(f"\nLogs: {servers.directory}/*.log. Ctrl-C ends all.\n", highlight=False)

    for work in works:
        end_if_signalled()
        enqueue(work)
        with in_schema(work.tenant):
            QUtilities.add_async_task("shop.tasks.import_catalogue", seconds=10)
            QUtilities.add_async_task("shop.tasks.charge_card", work.order)
            order = Order.objects.create(number=f"{work.tenant}-{work.run}-sold-out", buyer="Demo", amount="75.00")
            Line.objects.bulk_create(
                Line(order=order, article=article, is_sold_out=article == "vase") for article in ARTICLES
            )
            workflows.order.start({"order": order.pk}, key=order.number)  # it fails, and gives the money back
    with Live(figures(works), console=console, auto_refresh=False) as screen:
        while True:
            check_children(servers, children)
            screen.update(figures(works), refresh=True)
            pause(1)


def figures(works: list[Work]) -> Table:
    from django_q.models import Schedule, Task
    from rich.table import Table

    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities

    table = Table()
    table.add_column("tenant")
    for heading in ("queued", "done", "failed", "schedules"):
        table.add_column(heading, justify="right")
    table.add_column("latest task", width=24, no_wrap=True)
    for work in works:
        with in_schema(work.tenant):
            last = Task.objects.order_by("-stopped").first()
            failed = Task.objects.filter(success=False).count()
            table.add_row(
                work.tenant,
                str(QUtilities.get_queue_size()),
                f"[green]{Task.objects.filter(success=True).count()}[/]",
                f"[red]{failed}[/]" if failed else "0",
                str(Schedule.objects.count()),
                f"{last.stopped:%H:%M:%S} {last.func.rpartition('.')[2]}" if last else "",
            )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--once", action="store_true", help="do the main job once, check it, and end with 0 or 1")
    parser.add_argument(
        "--port", type=int, default=8000, help="of the web server; another is taken when it is not free"
    )
    parser.add_argument("--deadline", type=float, default=120, help="seconds that --once waits for the work")
    options = parser.parse_args()
    for package in ("django", "dj_database_url", "rich"):
        if importlib.util.find_spec(package) is None:
            print(f"Error: the package {package} is missing: run `make demo`, which installs it.", file=sys.stderr)
            return 1
    listen()
    try:
        with start_servers() as servers:
            end_if_signalled()
            try:
                prepare(servers)
                end_if_signalled()
                works = [Work(tenant, uuid.uuid4().hex[:6]) for tenant in TENANTS]
                if options.once:
                    once(servers, works, options.deadline)
                else:
                    live(servers, works, free_port(options.port))
            finally:
                end_children()
    except (DemoError, ServersError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except Ended as ended:
        print("Ended; nothing is left running.")
        is_usual = ended.number == signal.SIGINT and not options.once
        return 0 if is_usual else 128 + ended.number
    return 0


def prepare(servers: Servers) -> None:
    """Django in this process, and the tenants."""
    os.environ |= {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django
    from django.core.management import CommandError, call_command

    django.setup()
    print(f"Making the tenants {', '.join(TENANTS)} ...", flush=True)
    try:
        call_command("setupdata", *TENANTS, verbosity=0)
    except CommandError as error:
        raise DemoError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
