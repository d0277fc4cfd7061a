"""Coroutines of one thread share its connections: which tenant is current is not known there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection
from django.utils import timezone
from django_q import tasks as django_q_tasks
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.exceptions import InEventLoop, NoTenant, TenantQError
from tenant_q.logging import TenantFilter
from tenant_q.schedules import by_hand
from tenant_q.tenancy import in_schema
from tenant_q.tenancy.cache import tenant_cache
from tenant_q.utils import QUtilities
from tests.integration.conftest import work

ACME, GLOBEX, INITECH = "acme_corp", "globex_inc", "initech_llc"
WHERE = "tests.tasks.where"
pytestmark = pytest.mark.seam


def in_loop(call: Callable[[], Any]) -> Any:
    """Call a function in a coroutine, in this thread, whose connection is open."""

    async def main() -> Any:
        return call()

    return asyncio.run(main())


def places() -> dict[str, list[str]]:
    """Where each tenant's tasks ran."""
    found = {}
    for name in (ACME, GLOBEX, INITECH):
        with in_schema(name):
            results = Task.objects.filter(func=WHERE).values_list("result", flat=True)
            parts = [part for result in results for part in (result if isinstance(result, list) else [result])]
            found[name] = [part["schema"] for part in parts]
    return found


def test_two_coroutines_never_swap_their_tenants(tenants, worker):
    with in_schema(INITECH):
        Task.objects.count()
    refused = []

    async def enqueue(schema: str, before: float, within: float) -> None:
        await asyncio.sleep(before)
        try:
            with in_schema(schema):
                await asyncio.sleep(within)
                QUtilities.add_async_task(WHERE, q_options={"task_name": f"for {schema}"})
        except InEventLoop as error:
            refused.append(str(error))

    async def both() -> None:
        await asyncio.gather(enqueue(ACME, 0, 0.05), enqueue(GLOBEX, 0.01, 0.1))

    asyncio.run(both())
    work(worker)
    for name in tenants:
        with in_schema(name):
            assert set(Task.objects.values_list("name", flat=True)) <= {f"for {name}"}
    assert len(refused) == 2
    assert all("asgiref.sync.sync_to_async" in text and "in_schema" in text for text in refused)
    assert connection.schema_name == tenancy.public_schema()


CALLS: dict[str, Callable[[], Any]] = {
    "add_async_task": lambda: QUtilities.add_async_task(WHERE),
    "add_async_task for a tenant": lambda: QUtilities.add_async_task(WHERE, schema_name=ACME),
    "add_async_task, sync": lambda: QUtilities.add_async_task(WHERE, schema_name=ACME, sync=True),
    "create_schedule": lambda: QUtilities.create_schedule(WHERE, schema_name=ACME),
    "get_result": lambda: QUtilities.get_result("x" * 32),
    "get_result for a tenant": lambda: QUtilities.get_result("x" * 32, schema_name=ACME),
    "get_result, cached": lambda: QUtilities.get_result("x" * 32, cached=True),
    "fetch_task": lambda: QUtilities.fetch_task("x" * 32),
    "get_result_group": lambda: QUtilities.get_result_group("g"),
    "fetch_task_group": lambda: QUtilities.fetch_task_group("g"),
    "get_group_count": lambda: QUtilities.get_group_count("g"),
    "delete_task_group": lambda: QUtilities.delete_task_group("g"),
    "delete_task_from_cache": lambda: QUtilities.delete_task_from_cache("x" * 32),
    "get_queue_size": lambda: QUtilities.get_queue_size(),
    "get_queue_size of a tenant": lambda: QUtilities.get_queue_size(schema_name=ACME),
    "get_status": lambda: QUtilities.get_status("x" * 32),
    "cancel": lambda: QUtilities.cancel("x" * 32),
    "get_progress": lambda: QUtilities.get_progress("x" * 32),
    "add_async_tasks_from_iter": lambda: QUtilities.add_async_tasks_from_iter(WHERE, [()]),
    "create_async_tasks_chain": lambda: QUtilities.create_async_tasks_chain([(WHERE, ())]),
    "Iter": lambda: Iter(WHERE, [()]).run(),
    "Chain": lambda: Chain([(WHERE, ())]).run(),
    "AsyncTask": lambda: AsyncTask(WHERE).run(),
    "Django-Q2's async_task": lambda: django_q_tasks.async_task(WHERE),
    "Django-Q2's async_iter": lambda: django_q_tasks.async_iter(WHERE, [()]),
    "Django-Q2's schedule": lambda: django_q_tasks.schedule(WHERE),
    "Django-Q2's result": lambda: django_q_tasks.result("x" * 32),
    "Django-Q2's result, cached": lambda: django_q_tasks.result("x" * 32, cached=True),
    "in_schema": lambda: in_schema(ACME).__enter__(),
    "in_public": lambda: tenancy.in_public().__enter__(),
    "in_verified_schema": lambda: tenancy.in_verified_schema(ACME).__enter__(),
    "enter": lambda: tenancy.enter(ACME),
    "current_schema": lambda: tenancy.current_schema(),
    "task_schema": lambda: tenancy.task_schema(),
    "get_tenant": lambda: (tenancy.forget_tenants(), tenancy.get_tenant(ACME)),
    "policies.change": lambda: policies.change(ACME, actor="me", act="pause", paused=True),
    "policies.policy_of": lambda: policies.policy_of(ACME),
    "by_hand.pause": lambda: by_hand.pause(1, actor="me"),
    "TenantCache": lambda: tenant_cache().get("x"),
}


# Django itself does.
DJANGO_REFUSES = ("Django-Q2's schedule", "Django-Q2's result", "by_hand.pause")


@pytest.mark.parametrize("name", CALLS)
def test_every_call_refuses_in_a_running_event_loop(tenants, name):
    with in_schema(GLOBEX):
        Task.objects.count()  # the connection is open, and set to a tenant
        with pytest.raises(SynchronousOnlyOperation) as caught:
            in_loop(CALLS[name])
    if name not in DJANGO_REFUSES:
        assert isinstance(caught.value, InEventLoop) and isinstance(caught.value, TenantQError)
        assert "asgiref.sync.sync_to_async" in str(caught.value)
    assert get_broker().counts().open == 0
    for schema in tenants:
        with in_schema(schema):
            assert not Task.objects.exists() and not Schedule.objects.exists()
    assert not policies.is_paused(ACME)


def test_django_allow_async_unsafe_allows_it(tenants, worker, monkeypatch):
    """As Django does, for notebooks."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

    def enqueue() -> None:
        with in_schema(ACME):
            QUtilities.add_async_task(WHERE)

    in_loop(enqueue)
    work(worker)
    assert places() == {ACME: [ACME], GLOBEX: [], INITECH: []}


def test_sync_to_async_is_the_way_out(tenants, worker):
    def enqueue(schema: str) -> None:
        with in_schema(schema):
            QUtilities.add_async_task(WHERE)

    async def main() -> None:
        await asyncio.gather(*(sync_to_async(enqueue)(name) for name in (ACME, GLOBEX) * 5))

    async_to_sync(main)()
    work(worker)
    assert places() == {ACME: [ACME] * 5, GLOBEX: [GLOBEX] * 5, INITECH: []}


# In a task its package names the tenant


async def enqueue_everywhere(key: str) -> str:
    """Enqueue in the coroutine, in parts of it that run at once, and in a thread for synchronous code."""

    async def part(n: int) -> None:
        await asyncio.sleep(0.001 * n)
        QUtilities.add_async_task(WHERE)
        await asyncio.sleep(0.001)
        django_q_tasks.async_task(WHERE)

    QUtilities.add_async_task(WHERE)
    django_q_tasks.async_task(WHERE)
    await asyncio.gather(part(3), part(1), part(2))
    await sync_to_async(QUtilities.add_async_task)(WHERE)
    QUtilities.create_async_tasks_chain([(WHERE, ()), (WHERE, ())])
    QUtilities.add_async_tasks_from_iter(WHERE, [(), ()])
    AsyncTask(WHERE).run()
    assert QUtilities.get_queue_size() > 0
    QUtilities.set_progress(0.5)
    return key


async def address(schema: str) -> str:
    return QUtilities.add_async_task(WHERE, schema_name=schema)


async def enqueue_on_commit() -> str:
    return QUtilities.add_async_task(WHERE, q_options={"on_commit": True})


async def enter_a_schema(schema: str) -> None:
    with in_schema(schema):
        QUtilities.add_async_task(WHERE)


def hand_a_schema_to_a_coroutine(schema: str) -> None:
    with in_schema(schema):
        async_to_sync(address_the_current)()
    async_to_sync(address_the_current)()


def hand_public_to_a_coroutine() -> None:
    with tenancy.in_public():
        async_to_sync(address_the_current)()


async def address_the_current() -> str:
    return QUtilities.add_async_task(WHERE)


def run(worker: Any, schema: str, func: Any, *args: Any) -> Task:
    with in_schema(schema):
        id = QUtilities.add_async_task(f"{func.__module__}.{func.__name__}", *args)
    work(worker)
    with in_schema(schema):
        return Task.objects.get(id=id)


def test_what_an_asynchronous_task_enqueues_is_its_tenants(tenants, worker):
    with in_schema(ACME):
        QUtilities.add_async_task(f"{__name__}.enqueue_everywhere", "acme")
    with in_schema(GLOBEX):
        QUtilities.add_async_task(f"{__name__}.enqueue_everywhere", "globex")
    work(worker)
    for name in (ACME, GLOBEX):
        with in_schema(name):
            assert not list(Task.objects.filter(success=False).values_list("result", flat=True))
    assert places() == {ACME: [ACME] * 14, GLOBEX: [GLOBEX] * 14, INITECH: []}


def test_an_asynchronous_task_may_name_its_own_tenant(tenants, worker):
    assert run(worker, ACME, address, ACME).success
    assert places() == {ACME: [ACME], GLOBEX: [], INITECH: []}


def test_an_asynchronous_task_reaches_no_other_tenant_by_a_coroutine(tenants, worker):
    assert "InEventLoop" in run(worker, ACME, address, GLOBEX).result
    assert "InEventLoop" in run(worker, ACME, enter_a_schema, GLOBEX).result
    assert "InEventLoop" in run(worker, ACME, enqueue_on_commit).result
    assert places() == {ACME: [], GLOBEX: [], INITECH: []}


def test_a_coroutine_of_a_block_in_another_schema_is_in_that(tenants, worker):
    assert run(worker, ACME, hand_a_schema_to_a_coroutine, GLOBEX).success
    assert places() == {ACME: [ACME], GLOBEX: [GLOBEX], INITECH: []}


def test_a_coroutine_of_a_block_in_public_has_no_tenant(tenants, worker):
    assert NoTenant.__name__ in run(worker, ACME, hand_public_to_a_coroutine).result
    assert places() == {ACME: [], GLOBEX: [], INITECH: []}


def test_log_records_of_a_coroutine_name_no_wrong_tenant(tenants):
    """The thread's connection may be set to another coroutine's tenant."""

    def labelled() -> Any:
        record = logging.LogRecord("x", logging.INFO, __file__, 1, "text", None, None)
        TenantFilter().filter(record)
        return record

    with in_schema(ACME):
        assert labelled().schema == ACME
        assert in_loop(labelled).schema == "-"


def test_a_schedule_runs_an_asynchronous_task_in_its_tenant(tenants, worker, scheduler):
    with in_schema(GLOBEX):
        QUtilities.create_schedule(
            f"{__name__}.address_the_current", next_run=timezone.now() - timedelta(seconds=1), schedule_type="O"
        )
    scheduler.tick()
    work(worker)
    assert places() == {ACME: [], GLOBEX: [GLOBEX], INITECH: []}
