"""What the tests of this folder share: what a task finds of the one before it, and what tasks and hooks leave behind.

Each test is a way in which one tenant's task, hook, receiver or table once reached another tenant's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.cluster.worker import Worker
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import know_as_short, redis_key, sql, work

LOOK = f"{__name__}.look"
SEEN: list[Any] = []


# What a task finds


def look() -> dict[str, Any]:
    """Return all of the session that another task, hook or receiver could have changed."""
    raw = connection.connection
    with psycopg.ClientCursor(raw) as cursor:  # before Django's, which sets the path anew
        raw_path = _values(cursor.execute("SELECT current_schemas(false)::text[]").fetchone())[0]
    found = {
        "raw_path": raw_path,
        "tenant": connection.schema_name,
        "status": raw.info.transaction_status.name,
        "autocommit": connection.get_autocommit(),
        "in_atomic_block": connection.in_atomic_block,
        "set_up_by": (
            raw.row_factory.__name__,
            raw.cursor_factory.__qualname__,
            raw.server_cursor_factory.__qualname__,
            raw.prepare_threshold,
        ),
        "wrappers": [wrapper.__name__ for wrapper in connection.execute_wrappers],
        "timer": signal.getitimer(signal.ITIMER_REAL)[0],
        "alarm": signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN),
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_schemas(false)::text[], current_user = session_user, current_setting('statement_timeout'), "
            "current_setting('lock_timeout'), (SELECT count(*) FROM pg_prepared_statements), current_setting('role')"
        )
        names = ("path", "is_own_user", "statement_timeout", "lock_timeout", "prepared", "role")
        found |= zip(names, cursor.fetchone(), strict=True)
    return found | look_in_transaction()


def _values(row: Any) -> list[Any]:
    """Return the values of a row, whatever the row factory."""
    return list(row.values() if isinstance(row, dict) else row)


def look_in_transaction() -> dict[str, Any]:
    with transaction.atomic(), connection.cursor() as cursor:
        names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        return dict(zip(names, cursor.fetchone(), strict=True))


def clean(name: str) -> dict[str, Any]:
    """Return what `look()` shall find in a task of the tenant `name`."""
    fresh = connections.create_connection("default")
    fresh.ensure_connection()
    raw = fresh.connection
    fresh.close()
    return {
        "raw_path": [tenancy.physical_schema(name), "public"],
        "tenant": name,
        "status": "IDLE",
        "autocommit": True,
        "in_atomic_block": False,
        "set_up_by": (
            raw.row_factory.__name__,
            raw.cursor_factory.__qualname__,
            raw.server_cursor_factory.__qualname__,
            None,
        ),
        "wrappers": [],
        "timer": 0.0,
        "alarm": True,
        "path": [tenancy.physical_schema(name), "public"],
        "is_own_user": True,
        "statement_timeout": "0",
        "lock_timeout": "0",
        "prepared": 0,
        "role": "none",
        "transaction_isolation": "read committed",
        "transaction_read_only": "off",
        "transaction_deferrable": "off",
    }


# Fixtures


@pytest.fixture(autouse=True)
def nothing_seen(tenants: tuple[str, ...], settings: Any) -> None:
    """Only tasks that say so have a timeout."""
    SEEN.clear()
    settings.Q_CLUSTER = {name: value for name, value in settings.Q_CLUSTER.items() if name != "timeout"}


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """The log records of tenant_q."""
    found: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Handler()
    logger = logging.getLogger("tenant_q")
    before = logger.level
    logger.setLevel("INFO")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def newcomer(tenants: tuple[str, ...]) -> Iterator[str]:
    """A tenant that is the test's own, to be broken."""
    schemas.clone_tenants(["newcomer"])
    tenancy.forget_tenants()
    yield "newcomer"
    schemas.drop_tenant("newcomer")
    tenancy.forget_tenants()


@pytest.fixture
def public_tables(tenants: tuple[str, ...]) -> Iterator[None]:
    """Where `django_q` is in SHARED_APPS as well, what is missing in a tenant's schema is found in public."""
    for table in ("django_q_task", "django_q_schedule"):
        sql(f"CREATE TABLE public.{table} (LIKE acme_corp.{table} INCLUDING ALL)")
    yield
    sql("DROP TABLE public.django_q_task, public.django_q_schedule")


# Steps of tests


@contextlib.contextmanager
def listening(signal_: Any, receiver: Callable[..., Any], **options: Any) -> Iterator[None]:
    signal_.connect(receiver, **options)
    try:
        yield
    finally:
        signal_.disconnect(receiver, **options)


def path_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def add(schema: str, func: str, *args: Any, **keywords: Any) -> str:
    return QUtilities.add_async_task(func, *args, schema_name=schema, **keywords)


def result(id: str, schema: str) -> Any:
    return QUtilities.get_result(id, schema_name=schema)


def labels_of(record: logging.LogRecord) -> tuple[str, str, str]:
    return record.schema, record.task_id, record.func


def elsewhere(statement: str) -> list[tuple[Any, ...]]:
    """Run a statement in a session of its own, which sees only what is committed."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
        cursor = raw.execute(statement)
        return cursor.fetchall() if cursor.description else []


def seen_behind(worker: Worker, func: str, *, schema: str = "acme_corp", **keywords: Any) -> dict[str, Any]:
    """Run a task and behind it, in the same batch, one of its own and one of another tenant. Return what they find."""
    other = "globex_inc"
    know_as_short(func, schema)
    know_as_short(LOOK, schema, other)
    tasks.client().delete(redis_key("vtime"), redis_key("ring"))  # no turn is owed, so names decide
    before = worker.lifespan.started
    first = add(schema, func, **keywords)
    ids = {name: add(name, LOOK) for name in (schema, other)}
    worker.tick()
    assert worker.lifespan.started == before + 3, "all in one batch"
    begun = QUtilities.fetch_task(first, schema_name=schema)
    assert begun.success, begun.result
    rows = {name: QUtilities.fetch_task(id, schema_name=name) for name, id in ids.items()}
    assert all(row.started > begun.started for row in rows.values()), "both behind it"
    return {name: row.result for name, row in rows.items()}


def look_now(worker: Worker, *names: str) -> dict[str, Any]:
    """Return what a task of each of these tenants finds now."""
    know_as_short(LOOK, *names)
    ids = {name: add(name, LOOK) for name in names}
    work(worker)
    return {name: result(id, name) for name, id in ids.items()}


def smuggle(schema: str, func: str) -> str:
    """Put a task on the queue of a tenant, past every check that the tenant exists."""
    package = build(func, (), {}, schema=schema)
    get_broker().enqueue([Message(package.id, schema, func, seal(package))])
    return package.id


# Tasks and hooks


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def set_role_and_limit(task: Any = None) -> None:
    SEEN.append(("called", connection.schema_name))
    execute("SET statement_timeout = 54321")
    execute("SET ROLE pg_read_all_data")


def begin(task: Any = None) -> None:
    SEEN.append(("called", connection.schema_name))
    connection.ensure_connection()
    connection.connection.execute("BEGIN")
    connection.set_schema("initech_llc")


def write(task: Any = None) -> None:
    """Look, and write a row of the tenant."""
    SEEN.append(look())
    Schedule.objects.create(func="tests.tasks.add", name="made by a hook", repeats=0)


def note_in_seen() -> None:
    SEEN.append(connection.schema_name)


def permanent(execute: Any, statement: Any, parameters: Any, many: bool, context: Any) -> Any:
    return execute(statement, parameters, many, context)
