"""A proxy in front of PostgreSQL freezes single sessions under a running cluster. The seconds are printed."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.brokers import get_broker
from tenant_q.cluster.child import KILL_MARGIN
from tenant_q.tenancy import in_schema, wait_limits
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.postgres_proxy import ANSWER, REQUEST, Proxy

IS_LONG = os.environ.get("CHAOS") == "long"
SECONDS = 90 if IS_LONG else 6
# How long a process waits for an answer outside of tasks, and how long a task may run.
LIMIT = 3.0 if IS_LONG else 1.0
TIMEOUT = 2
# A machine that is busy.
SLACK = 8.0
EFFECT = "tests.chaos.tasks.effect"
OPTIONS = {"transactional": True, "max_attempts": 0, "retry_delay": 0.2, "max_deliveries": 1000, "timeout": TIMEOUT}


@pytest.fixture
def proxy(tenants) -> Iterator[Proxy]:
    with connection.cursor() as cursor:
        for name in tenants:
            cursor.execute(f"CREATE TABLE {name}.chaos_effect (task_key text, at timestamptz)")
    proxy = Proxy()
    yield proxy
    proxy.stop()
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        for name in tenants:
            cursor.execute(f"DROP TABLE {name}.chaos_effect")


def address(proxy: Proxy) -> str:
    settings = connection.settings_dict
    user, name = quote(settings["USER"] or "postgres"), settings["NAME"]
    password = f":{quote(settings['PASSWORD'])}" if settings["PASSWORD"] else ""
    return f"postgresql://{user}{password}@127.0.0.1:{proxy.port}/{name}"


def test_frozen_sessions_hold_nobody_and_double_nothing(tenants, proxy, mscluster):
    cluster = mscluster(
        "--workers",
        "2",
        DATABASE_URL=address(proxy),
        DJANGO_SETTINGS_MODULE="tests.chaos.settings",
        CHAOS_ANSWER_SECONDS=str(LIMIT),
        TEST_Q_CLUSTER='{"save_limit": 0}',
    )
    chance = random.Random(4)
    accepted: dict[str, str] = {}
    deadline, turn = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        turn += 1
        schema = chance.choice(tenants)
        for _ in range(10):
            key = uuid.uuid4().hex
            QUtilities.add_async_task(EFFECT, key, schema_name=schema, q_options=OPTIONS)
            accepted[key] = schema
        if turn % 5 == 0:
            key = f"fire-{uuid.uuid4().hex}"
            fields = {"args": f"('{key}',)", "kwargs": f"{{'q_options': {OPTIONS}}}", "next_run": timezone.now()}
            with in_schema(schema):
                Schedule.objects.create(name=key, func=EFFECT, schedule_type=Schedule.ONCE, **fields)
            accepted[key] = schema
        if alive := [one for one in proxy.sessions if one.closed_at is None and not one.to_client_frozen]:
            proxy.freeze(chance.choice(alive), chance.choice([REQUEST, ANSWER]))
        time.sleep(chance.uniform(0.1, 0.4))

    wait_until(lambda: not _rows(tenants, "SELECT name FROM {}.django_q_schedule"), 120, "every schedule to fire")
    wait_until(lambda: get_broker().counts().open == 0, 120, "everything to be done")
    effects = Counter(key for (key,) in _rows(tenants, "SELECT task_key FROM {}.chaos_effect"))
    used = [one for one in proxy.frozen() if one.swallowed_at is not None]

    def left() -> list[Any]:
        return [one.requests[-3:] for one in used if one.closed_at is None]

    # An idle scheduler uses its session once a minute.
    is_over = time.monotonic() + 120
    wait_until(lambda: not left() or time.monotonic() > is_over, 130, "the frozen sessions to be dropped")
    assert left() == [], "the last requests of the frozen sessions that nobody dropped"
    held = sorted(one.closed_at - one.swallowed_at for one in used if one.closed_at and one.swallowed_at)
    print(
        f"\n{len(accepted)} tasks, {len(proxy.frozen())} frozen sessions, {len(held)} in use; held for "
        f"{held[len(held) // 2]:.1f} s (half), {held[-1]:.1f} s (longest); limits {LIMIT:g} s, {TIMEOUT} s for a task"
    )
    assert [key for key in accepted if effects[key] != 1] == [], "each took effect once"
    assert get_broker().counts().dead == 0
    assert held[-1] <= max(LIMIT, TIMEOUT + KILL_MARGIN, wait_limits.DEFAULTS["connect_timeout"]) + SLACK
    assert f"has not answered for {LIMIT:g} s" in cluster.log
    assert cluster.stop() == 0


def _rows(names: tuple[str, ...], statement: str) -> list[tuple[str]]:
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(statement.format(name) for name in names))
        return list(cursor.fetchall())
