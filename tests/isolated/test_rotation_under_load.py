"""A real cluster in "login" while passwords are rotated again and again, and while tasks change their own role."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from tenant_q.brokers import get_broker
from tenant_q.models import AuditRecord
from tenant_q.provisioning import provision_tenant, rotate_all, rotate_tenant
from tenant_q.tenancy import in_schema
from tenant_q.tenancy.role_names import role_name
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated import rotation_tasks
from tests.isolated.role_rows import is_let_in, row
from tests.schemas import TENANTS

TASKS = rotation_tasks.__name__
ROTATIONS = 20
MOST_OPEN = 12
# A task that changes its own password, and what follows it.
CHANGES = (
    "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
    "ALTER ROLE CURRENT_USER PASSWORD NULL",
    "ALTER ROLE CURRENT_USER SET search_path TO 'globex_inc'",
    "ALTER ROLE CURRENT_USER SET statement_timeout TO 1",
)


@pytest.fixture
def site(isolated_site) -> Any:
    for schema in TENANTS:
        provision_tenant(schema, adopt=True, actor="olga", probe=False)
    return isolated_site


class Load:
    """Tasks of all tenants, enqueued by a thread until it is stopped, a few more when most of them have ended."""

    def __init__(self) -> None:
        self.ids: dict[str, list[str]] = {schema: [] for schema in TENANTS}
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._enqueue)

    def _enqueue(self) -> None:
        while not self.is_over.wait(0.02):
            if get_broker().counts().open <= MOST_OPEN:
                for schema in TENANTS:
                    self.ids[schema].append(enqueue(schema, "use_session"))
        connections.close_all()


@contextmanager
def load() -> Iterator[Load]:
    running = Load()
    running.thread.start()
    try:
        yield running
    finally:
        running.is_over.set()
        running.thread.join()


def ended(schema: str, ids: list[str]) -> list[Any]:
    """Wait until all tasks have ended, and return their rows."""
    from django_q.models import Task

    def rows() -> list[Any]:
        with in_schema(schema):
            return list(Task.objects.filter(id__in=ids))

    wait_until(lambda: len(rows()) == len(ids), 60, f"the tasks of {schema}")
    return rows()


def check_all(site: Any, running: Load, say: Callable[[str], None]) -> None:
    """Every task has succeeded, at its first attempt, as the role of its tenant."""
    for schema, ids in running.ids.items():
        rows = ended(schema, ids)
        assert [row.result for row in rows if not row.success] == []
        assert {row.result for row in rows} == {role_name(site.database, schema)}
        say(f"{schema}: {len(rows)} tasks, {sum(row.attempt_count > 1 for row in rows)} with a further attempt")


def test_no_task_fails_while_all_passwords_are_rotated_twenty_times(site, capsys):
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}")

    site.mscluster(workers=2, tenant_sessions=1)
    with load() as running:
        wait_until(lambda: all(len(ids) > 5 for ids in running.ids.values()))
        for _ in range(ROTATIONS - 2):
            done = rotate_all(actor="olga")
            assert not done.failed
        for _ in range(2):
            site.manage("mstenant", "rotate", "--all")
    check_all(site, running, say)
    for schema in TENANTS:
        assert row(schema).version == 1 + ROTATIONS
        assert [is_let_in(site, schema, version) for version in (ROTATIONS, ROTATIONS + 1)] == [False, True]


def test_no_task_fails_after_one_that_changed_its_own_role(site, capsys):
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}")

    cluster = site.mscluster(workers=2, tenant_sessions=1)
    with load() as running:
        for number, change in enumerate(CHANGES * 2, start=1):
            (task,) = ended("acme_corp", [enqueue("acme_corp", "change_own_role", change)])
            assert task.success, task.result
            repairs = AuditRecord.objects.filter(act="repair", schema_name="acme_corp")
            wait_until(lambda: repairs.count() >= number, 20, "the repair")  # noqa: B023
    check_all(site, running, say)
    wait_until(lambda: row("acme_corp").state == "active")
    assert is_let_in(site, "acme_corp")
    assert site.sql("SELECT count(*) FROM pg_db_role_setting WHERE setrole <> 0") == [(0,)]
    assert cluster.log.count("Repaired the role") == AuditRecord.objects.filter(act="repair").count()
    assert not AuditRecord.objects.filter(act="repair").exclude(schema_name="acme_corp").exists()


def test_now_ends_the_session_of_a_task_that_runs_and_no_other_task_fails(site):
    """Neither one that finds its worker's idle session ended, nor one of another tenant."""
    site.mscluster(workers=1)
    enqueued = {schema: [enqueue(schema, "use_session")] for schema in TENANTS}
    for schema in TENANTS:
        ended(schema, enqueued[schema])
    assert len(sessions_of_tenants(site)) == 3
    assert rotate_tenant("acme_corp", actor="olga", now=True).ended == 1
    assert len(sessions_of_tenants(site)) == 2
    for schema in TENANTS:
        (task,) = ended(schema, [enqueue(schema, "use_session")])
        assert task.success, task.result
    id = enqueue("acme_corp", "sleep_in_session", 60)
    wait_until(lambda: site.sql("SELECT 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep' AND state = 'active'"))
    assert rotate_tenant("acme_corp", actor="olga", now=True).ended >= 1
    (task,) = ended("acme_corp", [id])
    assert not task.success
    assert "terminating connection" in str(task.result)
    (task,) = ended("acme_corp", [enqueue("acme_corp", "use_session")])
    assert task.success, task.result


def enqueue(schema: str, name: str, *args: Any) -> str:
    with in_schema(schema):
        return str(QUtilities.add_async_task(f"{TASKS}.{name}", *args))


def sessions_of_tenants(site: Any) -> list[int]:
    return [pid for pid, role in site.sessions().items() if role.startswith(f"{site.database}_")]
