"""Schedules past the ORM, and what the due index makes of them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import psycopg
from django.db import connection, transaction

from tenant_q import tenancy
from tenant_q.schedules import due_index, fire, index_upkeep
from tests.integration.conftest import sql

LATER = datetime(2999, 1, 1, tzinfo=UTC)
PAST = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


def insert(
    schema: str = "acme_corp", next_run: Any = LATER, *, func: str = "tests.tasks.nothing", **fields: Any
) -> int:
    """A schedule of a tenant, daily unless said otherwise. Returns its id."""
    values = {"func": func, "schedule_type": "D", "repeats": -1, "next_run": next_run} | fields
    places = ", ".join(["%s"] * len(values))
    text = f'INSERT INTO "{schema}".django_q_schedule ({", ".join(values)}) VALUES ({places}) RETURNING id'
    return int(sql(text, *values.values())[0][0])


def write_past_the_triggers(text: str, *parameters: Any) -> None:
    """As `pg_restore --disable-triggers` and logical replication write."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(text, parameters)


def entries(schema: str = "acme_corp") -> dict[int, tuple[str, Any, str]]:
    """What the index has of a schema: cluster, moment, and why it is held, by schedule."""
    rows = sql(
        "SELECT schedule_id, cluster, next_run, held FROM tenant_q_dueschedule WHERE schema_name = %s",
        tenancy.physical_schema(schema),
    )
    return {row[0]: row[1:] for row in rows}


def is_right(schema: str = "acme_corp") -> bool:
    return index_upkeep.errors(schema) == 0 and schema not in dict(index_upkeep.stale_schemas())


def due_schemas() -> list[str]:
    return [one.schema for one in due_index.look() if one.seconds <= 0]


@contextmanager
def elsewhere() -> Iterator[psycopg.Connection[Any]]:
    """Another session, in a transaction that ends with the block and is rolled back."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as other:
        yield other
        other.rollback()


@contextmanager
def on_the_wire() -> Iterator[list[str]]:
    """What this process asks the server meanwhile, as libpq sees it: one entry a statement, BEGIN and COMMIT too."""
    connection.ensure_connection()
    pgconn = connection.connection.pgconn
    found: list[str] = []
    with tempfile.TemporaryFile("w+b") as file:
        pgconn.trace(file.fileno())
        try:
            yield found
        finally:
            pgconn.untrace()
        file.seek(0)
        text = file.read().decode(errors="replace")
    # A message begins with its time and goes on over lines without one. F is what goes to the server.
    messages = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\t)", text)
    found += [one for one in messages if re.match(r"[^\t]*\tF\t\d+\t(Query|Execute)\t", one)]


@contextmanager
def pushing_to(push: Callable[[Any], Any]) -> Iterator[None]:
    """A block in which the packages of schedules that fire go to `push` and not to the broker."""
    with mock.patch.object(fire, "push_fires", push):
        yield


@contextmanager
def sent_to_server() -> Iterator[list[str]]:
    """What is on the wire, besides the statements of the tenancy packages' cursors."""
    found: list[str] = []
    with on_the_wire() as sent:
        yield found
    found += [one for one in sent if "search_path" not in one]


def fire_due(schema: str, push: Callable[[Any], Any]) -> int:
    """Fire the due schedules of a tenant; their packages go to `push`."""
    with pushing_to(push):
        return fire.fire_due(schema)


def fire_due_together(schemas: Sequence[str], push: Callable[[Any], Any]) -> Any:
    """Fire the due schedules of several tenants; their packages go to `push`."""
    with pushing_to(push):
        return fire.fire_due_together(schemas)
