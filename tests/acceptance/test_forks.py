"""The children that a tenant's task leaves use the database while other tenants' tasks run in that worker.

`make chaos` has twenty rounds of two thousand tasks.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.db import connection

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until
from tests.tasks_forking import WAYS

IS_LONG = os.environ.get("CHAOS") == "long"
ROUNDS, TASKS = (20, 1000) if IS_LONG else (2, 100)


@pytest.fixture
def orders(tenants):
    """No tenant has an order."""

    def truncate():
        with connection.cursor() as cursor:
            for name in tenants:
                cursor.execute(f'TRUNCATE "{name}".shop_order CASCADE')

    truncate()
    yield
    truncate()


@pytest.mark.seam
@pytest.mark.parametrize("nth", range(ROUNDS))
def test_children_of_a_task_cross_no_tenants(tenants, orders, mscluster, nth):
    forker, *others = tenants
    cluster = mscluster("--workers", "1")
    (worker,) = cluster.pids("worker")
    with in_schema(forker):
        forks = [QUtilities.add_async_task("tests.tasks_forking.leave_a_child", way) for way in WAYS]
    for id in forks:
        assert QUtilities.get_result(id, wait=60_000, schema_name=forker) == worker
    wait_until(lambda: len(_told("up")) == len(WAYS), 60, "the children to be there")
    iters = {}
    for name in others:
        with in_schema(name):
            iters[name] = QUtilities.add_async_tasks_from_iter("tests.tasks_forking.write_and_look", [name] * TASKS)
    wait_until(lambda: get_broker().counts().open == 0, 120 + TASKS, "the tasks to be done")
    assert not len(_told("ended"))
    tasks.client().set(f"stop:{get_broker().cluster}", 1, ex=3600)
    wait_until(lambda: len(_told("ended")) == len(WAYS), 60, "the children to have ended")
    assert not _told("crossed")
    written = {forker: len(WAYS) + sum(child["rows"] for child in _told("ended"))} | dict.fromkeys(others, TASKS)
    assert {name: _orders(name) for name in tenants} == {name: [(name, n)] for name, n in written.items()}
    for name, iter_id in iters.items():
        task = QUtilities.fetch_task(iter_id, schema_name=name)
        assert task.success, task.result
    assert all(child["rows"] for child in _told("ended"))
    wait_until(lambda: cluster.pids("worker") == [worker], 30, "the children to be gone, and no worker else")
    assert cluster.stop() == 0


def _told(what: str) -> list[dict[str, Any]]:
    return tasks.notes(f"{get_broker().cluster}:{what}")


def _orders(name: str) -> list[tuple[str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT buyer, count(*) FROM "{name}".shop_order GROUP BY buyer')
        return cursor.fetchall()
