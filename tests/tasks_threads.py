"""Tasks of several tenants that use one pool of threads, which is the module's."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import connection, transaction

from tenant_q.tenancy import get_tenant, in_schema

POOL = ThreadPoolExecutor(max_workers=1)
BEGUN, GO_ON = threading.Event(), threading.Event()
_open: list[Future[str]] = []


def _look() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema(), current_setting('statement_timeout')")
        return list(cursor.fetchone())


def _stay(schema: str) -> list[Any]:
    connection.set_tenant(get_tenant(schema))
    return _look()


def _look_or_be_refused() -> Any:
    try:
        return _look()
    except Exception as error:
        return type(error).__name__


def _set_a_limit() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 77777")
    return _look()


def _look_in(schema: str) -> list[Any]:
    with in_schema(schema):
        return _look()


def _write_twice() -> str:
    from shop.models import Order

    try:
        with in_schema("acme_corp"), transaction.atomic():
            Order.objects.create(number=uuid.uuid4().hex, buyer="in a thread", amount=1)
            BEGUN.set()
            GO_ON.wait(60)
            Order.objects.create(number=uuid.uuid4().hex, buyer="in a thread", amount=1)
    except Exception as error:
        return type(error).__name__
    return "written"


def stay(schema: str) -> list[Any]:
    return POOL.submit(_stay, schema).result(30)


def look() -> Any:
    return POOL.submit(_look_or_be_refused).result(30)


def set_a_limit() -> list[Any]:
    return POOL.submit(_set_a_limit).result(30)


def look_in(schema: str) -> list[Any]:
    return POOL.submit(_look_in, schema).result(30)


async def look_in_executor() -> Any:
    return await asyncio.get_running_loop().run_in_executor(POOL, _look_or_be_refused)


async def look_in_a_thread() -> Any:
    return await asyncio.to_thread(_look_or_be_refused)


def leave_a_transaction() -> None:
    _open.append(POOL.submit(_write_twice))
    assert BEGUN.wait(30)


def end_the_transaction() -> str:
    GO_ON.set()
    return _open[0].result(30)
