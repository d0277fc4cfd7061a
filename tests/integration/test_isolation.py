"""Nothing survives a task: a hostile one is followed by one of another tenant, in the same worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, connections

from tenant_q.brokers import get_broker
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.lifecycle import cached_results
from tenant_q.lifecycle.execute import execute
from tenant_q.package.build import build
from tenant_q.scrubbing import sessions
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until
from tests.tasks_hostile import HOSTILE


@pytest.fixture
def worker(tenants):
    worker = Worker("hostile", get_broker(), Slot())
    yield worker
    worker.stopping.restore()
    connection.set_schema_to_public()
    connections.close_all()


def run(worker: Worker) -> None:
    """Everything that is queued, in this process."""
    wait_until(lambda: worker.tick() is not None and get_broker().counts().open == 0, 60)


def settings_variant(monkeypatch, settings, variant: str) -> None:
    if variant == "limit set calls":
        settings.TENANT_LIMIT_SET_CALLS = True
    elif variant == "debug":
        settings.DEBUG = True
    elif variant == "not persistent":
        monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    elif variant == "persistent":
        monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)


@pytest.mark.seam
@pytest.mark.parametrize("variant", ["persistent", "not persistent", "limit set calls", "debug"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.__name__)
def test_nothing_survives_a_task(tenants, worker, settings, monkeypatch, hostile, variant):
    settings_variant(monkeypatch, settings, variant)
    # Known to be short, so that all three are one batch of one worker: two slices, and two tasks of one slice.
    for task in ("look_around", hostile.__name__):
        for name in tenants[:2]:
            tasks.client().hset(f"{{tq:{get_broker().cluster}}}:costs", f"{name};tests.tasks_hostile.{task}", 1)
    ids = {}
    with in_schema("acme_corp"):
        QUtilities.add_async_task(f"tests.tasks_hostile.{hostile.__name__}", timeout=1)
        ids["acme_corp"] = QUtilities.add_async_task("tests.tasks_hostile.look_around")
    with in_schema("globex_inc"):
        ids["globex_inc"] = QUtilities.add_async_task("tests.tasks_hostile.look_around")
    run(worker)
    for name, id in ids.items():
        seen = QUtilities.get_result(id, schema_name=name)
        assert isinstance(seen, dict), seen
        seen.pop("pid")
        assert seen.pop("default_time_zone") == seen.pop("time_zone") == seen.pop("zone")
        assert seen == {
            "schema": name,
            "path": f"{name},public",
            "is_own_user": True,
            "statement_timeout": "0",
            "locks": 0,
            "channels": 0,
            "temporary": 0,
            "cursors": 0,
            "autocommit": True,
            "status": "IDLE",
            "elsewhere": False,
            "in_atomic_block": False,
            "on_commit": 0,
            "tenant": name,
            "tenant_name": name.replace("_", " ").title(),
            "language": "en-us",
            "sigterm": True,
            "blocked": 0,
        }
    assert not tasks.notes("hostile:on_commit")


def test_a_session_that_was_used_is_scrubbed_and_not_closed(tenants, worker):
    pids = set()
    for name in tenants:
        with in_schema(name):
            ids = [QUtilities.add_async_task("tests.tasks.backend_pid") for _ in range(5)]
        run(worker)
        pids |= {QUtilities.get_result(id, schema_name=name) for id in ids}
    assert len(pids) == 1


def test_a_task_that_uses_no_session_costs_no_statement(tenants, worker, monkeypatch):
    scrubbed: list[Any] = []
    monkeypatch.setattr(sessions, "_scrub", scrubbed.append)
    with in_schema("acme_corp"):
        for n in range(5):
            QUtilities.add_async_task("tests.tasks.add", n)
    run(worker)
    assert not scrubbed


def test_equal_ids_of_two_tenants_are_apart_in_any_cache(tenants, settings):
    """Also in one whose keys are not made per tenant."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    broker = get_broker()
    for name in tenants[:2]:
        with in_schema(name):
            package = build("tests.tasks.add", (1,), {"cached": 60}, schema=name, id="0" * 32)
            cached_results.save(replace(execute(package), result=name), broker)
    for name in tenants[:2]:
        with in_schema(name):
            assert cached_results.find("0" * 32).result == name
    with in_schema(tenants[2]):
        assert cached_results.find("0" * 32) is None
