"""Servers go away and come back under a running cluster."""

from __future__ import annotations

import time

import pytest
from django.db import connections
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until

WAIT = 30_000


@pytest.fixture
def postgres(servers):
    if "postgres" not in servers._owned:
        pytest.skip("the PostgreSQL that DATABASE_URL names is not ours to kill")
    yield servers
    connections.close_all()
    if not servers._postgres_answers():
        servers.start_postgres()


def test_postgres_is_killed_and_comes_back(tenants, mscluster, postgres):
    cluster = mscluster("--workers", "2")
    with in_schema("acme_corp"):
        held = QUtilities.add_async_task("tests.tasks.hold", cluster.name)
        wait_until(lambda: tasks.notes(cluster.name))
        ids = [QUtilities.add_async_task("tests.tasks.add", n) for n in range(50)]
    postgres.kill_postgres()
    connections.close_all()
    tasks.let_go(cluster.name)
    wait_until(lambda: "waits, nothing is lost" in cluster.log, what="the outage to be logged")
    pids = cluster.pids("worker")
    postgres.start_postgres()
    with in_schema("acme_corp"):
        assert QUtilities.get_result(held, wait=WAIT) == "run 1"
        assert [QUtilities.get_result(id, wait=WAIT) for id in ids] == list(range(50))
    assert cluster.pids("worker") == pids, "no process was lost over it"
    assert len(tasks.notes(cluster.name)) == 1
    lines = [line for line in cluster.log.splitlines() if "waits, nothing is lost" in line]
    assert len(lines) <= 3, "each process tells it once"


def test_every_backend_is_terminated(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    with in_schema("acme_corp"):
        ids = [QUtilities.add_async_task("tests.tasks.where") for _ in range(20)]
        assert all(QUtilities.get_result(id, wait=WAIT) for id in ids)
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        ids = [QUtilities.add_async_task("tests.tasks.where") for _ in range(20)]
        assert all(QUtilities.get_result(id, wait=WAIT)["schema"] == "acme_corp" for id in ids)
        assert set(Task.objects.values_list("success", "attempt_count")) == {(True, 1)}
    assert cluster.stop() == 0


def test_a_broker_that_refuses_is_told_once(tenants, mscluster):
    """By each process, and that it is back by each as well."""
    cluster = mscluster("--workers", "2")
    client = tasks.client()
    client.execute_command("ACL", "SETUSER", "default", "-evalsha")
    try:
        wait_until(lambda: cluster.log.count("The worker waits, nothing is lost") == 2, what="the outage to be logged")
        wait_until(lambda: "goes on without the broker" in cluster.log)
        time.sleep(3)
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+evalsha")
    with in_schema("acme_corp"):
        assert QUtilities.get_result(QUtilities.add_async_task("tests.tasks.add", 1), wait=WAIT) == 1
    wait_until(lambda: "The sentinel has the broker again" in cluster.log)
    assert cluster.log.count("goes on without the broker") == 1
    assert cluster.log.count("The worker waits, nothing is lost") == 2
    assert cluster.stop() == 0


def test_the_broker_is_away_for_a_while(tenants, mscluster):
    """Longer than a lease: what runs meanwhile is not run again."""
    cluster = mscluster("--workers", "2", TEST_TENANT_Q='{"lease": 1}')
    with in_schema("acme_corp"):
        held = QUtilities.add_async_task("tests.tasks.sleep", 1.5)
        wait_until(lambda: get_broker().counts().leased == 1)
        tasks.client().client_pause(4000)
        assert QUtilities.get_result(held, wait=WAIT) == 1.5
        wait_until(lambda: get_broker().counts().open == 0)
        assert QUtilities.fetch_task(held).attempt_count == 1
        assert QUtilities.get_result(QUtilities.add_async_task("tests.tasks.add", 1), wait=WAIT) == 1
    assert "leases ran out" not in cluster.log
    assert cluster.stop() == 0
