"""A name stands for one tenant: nothing of a deleted one is seen, run or in force in the next one of that name."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, connection, connections, transaction
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import brokers, policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.exceptions import BrokerError, TenantDeleted, TenantReplaced, UnknownTenant
from tenant_q.lifecycle import cached_results, push
from tenant_q.models import DueSchedule, TenantPolicy, TenantRecord
from tenant_q.operations import deleted_tenants
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.package.package import Package
from tenant_q.schedules import by_hand, fire
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import make_due, redis_key, sql, work

pytestmark = pytest.mark.seam


@pytest.fixture
def spare(tenants) -> Iterator[str]:
    """A tenant that the test may delete and make anew."""
    make("spare")
    yield "spare"
    for name in ("spare", "moved"):
        schemas.drop_tenant(name)
    TenantRecord.objects.all().delete()
    TenantPolicy.objects.all().delete()
    tenancy.forget_tenants()


def make(name: str) -> None:
    schemas.clone_tenants([name])
    deleted_tenants.find_and_clear()  # records a tenant that was made past `save()`
    tenancy.forget_tenants()


def replace(name: str = "spare") -> None:
    """Delete the tenant and make another one of that name."""
    schemas.drop_tenant(name)
    make(name)


def everything_in_redis() -> str:
    """All keys and values of the site in the broker, and of the cache, as one text."""
    client, found = tasks.client(), []
    names = [*client.scan_iter(f"*{get_broker().cluster}*"), *client.scan_iter(":1:*")]
    for name in names:
        kind = client.type(name).decode()
        read = {
            "string": client.get,
            "hash": client.hgetall,
            "list": lambda key: client.lrange(key, 0, -1),
            "zset": lambda key: client.zrange(key, 0, -1),
            "set": client.smembers,
        }[kind]
        found.append(f"{name!r}: {read(name)!r}")
    return "\n".join(found)


def enqueue_note(key: str, **options: Any) -> str:
    return QUtilities.add_async_task("tests.tasks.note_where", key, q_options=options)


# Queued, delayed, dead, cached, running


@pytest.mark.parametrize("options", [{}, {"delay": 60}, {"group": "g"}], ids=str)
def test_what_waits_does_not_run_in_the_next_tenant_of_that_name(spare, worker, options):
    key = f"identity-{get_broker().cluster}"
    with in_schema(spare):
        enqueue_note(key, **options)
    replace()
    with in_schema(spare):
        new = enqueue_note(key + "-new")
    make_due()
    work(worker)
    assert tasks.notes(key) == []
    assert [note["schema"] for note in tasks.notes(key + "-new")] == [spare]
    assert QUtilities.fetch_task(new, schema_name=spare).success


def test_what_was_enqueued_past_a_deletion_is_refused(spare, worker):
    """Signed for the old tenant, and put in the queue when the new one is there already."""
    with in_schema(spare):
        package = build("tests.tasks.note_where", (f"late-{get_broker().cluster}",), {}, schema=spare)
        push.sealed(package)
    replace()
    tasks.client().delete(redis_key("deleted"))
    push.push([package])
    work(worker)
    assert tasks.notes(package.args[0]) == []
    with in_schema(spare):
        assert not Task.objects.exists()
    # Nothing of it is kept, not even among the dead.
    assert get_broker().dead() == []
    assert f"#{package.tenant}" not in everything_in_redis()


def test_a_deletion_leaves_nothing_in_redis(spare, worker):
    with in_schema(spare):
        for options in ({}, {"delay": 60}, {"cached": 60, "group": "g"}, {"cached": True}):
            QUtilities.add_async_task("tests.tasks.add", 1, q_options=options)
        QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1, 2])
    work(worker)
    with in_schema(spare):
        enqueue_note("never")
        QUtilities.add_async_task("tests.tasks.add", 2, q_options={"delay": 60})
    policies.change(spare, actor="test", act="limit", weight=2)
    schemas.make_dead(spare)
    assert spare in everything_in_redis()
    schemas.drop_tenant(spare)
    left = everything_in_redis()
    assert spare not in left, left


def test_figures_of_a_deleted_tenant_are_nobody_elses(spare, worker):
    with in_schema(spare):
        QUtilities.add_async_task("tests.tasks.add", 1)
    work(worker)
    schemas.drop_tenant(spare)
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.add", 1)
    work(worker)
    loads = get_broker().loads()
    assert loads["acme_corp"].done == 1
    assert spare not in loads
    assert spare not in get_broker().totals().tenants
    assert get_broker().totals().tenants["acme_corp"].done == 1


def test_a_cached_result_is_not_the_next_tenants(spare, worker):
    with in_schema(spare):
        id = QUtilities.add_async_task("tests.tasks.add", 1, cached=60, group="June")
    work(worker)
    assert QUtilities.get_result(id, cached=True, schema_name=spare) == 1
    assert QUtilities.get_result_group("June", cached=True, schema_name=spare) == [1]
    kept = {name: tasks.client().get(name) for name in tasks.client().scan_iter(f"*{id}*")}
    replace()
    for name, value in kept.items():  # as if the deletion had not reached the cache
        tasks.client().set(name, value)
    assert QUtilities.get_result(id, cached=True, schema_name=spare) is None
    assert QUtilities.get_result_group("June", cached=True, schema_name=spare) is None
    assert QUtilities.get_group_count("June", cached=True, schema_name=spare) == 0


def test_groups_of_the_same_name_are_apart(spare, worker):
    with in_schema(spare):
        QUtilities.add_async_task("tests.tasks.add", 1, cached=True, group="June")
    work(worker)
    with tenancy.in_public():
        sql("DELETE FROM customers_customer WHERE schema_name = 'spare'") if not _has_domains() else _delete_rows()
    sql("DROP SCHEMA spare CASCADE")
    schemas.clone_tenants([spare])  # nobody has noticed the deletion yet
    tenancy.forget_tenants()
    with in_schema(spare):
        QUtilities.add_async_task("tests.tasks.add", 2, cached=True, group="June")
    work(worker)
    assert QUtilities.get_result_group("June", cached=True, schema_name=spare) == [2]
    assert QUtilities.get_group_count("June", cached=True, schema_name=spare) == 1


def test_the_row_of_a_task_that_outlives_its_tenant_is_not_written(spare, worker):
    key = f"outlives-{get_broker().cluster}"
    with in_schema(spare):
        id = QUtilities.add_async_task("tests.integration.test_tenant_identity.replace_beside", key, cached=False)
    work(worker)
    with in_schema(spare):
        assert not Task.objects.filter(id=id).exists()
    assert tasks.notes(key), "the task did not run"


def replace_beside(key: str) -> None:
    """A task whose tenant is replaced while it runs."""

    def run() -> None:
        # Only the rows and the schema: the deletion's own receivers would wait for this task.
        sql_in_thread("spare")
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    tasks.note(key, done=True)


def sql_in_thread(name: str) -> None:
    with tenancy.in_public():
        _delete_rows()
    sql(f"DROP SCHEMA {name} CASCADE")
    schemas.clone_tenants([name])


def _has_domains() -> bool:
    return hasattr(tenancy.tenant_model(), "domains")


def _delete_rows() -> None:
    """Past the ORM's signals, as by SQL."""
    with connection.cursor() as cursor:
        if _has_domains():
            cursor.execute(
                "DELETE FROM customers_domain WHERE tenant_id IN "
                "(SELECT id FROM customers_customer WHERE schema_name = 'spare')"
            )
        cursor.execute("DELETE FROM customers_customer WHERE schema_name = 'spare'")


# Schedules, policies


def test_a_fire_of_the_next_tenant_is_not_taken_for_one_before(spare, scheduler, worker):
    """The same schedule id and planned time, within the day in which ids of fires stay known."""
    planned = timezone.now() - timedelta(minutes=1)
    for number in (1, 2):
        with in_schema(spare):
            row = Schedule.objects.create(id=77, func="tests.tasks.add", args="1", schedule_type="O", repeats=-1)
            Schedule.objects.filter(pk=row.pk).update(next_run=planned)
        assert fire.fire_due(spare) == 1
        work(worker)
        with in_schema(spare):
            assert Task.objects.count() == 1, number
        if number == 1:
            replace()


def test_a_policy_is_not_the_next_tenants(spare):
    policies.change(spare, actor="test", act="pause", paused=True)
    replace()
    assert not policies.is_paused(spare)
    assert get_broker().policies().get(spare) in (None, brokers.protocol.Policy())


def test_the_index_forgets_a_deleted_tenant(spare):
    with in_schema(spare):
        Schedule.objects.create(func="tests.tasks.add", args="1", schedule_type="H")
    assert DueSchedule.objects.filter(schema_name=spare).exists()
    schemas.drop_tenant(spare)
    assert not DueSchedule.objects.filter(schema_name=spare).exists()


def test_a_paused_schedule_does_not_resume_as_the_one_before(spare):
    later = timezone.now() + timedelta(days=3)
    with in_schema(spare):
        Schedule.objects.create(id=5, func="tests.tasks.add", args="1", schedule_type="O", next_run=later)
        by_hand.pause(5, actor="test")
    replace()
    with in_schema(spare):
        Schedule.objects.create(id=5, func="tests.tasks.add", args="1", schedule_type="O")
        Schedule.objects.filter(pk=5).update(next_run=None)
        by_hand.resume(5, actor="test")
        assert Schedule.objects.get(pk=5).next_run < later - timedelta(days=2)


# How a deletion takes effect


def test_a_deletion_that_is_rolled_back_removes_nothing(spare, worker):
    with in_schema(spare):
        id = QUtilities.add_async_task("tests.tasks.add", 1)
    policies.change(spare, actor="test", act="limit", weight=2)
    connection.set_schema_to_public()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tenancy.tenant_model().objects.get(schema_name=spare).delete()
        raise ZeroDivisionError
    tenancy.forget_tenants()
    deleted_tenants.find_and_clear()
    work(worker)
    assert QUtilities.get_result(id, schema_name=spare) == 1
    assert policies.policy_of(spare).weight == 2


def test_a_deletion_while_the_broker_is_away_is_made_up_for(spare, worker, monkeypatch, caplog):
    with in_schema(spare):
        enqueue_note("never")

    def away() -> None:
        raise BrokerError("Redis is away")

    with monkeypatch.context() as patched:
        patched.setattr(deleted_tenants, "site_brokers", away)
        schemas.drop_tenant(spare)
    assert spare in everything_in_redis()
    assert "left it to the scheduler" in caplog.text
    deleted_tenants.find_and_clear()
    assert spare not in everything_in_redis()
    assert TenantRecord.objects.get(schema_name=spare).cleared


def test_a_deletion_succeeds_whatever_fails_after_its_commit(spare, monkeypatch, caplog):
    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(deleted_tenants, "site_brokers", broken)
    schemas.drop_tenant(spare)
    assert "broken" in caplog.text
    assert TenantRecord.objects.get(schema_name=spare).cleared is None


def test_a_cache_that_is_away_keeps_no_scheduler_from_firing(spare, worker, scheduler, monkeypatch, caplog):
    """It fails with errors of its own kind; what is in it is removed when it is back."""

    class Away:
        def delete_many(self, keys: list[str]) -> None:
            raise ConnectionError("the cache is away")

    with in_schema(spare):
        QUtilities.add_async_task("tests.tasks.add", 1, q_options={"cached": 60})
    work(worker)
    with in_schema("acme_corp"):
        row = Schedule.objects.create(func="tests.tasks.add", args="1", schedule_type="O", repeats=-1)
        Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(minutes=1))
    with monkeypatch.context() as away:
        away.setattr(cached_results, "tenant_cache", Away)
        schemas.drop_tenant(spare)
        scheduler.tick()
        assert get_broker().queue_size("acme_corp") == 1
        assert "the cache is away" in caplog.text
        assert TenantRecord.objects.get(schema_name=spare).cleared is None
    deleted_tenants.find_and_clear()
    assert TenantRecord.objects.get(schema_name=spare).cleared
    assert spare not in everything_in_redis()


def test_what_fails_in_clearing_keeps_no_scheduler_from_firing(tenants, scheduler, monkeypatch, caplog):
    def refused() -> None:
        raise ProgrammingError("permission denied for table tenant_q_tenantrecord")

    monkeypatch.setattr(deleted_tenants, "find_and_clear", refused)
    with in_schema("acme_corp"):
        row = Schedule.objects.create(func="tests.tasks.add", args="1", schedule_type="O", repeats=-1)
        Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(minutes=1))
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1
    assert "Could not remove the rest of deleted tenants: permission denied" in caplog.text


def test_a_tenant_that_was_deleted_by_sql_is_found(spare, worker, scheduler):
    with in_schema(spare):
        enqueue_note("never")
        Schedule.objects.create(func="tests.tasks.add", args="1", schedule_type="H")
    policies.change(spare, actor="test", act="limit", weight=2)
    with tenancy.in_public():
        _delete_rows()
    sql("DROP SCHEMA spare CASCADE")
    tenancy.forget_tenants()
    scheduler.tick()
    assert spare not in everything_in_redis()
    assert not TenantPolicy.objects.filter(schema_name=spare).exists()
    assert not DueSchedule.objects.filter(schema_name=spare).exists()


def test_a_queryset_of_tenants_that_is_deleted_leaves_nothing(spare):
    with in_schema(spare):
        enqueue_note("never")
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    assert spare not in everything_in_redis()


# A dump and a restore


def restore(key: str) -> None:
    """Put back the tenant's row, with its key, and its schema, whose tables have other OIDs."""
    model = tenancy.tenant_model()
    connection.set_schema_to_public()
    model.objects.bulk_create([model(pk=key, schema_name="spare", name="spare", **schemas.domain_of(model, "spare"))])
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA spare")
        for table in ("django_q_task", "django_q_schedule"):
            cursor.execute(f"CREATE TABLE spare.{table} (LIKE acme_corp.{table} INCLUDING ALL)")
    tenancy.forget_tenants()


def drop_past_the_orm() -> None:
    with tenancy.in_public():
        _delete_rows()
    sql("DROP SCHEMA spare CASCADE")
    tenancy.forget_tenants()


def test_a_dump_and_a_restore_keep_the_identity(spare, worker):
    with in_schema(spare):
        key = tenancy.current_key(spare)
        id = QUtilities.add_async_task("tests.tasks.add", 1)
    drop_past_the_orm()
    restore(key)
    deleted_tenants.find_and_clear()
    work(worker)
    assert QUtilities.get_result(id, schema_name=spare) == 1


def test_a_tenant_that_is_restored_after_it_was_found_gone_is_served(spare, worker, monkeypatch):
    with in_schema(spare):
        key = tenancy.current_key(spare)
        QUtilities.add_async_task("tests.tasks.add", 1)
    drop_past_the_orm()
    with monkeypatch.context() as patched:
        patched.setattr(deleted_tenants, "clear", lambda *_: False)
        deleted_tenants.find_and_clear()
    restore(key)
    tasks.client().delete(redis_key("deleted"))
    with in_schema(spare):
        id = QUtilities.add_async_task("tests.tasks.add", 2)
    deleted_tenants.find_and_clear()
    work(worker)
    assert QUtilities.get_result(id, schema_name=spare) == 2
    assert TenantRecord.objects.get(key=key).deleted is None


# Who enqueues with an old idea of the tenant


def test_a_cache_that_knows_the_tenant_before_addresses_the_new_one(spare, worker):
    """Another process has deleted the tenant and made the next one a moment ago."""
    tenancy.get_tenant(spare)
    before = dict(tenancy.tenants._known)
    replace()
    tenancy.tenants._known.update(before)
    id = QUtilities.add_async_task("tests.tasks.add", 1, schema_name=spare)
    work(worker)
    assert QUtilities.get_result(id, schema_name=spare) == 1


def test_a_tenant_object_of_before_enqueues_for_nobody(spare):
    tenant = tenancy.get_tenant(spare)
    replace()
    connection.set_tenant(tenant)
    with pytest.raises(TenantDeleted, match="was deleted"):
        QUtilities.add_async_task("tests.tasks.add", 1)
    with pytest.raises((TenantReplaced, UnknownTenant)):
        QUtilities.get_result("x" * 32)


def test_a_worker_whose_cache_is_old_serves_the_new_tenant(spare, worker):
    tenancy.get_tenant(spare)
    before = dict(tenancy.tenants._known)
    replace()
    with in_schema(spare):
        id = QUtilities.add_async_task("tests.tasks.where")
        key = tenancy.current_key(spare)
    tenancy.tenants._known.update(before)
    work(worker)
    assert str(QUtilities.get_result(id, schema_name=spare)["pk"]) == key


# Packages of the version before


def enqueue_as_before(schema: str, started: Any, note: str) -> None:
    package = build("tests.tasks.note_where", (note,), {}, schema=schema)
    task = {name: value for name, value in package.task.items() if name not in ("tenant", "origin")}
    message = push.message_of(Package(task | {"started": started}), seal(Package(task | {"started": started})))
    get_broker().enqueue([message])


def test_a_package_without_a_key_runs_in_a_tenant_that_is_older(spare, worker):
    key = f"legacy-{get_broker().cluster}"
    enqueue_as_before(spare, timezone.now(), key)
    work(worker)
    assert len(tasks.notes(key)) == 1


def test_a_package_without_a_key_does_not_run_in_a_tenant_that_is_younger(spare, worker, caplog):
    key = f"legacy-{get_broker().cluster}"
    before = timezone.now()
    replace()
    enqueue_as_before(spare, before, key)
    with caplog.at_level(logging.ERROR):
        work(worker)
    assert tasks.notes(key) == []
    assert "is older than the tenant" in caplog.text
    assert [dead.schema for dead in get_broker().dead()] == [spare]


def test_what_follows_a_package_without_a_key_has_the_key(spare, worker):
    task = build("tests.tasks.add", (1,), {}, schema=spare).task | {
        "chain": [("tests.tasks.add", (2,), {})],
        "group": "c",
    }
    get_broker().enqueue([push.message_of(Package(task), seal(Package(task)))])
    worker.tick()
    [live] = get_broker().live(spare)
    assert json.dumps(tenancy.current_key(spare)) in json.dumps(enqueue_task(live.payload)["tenant"])


def enqueue_task(payload: str) -> dict[str, Any]:
    from tenant_q.package.envelope import open_package

    return open_package(payload).task
