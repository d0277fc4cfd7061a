"""The real `mscluster`, as a subprocess: what an operator and a view see of it."""

from __future__ import annotations

import os
import random
import signal
from functools import partial

import pytest
from django.db import connection
from django_q.models import Schedule, Task

from tenant_q.brokers import get_broker
from tenant_q.custom import Chain, Iter
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until

WAIT = 30_000


@pytest.mark.seam
def test_tasks_run_in_the_schema_of_their_tenant(tenants, mscluster):
    mscluster()
    ids = {}
    for name in tenants:
        with in_schema(name):
            ids[name] = QUtilities.add_async_task("tests.tasks.where", hook="tests.tasks.hook")
    for name in tenants:
        found = QUtilities.get_result(ids[name], wait=WAIT, schema_name=name)
        assert (found["schema"], found["tenant"]) == (name, name)
        assert found["pk"] is not None, "connection.tenant is the tenant's real row"
        told = wait_until(partial(tasks.notes, f"hook:{ids[name]}"))
        assert told[0]["schema"] == name


@pytest.mark.seam
@pytest.mark.parametrize("own", ["", "shop"])
def test_the_sessions_of_a_cluster_have_its_name_or_that_of_the_project(tenants, mscluster, own):
    env = {"PGAPPNAME": own} if own else {}
    cluster = mscluster("--workers", "1", **env)
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.tasks.where")
        QUtilities.get_result(id, wait=WAIT)
    roles = {f"mscluster {cluster.name} {role}" for role in ("worker", "scheduler")}
    expected = {own} if own else roles
    wait_until(lambda: expected <= session_names(), what=f"sessions named {expected}")
    assert bool(roles & session_names()) is not bool(own)


def session_names() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.seam
def test_what_a_task_enqueues_stays_in_its_tenant(tenants, mscluster):
    mscluster()
    with in_schema("globex_inc"):
        QUtilities.add_async_task("tests.tasks.enqueue_another", f"{tenants}-ours")
        QUtilities.add_async_task("tests.tasks.plain_async_task", f"{tenants}-plain")
    for key in ("ours", "plain"):
        assert wait_until(partial(tasks.notes, f"{tenants}-{key}"))[0]["schema"] == "globex_inc"
        tasks.client().delete(f"note:{tenants}-{key}")


def test_a_thousand_tasks_of_twenty_tenants(tenants, mscluster):
    names = [f"many_{n:02}" for n in range(20)]
    schemas.clone_tenants(names)
    try:
        mscluster("--workers", "2")
        for name in names:
            with in_schema(name):
                QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1])
                for _ in range(50):
                    QUtilities.add_async_task("tests.tasks.where")
        wait_until(lambda: get_broker().counts().open == 0, 60, "every queue to be empty")
        for name in names:
            with in_schema(name):
                rows = Task.objects.filter(func="tests.tasks.where")
                assert rows.count() == 50
                assert {row.result["schema"] for row in rows} == {name}
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.django_q_task')")
            assert cursor.fetchone() == (None,)
    finally:
        for name in names:
            schemas.drop_tenant(name)


@pytest.mark.seam
def test_iter_and_chain_of_the_2020_package_through_a_cluster(tenants, mscluster):
    mscluster()
    numbers = [random.randrange(1, 30) * 0.75 for _ in range(1, 5)]
    with in_schema("acme_corp"):
        iter_id = QUtilities.add_async_tasks_from_iter("math.floor", numbers)
        chain = Chain()
        chain.append("math.pow", 12, 2)
        chain.append("math.floor", 12.93)
        chain.run()
        assert QUtilities.get_result(iter_id, wait=WAIT) == [int(number) for number in numbers]
        assert chain.result(wait=WAIT) == [144.0, 12]
        assert chain.current() == chain.length() == len(chain.fetch())


def test_cached_iter_and_chain_leave_no_row(tenants, mscluster):
    mscluster()
    with in_schema("acme_corp"):
        numbers = Iter("tests.tasks.add", [(n, n) for n in range(20)], cached=60)
        numbers.run()
        chain = Chain([("tests.tasks.add", (1, 1)), ("tests.tasks.add", (2, 2))], cached=True)
        chain.run()
        assert numbers.result(wait=WAIT) == [2 * n for n in range(20)]
        assert chain.result(wait=WAIT) == [2, 4]
        assert Task.objects.count() == 0
    with in_schema("globex_inc"):
        assert QUtilities.get_result(numbers.id, cached=True) is None
        assert QUtilities.get_result_group(chain.group, cached=True) is None


def test_a_chain_stops_at_a_link_that_fails(tenants, mscluster):
    mscluster()
    with in_schema("acme_corp"):
        chain = Chain([("tests.tasks.add", (1,)), ("tests.tasks.fail", ()), ("tests.tasks.add", (2,))])
        chain.run()
        failed = wait_until(lambda: QUtilities.get_group_count(chain.group, failures=True))
        wait_until(lambda: get_broker().counts().open == 0)
        assert failed == 1
        assert [task.success for task in chain.fetch()] == [True, False]


def test_process_titles_name_cluster_and_role(tenants, mscluster):
    cluster = mscluster("--workers", "3")
    found = wait_until(lambda: (p := cluster.processes()) and len(p) == 4 and len(p["worker"]) == 3 and p)
    assert {role: len(pids) for role, pids in found.items()} == {
        "parent": 1,
        "sentinel": 1,
        "scheduler": 1,
        "worker": 3,
    }


def test_the_start_is_told_in_one_block(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    for word in ("mscluster", cluster.name, "Valkey" if "Valkey" in cluster.log else "Redis", "PostgreSQL", "public"):
        assert word in cluster.log
    lines = dict(line.split(None, 1) for line in cluster.log.splitlines() if line.startswith("  "))
    assert lines["tenants"] == "3"
    assert lines["workers"] == "2"


def test_a_killed_worker_costs_nothing_but_time(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    key = cluster.name
    with in_schema("acme_corp"):
        held = QUtilities.add_async_task("tests.tasks.hold", key)
    (running,) = wait_until(lambda: tasks.notes(key))
    os.kill(running["pid"], signal.SIGKILL)
    wait_until(lambda: len(tasks.notes(key)) == 2, 5, "the task to start again")
    tasks.let_go(key)
    with in_schema("globex_inc"):
        other = QUtilities.add_async_task("tests.tasks.add", 1, 2)
    assert QUtilities.get_result(held, wait=WAIT, schema_name="acme_corp") == "run 2"
    assert QUtilities.get_result(other, wait=WAIT, schema_name="globex_inc") == 3
    task = QUtilities.fetch_task(held, schema_name="acme_corp")
    assert task.attempt_count == 2
    assert "was killed by SIGKILL" in cluster.log
    assert cluster.stop() == 0


def test_a_task_that_kills_its_worker_is_given_up(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    key = cluster.name
    with in_schema("acme_corp"):
        others = [QUtilities.add_async_task("tests.tasks.add", n) for n in range(5)]
        killer = QUtilities.add_async_task("tests.tasks.kill_worker", key, q_options={"max_deliveries": 2})
        task = QUtilities.fetch_task(killer, wait=WAIT)
        assert not task.success
        assert task.result.startswith("WorkerDied: the worker process died 2 times")
        assert task.attempt_count == 2
        assert [QUtilities.get_result(id, wait=WAIT) for id in others] == list(range(5))
        assert {QUtilities.fetch_task(id).attempt_count for id in others} == {1}
    assert len(tasks.notes(key)) == 2


def test_every_death_leaves_a_row(tenants, mscluster):
    mscluster("--workers", "2")
    with in_schema("acme_corp"):
        deaths = {
            "ValueError": QUtilities.add_async_task("tests.tasks.fail", save=False),
            "TaskExited": QUtilities.add_async_task("tests.tasks.exit_now"),
            "UnpicklableResult": QUtilities.add_async_task("tests.tasks.unpicklable"),
            "UnknownFunction": QUtilities.add_async_task("tests.tasks.no_such_function"),
            "TaskTimeout": QUtilities.add_async_task("tests.tasks.sleep", 60, timeout=1),
        }
        for death, id in deaths.items():
            task = QUtilities.fetch_task(id, wait=WAIT)
            assert not task.success
            assert death in task.result


def test_a_task_that_ignores_its_timeout_is_killed(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.tasks.ignore_timeout", cluster.name, timeout=1)
        task = QUtilities.fetch_task(id, wait=WAIT)
    assert "TaskTimeout" in task.result
    assert len(tasks.notes(cluster.name)) == 1, "it is not run again"


def test_a_long_task_keeps_its_lease(tenants, mscluster):
    """A task of five leases, with a second cluster that would take it over."""
    name = tenants
    first = mscluster("--workers", "1", TEST_TENANT_Q='{"lease": 1}')
    mscluster("--workers", "1", TEST_TENANT_Q='{"lease": 1}', wait=False)
    with in_schema(name[0]):
        id = QUtilities.add_async_task("tests.tasks.sleep", 5)
        assert QUtilities.get_result(id, wait=WAIT) == 5
        assert QUtilities.fetch_task(id).attempt_count == 1
    assert "leases ran out" not in first.log


@pytest.mark.seam
def test_a_tenant_created_meanwhile_is_served(tenants, mscluster):
    mscluster()
    with in_schema("acme_corp"):
        QUtilities.get_result(QUtilities.add_async_task("tests.tasks.add", 1), wait=WAIT)
    schemas.make_tenant("late_comer")
    try:
        with in_schema("late_comer"):
            id = QUtilities.add_async_task("tests.tasks.where")
            QUtilities.create_schedule("tests.tasks.add", 4, 5, name="soon")
            assert QUtilities.get_result(id, wait=WAIT)["schema"] == "late_comer"
            assert QUtilities.get_result_group("soon", wait=WAIT) == [9]
    finally:
        schemas.drop_tenant("late_comer")


@pytest.mark.seam
def test_schedules_run_in_each_tenant_but_the_excluded(tenants, mscluster):
    for name in tenants:
        with in_schema(name):
            QUtilities.create_schedule("tests.tasks.where", name="where", schedule_type=Schedule.DAILY)
            QUtilities.create_schedule("tests.tasks.add", 1, name="bad")
            Schedule.objects.filter(name="bad").update(args="1, open('x')")
    mscluster(TEST_EXCLUDED='["public", "initech_llc"]')
    for name in ("acme_corp", "globex_inc"):
        with in_schema(name):
            assert QUtilities.get_result_group("where", wait=WAIT)[0]["schema"] == name
            (failed,) = QUtilities.fetch_task_group("bad", wait=WAIT)
            assert not failed.success
            assert "'bad'" in failed.result
    with in_schema("initech_llc"):
        assert Task.objects.count() == 0
        assert Schedule.objects.count() == 2
