"""What a task costs in round trips, statements, commits and connections: counted, so no machine is too slow for it.

The bounds are about twice what is counted today. `make bench` counts the same in real clusters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis.connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django_q.tasks import async_task

from tenant_q import tenancy
from tenant_q.cluster.worker import Worker
from tenant_q.lifecycle import push
from tenant_q.package.build import build
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import know_as_short, work
from tests.integration.planning import on_the_wire

TASKS = 1000
STEPS = 200
NAMES = [f"cost_{number}" for number in range(10)]
NOTHING = "tests.tasks.nothing"


@dataclass
class Counts:
    """What this process has asked of the servers. A pipeline is one round trip."""

    round_trips: int = 0
    connections: int = 0
    statements: int = 0
    commits: int = 0


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
    found.statements, found.commits = len(messages), commits(messages)


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


def _run_batch(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> tuple[Counts, int]:
    """Run one batch. Returns what it cost, and how many packages it had."""
    before = worker.slot.done
    with counting(monkeypatch) as found:
        worker.tick()
    return found, worker.slot.done - before


@pytest.mark.parametrize("is_transactional", [False, True])
def test_a_batch_of_steps_costs_little_more_than_one_of_tasks(
    ten_tenants, long_lived, define, monkeypatch, is_transactional
):
    flow = define()
    for name in ("first", "second"):
        step = type(_nothing)(_nothing.__code__, globals(), name)
        flow.step(after=() if name == "first" else "first", transactional=is_transactional)(step)
    func = f"tenant_q.workflows.step.{flow.path}"
    know_as_short(NOTHING, *NAMES)
    for name in ("first", "second"):
        know_as_short(f"{func}.{name}", *NAMES)
    for name in NAMES[:2]:  # what a worker learns once
        flow.start(schema_name=name)
    work(long_lived)

    push.push([build(NOTHING, (), {"q_options": {}}, schema=NAMES[0]) for _ in range(STEPS)])
    tasks, done = _run_batch(long_lived, monkeypatch)
    assert done == STEPS, "this compares batches of one size"
    work(long_lived)
    runs = [flow.start(schema_name=NAMES[0]) for _ in range(STEPS)]
    steps, done = _run_batch(long_lived, monkeypatch)
    assert done == STEPS
    work(long_lived)
    assert {run.refresh().state for run in runs} == {"succeeded"}
    print(f"\n{STEPS} tasks: {tasks}\n{STEPS} steps: {steps}", end="")
    if not is_transactional:
        assert steps.statements <= 6 * STEPS
        assert steps.commits <= tasks.commits + 1
        assert steps.round_trips <= tasks.round_trips + 1
