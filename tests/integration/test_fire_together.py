"""Due schedules of many tenants are fired in one transaction, and what stands in one tenant's way in nobody else's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.signals import post_save
from django.utils import timezone
from django_q.models import Schedule, Task
from django_q.signals import pre_enqueue

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import scheduler_firing
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.exceptions import BrokerError, SchemaNotMigrated, TenantNotReady
from tenant_q.package.package import Package
from tenant_q.schedules import claims, due_index, fire
from tenant_q.schedules.fire import push_fires
from tenant_q.tenancy import in_schema
from tests import schemas
from tests.integration.conftest import sql
from tests.integration.planning import (
    PAST,
    elsewhere,
    entries,
    fire_due,
    fire_due_together,
    insert,
    is_right,
    on_the_wire,
)

ROWS: list[dict[str, Any]] = [
    {"schedule_type": "D", "name": "daily", "args": "1, 2", "kwargs": "text='it''s 100%'"},
    {"schedule_type": "H", "name": "hourly", "repeats": 1},
    {"schedule_type": "O", "name": "once"},
    {"schedule_type": "O", "name": "once, kept", "repeats": 2},
    {"schedule_type": "C", "name": "cron", "cron": "0 6 * * *"},
    {"schedule_type": "C", "name": "bad cron", "cron": "not a cron"},
    {"schedule_type": "D", "name": "bad arguments", "args": "1 +"},
    {"schedule_type": "D", "name": "intended", "intended_date_kwarg": "planned", "hook": "tests.tasks.hook"},
    {"schedule_type": "D", "name": "no cluster", "cluster": ""},
    {"schedule_type": "D", "name": "another cluster", "cluster": "elsewhere"},
    {"schedule_type": "D", "name": "done", "repeats": 0},
    {"schedule_type": "D", "name": "before time", "next_run": "-infinity"},
]


@pytest.fixture(autouse=True)
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_firing, "FEW", 1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tenants that are served one by one."""
    found: list[str] = []
    real = fire.fire_due

    def fire_and_note(schema: str) -> int:
        found.append(schema)
        return real(schema)

    monkeypatch.setattr(fire, "fire_due", fire_and_note)
    return found


def queued() -> list[int]:
    return [get_broker().queue_size(name) for name in schemas.TENANTS]


def fill() -> None:
    for name in schemas.TENANTS:
        for number, fields in enumerate(ROWS, start=1):
            insert(name, id=number, **{"next_run": PAST} | fields)


def what_is_left() -> dict[str, Any]:
    rows = "SELECT id, next_run::text, repeats, task FROM {}.django_q_schedule ORDER BY id"
    failed = 'SELECT id, success, "group" FROM {}.django_q_task ORDER BY id'
    return {name: (sql(rows.format(name)), sql(failed.format(name)), entries(name)) for name in schemas.TENANTS}


def shown(pushed: list[Package]) -> dict[str, Any]:
    left_out = ("started", "name")
    return {one.id: {key: value for key, value in one.task.items() if key not in left_out} for one in pushed}


@pytest.mark.seam
@pytest.mark.parametrize("catch_up", [True, False])
def test_together_they_do_what_each_does_alone(tenants, settings, catch_up):
    """Same packages under the same ids, same rows, same failed tasks, same index."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": catch_up}
    found = []
    for is_together in (False, True):
        schemas.truncate(tenants)
        fill()
        pushed: list[Package] = []
        if is_together:
            counts = dict(fire_due_together(tenants, pushed.extend))
        else:
            counts = {name: fire_due(name, pushed.extend) for name in tenants}
        found.append((counts, shown(pushed), what_is_left()))
    assert found[0] == found[1]
    assert set(found[0][0].values()) == {9}
    assert len(found[0][1]) == 8 * len(tenants) - 1 * len(tenants), "the failed ones are no packages"
    assert all(map(is_right, tenants))


def test_a_limit_for_each(tenants, monkeypatch):
    monkeypatch.setattr(claims, "FIRES_TOGETHER", 6)
    for n in range(5):
        insert("acme_corp", PAST + timedelta(seconds=n), id=n)
    insert("globex_inc", PAST)
    pushed: list[Package] = []
    assert fire_due_together(tenants, pushed.extend) == {"acme_corp": 2, "globex_inc": 1}
    assert [one.group for one in pushed if one.schema == "acme_corp"] == ["0", "1"], "the longest due first"


def test_more_tenants_take_no_more_statements(tenants):
    tenancy.look_up_together(tenants)
    counts = []
    for some in (tenants[:1], tenants):
        for name in tenants:
            insert(name, timezone.now() - timedelta(seconds=1))
        with on_the_wire() as sent:
            fire_due_together(some, lambda _: None)
        counts.append(len(sent))
    assert counts[0] == counts[1]


def test_no_tenant_is_forgotten_while_it_is_in_hand(tenants, settings):
    """One that was looked up long ago is looked up again with the others, not by itself when its time is over."""
    settings.TENANT_Q = {"tenant_cache_seconds": 30}
    tenancy.look_up_together(tenants)
    for name in tenants:
        tenancy.tenants._known[name] = replace(tenancy.tenants._known[name], since=time.monotonic() - 29.9)
    with on_the_wire() as sent:
        tenancy.look_up_together(tenants)
    assert sum("customers_customer" in one for one in sent) == 1
    assert all(time.monotonic() - tenancy.tenants._known[name].since < 5 for name in tenants)


# Exactly once


@pytest.mark.parametrize("then_together", [True, False])
def test_a_crash_before_the_commit(tenants, then_together):
    """What was pushed is pushed again under the same ids, together or not."""
    for name in tenants:
        insert(name, timezone.now() - timedelta(seconds=1))

    def crash(packages: Any) -> None:
        push_fires(packages)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fire_due_together(tenants, crash)
    assert queued() == [1, 1, 1]
    if then_together:
        assert fire.fire_due_together(tenants) == dict.fromkeys(tenants, 1)
    else:
        assert [fire.fire_due(name) for name in tenants] == [1, 1, 1]
    assert queued() == [1, 1, 1]


def test_two_clusters_at_once(tenants):
    """What another one has locked is left to it."""
    for name in tenants:
        insert(name, PAST)
    with elsewhere() as other:
        other.execute("SELECT FROM acme_corp.django_q_schedule FOR UPDATE")
        assert fire.fire_due_together(tenants) == {"globex_inc": 1, "initech_llc": 1}
    assert fire.fire_due_together(tenants)["acme_corp"] == 1


def test_the_broker_is_away(tenants):
    for name in tenants:
        insert(name, PAST)

    def away(_: Any) -> None:
        raise BrokerError("away")

    with pytest.raises(BrokerError):
        fire_due_together(tenants, away)
    assert {entry[1] for name in tenants for entry in entries(name).values()} == {PAST}


# One stands in the way


def work_off(scheduler: Scheduler) -> None:
    while scheduler.tick() == 0:
        pass


def lock(other: Any) -> None:
    other.execute("LOCK TABLE acme_corp.django_q_schedule")


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda: sql("ALTER TABLE acme_corp.django_q_task RENAME COLUMN result TO outcome"), due_index.UNREADY),
        (lambda: sql("ALTER TABLE acme_corp.django_q_schedule RENAME COLUMN func TO f"), due_index.FAILED),
        (lambda: sql("DELETE FROM customers_customer WHERE schema_name = 'acme_corp'"), due_index.UNREADY),
        (lambda: policies.change("acme_corp", actor="test", act="pause", paused=True), due_index.PAUSED),
    ],
)
def test_one_that_cannot_be_served(tenants, scheduler, alone, act: Callable[[], Any], why: str):
    work_off(scheduler)
    for name in tenants:
        insert(name, timezone.now() - timedelta(seconds=1))
    with transaction.atomic():
        act()
        tenancy.forget_tenants()
        scheduler.tick()
        assert queued() == [0, 1, 1]
        assert [held for _, _, held in entries().values()] == [why]
        transaction.set_rollback(True)
    tenancy.forget_tenants()


def test_one_that_is_locked(tenants, scheduler, alone, monkeypatch):
    work_off(scheduler)
    for name in tenants:
        insert(name, timezone.now() - timedelta(seconds=1))
    with elsewhere() as other:
        lock(other)
        scheduler.tick()
        assert queued() == [0, 1, 1]
    assert sorted(alone) == sorted(tenants), "each by itself, since they could not be served together"


@pytest.mark.seam
def test_one_that_is_excluded(tenants, scheduler, alone, settings):
    settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = ["public", "acme_corp"]
    for name in tenants:
        insert(name, PAST)
    scheduler.tick()
    assert queued() == [0, 1, 1]
    assert [held for _, _, held in entries().values()] == [due_index.EXCLUDED]
    assert alone == []


def test_what_is_not_ready_or_not_migrated_is_refused(tenants, settings):
    with pytest.raises(SchemaNotMigrated, match="nowhere"):
        tenancy.require_migrated(["acme_corp", "nowhere"])
    settings.TENANT_Q = {"ready_tenants": f"{__name__}.nobody"}
    tenancy.forget_tenants()
    tenancy.look_up_together(tenants)
    with pytest.raises(TenantNotReady):
        fire.fire_due_together(tenants)


def nobody(tenants: Any) -> Any:
    return tenants.none()


def test_an_error_of_a_receiver(tenants, scheduler, alone):
    work_off(scheduler)
    for name in tenants:
        insert(name, timezone.now() - timedelta(seconds=1))

    def receiver(task: dict[str, Any], **_: Any) -> None:
        if task["schema_name"] == "acme_corp":
            raise DatabaseError("no")

    pre_enqueue.connect(receiver)
    try:
        scheduler.tick()
    finally:
        pre_enqueue.disconnect(receiver)
    assert queued() == [0, 1, 1]
    assert [held for _, _, held in entries().values()] == [due_index.FAILED]


# Receivers


@pytest.mark.seam
def test_a_receiver_is_called_in_the_tenants_schema(tenants, scheduler, alone):
    seen = []

    def receiver(task: dict[str, Any], **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_schema()")
            seen.append((task["schema_name"], connection.schema_name, cursor.fetchone()[0], Schedule.objects.count()))

    for name in tenants:
        for _ in range(2):
            insert(name, PAST)
    pre_enqueue.connect(receiver)
    try:
        fire.fire_due_together(tenants)
    finally:
        pre_enqueue.disconnect(receiver)
    assert sorted(seen) == sorted((name, name, name, 2) for name in tenants for _ in range(2))
    assert connection.schema_name == "public"


def test_where_somebody_listens_each_is_served_alone(tenants, scheduler, alone):
    """Rows are saved one by one then, in their tenant's schema."""
    saved = []

    def receiver(instance: Schedule, **_: Any) -> None:
        saved.append((connection.schema_name, instance.pk))

    for name in tenants:
        insert(name, timezone.now() - timedelta(seconds=1), id=7)
    post_save.connect(receiver, sender=Schedule)
    try:
        scheduler.tick()
    finally:
        post_save.disconnect(receiver, sender=Schedule)
    assert sorted(saved) == [(name, 7) for name in tenants]
    assert sorted(alone) == sorted(tenants)


@pytest.mark.seam
def test_a_failed_row_is_its_tenants(tenants, scheduler, alone):
    for name in tenants:
        insert(name, timezone.now() - timedelta(seconds=1), args="1 +" if name == "acme_corp" else "1")
    scheduler.tick()
    assert queued() == [0, 1, 1]
    for name in tenants:
        with in_schema(name):
            assert Task.objects.count() == (name == "acme_corp")
    assert alone == []
