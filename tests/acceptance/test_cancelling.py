"""The real cluster: tasks are cancelled wherever they are, and report their progress."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tenant_q.brokers import get_broker
from tenant_q.states import Progress
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until
from tests.integration.conftest import know_as_short

A = "acme_corp"
WAIT = 30_000


def add(func: str, *args: object, **q_options: object) -> str:
    return QUtilities.add_async_task(f"tests.tasks.{func}", *args, schema_name=A, q_options=q_options)


def status(id: str) -> str:
    return QUtilities.get_status(id, A)


def row(id: str) -> Any:
    task = QUtilities.fetch_task(id, WAIT, schema_name=A)
    assert task is not None, status(id)
    return task


def runs(key: str) -> list[int]:
    return [note["pid"] for note in tasks.notes(key)]


@pytest.mark.seam
def test_a_running_task_is_stopped_and_its_worker_reused(tenants, mscluster):
    key = f"cancel-{get_broker().cluster}"
    know_as_short("tests.tasks.hold", A)
    know_as_short("tests.tasks.note_where", A)
    (pid,) = mscluster("--workers", "1").pids("worker")
    running = add("hold", key, max_attempts=5)
    wait_until(lambda: runs(key), what="it to run")
    behind, delayed, last = add("note_where", key), add("note_where", key, delay=3600), add("nothing")
    assert [status(id) for id in (running, behind, delayed)] == ["running", "queued", "delayed"]
    for id in (behind, delayed, running):
        assert QUtilities.cancel(id, A, by="Ada")
    assert [status(id) for id in (behind, delayed)] == ["cancelled", "cancelled"]
    assert row(running).result.startswith("TaskCancelled: cancelled by Ada : Traceback")
    assert [row(id).result for id in (behind, delayed)] == ["TaskCancelled: cancelled by Ada"] * 2
    assert row(last).success
    assert [status(id) for id in (running, behind, delayed, last)] == ["cancelled"] * 3 + ["success"]
    assert runs(key) == [pid], "it ran once, and of the others none"
    after = add("hold", f"{key}-after")
    tasks.let_go(f"{key}-after")
    assert row(after).success
    assert runs(f"{key}-after") == [pid], "in the same worker"
    wait_until(lambda: get_broker().counts().open == 0)


def test_a_task_in_a_c_call_is_killed_with_its_worker(tenants, mscluster):
    key = f"cancel-c-{get_broker().cluster}"
    cluster = mscluster("--workers", "1")
    id = add("ignore_signals", key, max_attempts=5, max_deliveries=5)
    wait_until(lambda: runs(key), what="it to run")
    (pid,) = runs(key)
    behind = add("nothing")
    assert QUtilities.cancel(id, A)
    task = row(id)
    assert task.result == "TaskCancelled: cancelled"
    assert row(behind).success, "its worker is replaced"
    assert runs(key) == [pid], "it is not started again"
    assert not psutil.pid_exists(pid)
    assert f"Killed worker {pid}: TaskCancelled: cancelled" in cluster.log
    wait_until(lambda: get_broker().counts().open == 0)
    assert get_broker().counts().dead == 0


@pytest.mark.parametrize("killed", ["worker", "all"])
def test_no_kill_brings_a_cancelled_task_back(tenants, mscluster, killed):
    """Before anybody could have told the worker, or after; with attempts left."""
    key = f"cancel-kill-{get_broker().cluster}"
    cluster = mscluster("--workers", "1", TEST_TENANT_Q='{"lease": 1}')
    id = add("hold", key, max_attempts=5, max_deliveries=5)
    wait_until(lambda: runs(key), what="it to run")
    pids = [pid for role, pids in cluster.processes().items() for pid in pids if killed in (role, "all")]
    assert QUtilities.cancel(id, A)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if killed == "all":
        cluster.process.wait()
        mscluster("--workers", "1", TEST_TENANT_Q='{"lease": 1}')
    assert row(id).result.startswith("TaskCancelled: cancelled")
    assert status(id) == "cancelled"
    assert len(runs(key)) == 1
    wait_until(lambda: get_broker().counts().open == 0)


@pytest.mark.seam
def test_a_running_task_tells_how_far_it_is(tenants, mscluster):
    key = f"progress-{get_broker().cluster}"
    mscluster("--workers", "1")
    id = add("tell_and_hold", key)
    wait_until(lambda: QUtilities.get_progress(id, A) == Progress(0.75, "three of four"), what="the last that it told")
    assert QUtilities.get_progress(id, "globex_inc") is None
    tasks.let_go(key)
    assert row(id).success
    wait_until(lambda: QUtilities.get_progress(id, A) is None)
