"""How a killed process's task gets going again. The seconds are printed; what is asserted are counts and states."""

from __future__ import annotations

import os
import signal
import time

import pytest
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until

WAIT = 60_000
LEASE = 2


def begins(key: str, count: int) -> list[float]:
    """Wait until `tests.chaos.tasks.hold` has begun `count` times, and return when."""
    notes = wait_until(lambda: len(found := tasks.notes(f"{key}:at")) >= count and found, what=f"start {count}")
    return [note["at"] for note in notes]


def test_a_killed_workers_task_starts_again(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    key = cluster.name
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.chaos.tasks.hold", key)
    begins(key, 1)
    wait_until(lambda: tasks.notes(key), what="its first run to be counted")
    killed = time.time()
    os.kill(tasks.notes(f"{key}:at")[0]["pid"], signal.SIGKILL)
    again = begins(key, 2)[1]
    print(f"\nkilled worker: its task started again after {again - killed:.3f} s (aim: 1 s)")
    tasks.let_go(key)
    assert QUtilities.get_result(id, wait=WAIT, schema_name="acme_corp") == "run 2"
    assert get_broker().statistics() == {"stale_acks": 0, "expired": 0, "broken": 0}


def test_a_killed_machines_task_is_started_by_another_cluster(tenants, mscluster):
    words = {"TEST_TENANT_Q": f'{{"lease": {LEASE}}}'}
    first = mscluster("--workers", "1", **words)
    key = first.name
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.chaos.tasks.hold", key)
    begins(key, 1)
    second = mscluster("--workers", "1", wait=False, **words)
    # Both have the same name, so only the session tells whose a process is.
    second.wait_for_workers(1)
    killed = time.time()
    os.killpg(first.process.pid, signal.SIGKILL)
    again = begins(key, 2)[1]
    print(f"\nkilled machine: its task started again after {again - killed:.3f} s (aim: lease + 1 s = {LEASE + 1} s)")
    tasks.let_go(key)
    assert QUtilities.get_result(id, wait=WAIT, schema_name="acme_corp") == "run 2"
    assert get_broker().statistics() == {"stale_acks": 0, "expired": 1, "broken": 0}


def test_a_task_much_longer_than_its_lease_runs_once(tenants, mscluster):
    """One sleeps, one holds the interpreter, so that no thread or signal handler of its worker runs."""
    cluster = mscluster("--workers", "2", TEST_TENANT_Q='{"lease": 1}')
    other = mscluster("--workers", "1", TEST_TENANT_Q='{"lease": 1}')
    with in_schema("acme_corp"):
        sleeper = QUtilities.add_async_task(
            "tests.chaos.tasks.sleep", f"{cluster.name}:s", 10, q_options={"timeout": None}
        )
        holder = QUtilities.add_async_task("tests.chaos.tasks.hold_interpreter", f"{cluster.name}:h", 2)
        held = QUtilities.get_result(holder, wait=WAIT)
        assert QUtilities.get_result(sleeper, wait=WAIT) == 10
        print(f"\nheld the interpreter for {held:.1f} s, lease 1 s")
        assert set(Task.objects.values_list("success", "attempt_count")) == {(True, 1)}
    assert [len(tasks.notes(f"{cluster.name}:{kind}")) for kind in "sh"] == [1, 1]
    assert get_broker().statistics() == {"stale_acks": 0, "expired": 0, "broken": 0}
    for one in (cluster, other):
        assert "ran out" not in one.log


@pytest.mark.parametrize("max_attempts", [1, 0])
def test_a_killer_is_given_up_and_the_others_go_on(tenants, mscluster, max_attempts):
    """Also when a task that raises would be started again without end."""
    cluster = mscluster("--workers", "2")
    deliveries = 3
    killer, *others = tenants
    with in_schema(killer):
        id = QUtilities.add_async_task(
            "tests.tasks.kill_worker",
            cluster.name,
            q_options={"max_deliveries": deliveries, "max_attempts": max_attempts},
        )
    for name in others:
        with in_schema(name):
            for number in range(100):
                QUtilities.add_async_task("tests.tasks.add", number)
    wait_until(lambda: get_broker().counts().open == 0, 60, "everything to be done")
    assert len(tasks.notes(cluster.name)) == deliveries
    with in_schema(killer):
        row = Task.objects.get(id=id)
        assert (row.success, row.attempt_count) == (False, deliveries)
        assert "WorkerDied" in row.result
    for name in others:
        assert schemas.count_tasks(name) == 100
        with in_schema(name):
            assert set(Task.objects.values_list("success", "attempt_count")) == {(True, 1)}
