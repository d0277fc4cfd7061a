"""Tasks that name other tenants in the functions that a task may call, and what its own rows may make others do."""

from __future__ import annotations

import pickle
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection
from django_q.models import Schedule, Task

from shop.models import Order
from tenant_q import tenancy
from tenant_q.utils import QUtilities
from tests.tasks import client

Outcome = list[Any]


def by_our_functions(victim: str) -> list[Outcome]:
    """Name another tenant, or the public schema, in the functions that a task may call."""

    def orders_in(schema: str) -> Any:
        with tenancy.in_schema(schema):
            return list(Order.objects.values_list("number", flat=True))

    def orders_in_public() -> Any:
        with tenancy.in_public():
            return list(tenancy.tenant_model().objects.values_list())

    def after_set_schema() -> Any:
        connection.set_schema(victim)
        return list(Order.objects.values_list("number", flat=True))

    def after_set_tenant() -> Any:
        class Stranger:
            schema_name = victim
            domain_url = ""

        connection.set_tenant(Stranger())
        return list(Order.objects.values_list("number", flat=True))

    acts: dict[str, Callable[[], Any]] = {
        "in_schema": lambda: orders_in(victim),
        "in_public": orders_in_public,
        "set_schema": after_set_schema,
        "set_tenant": after_set_tenant,
        "set_schema_to_public": lambda: (connection.set_schema_to_public(), Order.objects.count()),
        "using another alias": lambda: list(Order.objects.using("replica").extra(tables=[f'{victim}"."shop_order'])),
        **{
            f"{name} for {schema}": lambda act=act, schema=schema: act(schema)
            for schema in (victim, "public")
            for name, act in {
                "add_async_task": lambda s: QUtilities.add_async_task("tests.tasks.nothing", schema_name=s),
                "add_async_tasks_from_iter": lambda s: QUtilities.add_async_tasks_from_iter(
                    "tests.tasks.nothing", [()], schema_name=s
                ),
                "create_async_tasks_chain": lambda s: QUtilities.create_async_tasks_chain(
                    [("tests.tasks.nothing", ())], schema_name=s
                ),
                "create_schedule": lambda s: QUtilities.create_schedule("tests.tasks.nothing", schema_name=s),
                "ensure_schedule": lambda s: QUtilities.ensure_schedule("n", "tests.tasks.nothing", schema_name=s),
                "fetch_task": lambda s: QUtilities.fetch_task("t" * 32, schema_name=s) and "task",
                "get_group_count": lambda s: QUtilities.get_group_count("g", schema_name=s),
                "delete_task_group": lambda s: QUtilities.delete_task_group("g", schema_name=s),
            }.items()
        },
        "its own rows, in another's schema": lambda: [
            model.objects.extra(tables=[f'{victim}"."{model._meta.db_table}']).count() for model in (Task, Schedule)
        ],
    }
    outcomes = []
    for name, act in acts.items():
        try:
            outcomes.append([name, "done", repr(act())])
        except Exception as error:
            outcomes.append([name, type(error).__name__, repr(error)])
    return outcomes


class Bomb:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def bomb(path: str) -> str:
    return b64encode(pickle.dumps(Bomb(path))).decode()


def touch(task: Any) -> None:
    """A hook that nobody offers: makes the file that its task was given."""
    Path(task.args[0]).touch()


def keep_a_lock(tables: list[str], key: str, seconds: float) -> int:
    """Leave a session of its own that has locked its own tables, and a thread that keeps it open."""
    values = connection.get_connection_params()
    raw = psycopg.connect(**{name: values[name] for name in ("host", "dbname", "user", "password")})
    for table in tables:
        raw.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

    def hold() -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not client().exists(f"go:{key}"):
            time.sleep(0.01)
        raw.close()

    threading.Thread(target=hold, daemon=True).start()
    return raw.info.backend_pid
