"""Redis fails over to a replica that lacks the last second, under load, while a machine is paused beyond its leases.

`CHAOS=long`: 20 times. Nothing accepted is lost, no transactional effect is doubled, and the machine saves no row and
calls no hook for a lease that it has lost.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from django_q.models import Task

from tenant_q import brokers
from tenant_q.brokers import get_broker
from tenant_q.lifecycle import submit
from tenant_q.tenancy import in_schema
from tests.chaos.replicas import Replicated
from tests.conftest import RunningCluster, wait_until
from tests.integration.conftest import sql

ROUNDS = 20 if os.environ.get("CHAOS") == "long" else 2
LOAD = 60
EFFECT, HOOK = "tests.chaos.tasks_failover.effect", "tests.chaos.tasks_failover.hook"
# The name of the paused machine's sessions in PostgreSQL.
MACHINE = "paused machine"
# Rows are pruned all the time, four leases after their tasks.
ENV = {"TEST_TENANT_Q": '{"lease": 1}', "TEST_Q_CLUSTER": '{"save_limit": 20}'}


@pytest.fixture
def redis_pair(tenants, settings, monkeypatch) -> Iterator[Replicated]:
    with tempfile.TemporaryDirectory(prefix="tq-") as directory:
        pair = Replicated(Path(directory))
        monkeypatch.setenv("REDIS_URL", pair.url)
        before = settings.Q_CLUSTER
        settings.Q_CLUSTER = before | {"redis": pair.url}
        brokers.forget_brokers()
        yield pair
        settings.Q_CLUSTER = before
        brokers.forget_brokers()
        pair.end()


@pytest.fixture
def effects(tenants) -> Iterator[None]:
    for name in tenants:
        sql(f"CREATE TABLE {name}.failover_effect (task_key text, what text, pid int, started float)")
    yield
    for name in tenants:
        sql(f"DROP TABLE {name}.failover_effect")


class Load:
    """What was enqueued: keys by tenant, and which of them are of transactional tasks."""

    def __init__(self, schemas: tuple[str, ...]) -> None:
        self.schemas = schemas
        self.keys: dict[str, str] = {}
        self.transactional: set[str] = set()

    def add(self, count: int) -> None:
        for n in range(count):
            schema = self.schemas[n % len(self.schemas)]
            if n % 10 == 0:
                self._add_chain(schema)
            else:
                self._add_task(schema, transactional=n % 2 == 0, seconds=0.3 if n % 7 == 0 else 0.02)

    def _add_task(self, schema: str, *, transactional: bool, seconds: float) -> None:
        key = uuid.uuid4().hex
        options = {"hook": HOOK, "q_options": {"transactional": transactional}}
        submit.submit(EFFECT, (key, seconds), options, schema=schema, id=key)
        self.keys[key] = schema
        if transactional:
            self.transactional.add(key)

    def _add_chain(self, schema: str) -> None:
        keys = [uuid.uuid4().hex for _ in range(3)]
        submit.submit_chain([(EFFECT, (key,)) for key in keys], schema=schema)
        self.keys |= dict.fromkeys(keys, schema)


class Machine:
    """A cluster that can be paused as a whole."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.cluster = cluster
        self.workers = set(cluster.pids("worker"))
        self.paused = 0.0

    def pause(self) -> None:
        os.killpg(self.cluster.process.pid, signal.SIGSTOP)
        self.paused = time.time()

    def go_on(self) -> None:
        os.killpg(self.cluster.process.pid, signal.SIGCONT)


def held_by_worker() -> dict[str, set[str]]:
    broker = get_broker()
    head = f"{broker.tag}:held:"
    return {
        key.decode().removeprefix(head): {id.decode() for id in broker.client.zrange(key, 0, -1)}
        for key in broker.client.scan_iter(f"{head}*")
    }


Seen = tuple[str, str, int, float]


def seen(schemas: tuple[str, ...]) -> Counter[Seen]:
    """Count what each process left: (key, what, pid, start of the run of which the hook was called)."""
    parts = [f"SELECT task_key, what, pid, started FROM {name}.failover_effect" for name in schemas]
    return Counter(sql(" UNION ALL ".join(parts)))


def rows(schemas: tuple[str, ...]) -> dict[str, tuple[int, float]]:
    """The process that ran each task that has a successful row, and when that started, by the task's id."""
    found: dict[str, tuple[int, float]] = {}
    for name in schemas:
        with in_schema(name):
            tasks = Task.objects.filter(success=True)
            found |= {task.id: (task.result, task.started.timestamp()) for task in tasks}
    return found


def test_failovers_while_a_machine_is_paused(tenants, redis_pair, effects, mscluster):
    machine = Machine(mscluster("--workers", "2", REDIS_URL=redis_pair.url, PGAPPNAME=MACHINE, **ENV))
    mscluster("--workers", "2", REDIS_URL=redis_pair.url, **ENV)
    mine, load = worker_keys(machine), Load(tenants)
    lost_in_all = 0
    for number in range(ROUNDS):
        lost_in_all += one_round(number, machine, mine, load, redis_pair, tenants)
    load.add(LOAD)
    broker = get_broker()
    wait_until(lambda: broker.counts().open == 0, 120, what="all to be run")
    counts = seen(tenants)
    done = Counter(key for key, what, *_ in counts if what == "effect")
    assert set(load.keys) == set(done), "nothing is lost, and nothing else is run"
    times: Counter[str] = Counter()
    for (key, what, *_), n in counts.items():
        times[key] += n if what == "effect" else 0
    assert [key for key in load.transactional if times[key] > 1] == [], "no transactional effect is doubled"
    assert broker.counts().dead == 0
    assert lost_in_all > 0, "the machine lost something in each of the pauses, or the test tests nothing"
    print(f"\n  {ROUNDS} failovers: {len(load.keys)} tasks, {lost_in_all} leases lost by a paused machine")


def worker_keys(machine: Machine) -> set[str]:
    """The names of a cluster's workers towards the broker."""
    from tenant_q.operations.status import clusters

    (own,) = [one for one in clusters(get_broker()) if one.parent == machine.cluster.process.pid]
    return {process.key for process in own.processes if process.role == "worker"}


def one_round(
    number: int, machine: Machine, mine: set[str], load: Load, pair: Replicated, schemas: tuple[str, ...]
) -> int:
    """Pause the machine, fail over, let it go on. Returns how many leases it lost."""
    load.add(LOAD)
    wait_until(lambda: any(held_by_worker().get(key) for key in mine), what="the machine to have work")
    machine.pause()
    held = set().union(*(held_by_worker().get(key, set()) for key in mine))
    wait_until(lambda: not sessions("state = 'active'"), what="PostgreSQL to end what it was sent before the pause")
    rows_before, seen_before = rows(schemas), seen(schemas)
    # A transactional task's row is written, and perhaps checked as well: what is left is the commit.
    is_committing = sessions("state = 'idle in transaction' AND query LIKE '%%json_populate_recordset%%'")
    wait_until(lambda: not any(held_by_worker().get(key) for key in mine), what="the leases to run out")
    pair.cut()
    if number % 2:
        lost = held - set().union(*(held_by_worker().get(key, set()) for key in mine))
        machine.go_on()
        time.sleep(1)
        pair.fail_over()
    else:
        time.sleep(1)
        pair.fail_over()
        lost = held - set().union(*(held_by_worker().get(key, set()) for key in mine))
        machine.go_on()
    pair.follow()
    wait_until(lambda: get_broker().counts().open < LOAD / 2, 60, what="work to go on")
    judged = lost - load.transactional if is_committing else lost
    look_at(judged, machine, rows_before, seen_before, schemas)
    return len(lost)


def sessions(condition: str) -> int:
    """How many sessions of the machine are in some state."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s AND "
    return int(sql(query + condition, MACHINE)[0][0])


def look_at(
    lost: set[str], machine: Machine, rows_before: Collection[str], seen_before: Counter[Seen], schemas: tuple[str, ...]
) -> None:
    """Whatever the machine did after its pause for a lease that it had lost: no row and no hook says so.

    It may have fetched the same package again since, and run it then, or have found the row of before the pause.
    """
    lost = lost - set(rows_before)
    for id, (pid, started) in rows(schemas).items():
        is_stale = id in lost and pid in machine.workers and started < machine.paused
        assert not is_stale, f"a stale row of {id}"
    for key, what, pid, started in seen(schemas) - seen_before:
        is_stale = key in lost and what == "hook" and pid in machine.workers and started < machine.paused
        assert not is_stale, f"a stale hook of {key}"
