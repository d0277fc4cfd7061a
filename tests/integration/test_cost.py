"""What a task costs in round trips, statements, commits and connections: counted, so no machine is too slow for it.

The bounds are about twice what is counted today. `make bench` counts the same in real clusters.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django_q.tasks import async_task

from tenant_q import tenancy
from tenant_q.cluster import completer, slice_runner
from tenant_q.cluster.worker import Worker
from tenant_q.lifecycle import push
from tenant_q.package.build import build
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import Workflow
from tests import schemas
from tests.integration.conftest import know_as_short, work
from tests.integration.planning import on_the_wire

TASKS = 1000
STEPS = 64  # a whole batch
NAMES = [f"cost_{number}" for number in range(10)]
NOTHING = "tests.tasks.nothing"


@dataclass
class Counts:
    """What this process has asked of the servers. A pipeline is one round trip."""

    round_trips: int = 0
    connections: int = 0
    statements: int = 0
    commits: int = 0
    messages: list[str] = field(default_factory=list, compare=False, repr=False)


@pytest.fixture
def ten_tenants(tenants) -> Iterator[list[str]]:
    schemas.clone_tenants(NAMES)
    yield NAMES
    for name in NAMES:
        schemas.drop_tenant(name)
    tenancy.forget_tenants()


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    found = Counts()

    def count(owner: type, name: str, what: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            setattr(found, what, getattr(found, what) + 1)
            return real(*args, **kwargs)

        patch.setattr(owner, name, counted)

    with monkeypatch.context() as patch, on_the_wire() as messages:
        count(redis.connection.AbstractConnection, "send_packed_command", "round_trips")
        count(redis.connection.Connection, "_connect", "connections")
        count(redis.connection.UnixDomainSocketConnection, "_connect", "connections")
        count(BaseDatabaseWrapper, "connect", "connections")
        yield found
    found.statements, found.commits, found.messages = len(messages), commits(messages), messages


def commits(messages: Sequence[str]) -> int:
    """How many transactions these messages are: each is one, but those between BEGIN and its end are one together."""
    found, is_open = 0, False
    for message in messages:
        words = re.search(r'"\s*(\w+)', message)
        word = words.group(1).upper() if words else ""
        if word == "BEGIN":
            is_open = True
        elif word in ("COMMIT", "ROLLBACK") and "ROLLBACK TO" not in message:
            is_open = False
            found += word == "COMMIT"
        elif not is_open:
            found += 1
    return found


def queue(names: Sequence[str], count: int) -> None:
    push.push([build(NOTHING, (), {}, schema=names[n % len(names)]) for n in range(count)])


@pytest.fixture
def long_lived(settings: Any, make_worker: Callable[..., Worker]) -> Worker:
    """A worker that is not recycled within the test, with its connections and scripts, and what it knows of tenants."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"recycle": 10 * TASKS}
    worker = make_worker()
    queue(NAMES, len(NAMES))
    work(worker)
    know_as_short(NOTHING, *NAMES)
    return worker


def test_a_task_costs_little(ten_tenants, long_lived, monkeypatch):
    queue(NAMES, TASKS)
    with counting(monkeypatch) as found:
        work(long_lived)
    print(f"\n{TASKS} tasks of {len(NAMES)} tenants: {found}", end="")
    assert sum(map(schemas.count_tasks, NAMES)) == TASKS + len(NAMES)
    assert found.round_trips <= 0.1 * TASKS, "2 a task at most are promised"
    assert found.commits <= 0.1 * TASKS, "which is promised"
    assert found.statements <= 0.2 * TASKS
    # On a busy machine a batch takes long, and the completer's thread saves what is done, with connections of its own.
    assert found.connections <= 2


def test_a_fresh_worker_knows_its_tenants_soon(ten_tenants, long_lived, make_worker, monkeypatch):
    """After `recycle` tasks a worker makes way for one that knows nothing."""
    fresh = make_worker("w2")
    tenancy.forget_tenants()
    queue(NAMES, len(NAMES))
    with counting(monkeypatch) as found:
        work(fresh)
    print(f"\nthe first tasks of {len(NAMES)} tenants: {found}", end="")
    assert found.statements <= 8 * len(NAMES)


def test_enqueueing_one_by_one(ten_tenants, long_lived, monkeypatch):
    with in_schema(NAMES[0]), counting(monkeypatch) as found:
        for _ in range(100):
            QUtilities.add_async_task(NOTHING)
    assert found == Counts(round_trips=100)


def test_plain_async_task(ten_tenants, long_lived, monkeypatch):
    """Django-Q2's own call needs no connection of its own here."""
    with in_schema(NAMES[0]), counting(monkeypatch) as found:
        for _ in range(100):
            async_task(NOTHING)
    assert found == Counts(round_trips=100)


def test_enqueueing_in_bulk(ten_tenants, long_lived, monkeypatch):
    with in_schema(NAMES[0]), counting(monkeypatch) as found:
        QUtilities.add_async_tasks_from_iter(NOTHING, [()] * (3 * TASKS))
    assert found == Counts(round_trips=3)


# Steps of workflows


def _nothing(ctx: Any) -> None:
    return None


@dataclass
class Batch:
    """What a batch costs. A message to PostgreSQL is a round trip, and may have several statements."""

    to_redis: int
    to_postgres: int
    statements: int
    commits: int


def _run_batch(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Run a batch of `STEPS` packages to its end."""
    before = worker.slot.done
    with counting(monkeypatch) as found:
        worker.tick()
    assert worker.slot.done - before == STEPS
    sent = [one for message in found.messages for one in _statements(message)]
    return Batch(found.round_trips, len(found.messages), len(sent), commits(sent))


def _statements(message: str) -> list[str]:
    """The statements of a message, each as a message of its own."""
    first, *others = re.split(r";\s*\n", message)
    return [first, *(f' "{one}' for one in others)]


@pytest.fixture
def two_steps(define: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workflow]:
    """A workflow of two steps in a line, of which a worker knows that they are short. A slow machine cuts no batch."""
    monkeypatch.setattr(completer, "FLUSH_SECONDS", 60.0)
    monkeypatch.setattr(slice_runner, "LOADED_SECONDS", 60.0)

    def make(**options: Any) -> Workflow:
        flow: Workflow = define()
        for name, after in (("first", ()), ("second", "first")):
            step = types.FunctionType(_nothing.__code__, globals(), name)
            flow.step(after=after, **options)(step)
            know_as_short(f"tenant_q.workflows.step.{flow.path}.{name}", *NAMES)
        return flow

    return make


def _warm_up(worker: Worker, flow: Workflow, count: int = 1) -> None:
    for name in NAMES[:count]:
        flow.start(schema_name=name)
        queue([name], 1)
    work(worker)


def test_a_batch_of_steps_costs_little_more_than_one_of_tasks(ten_tenants, long_lived, two_steps, monkeypatch):
    flow = two_steps()
    _warm_up(long_lived, flow)
    queue(NAMES[:1], STEPS)
    tasks = _run_batch(long_lived, monkeypatch)
    runs = [flow.start(schema_name=NAMES[0]) for _ in range(STEPS)]
    steps = _run_batch(long_lived, monkeypatch)
    work(long_lived)
    assert {run.refresh().state for run in runs} == {"succeeded"}
    print(f"\n{STEPS} tasks: {tasks}\n{STEPS} steps: {steps}", end="")
    assert steps.statements <= 6 * STEPS
    assert steps.commits <= tasks.commits + 1
    assert steps.to_redis <= tasks.to_redis + 1
    assert steps.to_postgres <= tasks.to_postgres + 3


def test_the_steps_of_several_tenants_are_loaded_by_tenant_and_ended_together(
    ten_tenants, long_lived, two_steps, monkeypatch
):
    flow, count = two_steps(), 4
    _warm_up(long_lived, flow, count)
    queue(NAMES[:count], STEPS)
    tasks = _run_batch(long_lived, monkeypatch)
    for number in range(STEPS):
        flow.start(schema_name=NAMES[number % count])
    steps = _run_batch(long_lived, monkeypatch)
    work(long_lived)
    print(f"\n{count} tenants, {STEPS} tasks: {tasks}\n{STEPS} steps: {steps}", end="")
    assert steps.commits <= tasks.commits + 1
    assert steps.to_redis <= tasks.to_redis + 1
    assert steps.to_postgres <= tasks.to_postgres + 2 + count


def test_transactional_steps_cost_what_transactional_tasks_cost(ten_tenants, long_lived, two_steps, monkeypatch):
    flow = two_steps(transactional=True)
    _warm_up(long_lived, flow)
    push.push([build(NOTHING, (), {"q_options": {"transactional": True}}, schema=NAMES[0]) for _ in range(STEPS)])
    tasks = _run_batch(long_lived, monkeypatch)
    for _ in range(STEPS):
        flow.start(schema_name=NAMES[0])
    steps = _run_batch(long_lived, monkeypatch)
    work(long_lived)
    print(f"\n{STEPS} transactional tasks: {tasks}\n{STEPS} steps: {steps}", end="")
    assert steps.commits // STEPS <= tasks.commits // STEPS
    assert steps.to_redis <= tasks.to_redis + 1
    assert steps.to_postgres <= tasks.to_postgres + 3
    assert steps.statements <= tasks.statements


def test_a_scheduler_without_open_runs_asks_one_statement_more(ten_tenants, scheduler, monkeypatch):
    def tick() -> Counts:
        with counting(monkeypatch) as found:
            scheduler.tick()
        return found

    for _ in range(3):
        tick()
    while scheduler.upkeep.has_to_verify:  # on a slow machine
        tick()
    with_looks = tick()
    monkeypatch.setattr(scheduler, "look_at_runs", lambda: math.inf)
    without = tick()
    print(f"\na tick: {without}, with looks: {with_looks}", end="")
    assert with_looks.statements == without.statements + 1
    assert with_looks.round_trips == without.round_trips


def test_a_project_without_the_app_notices_nothing():
    """Worker and scheduler import nothing of it, and ask the database nothing about it."""
    code = """
import sys, django
from django.conf import settings
settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app not in ("tenant_q.workflows", "tests.flows")]
django.setup()
from tenant_q.cluster.scheduler import Scheduler, _looks
from tenant_q.cluster.worker import Worker
from tenant_q.cluster import completer, slice_runner
import tenant_q.management.commands.mscluster
assert _looks()() > 1e300
print([name for name in sys.modules if name.startswith("tenant_q.workflows")])
"""
    environment = os.environ | {"TEST_WITHOUT": "tenant_q.workflows", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
