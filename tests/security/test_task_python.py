"""The attacker is the Python of a tenant's task: what it forks, changes and leaves reaches no other tenant's task.

As far as that is promised: see `docs/explanation/isolation.md`. More of it is in `tests/integration/test_isolation.py`
and `tests/integration/crossing`.
"""

from __future__ import annotations

import gc
import signal
import warnings
from itertools import combinations
from typing import Any

import psutil
import pytest
from django.db import connection, connections
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.exceptions import ReplicaAway
from tenant_q.scrubbing import process_state, serving
from tenant_q.scrubbing.process_aspects import Aspect
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks, tasks_leaving
from tests.conftest import wait_until
from tests.integration.conftest import know_as_short, make_worker, redis_key
from tests.tasks_forking import TWICE

FORKING = "tests.tasks_forking"
LEAVING = "tests.tasks_leaving"


__all__ = ["make_worker"]  # a fixture


@pytest.fixture
def runner(make_worker):
    """A worker in this process."""
    return make_worker()


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


# What is left in a connection


@pytest.fixture
def aside(tenants):
    """Nothing is left for the next test."""
    databases = {alias: dict(own, OPTIONS=dict(own.get("OPTIONS", {}))) for alias, own in connections.settings.items()}
    before, names = connections["default"], set(vars(connections["default"]))
    before.queries_log.clear()  # of tests before, with DEBUG
    gc.collect()  # what prints of a receiver that is gone is the same whenever it is looked at
    process_state._logged.clear()
    process_state._spoiled = False
    tasks_leaving.STOLEN.clear()
    yield
    connections.close_all()
    connections["default"] = before
    for name in set(vars(before)) - names:
        if not name.startswith("_tenant_q"):
            del vars(before)[name]
    for alias, own in databases.items():
        connections.settings[alias].clear()
        connections.settings[alias].update(own)
    before.settings_dict = connections.settings["default"]
    before.force_debug_cursor = False


@pytest.mark.seam
@pytest.mark.parametrize("leave", tasks_leaving.CONNECTION, ids=lambda leave: leave.__name__)
def test_how_a_task_sets_up_its_connection_ends_with_it(tenants, runner, aside, leave):
    # What is in the driver's connection, not even its own tenant's next task sees.
    is_raw = leave in tasks_leaving.CONNECTION[: tasks_leaving.CONNECTION.index(tasks_leaving.replace_djangos_cursor)]
    names = ("acme_corp", "globex_inc") if is_raw else ("globex_inc",)
    clean = looked_behind(runner, "tests.tasks.nothing", "look_at_the_connection", names)
    found = looked_behind(runner, f"{LEAVING}.{leave.__name__}", "look_at_the_connection", names)
    assert found == clean
    assert found["globex_inc"]["row"][:2] == ["text", "mine"]


def looked_behind(runner, func: str, look: str, names=("acme_corp", "globex_inc")) -> dict[str, dict[str, Any]]:
    """What tasks see that run behind one, in the same batch: the same tenant's next, and another tenant's."""
    pair = ("acme_corp", "globex_inc")
    know_as_short(func, *pair)
    know_as_short(f"{LEAVING}.{look}", *pair)
    tasks.client().delete(redis_key("vtime"), redis_key("ring"))  # no turn is owed, so names decide
    begun = runner.lifespan.started
    first = QUtilities.add_async_task(func, schema_name=pair[0])
    ids = {name: QUtilities.add_async_task(f"{LEAVING}.{look}", schema_name=name) for name in names}
    runner.tick()
    assert runner.lifespan.started == begun + 1 + len(names), "all in one batch"
    left = QUtilities.fetch_task(first, schema_name=pair[0])
    assert left.success, left.result
    rows = {name: QUtilities.fetch_task(id, schema_name=name) for name, id in ids.items()}
    for row in rows.values():
        assert row.success, row.result
        assert row.started > left.started, "behind it"
    return {name: row.result for name, row in rows.items()}


# What is left in the process


@pytest.mark.parametrize("leave", tasks_leaving.PROCESS, ids=lambda leave: leave.__name__)
def test_what_a_task_changes_in_its_process_ends_with_it(tenants, runner, aside, leave):
    # Some of it the same tenant's next task may see.
    names = ("acme_corp", "globex_inc") if leave in tasks_leaving.HITS_ANY_TASK else ("globex_inc",)
    clean = looked_behind(runner, "tests.tasks.nothing", "look_at_the_process", names)
    found = looked_behind(runner, f"{LEAVING}.{leave.__name__}", "look_at_the_process", names)
    assert found == clean


@pytest.mark.parametrize("leave", [tasks_leaving.change_everything, tasks_leaving.change_the_database])
def test_what_a_task_changes_ends_with_it_though_its_tenants_next_task_is_put_off(
    tenants, runner, aside, monkeypatch, leave
):
    looks = ("look_at_the_process", "look_at_the_connection")
    clean = {look: looked_behind(runner, "tests.tasks.nothing", look, ("globex_inc",)) for look in looks}
    monkeypatch.setattr(serving, "follow_options", is_away)
    for look in looks:
        assert put_off_behind(runner, f"{LEAVING}.{leave.__name__}", look) == clean[look]["globex_inc"]


def is_away(package) -> None:
    if package.option("databases"):
        raise ReplicaAway("away")


def put_off_behind(runner, func: str, look: str) -> dict[str, Any]:
    """What a tenant's task sees behind another tenant's, whose next task ended its turn."""
    pair = ("acme_corp", "globex_inc")
    for name in (func, "tests.tasks.nothing", f"{LEAVING}.{look}"):
        know_as_short(name, *pair)
    tasks.client().delete(redis_key("vtime"), redis_key("ring"))
    begun = runner.lifespan.started
    first = QUtilities.add_async_task(func, schema_name=pair[0])
    QUtilities.add_async_task("tests.tasks.nothing", schema_name=pair[0], q_options={"databases": ["replica"]})
    id = QUtilities.add_async_task(f"{LEAVING}.{look}", schema_name=pair[1])
    runner.tick()
    assert runner.lifespan.started == begun + 2, "both in one batch; the third was put off"
    assert get_broker().counts().delayed >= 1
    assert QUtilities.fetch_task(first, schema_name=pair[0]).success
    row = QUtilities.fetch_task(id, schema_name=pair[1])
    assert row.success, row.result
    return row.result


@pytest.mark.parametrize("leave", tasks_leaving.BATCH, ids=lambda leave: leave.__name__)
def test_what_is_looked_at_after_a_batch_ends_with_it(tenants, runner, aside, leave):
    clean = looked_behind(runner, "tests.tasks.nothing", "look_at_the_process")
    QUtilities.add_async_task(f"{LEAVING}.{leave.__name__}", schema_name="acme_corp")
    runner.tick()
    assert looked_behind(runner, "tests.tasks.nothing", "look_at_the_process") == clean


def test_a_task_that_takes_the_wakeup_fd_keeps_nobody_from_stopping(tenants, runner):
    """As the loop of an async task does."""
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before, warn_on_full_buffer=False)
    QUtilities.add_async_task(f"{LEAVING}.take_the_wakeup_fd", schema_name="acme_corp")
    runner.tick()
    runner.stopping.wait(0)
    assert signal.set_wakeup_fd(before, warn_on_full_buffer=False) == before != -1


def test_what_a_hook_changes_in_its_process_ends_with_it(tenants, runner, aside):
    clean = looked_behind(runner, "tests.tasks.nothing", "look_at_the_process")
    QUtilities.add_async_task("tests.tasks.nothing", hook=f"{LEAVING}.change_everything", schema_name="acme_corp")
    runner.tick()
    assert looked_behind(runner, "tests.tasks.nothing", "look_at_the_process") == clean


def test_a_change_that_is_put_back_is_logged_once_for_each_function(tenants, runner, aside, caplog):
    ids = []
    for _ in range(3):
        ids.append(QUtilities.add_async_task(f"{LEAVING}.change_the_environment", schema_name="acme_corp"))
        runner.tick()
    (record,) = [record for record in caplog.records if record.name == "tenant_q.process_state"]
    assert record.levelname == "WARNING"
    assert (record.schema, record.task_id, record.func) == ("acme_corp", ids[0], f"{LEAVING}.change_the_environment")
    assert record.changed == "environment variables"
    assert "ACME_SECRET, HOME" in record.getMessage()
    assert "theirs" not in record.getMessage()


def test_what_an_import_changes_belongs_to_the_process(tenants, runner, aside, caplog, tmp_path, monkeypatch):
    name = f"imported_{get_broker().cluster}"
    text = "import os, warnings\nos.environ['BY_IMPORT'] = 'yes'\nwarnings.simplefilter('ignore', FutureWarning)\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BY_IMPORT", "no")
    QUtilities.add_async_task(f"{LEAVING}.import_a_module", name, schema_name="acme_corp")
    runner.tick()
    found = looked_behind(runner, "tests.tasks.nothing", "look_at_the_process")["globex_inc"]
    assert "('BY_IMPORT', 'yes')" in found["environment"]
    assert "FutureWarning" in found["filters"].partition(")")[0]
    assert not [record for record in caplog.records if record.name == "tenant_q.process_state"]
    warnings.filters.pop(0)
    warnings._filters_mutated()


def test_a_worker_is_replaced_once_for_each_function_and_cause(tenants, mscluster):
    """Over all workers of a cluster, those included that took a place since."""
    cluster = mscluster("--workers", "2")
    for _ in range(6):
        first = cluster.wait_for_workers()
        pids = []
        for _ in range(2):
            id = QUtilities.add_async_task(f"{LEAVING}.give_up_a_right", schema_name="acme_corp")
            pids.append(QUtilities.get_result(id, wait=30_000, schema_name="acme_corp"))
        assert set(pids) <= {*first, *cluster.wait_for_workers()}
    wait_until(lambda: get_broker().counts().open == 0)
    assert cluster.log.count("so the worker is replaced") == 1
    assert "goes on as it is" in cluster.log
    assert cluster.stop() == 0


def test_a_function_in_changing_company_has_no_worker_replaced_again_and_again(tenants, aside, monkeypatch):
    """Who of a batch's functions it was is not known, and there are many ways to put batches together."""
    process_state.share()
    monkeypatch.setattr(process_state, "_modules", 0)
    functions = [f"shop.tasks.task_{n}" for n in range(6)]
    replaced = 0
    for size in (2, 3, 4):
        for others in combinations(functions[1:], size - 1):
            monkeypatch.setattr(process_state, "_spoiled", False)
            monkeypatch.setattr(process_state, "_batches", process_state._Noted([UNDOABLE]))
            process_state._batches.note()
            for name in (functions[0], *others):
                process_state._in_batch[name] = {"func": name}
            CHANGED.append(name)
            process_state.restore_after_batch()
            replaced += process_state.is_spoiled()
    assert 1 <= replaced <= len(functions)


CHANGED: list[str] = []
UNDOABLE = Aspect("what cannot be put back", lambda: len(CHANGED), lambda _: None)


# Threads


@pytest.mark.seam
def test_no_thread_of_a_pool_stays_in_the_tenant_that_used_it(tenants, mscluster):
    cluster = mscluster("--workers", "1")

    def ask(schema: str, name: str, *args: object) -> object:
        id = QUtilities.add_async_task(f"tests.tasks_threads.{name}", *args, timeout=60, schema_name=schema)
        task = wait_until(lambda: QUtilities.fetch_task(id, schema_name=schema))
        assert task.success, task.result
        return task.result

    assert ask("acme_corp", "look") == ["public", "0"]
    assert ask("acme_corp", "set_a_limit") == ["public", "77777ms"]
    assert ask("globex_inc", "look") == ["public", "0"], "in a session of its own"
    assert ask("acme_corp", "stay", "acme_corp") == ["acme_corp", "0"]
    assert ask("globex_inc", "look") == "ImproperlyConfigured", "nobody has chosen a tenant"
    assert ask("acme_corp", "stay", "acme_corp") == ["acme_corp", "0"]
    assert ask("globex_inc", "look_in_executor") == "ImproperlyConfigured"
    assert ask("globex_inc", "look_in_a_thread") == ["public", "0"]
    assert ask("globex_inc", "look_in", "globex_inc") == ["globex_inc", "0"]
    ask("acme_corp", "leave_a_transaction")
    assert ask("globex_inc", "end_the_transaction") not in ("written", None)
    for name in (*tenants, "public"):
        with in_schema(name), connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('shop_order')")
            if cursor.fetchone()[0]:
                cursor.execute("SELECT count(*) FROM shop_order WHERE buyer = 'in a thread'")
                assert cursor.fetchone() == (0,)
    assert cluster.stop() == 0
