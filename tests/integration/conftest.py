"""A worker and a scheduler in this process, and what drives them."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, connections
from django.test import Client

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import scheduler as scheduler_module
from tenant_q.cluster import scheduler_firing, scheduler_upkeep
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.models import AuditRecord, TenantPolicy
from tenant_q.schedules import due_index, index_upkeep
from tenant_q.tenancy import in_schema
from tenant_q.workflows import Run, Workflow, looks, registry, run_index
from tests import schemas, tasks


@pytest.fixture
def make_worker(tenants: tuple[str, ...]) -> Iterator[Callable[..., Worker]]:
    """Workers that do not block when there is no work, and run a batch to its end however slow the machine is."""
    made: list[Worker] = []

    def make(key: str = "w1", broker: Any = None) -> Worker:
        made.append(Worker(key, broker or get_broker(), Slot(), once=True))
        made[-1].lifespan.longest_batch = math.inf
        return made[-1]

    yield make
    for worker in reversed(made):
        worker.stopping.restore()
    connection.set_schema_to_public()
    connections.close_all()


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


@pytest.fixture
def make_scheduler(tenants: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Scheduler]]:
    monkeypatch.setattr(scheduler_upkeep, "BUSY_SECONDS", 60.0)
    monkeypatch.setattr(scheduler_firing, "BUSY_SECONDS", 60.0)  # a slow machine serves all in one tick too
    monkeypatch.setattr(
        looks, "POLL_SECONDS", scheduler_module.POLL_SECONDS
    )  # so that schedules alone decide the pause
    made: list[Scheduler] = []

    def make() -> Scheduler:
        made.append(Scheduler(Slot()))
        return made[-1]

    yield make
    for scheduler in reversed(made):
        scheduler.stopping.restore()
    connection.set_schema_to_public()


@pytest.fixture
def scheduler(make_scheduler: Callable[[], Scheduler]) -> Scheduler:
    return make_scheduler()


@pytest.fixture
def told(tenants) -> Iterator[Callable[[], list[str]]]:
    """What was notified since it was asked last, in order."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as listener:
        listener.execute(f"LISTEN {due_index.CHANNEL}")

        def ask() -> list[str]:
            found: list[str] = []
            listener.execute("SELECT pg_notify(%s, 'the end')", [due_index.CHANNEL])
            for note in listener.notifies():
                if note.payload == "the end":
                    return found
                found.append(note.payload)
            raise AssertionError("the server left")

        ask()
        yield ask


@pytest.fixture
def spare(tenants) -> Iterator[str]:
    schemas.clone_tenants(["spare"])
    yield "spare"
    schemas.drop_tenant("moved")
    schemas.drop_tenant("spare")
    tenancy.forget_tenants()
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())


@pytest.fixture
def unlimited(tenants) -> Iterator[None]:
    yield
    TenantPolicy.objects.all().delete()


@pytest.fixture
def no_runs(tenants) -> Iterator[None]:
    """No tenant has a workflow run, before and after."""

    def clear() -> None:
        for schema in tenants:
            sql(f'TRUNCATE "{schema}".tenant_q_workflows_run, "{schema}".tenant_q_workflows_step')
        sql("TRUNCATE tenant_q_dueworkflow")

    clear()
    run_index.bring_up_to_date(run_index.stale_schemas())
    yield
    clear()


def in_thread(act: Any) -> threading.Thread:
    def run() -> None:
        try:
            act()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def waits_for_a_lock() -> bool:
    """Whether a session waits for another. (pg_stat_activity would say the same all through a transaction.)"""
    return bool(sql("SELECT 1 FROM pg_locks WHERE NOT granted"))


def work(worker: Worker) -> None:
    """Run all that is queued, and all that this enqueues."""

    def is_done() -> bool:
        worker.tick()
        return worker.broker.counts().queued == 0 and not worker.has_unfinished()

    deadline = time.monotonic() + 60
    while not is_done():  # not wait_until: its pauses would be most of what the tests take
        assert time.monotonic() < deadline, f"there is no end: {worker.broker.counts()}"


def make_due() -> None:
    """What is delayed is due now."""
    names = [redis_key(name) for name in ("delayed", "due")]
    for key in (*names, *tasks.client().scan_iter(redis_key("delayed:*"))):
        for member in tasks.client().zrange(key, 0, -1):
            tasks.client().zadd(key, {member: 0})


def know_as_short(func: str, *schemas: str) -> None:
    """A function is known to be short, so that its tasks come in batches."""
    for schema in schemas:
        tasks.client().hset(redis_key("costs"), f"{schema};{func}", 0.1)


def redis_key(name: str) -> str:
    return f"{{tq:{get_broker().cluster}}}:{name}"


def sql(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run a statement in the public schema, which is left again. Returns its rows, if it has any."""
    with tenancy.in_public(), connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def pickled_tuples(times: int) -> bytes:
    """A pickle without its end, of tuples: each is both items of the next one, so a hash takes 2**times steps."""
    return b")" + b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(times))


def as_olga(monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> Iterator[None]:
    """Be the operator olga on a terminal, with `forget` called before and after the test: the body of a fixture."""
    monkeypatch.setattr("getpass.getuser", lambda: "olga")
    monkeypatch.delenv("SUDO_USER", raising=False)
    forget()
    yield
    connection.set_schema_to_public()
    forget()


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Workflow]]:
    """Declare a workflow that exists while the test does. The same name again is a later version of its code."""
    made: list[Workflow] = []

    def make(name: str = "flow", **options: Any) -> Workflow:
        workflow = Workflow(name, **options)
        monkeypatch.setattr(sys.modules[__name__], name, workflow, raising=False)
        made.append(workflow)
        return workflow

    yield make
    for workflow in made:
        registry._workflows.pop(workflow.path, None)


def states(run: Run) -> dict[str, str]:
    """The states of a run's steps, by name."""
    return {step.name: step.state for step in run.refresh().steps}


def errors(run: Run) -> dict[str, str]:
    """Why steps of a run failed or were skipped, by name."""
    return {step.name: step.error for step in run.refresh().steps if step.error}


def make_runs_due() -> None:
    """The scheduler looks at all runs in its next tick."""
    sql("UPDATE tenant_q_dueworkflow SET due = now()")


@pytest.fixture
def public_site(tenants) -> Iterator[Callable[..., Client]]:
    """`public_site()` is a browser at the public site's admin, of a superuser or of a user with these permissions."""

    def visit(*permissions: str, schema: str = "public") -> Client:
        host = "public-site.localhost" if schema == "public" else f"{schema.replace('_', '-')}.localhost"
        if host not in served:
            hosts.enter_context(schemas.served_at(schema, host))
            served.add(host)
        client = Client(HTTP_HOST=host)
        with in_schema(schema):
            users = get_user_model().objects
            if permissions:
                user = users.create_user(f"clerk{len(used)}", is_staff=True)
                user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
            else:
                user = users.create_superuser(f"olga{len(used)}")
            used.append((schema, user.pk))
            client.force_login(user)
        connection.set_schema_to_public()
        return client

    AuditRecord.objects.all().delete()  # also those of another file's tests
    used: list[tuple[str, Any]] = []
    served: set[str] = set()
    with ExitStack() as hosts:
        yield visit
        for schema, pk in used:
            with in_schema(schema):
                get_user_model().objects.filter(pk=pk).delete()
    connection.set_schema_to_public()
    TenantPolicy.objects.all().delete()
    AuditRecord.objects.all().delete()
