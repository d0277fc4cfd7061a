"""Coroutines enqueue and read for the tenant that they have entered, however they are interleaved."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import threading
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connection
from django_q.models import Task

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.redis.part import Part
from tenant_q.exceptions import InEventLoop, NoTenant, TaskFailed, UnknownTenant, WrongArgument
from tenant_q.lifecycle import push
from tenant_q.states import State
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks_declared
from tests.integration.conftest import work
from tests.integration.test_async import ACME, GLOBEX, INITECH, WHERE, places, run

pytestmark = pytest.mark.seam


def own(schema: str) -> dict[str, Any]:
    return {"task_name": f"for {schema}"}


def names(schema: str) -> list[str]:
    with in_schema(schema):
        return list(Task.objects.values_list("name", flat=True))


async def pause() -> None:
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)


async def enqueue_in(schema: str, times: int) -> None:
    """Enqueue in the schema, in several ways, with pauses in which other coroutines run."""
    await pause()
    async with in_schema(schema):
        for _ in range(times):
            await pause()
            await QUtilities.aadd_async_task(WHERE, q_options=own(schema))
            await pause()
            await tasks_declared.plain.using(**own(schema)).aenqueue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(QUtilities.aadd_async_task(WHERE, q_options=own(schema)))
    with contextlib.suppress(InEventLoop):
        await QUtilities.aadd_async_task(WHERE, q_options=own("nobody"))


EACH = 25


async def by_gather() -> None:
    await asyncio.gather(*(enqueue_in(schema, 2) for schema in (ACME, GLOBEX, INITECH) * EACH))


async def by_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        for schema in (ACME, GLOBEX, INITECH) * EACH:
            group.create_task(enqueue_in(schema, 2))


async def in_requests() -> None:
    """Each request of an ASGI server has a thread of its own for synchronous code."""

    async def request(schema: str) -> None:
        async with ThreadSensitiveContext():
            await enqueue_in(schema, 2)
            await sync_to_async(lambda: connection.close())()

    for _ in range(EACH):
        await asyncio.gather(*(request(schema) for schema in (ACME, GLOBEX, INITECH)))


@pytest.mark.parametrize("together", [by_gather, by_task_group, in_requests])
@pytest.mark.parametrize("start", [async_to_sync, lambda main: lambda: asyncio.run(main())], ids=["asgiref", "asyncio"])
def test_each_task_goes_to_the_tenant_of_its_coroutine(tenants, worker, together, start):
    start(together)()
    work(worker)
    for schema in tenants:
        assert set(names(schema)) == {f"for {schema}"}, f"{schema} has the tasks of others"
        assert len(names(schema)) == EACH * 5
    assert {name: set(found) for name, found in places().items()} == {name: {name} for name in tenants}
    assert connection.schema_name == tenancy.public_schema()


async def finish(schema: str, worker: Any) -> tuple[Any, State, State]:
    async with in_schema(schema):
        id = await QUtilities.aadd_async_task("tests.tasks.add", 1, 2)
        before = await QUtilities.aget_status(id)
        await sync_to_async(work)(worker)
        return await QUtilities.aget_result(id), before, await QUtilities.aget_status(id)


def test_a_coroutine_follows_its_task(tenants, worker):
    assert async_to_sync(finish)(ACME, worker) == (3, State.QUEUED, State.SUCCESS)


def test_a_coroutine_cancels_only_its_own_tenants_task(tenants, worker):
    async def cancel() -> tuple[bool, bool, str, State]:
        async with in_schema(ACME):
            id = await QUtilities.aadd_async_task(WHERE)
            other = await QUtilities.acancel(id, schema_name=GLOBEX)
            async with in_schema(GLOBEX):
                other = other or await QUtilities.acancel(id)
            return other, await QUtilities.acancel(id, by="ann"), id, await QUtilities.aget_status(id)

    other, own, id, state = async_to_sync(cancel)()
    assert (other, own, state) == (False, True, State.CANCELLED)
    work(worker)
    assert "cancelled by ann" in QUtilities.get_result(id, schema_name=ACME)


def test_a_result_of_another_tenant_is_not_there(tenants, worker):
    id = QUtilities.add_async_task("tests.tasks.add", 1, 2, schema_name=ACME)
    work(worker)

    async def read() -> list[Any]:
        async with in_schema(GLOBEX):
            return [await QUtilities.aget_result(id), await QUtilities.aget_result(id, schema_name=ACME)]

    assert async_to_sync(read)() == [None, 3]


def test_a_coroutine_raises_the_failure_of_its_task(tenants, worker):
    failed = QUtilities.add_async_task("tests.tasks.fail", "no", schema_name=ACME)
    good = QUtilities.add_async_task("tests.tasks.add", 1, 2, schema_name=ACME)
    work(worker)

    async def read(id: str) -> Any:
        async with in_schema(ACME):
            return await QUtilities.aget_result(id, raise_failure=True)

    assert async_to_sync(read)(good) == 3
    with pytest.raises(TaskFailed, match="no"):
        async_to_sync(read)(failed)


def test_asynchronous_calls_have_the_arguments_of_the_others():
    for name in ("add_async_task", "get_result", "get_status", "cancel"):
        here, there = (inspect.signature(getattr(QUtilities, one)).parameters for one in (name, f"a{name}"))
        assert list(here) == list(there), name


def test_waiting_for_a_result_lets_others_run(tenants, worker):
    """Also those that need the thread for synchronous code."""

    async def both() -> Any:
        async with in_schema(ACME):
            id = await QUtilities.aadd_async_task("tests.tasks.add", 1, 2)
            waiting = asyncio.create_task(QUtilities.aget_result(id, wait=60_000))
            await asyncio.sleep(0)
            assert await QUtilities.aget_status(id) == State.QUEUED
            await sync_to_async(work)(worker)
            return await waiting

    assert async_to_sync(both)() == 3


CALLS = {
    "aadd_async_task": lambda **to: QUtilities.aadd_async_task(WHERE, **to),
    "aget_result": lambda **to: QUtilities.aget_result("x" * 32, **to),
    "aget_status": lambda **to: QUtilities.aget_status("x" * 32, **to),
    "acancel": lambda **to: QUtilities.acancel("x" * 32, **to),
    "aenqueue": lambda **to: tasks_declared.plain.using(**to).aenqueue(1),
}


async def call(name: str, **to: str) -> Any:
    return await CALLS[name](**to)


@pytest.mark.parametrize("name", CALLS)
def test_a_coroutine_without_a_tenant_is_refused(tenants, name):
    with in_schema(GLOBEX), pytest.raises(InEventLoop, match=r"async with in_schema.*schema_name=") as caught:
        Task.objects.count()  # the connection is open, and set to a tenant
        async_to_sync(call)(name)
    assert name in str(caught.value)
    assert get_broker().counts().open == 0


@pytest.mark.parametrize("name", CALLS)
def test_a_coroutine_may_name_the_tenant(tenants, name):
    async_to_sync(call)(name, schema_name=ACME)
    with pytest.raises(UnknownTenant):
        async_to_sync(call)(name, schema_name="nobody")


def test_a_block_ends_with_its_schema(tenants, worker):
    async def nested() -> None:
        async with in_schema(ACME):
            async with in_schema(GLOBEX):
                await QUtilities.aadd_async_task(WHERE)
            await QUtilities.aadd_async_task(WHERE)
            with contextlib.suppress(ZeroDivisionError):
                async with in_schema(INITECH):
                    raise ZeroDivisionError
            await QUtilities.aadd_async_task(WHERE)
        with pytest.raises(InEventLoop):
            await QUtilities.aadd_async_task(WHERE)

    async_to_sync(nested)()
    work(worker)
    assert places() == {ACME: [ACME] * 2, GLOBEX: [GLOBEX], INITECH: []}


def test_a_coroutine_that_a_block_started_stays_in_it(tenants, worker):
    async def main() -> None:
        started = asyncio.Event()

        async def later() -> None:
            await started.wait()
            await QUtilities.aadd_async_task(WHERE)

        async with in_schema(ACME):
            task = asyncio.create_task(later())
        async with in_schema(GLOBEX):
            started.set()
            await task

    async_to_sync(main)()
    work(worker)
    assert places() == {ACME: [ACME], GLOBEX: [], INITECH: []}


def test_a_block_switches_no_connection(tenants):
    async def schemas() -> list[str]:
        async with in_schema(ACME):
            return [await sync_to_async(tenancy.current_schema)()]

    with in_schema(GLOBEX):
        assert async_to_sync(schemas)() == [GLOBEX]
        assert connection.schema_name == GLOBEX


def test_synchronous_code_in_a_block_never_guesses_between_two_tenants(tenants, worker):
    """The connection of a request's thread has the tenant of the request."""

    def enter_and_enqueue() -> None:
        with in_schema(GLOBEX):
            QUtilities.add_async_task(WHERE)

    async def main() -> None:
        async with in_schema(ACME):
            with pytest.raises(NoTenant, match=r"'acme_corp'.*'initech_llc'"):
                await sync_to_async(QUtilities.add_async_task)(WHERE)
            await sync_to_async(QUtilities.add_async_task)(WHERE, schema_name=ACME)
            await sync_to_async(enter_and_enqueue)()
        async with in_schema(INITECH):
            await sync_to_async(QUtilities.add_async_task)(WHERE)

    with in_schema(INITECH):
        async_to_sync(main)()
    work(worker)
    assert places() == {ACME: [ACME], GLOBEX: [GLOBEX], INITECH: [INITECH]}


def test_a_block_that_is_left_elsewhere_is_refused(tenants):
    """As the finalizer of an asynchronous generator is, if a coroutine does not exhaust it."""

    async def main() -> None:
        block = in_schema(ACME)
        await asyncio.create_task(block.__aenter__())
        async with in_schema(GLOBEX):
            with pytest.raises(InEventLoop, match="another coroutine"):
                await block.__aexit__(None, None, None)
            assert await QUtilities.aget_status("x" * 32) == State.UNKNOWN

    async_to_sync(main)()


def test_one_block_object_is_not_shared(tenants):
    async def main() -> None:
        block = in_schema(ACME)
        async with block:
            with pytest.raises(WrongArgument, match="one block at a time"):
                await block.__aenter__()
        with pytest.raises(WrongArgument, match="switches no database"):
            await in_schema(ACME, ["replica"]).__aenter__()
        wrong: Any = 7
        for name, error in ((wrong, WrongArgument), ("nobody", UnknownTenant)):
            with pytest.raises(error):
                await in_schema(name).__aenter__()

    async_to_sync(main)()


def test_public_has_no_tasks(tenants):
    async def main() -> None:
        async with in_schema(tenancy.public_schema()):
            await QUtilities.aadd_async_task(WHERE)

    with pytest.raises(NoTenant):
        async_to_sync(main)()


@in_schema(GLOBEX)
async def decorated() -> str:
    return await QUtilities.aadd_async_task(WHERE)


@in_schema(ACME)
def decorated_too() -> str:
    return QUtilities.add_async_task(WHERE)


def test_it_decorates_functions_of_both_kinds(tenants, worker):
    async_to_sync(decorated)()
    decorated_too()
    work(worker)
    assert places() == {ACME: [ACME], GLOBEX: [GLOBEX], INITECH: []}


def test_an_error_names_the_asynchronous_form(tenants):
    async def enter() -> None:
        with in_schema(ACME):
            pass

    async def enqueue() -> None:
        QUtilities.add_async_task(WHERE)

    with pytest.raises(InEventLoop, match=r"async with in_schema\('acme_corp'\)"):
        async_to_sync(enter)()
    with pytest.raises(InEventLoop, match=r"QUtilities\.aadd_async_task"):
        async_to_sync(enqueue)()


def test_django_allow_async_unsafe_keeps_the_block(tenants, worker, monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

    async def main() -> None:
        with in_schema(GLOBEX):
            async with in_schema(ACME):
                QUtilities.add_async_task(WHERE)
                await QUtilities.aadd_async_task(WHERE)
            await QUtilities.aadd_async_task(WHERE)

    asyncio.run(main())
    work(worker)
    assert places() == {ACME: [ACME] * 2, GLOBEX: [GLOBEX], INITECH: []}


# In a task


async def enqueue_here_and_there(other: str) -> None:
    await QUtilities.aadd_async_task(WHERE)
    async with in_schema(other):
        await QUtilities.aadd_async_task(WHERE)
        QUtilities.add_async_task(WHERE)
        QUtilities.set_progress(0.5)
    await tasks_declared.plain.using(schema_name=other).aenqueue(1)
    QUtilities.add_async_task(WHERE)


def test_a_task_enqueues_for_its_tenant_and_for_others(tenants, worker):
    assert run(worker, ACME, enqueue_here_and_there, GLOBEX).success
    assert places() == {ACME: [ACME] * 2, GLOBEX: [GLOBEX] * 2, INITECH: []}
    assert len(names(GLOBEX)) == 3


def test_a_successor_of_the_tenant_gets_no_task_of_the_block(tenants, monkeypatch):
    """The block has found the tenant, not just its name."""
    sent = []
    monkeypatch.setattr(push, "push", lambda packages, **_: sent.extend(packages) or {})

    async def main() -> None:
        async with in_schema(ACME):
            await QUtilities.aadd_async_task(WHERE)
            await tasks_declared.plain.aenqueue(1)

    async_to_sync(main)()
    with in_schema(ACME):
        assert [package.task["tenant"] for package in sent] == [str(connection.tenant.pk)] * 2


def test_the_event_loop_makes_no_connection(tenants, monkeypatch):
    """Neither to PostgreSQL nor to Redis: they would block it."""
    threads = []
    original = Part._run
    monkeypatch.setattr(
        Part, "_run", lambda self, *a, **k: (threads.append(threading.get_ident()), original(self, *a, **k))[1]
    )

    async def main() -> int:
        async with in_schema(ACME):
            id = await QUtilities.aadd_async_task(WHERE)
            await QUtilities.aget_status(id)
            await QUtilities.aget_result(id)
            await QUtilities.acancel(id)
        return threading.get_ident()

    assert asyncio.run(main()) not in threads
    assert threads
