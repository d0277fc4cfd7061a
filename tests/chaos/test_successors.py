"""Tenants are deleted and made anew under the same names while a cluster runs their work.

Nothing of an old one is seen, run or in force in the new one, and soon nothing of it is left. `CHAOS=long`: 200.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django_q.models import Schedule, Task

from shop.models import Report
from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message, Policy
from tenant_q.models import DueSchedule, TenantPolicy, TenantRecord
from tenant_q.operations import deleted_tenants
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until

IS_LONG = os.environ.get("CHAOS") == "long"
TENANTS = 200 if IS_LONG else 10
TABLES = ("django_q_task", "django_q_schedule", "shop_order", "shop_report")
# Enqueued for each tenant, besides one that runs on and on, two that are delayed, one cached and a schedule.
QUEUED = 3


@dataclass
class Life:
    """One tenant's life under a name: its key, and the ids of its tasks."""

    schema: str
    number: int
    key: str = ""
    ids: list[str] = field(default_factory=list)
    cached: str = ""

    @property
    def title(self) -> str:
        return f"life {self.number}"


@pytest.fixture
def names(tenants) -> Iterator[list[str]]:
    found = [f"heir_{n:03}" for n in range(TENANTS)]
    yield found
    for name in found:
        schemas.drop_tenant(name)
    TenantRecord.objects.filter(schema_name__in=found).delete()
    TenantPolicy.objects.all().delete()


def begin(schema: str, number: int) -> Life:
    """Make a tenant and give it work of every kind."""
    schemas.clone_tenants([schema], tables=TABLES)
    deleted_tenants.find_and_clear()
    tenancy.forget_tenants()
    life = Life(schema, number)
    policies.change(schema, actor="test", act="limit", weight=1 + number)
    with in_schema(schema):
        life.key = tenancy.current_key(schema)
        add = QUtilities.add_async_task
        report = "tests.chaos.tasks.report"
        life.ids += [add(report, life.title) for _ in range(QUEUED)]
        life.ids += [add(report, life.title, q_options={"delay": delay}) for delay in (0.5, 600)]
        life.cached = add("tests.tasks.add", number, cached=True, group="June")
        Schedule.objects.create(id=1, func=report, args=repr(life.title), schedule_type="I", minutes=1, name="minutely")
        if number == 1:
            add("tests.chaos.tasks.report_on_and_on", life.title)
    forged = Message(os.urandom(16).hex(), schema, "x", "not signed", tenant=life.key)
    get_broker().enqueue([forged])
    return life


def delete(life: Life) -> None:
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.get(schema_name=life.schema).delete(force_drop=True)
    tenancy.forget_tenants()


def is_settled(life: Life) -> bool:
    """Whether all that is to run at once has run."""
    load = get_broker().loads().get(life.schema)
    return load is not None and (load.queued, load.leased, load.delayed) == (0, 0, 1)


@pytest.mark.seam
def test_nothing_of_an_old_tenant_reaches_the_next_one(names, mscluster):
    mscluster("--workers", "3")
    old = [begin(name, 1) for name in names]
    wait_until(lambda: tasks.notes("on:life 1"), what="a task that runs on and on")
    order = random.Random(1).sample(old, len(old))
    new = []
    for life in order:
        delete(life)
        new.append(begin(life.schema, 2))

    for life in new:
        wait_until(partial(is_settled, life), 120, what=f"the work of {life.schema}")
        look_at(life)
    assert_nothing_is_left(old, new)


def look_at(life: Life) -> None:
    with in_schema(life.schema):
        titles = list(Report.objects.values_list("title", flat=True))
        assert set(titles) == {"life 2"}, (life.schema, set(titles))
        assert set(Task.objects.values_list("id", flat=True)) >= {*life.ids[:-1]}
        assert not Task.objects.filter(success=False).exists()
        assert QUtilities.get_result(life.cached, cached=True) == 2
        assert QUtilities.get_result_group("June", cached=True) == [2]
        assert DueSchedule.objects.filter(schema_name=life.schema).count() == 1
    assert get_broker().policies()[life.schema] == Policy(weight=3)
    assert [dead.payload for dead in get_broker().dead(life.schema)] == ["not signed"]


def assert_nothing_is_left(old: list[Life], new: list[Life]) -> None:
    client, tag = tasks.client(), f"{{tq:{get_broker().cluster}}}"

    def left() -> list[Any]:
        owners = [key.decode() for key in client.hkeys(f"{tag}:queues")]
        ids = {id.decode() for id in client.hkeys(f"{tag}:messages")}
        kept = [life for life in old if client.exists(f"{tag}:kept:{life.schema}#{life.key}")]
        return [
            *({life.key for life in old} & {*owners}),
            *(ids & {id for life in old for id in life.ids}),
            *kept,
            *(name for life in old for name in client.scan_iter(f"*{life.cached}*")),
        ]

    # The scheduler looks every half minute.
    wait_until(lambda: not left(), 60, what=f"nothing of the old tenants to be left but {left()[:5]}")
    assert {key.decode() for key in client.hkeys(f"{tag}:queues")} >= {life.key for life in new}
