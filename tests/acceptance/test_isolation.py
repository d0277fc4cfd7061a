"""Thousands of tasks of a hundred tenants, interleaved over four workers, none in another's place.

`make chaos` has ten thousand of them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.db import connection

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until

TENANTS, TASKS = 100, 100 if os.environ.get("CHAOS") == "long" else 25


@pytest.fixture
def crowd(tenants):
    """A hundred tenants, each with a table that holds one row only it has."""
    names = [f"crowd_{n:03}" for n in range(TENANTS)]
    schemas.clone_tenants(names)
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE TABLE \"{name}\".only_here AS SELECT '{name}' AS name")
    yield names
    for name in names:
        schemas.drop_tenant(name)


def test_no_crossing(crowd, mscluster):
    cluster = mscluster("--workers", "4")
    iters = {}
    for name in crowd:
        with in_schema(name):
            iters[name] = QUtilities.add_async_tasks_from_iter("tests.tasks.assert_own_place", [name] * TASKS)
    wait_until(lambda: get_broker().counts().open == 0, 600, "all tasks to be done")
    for name, id in iters.items():
        with in_schema(name):
            task = QUtilities.fetch_task(id)
            assert task.success, task.result
            assert task.result == [name] * TASKS
            assert schemas.count_tasks(name) == 1
    assert cluster.stop() == 0


@pytest.mark.seam
def test_equal_names_never_meet(tenants, mscluster):
    """The same schedule, group, task name and iter in two tenants, in tables and in the cache."""
    mscluster()
    pair = tenants[:2]
    iters = {}
    for name in pair:
        with in_schema(name):
            for cached in (False, 60):
                words: dict[str, Any] = {"group": "same", "task_name": "same", "cached": cached}
                QUtilities.add_async_task("tests.tasks.note_where", f"{get_broker().cluster}", **words)
                iters[name, cached] = QUtilities.add_async_tasks_from_iter(
                    "tests.tasks.own_schema", [(), ()], cached=cached
                )
            QUtilities.create_schedule("tests.tasks.own_schema", name="same-schedule")
    wait_until(lambda: get_broker().counts().open == 0)
    for name in pair:
        with in_schema(name):
            assert QUtilities.get_result("same", wait=20_000)["schema"] == name
            for cached in (False, True):
                (one,) = QUtilities.get_result_group("same", wait=20_000, cached=cached)
                assert one["schema"] == name
                assert QUtilities.get_group_count("same", cached=cached) == 1
            assert QUtilities.get_result_group("same-schedule", wait=20_000) == [name]
    (first, second) = pair
    for cached in (False, 60):
        id = iters[first, cached]
        assert QUtilities.get_result(id, cached=bool(cached), schema_name=first) == [first, first]
        for ask in (QUtilities.get_result, QUtilities.fetch_task):
            assert ask(id, cached=bool(cached), schema_name=second) is None
    with in_schema(second):
        QUtilities.delete_task_group("same", tasks=True)
        QUtilities.delete_task_group("same", cached=True)
        assert not QUtilities.delete_task_from_cache(iters[first, 60])
    with in_schema(first):
        assert QUtilities.get_group_count("same") == 1
        assert QUtilities.get_group_count("same", cached=True) == 1
        assert QUtilities.get_result(iters[first, 60], cached=True) == [first, first]
