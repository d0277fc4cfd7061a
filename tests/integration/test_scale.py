"""Every page and every command where there are many tenants and many rows. Their times are printed.

`make chaos` has 1,000 tenants and 100,000 rows; here are fewer, to see that they work. Django-Q2's `qinfo` alone takes
over a second then: each of its counts is planned over all tenants' tables.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from io import StringIO

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
from tenant_q.models import AuditRecord, TenantPolicy
from tenant_q.schedules import index_upkeep
from tenant_q.tenancy import in_schema
from tests import schemas

IS_LONG = os.environ.get("CHAOS") == "long"
TENANTS, ROWS, SCHEDULES = (1000, 100, 10) if IS_LONG else (20, 20, 3)
# One tenant has as many rows as all others.
BIG = TENANTS * ROWS
OPERATORS = [f"/admin/tenant_q/{page}/" for page in ("tenantpolicy", "cluster", "deadtask", "auditrecord")]
TENANTS_OWN = [
    *(f"/admin/django_q/{page}/" for page in ("success", "failure", "schedule")),
    "/admin/django_q/success/?q=task",
    "/admin/django_q/failure/?q=task",
    "/admin/django_q/schedule/add/",
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
