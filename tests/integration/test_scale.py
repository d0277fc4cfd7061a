"""Every page, every command and schedules in code where there are many tenants and many rows. Times are printed.

`make chaos` has 1,000 tenants and 100,000 rows; here are fewer, to see that they work. Django-Q2's `qinfo` alone takes
over a second then: each of its counts is planned over all tenants' tables.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.models import AuditRecord, SyncedTenant, TenantPolicy
from tenant_q.schedules import code_sync, index_upkeep
from tenant_q.tenancy import in_schema
from tests import schemas
from tests.conftest import wait_until
from tests.integration.planning import sent_to_server

IS_LONG = os.environ.get("CHAOS") == "long"
TENANTS, ROWS, SCHEDULES = (1000, 100, 10) if IS_LONG else (20, 20, 3)
# One tenant has as many rows as all others.
BIG = TENANTS * ROWS
OPERATORS = [
    f"/admin/tenant_q/{page}/"
    for page in ("siteoverview", "tenantpolicy", "cluster", "failedtask", "deadtask", "auditrecord")
]
TENANTS_OWN = [
    *(f"/admin/django_q/{page}/" for page in ("success", "failure", "schedule")),
    "/admin/django_q/success/?q=task",
    "/admin/django_q/failure/?q=task",
    "/admin/django_q/schedule/add/",
    "/admin/tenant_q/overview/",
    "/admin/tenant_q/livetask/",
    "/admin/",
]
COMMANDS = [
    ["msinfo"],
    ["msinfo", "--json"],
    ["msinfo", "--schema", "acme_corp"],
    ["mshealth"],
    ["msschedules"],
    ["msschedules", "--check"],
    ["msschedules", "--schema", "acme_corp"],
    ["mstenant"],
    ["mstenant", "list", "--all"],
    ["msdead"],
    ["msdead", "--schema", "acme_corp"],
    ["qinfo"],
    ["qinfo", "--ids"],
]


@pytest.fixture(scope="module")
def crowd(django_db_setup: None) -> Iterator[list[str]]:
    """Many tenants with tasks, failed ones, schedules and policies, and one that has as much as they together."""
    names = [f"scale_{number:04}" for number in range(TENANTS)]
    for first in range(0, TENANTS, 100):
        schemas.clone_tenants(names[first : first + 100])
    tenancy.forget_tenants()
    yield names
    connection.set_schema_to_public()
    for name in names:
        schemas.drop_tenant(name)
    schemas.forget_code()
    TenantPolicy.objects.all().delete()
    AuditRecord.objects.all().delete()
    tenancy.forget_tenants()


@pytest.fixture
def full(crowd: list[str], tenants: tuple[str, ...]) -> list[str]:
    for name in crowd:
        _fill(name, ROWS)
    _fill("acme_corp", BIG)
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())
    broker = get_broker()
    for name in ["acme_corp", *crowd]:
        broker.enqueue([Message(id=uuid.uuid4().hex, schema=name, func="tests.tasks.add", payload="x" * 200)])
    dead = [Message(id=uuid.uuid4().hex, schema="acme_corp", func="f", payload="x") for _ in range(TENANTS)]
    broker.enqueue(dead)
    while broker.counts().dead < TENANTS // 2:
        for lease in broker.fetch("w").leases:
            broker.dead_letter("w", lease, "Cause: a test")
    TenantPolicy.objects.bulk_create(TenantPolicy(schema_name=name, weight=2) for name in crowd[: TENANTS // 2])
    AuditRecord.objects.bulk_create(AuditRecord(actor="a", act="pause", schema_name=name) for name in crowd)
    return crowd


def _fill(schema: str, rows: int) -> None:
    now = timezone.now()
    with in_schema(schema):
        Task.objects.bulk_create(
            (
                Task(
                    id=uuid.uuid4().hex,
                    name=f"task {number}",
                    func="tests.tasks.add",
                    args=(1, 2),
                    kwargs={},
                    result=3,
                    started=now - timedelta(seconds=number),
                    stopped=now - timedelta(seconds=number),
                    success=number % 10 > 0,
                    group=f"group {number % 50}",
                )
                for number in range(rows)
            ),
            batch_size=5000,
        )
        Schedule.objects.bulk_create(
            Schedule(
                name=f"s {n}", func="tests.tasks.add", schedule_type=Schedule.DAILY, next_run=now + timedelta(days=1)
            )
            for n in range(SCHEDULES)
        )


@pytest.fixture
def visitors(tenants: tuple[str, ...]) -> Iterator[dict[str, Client]]:
    """A superuser's browser at the operators' site, and one at the big tenant's."""
    with ExitStack() as hosts:
        found = {}
        for schema, host in (("public", "public-site.localhost"), ("acme_corp", "acme-corp.localhost")):
            hosts.enter_context(schemas.served_at(schema, host))
            found[schema] = Client(HTTP_HOST=host)
            with in_schema(schema):
                found[schema].force_login(get_user_model().objects.create_superuser("scale"))
        yield found
        for schema in found:
            with in_schema(schema):
                get_user_model().objects.filter(username="scale").delete()
    connection.set_schema_to_public()


def test_pages_and_commands_where_there_is_much(full, visitors):
    print(f"\n{TENANTS:,} tenants, {2 * BIG:,} rows, half of them one tenant's, {TENANTS * SCHEDULES:,} schedules")
    for schema, paths in (("public", OPERATORS), ("acme_corp", TENANTS_OWN)):
        for path in paths:
            visitors[schema].get(path)  # templates are read once
            begun = time.perf_counter()
            answer = visitors[schema].get(path)
            print(f"{time.perf_counter() - begun:6.3f} s  {schema}{path}")
            assert answer.status_code == 200, path
    connection.set_schema_to_public()
    for command in COMMANDS:
        begun = time.perf_counter()
        try:
            call_command(*command, stdout=StringIO(), stderr=StringIO())
        except SystemExit as ended:  # no cluster runs, which `mshealth` finds
            assert command == ["mshealth"] and ended.code == 1
        print(f"{time.perf_counter() - begun:6.3f} s  {' '.join(command)}")
    connection.close()  # `qinfo` has put views of all tenants' rows into the session


def code(**changed: Any) -> dict[str, dict[str, Any]]:
    """Five schedules in code, one of them with other values. None of them fires meanwhile."""
    declared = {f"code {n}": {"func": "tests.tasks_scheduled.report", "cron": f"{n} 6 29 2 *"} for n in range(5)}
    return declared | {"code 3": declared["code 3"] | changed}


def have(names: list[str], schedules: dict[str, dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """Require that each tenant has the schedules. Returns their ids and next runs, by tenant and name."""
    found: dict[tuple[str, str], Any] = {}
    for name in names:
        with in_schema(name):
            rows = {row.name: row for row in Schedule.objects.filter(name__in=schedules)}
        assert {one: row.cron for one, row in rows.items()} == {one: its["cron"] for one, its in schedules.items()}
        found |= {(name, one): (row.pk, row.next_run) for one, row in rows.items()}
    return found


def test_a_deploy_that_changes_one_schedule_in_code(crowd, tenants, settings, mscluster):
    names = [*tenants, *crowd]

    def set_code(release: str, schedules: dict[str, dict[str, Any]]) -> dict[str, Any]:
        settings.TENANT_Q = settings.TENANT_Q | {"release": release, "schedules": schedules}
        return {"release": release, "schedules": schedules}

    def sync(what: str) -> tuple[dict[str, int], int]:
        begun = time.perf_counter()
        with sent_to_server() as sent:
            report = code_sync.Sync().run()
        print(f"{time.perf_counter() - begun:6.3f} s  {what}: {len(sent)} statements, {dict(report.done)}")
        return report.done, len(sent)

    print(f"\n{len(names):,} tenants with five schedules from code")
    set_code("2026.11.1", code())
    done, statements = sync("the first deploy")
    assert done == {"added": 5 * len(names)}
    batches = -(-len(names) // code_sync.TOGETHER)
    assert statements <= 5 + 12 * batches, "they do not grow with the tenants of a batch"
    set_code("2026.11.2", code())
    done, statements = sync("an unchanged deploy")
    assert done == {} and statements <= 5

    before = have(names, code())
    synced = SyncedTenant.objects.filter(tenant__in=tenancy.keys_now(names).values())
    former = synced.values_list("fingerprint", flat=True)[0]
    changed = code(cron="3 7 29 2 *")
    begun = time.perf_counter()
    cluster = mscluster("--workers", "1", wait=False, TEST_TENANT_Q=json.dumps(set_code("2026.11.3", changed)))
    wait_until(lambda: not synced.filter(fingerprint=former).exists(), 60, "the deploy to be in force")
    seconds = time.perf_counter() - begun
    print(f"{seconds:6.3f} s  a deploy that changes one, from the start of mscluster")
    wait_until(lambda: cluster.log.count("with the code: ") == batches, what="the first look to have done it all")
    after = have(names, changed)
    assert {place[1] for place in before if before[place] != after[place]} == {"code 3"}
    if IS_LONG:
        assert seconds < 10, cluster.log
    assert sync("the same release looks again")[0] == {}
