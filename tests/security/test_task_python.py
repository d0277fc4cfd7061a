"""The attacker is the Python of a tenant's task: what it forks, changes and leaves reaches no other tenant's task.

As far as that is promised: see `docs/explanation/isolation.md`. More of it is in `tests/integration/test_isolation.py`
and `tests/integration/test_crossing.py`.
"""

from __future__ import annotations

import signal

import psutil
import pytest
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until
from tests.tasks_forking import TWICE

FORKING = "tests.tasks_forking"


# Forks


@pytest.mark.seam
def test_no_process_that_a_task_forks_goes_on_as_the_worker(tenants, mscluster):
    """`os.fork()` returns twice; the second time it ends where the task does."""
    cluster = mscluster("--workers", "1")
    (worker,) = cluster.pids("worker")
    with in_schema("acme_corp"):
        ids = {t.__name__: QUtilities.add_async_task(f"{FORKING}.{t.__name__}", timeout=20) for t in TWICE}
        hooked = QUtilities.add_async_task("os.getpid", hook=f"{FORKING}.hook_twice")
        other = QUtilities.add_async_task("os.getpid", schema_name="globex_inc")
    seen = {name: QUtilities.get_result(id, wait=60_000, schema_name="acme_corp") for name, id in ids.items()}
    assert seen.pop("twice_while_it_is_pickled")  # whoever reads it unpickles it
    assert seen == dict.fromkeys(seen, worker)
    assert QUtilities.get_result(hooked, wait=60_000, schema_name="acme_corp") == worker
    wait_until(lambda: len(tasks.notes(f"{get_broker().cluster}:hook")) == 2)
    assert QUtilities.get_result(other, wait=60_000, schema_name="globex_inc") == worker
    wait_until(lambda: get_broker().counts().open == 0)
    wait_until(lambda: not _lives_beside(worker), what="the forked processes to have ended")
    with in_schema("acme_corp"):
        assert Task.objects.filter(success=True, attempt_count=1).count() == len(TWICE) + 1
    assert cluster.pids("worker") == [worker]
    assert "refused" not in cluster.log
    assert "goes on" not in cluster.log
    assert cluster.stop() == 0


def _lives_beside(worker: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(worker).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE  # nobody has asked how it ended
    ]


def test_a_child_of_a_task_is_a_process_of_its_own(tenants, mscluster):
    """Signals end it and not the worker. It enqueues, runs and caches as the task may."""
    cluster = mscluster("--workers", "1")
    (worker,) = cluster.pids("worker")
    key = f"{get_broker().cluster}:child"

    def ask(name: str, *args: object) -> object:
        with in_schema("acme_corp"):
            id = QUtilities.add_async_task(f"{FORKING}.{name}", *args, timeout=30)
        task = wait_until(lambda: QUtilities.fetch_task(id, schema_name="acme_corp"))
        assert task.success, task.result
        return task.result

    assert ask("terminate_a_child") == -signal.SIGTERM
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
        assert ask("signal_a_child", number) == number
    ask("enqueue_in_a_child", key)
    wait_until(lambda: len(tasks.notes(key)) == 1)
    ask("run_in_sync_in_a_child", key)
    assert [note["schema"] for note in tasks.notes(key)] == ["acme_corp"] * 3
    assert ask("cache_in_a_child") == "yes"
    assert cluster.pids("worker") == [worker]
    assert cluster.stop() == 0
    assert schemas.count_tasks("globex_inc") == 0


def test_a_child_of_a_task_tells_no_progress_in_its_place(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    key = f"{get_broker().cluster}:progress"
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task(f"{FORKING}.progress_of_a_child", key, timeout=60)
        wait_until(lambda: tasks.notes(key))
        wait_until(lambda: QUtilities.get_progress(id))
        assert QUtilities.get_progress(id).fraction == 0.25
        tasks.let_go(key)
    wait_until(lambda: get_broker().counts().open == 0)
    assert cluster.stop() == 0
