"""The processes of a real cluster: how they end, and with them what tasks had started."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tenant_q.brokers import get_broker
from tenant_q.operations.status import clusters
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until
from tests.tasks_processes import FORKED, WAYS

WAIT = 30_000
A = "acme_corp"
HERE = "tests.tasks_processes"
MARGIN = 5.0  # seconds after its grace within which a cluster has ended
LATE = 2.0  # for a machine under load


def add(name: str, *args: Any, **options: Any) -> str:
    with in_schema(A):
        return QUtilities.add_async_task(f"{HERE}.{name}", *args, **options)


@pytest.fixture(autouse=True)
def notes_of_this_test(tenants, monkeypatch):
    """What tasks note is kept under the name of this test's cluster."""
    cluster, read = get_broker().cluster, tasks.notes
    monkeypatch.setattr(tasks, "notes", lambda key: read(f"{cluster}:{key}"))


def started(key: str) -> dict[str, list[int]]:
    """What a task has started, by the way in which it did."""
    found = wait_until(lambda: tasks.notes(key), what="the processes to be started")[0]["pids"]
    assert found.keys() == WAYS.keys() and all(map(psutil.pid_exists, of(found)))
    return found


def of(found: dict[str, list[int]], ways: tuple[str, ...] = tuple(WAYS)) -> list[int]:
    return [pid for way in ways for pid in found[way]]


def are_gone(pids: list[int]) -> bool:
    return not any(map(psutil.pid_exists, pids))


@pytest.mark.parametrize("how", ["SIGKILL", "timeout", "cancel"])
def test_what_a_task_started_ends_with_its_worker(tenants, mscluster, how):
    """It ends before its package is given back. What other tasks have started goes on."""
    mscluster("--workers", "2", TEST_TENANT_Q='{"max_deliveries": 1}')
    add("start_all_and_stay", "other")
    other = started("other")
    options = {"timeout": 3} if how == "timeout" else {}
    id = add("ignore_and_stay" if how != "SIGKILL" else "start_all_and_stay", "ours", **options)
    ours = started("ours")
    if how == "SIGKILL":
        os.kill(tasks.notes("ours")[0]["worker"], signal.SIGKILL)
    elif how == "cancel":
        QUtilities.cancel(id, A)
    assert not QUtilities.fetch_task(id, wait=WAIT, schema_name=A).success
    assert are_gone(of(ours)), "none is left, not even as a zombie"
    assert all(map(psutil.pid_exists, of(other)))
    os.kill(tasks.notes("other")[0]["worker"], signal.SIGKILL)
    wait_until(lambda: are_gone(of(other)))


def test_a_package_is_given_back_after_what_it_started_has_ended(tenants, mscluster):
    mscluster("--workers", "2")
    id = add("start_all_and_die", "ours")
    assert QUtilities.get_result(id, wait=WAIT, schema_name=A) == []


def test_what_a_task_left_ends_when_its_worker_is_recycled(tenants, mscluster):
    cluster = mscluster("--workers", "1", TEST_Q_CLUSTER='{"recycle": 2}')
    add("start_all", "ours")
    ours = started("ours")
    with in_schema(A):
        assert QUtilities.get_result(QUtilities.add_async_task("tests.tasks.add", 1), wait=WAIT) == 1
    wait_until(lambda: are_gone(of(ours)), what="all to be gone")
    assert "it is replaced" not in cluster.log, "it has ended in order"


@pytest.mark.parametrize("left", ["leave_a_child", "leave_a_thread"])
def test_a_worker_ends_when_it_says_so(tenants, mscluster, left):
    """Python waits at exit for threads, and for children that `multiprocessing` started."""
    cluster = mscluster("--workers", "1", TEST_Q_CLUSTER='{"recycle": 1}')
    first = QUtilities.get_result(add(left), wait=WAIT, schema_name=A)
    begun = time.monotonic()
    second = QUtilities.get_result(add(left), wait=WAIT, schema_name=A)
    assert first != second
    assert time.monotonic() - begun < 15
    assert cluster.stop() == 0


def test_what_a_task_left_ends_with_the_cluster(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    id = add("start_all", "ours")
    QUtilities.get_result(id, wait=WAIT, schema_name=A)
    ours = started("ours")
    assert cluster.stop() == 0
    assert are_gone(of(ours))


@pytest.mark.parametrize("role", ["sentinel", "parent"])
def test_what_a_task_left_ends_with_a_cluster_that_loses(tenants, mscluster, role):
    """A cluster whose sentinel or whose parent is killed ends, and the other of the two sees to what is left."""
    cluster = mscluster("--workers", "1")
    QUtilities.get_result(add("start_all", "ours"), wait=WAIT, schema_name=A)
    ours = started("ours")
    os.kill(cluster.pids(role)[0], signal.SIGKILL)
    assert cluster.process.wait(20) != 0
    wait_until(lambda: not cluster.processes() and are_gone(of(ours)), what="all to be gone")


def test_forked_processes_end_when_all_are_killed(tenants, mscluster):
    """Nobody is left who could end a program that was started.

    They are stopped first, so that none sees another end. Of a process group that is left with a stopped member the
    kernel tells all by SIGHUP, so the forked ones ignore that.
    """
    cluster = mscluster("--workers", "1")
    QUtilities.get_result(add("start_all", "ours"), wait=WAIT, schema_name=A)
    ours = started("ours")
    roles = ("parent", "sentinel", "scheduler", "worker")
    # A forked process has its worker's title, and is not to be killed here.
    every = [pid for role in roles for pid in cluster.pids(role) if pid not in of(ours)]
    assert len(every) == len(roles)
    try:
        for pid in every:
            os.kill(pid, signal.SIGSTOP)
        for pid in every:
            os.kill(pid, signal.SIGKILL)
        cluster.process.wait(20)
        wait_until(lambda: all(has_ended(pid) for pid in of(ours, FORKED)), what="the forked ones to have ended")
    finally:
        for pid in of(ours):
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Whoever adopted it may not have released it."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("code", [0, 7])
def test_an_exit_in_a_task_is_a_death(tenants, mscluster, code):
    cluster = mscluster("--workers", "1", TEST_TENANT_Q='{"max_deliveries": 2}')
    id = add("end_worker", "ours", code)
    task = QUtilities.fetch_task(id, wait=WAIT, schema_name=A)
    assert not task.success
    assert task.result.startswith("WorkerDied: the worker process died 2 times")
    assert f"the last one ended with exit code {code} (peak memory " in task.result
    assert len(tasks.notes("ours")) == 2
    sentinel = [line for line in cluster.log.splitlines() if "tenant_q.sentinel" in line]
    assert sum(f"ended with exit code {code}" in line for line in sentinel) == 2
    (one,) = wait_until(lambda: [one for one in clusters(get_broker()) if one.restarts == 2], what="two restarts")
    assert [death.task_id for death in one.deaths] == [id, id]
    assert cluster.stop() == 0


def test_the_row_of_a_killed_task_names_the_signal_and_the_memory(tenants, mscluster):
    mscluster("--workers", "1", TEST_TENANT_Q='{"max_deliveries": 1}')
    id = add("take_memory_and_die", "ours", 300)
    text = QUtilities.fetch_task(id, wait=WAIT, schema_name=A).result
    assert "it was killed by SIGKILL, often the kernel's out-of-memory killer" in text
    (peak,) = re.findall(r"peak memory (\d+) MiB", text)
    assert 300 < int(peak) < 1000


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group whose processes have 600 MiB. Only root may make one."""
    group = Path(f"/sys/fs/cgroup/memory/tenant-q-test-{os.getpid()}")  # version 1
    limits = {"memory.limit_in_bytes": 600 * 2**20}
    if not group.parent.is_dir():
        group = Path("/sys/fs/cgroup") / group.name
        limits = {"memory.max": 600 * 2**20, "memory.swap.max": 0}
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        for name, value in limits.items():
            if (group / name).exists():
                (group / name).write_text(str(value))
        if not (group / next(iter(limits))).exists():
            pytest.skip("control groups do not limit memory here")
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), what="the control group to be empty")
        group.rmdir()


def test_the_row_of_a_task_that_was_out_of_memory_says_so(little_memory, tenants, mscluster):
    cluster = mscluster("--workers", "1", wait=False, TEST_TENANT_Q='{"max_deliveries": 1}')
    (little_memory / "cgroup.procs").write_text(str(cluster.process.pid))
    cluster.wait_for_workers(1)
    id = add("take_memory_and_die", "ours", 2000)
    text = QUtilities.fetch_task(id, wait=WAIT, schema_name=A).result
    assert "it was killed by SIGKILL, very likely by the kernel's out-of-memory killer (peak memory " in text
    assert cluster.stop() == 0


@pytest.mark.parametrize("what", ["sentinel", "broker"])
def test_a_cluster_ends_in_time_whatever_hangs(tenants, mscluster, what):
    cluster = mscluster("--workers", "1", TEST_TENANT_Q='{"grace": 1}')
    QUtilities.get_result(add("start_all", "ours"), wait=WAIT, schema_name=A)
    add("start_all_and_stay", "others")
    pids = [*of(started("ours")), *of(started("others"))]
    if what == "sentinel":
        os.kill(cluster.pids("sentinel")[0], signal.SIGSTOP)
    else:
        tasks.client().client_pause(9_000)
    begun = time.monotonic()
    cluster.process.send_signal(signal.SIGTERM)
    code = cluster.process.wait(60)
    assert time.monotonic() - begun < 1 + MARGIN + LATE
    assert code == (1 if what == "sentinel" else 0)
    wait_until(lambda: not cluster.processes() and are_gone(pids), what="all to be gone")
    assert ("Killed the sentinel of cluster" in cluster.log) is (what == "sentinel")


def test_a_cluster_whose_sentinel_hangs_ends(tenants, mscluster):
    """Nobody renews its leases."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "CHAOS_SILENT_SECONDS": "4"}
    cluster = mscluster("--workers", "1", TEST_TENANT_Q='{"lease": 2}', **env)
    QUtilities.get_result(add("start_all", "ours"), wait=WAIT, schema_name=A)
    ours = started("ours")
    os.kill(cluster.pids("sentinel")[0], signal.SIGSTOP)
    assert cluster.process.wait(60) == 1
    assert re.search(
        r"CRITICAL .* Killed the sentinel of cluster \S+ with its processes: it had done nothing for \d+ s", cluster.log
    )
    wait_until(lambda: not cluster.processes() and are_gone(of(ours)), what="all to be gone")
