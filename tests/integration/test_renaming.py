"""`mstenant rename` keeps what a tenant has; where a tenant was renamed in another way, nothing of before runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.models import AuditRecord, DueSchedule, TenantOperation, TenantPolicy, TenantRecord, TenantRole
from tenant_q.operations import deleted_tenants, renaming
from tenant_q.schedules import fire
from tenant_q.tenancy import in_schema
from tenant_q.tenancy.cache import tenant_cache
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import make_due, sql, work

pytestmark = pytest.mark.seam


@pytest.fixture
def old(tenants) -> Iterator[str]:
    schemas.clone_tenants(["old_name"])
    deleted_tenants.find_and_clear()
    tenancy.forget_tenants()
    yield "old_name"
    for name in ("old_name", "new_name"):
        schemas.drop_tenant(name)
    TenantRecord.objects.filter(schema_name__in=("old_name", "new_name")).delete()
    TenantPolicy.objects.all().delete()
    tenancy.forget_tenants()


def rename(*arguments: str) -> str:
    out = StringIO()
    call_command("mstenant", "rename", "old_name", "new_name", *arguments, stdout=out)
    return out.getvalue()


def note_key() -> str:
    return f"rename-{get_broker().cluster}"


def test_what_a_tenant_has_comes_along(old, worker, scheduler):
    policies.change(old, actor="test", act="limit", weight=2)
    with in_schema(old):
        cached = QUtilities.add_async_task("tests.tasks.add", 1, cached=60, group="June")
        done = QUtilities.add_async_task("tests.tasks.add", 3)
        Schedule.objects.create(id=4, func="tests.tasks.add", args="9", schedule_type="D", name="daily")
    work(worker)
    schemas.make_dead(old)
    with in_schema(old):
        queued = QUtilities.add_async_task("tests.tasks.note_where", note_key())
        delayed = QUtilities.add_async_task("tests.tasks.note_where", note_key(), q_options={"delay": 600})
    dead = [one.id for one in get_broker().dead(old)]

    assert "Renamed old_name to new_name" in rename()

    assert [one.id for one in get_broker().dead("new_name")] == dead
    assert QUtilities.get_status(delayed, schema_name="new_name") == "delayed"
    assert QUtilities.get_queue_size(schema_name="new_name") == 1
    assert "old_name" not in get_broker().loads()
    make_due()
    work(worker)
    assert [note["schema"] for note in tasks.notes(note_key())] == ["new_name", "new_name"]
    for id in (queued, delayed, done):
        assert QUtilities.fetch_task(id, schema_name="new_name").success
    assert QUtilities.get_result(cached, cached=True, schema_name="new_name") == 1
    assert QUtilities.get_result_group("June", cached=True, schema_name="new_name") == [1]
    assert policies.policy_of("new_name").weight == 2
    assert get_broker().policies()["new_name"].weight == 2
    assert not policies.is_paused("new_name")
    assert {row.schema_name for row in DueSchedule.objects.filter(schedule_id=4)} == {"new_name"}
    assert AuditRecord.objects.filter(act="rename", schema_name="new_name").exists()


def test_a_schedule_goes_on_under_the_new_name(old, worker):
    with in_schema(old):
        Schedule.objects.create(id=4, func="tests.tasks.note_where", args=repr(note_key()), schedule_type="D")
    rename()
    with in_schema("new_name"):
        Schedule.objects.filter(pk=4).update(next_run=timezone.now() - timedelta(minutes=1))
    assert fire.fire_due("new_name") == 1
    work(worker)
    assert [note["schema"] for note in tasks.notes(note_key())] == ["new_name"]


def test_the_old_name_may_be_anothers(old, worker):
    with in_schema(old):
        QUtilities.add_async_task("tests.tasks.note_where", note_key())
    rename()
    own = schemas.domain_of(tenancy.tenant_model(), "new_name")
    if own:
        tenancy.tenant_model().objects.filter(schema_name="new_name").update(**own)
    schemas.clone_tenants(["old_name"])
    deleted_tenants.find_and_clear()
    tenancy.forget_tenants()
    with in_schema("old_name"):
        QUtilities.add_async_task("tests.tasks.note_where", note_key())
    work(worker)
    assert sorted(note["schema"] for note in tasks.notes(note_key())) == ["new_name", "old_name"]
    for name in ("old_name", "new_name"):
        with in_schema(name):
            assert Task.objects.count() == 1


@pytest.fixture
def roles() -> Iterator[Any]:
    yield TenantRole.objects
    for model in (TenantRole, TenantOperation):
        model.objects.all().delete()


def test_its_role_comes_along_and_no_later_tenant_of_the_name_has_it(old, roles):
    roles.create(schema_name=old, role="db_old_name", version=3, state="active")
    rename()
    assert [(one.schema_name, one.role, one.version, one.state) for one in roles.all()] == [
        ("new_name", "db_old_name", 3, "active")
    ]


def test_of_two_roles_after_a_rename_by_hand_the_first_is_not_served(old, roles):
    deleted_tenants.find_and_clear()
    roles.create(schema_name=old, role="db_old_name", state="active")
    rename_by_hand()
    roles.create(schema_name="new_name", role="db_new_name", state="active")
    rename()
    assert {one.role: (one.schema_name, one.state) for one in roles.all()} == {
        "db_old_name": ("old_name", "leaving"),
        "db_new_name": ("new_name", "active"),
    }


def test_what_is_left_of_a_role_or_an_operation_refuses_a_rename(old, roles):
    TenantOperation.objects.create(schema_name=old, kind="provision", actor="o")
    with pytest.raises(CommandError, match="A provision of old_name has not ended, so nothing is renamed"):
        rename()
    TenantOperation.objects.all().delete()
    roles.create(schema_name="new_name", role="db_new_name", state="active")
    with pytest.raises(CommandError, match="A former tenant 'new_name' has left its database role; run `python"):
        rename()
    assert tenancy.get_tenant(old)


def test_a_rename_makes_way_for_the_removal_of_a_former_tenant_of_the_name(old, roles):
    roles.create(schema_name=old, role="db_old_name", state="leaving")
    TenantOperation.objects.create(schema_name=old, kind="decommission", arguments={"key": "a former one"}, actor="o")
    rename()
    assert roles.get().schema_name == TenantOperation.objects.get().schema_name == old


def test_a_tenant_that_was_paused_stays_so(old):
    policies.change(old, actor="test", act="pause", paused=True)
    rename()
    assert policies.is_paused("new_name")


def test_running_tasks_are_waited_for(old, worker):
    with in_schema(old):
        QUtilities.add_async_task("tests.tasks.nothing")
    batch = get_broker().fetch("elsewhere")
    with pytest.raises(CommandError, match="1 task of old_name did not end within 0 s"):
        rename("--wait", "0")
    assert not policies.is_paused(old)
    get_broker().give_back("elsewhere", batch.leases)
    rename()


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokerError])
def test_a_rename_that_ends_while_it_waits_leaves_no_pause(old, worker, monkeypatch, error):
    with monkeypatch.context() as broken:
        broken.setattr(renaming, "_running_of", raising(error))
        with pytest.raises((KeyboardInterrupt, CommandError)):
            rename()
    assert not policies.is_paused(old)


def test_a_rename_that_was_killed_while_it_waited_leaves_no_pause_when_it_is_run_again(old, worker, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(renaming, "_running_of", raising(KeyboardInterrupt))
        broken.setattr(renaming, "_give_up", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            rename()
    assert policies.is_paused(old)
    rename()
    assert not policies.is_paused("new_name")


def test_a_pause_after_a_rename_that_was_given_up_stays(old, worker):
    with in_schema(old):
        QUtilities.add_async_task("tests.tasks.nothing")
    batch = get_broker().fetch("elsewhere")
    with pytest.raises(CommandError, match="did not end"):
        rename("--wait", "0")
    get_broker().give_back("elsewhere", batch.leases)
    policies.change(old, actor="test", act="pause", paused=True)
    rename()
    assert policies.is_paused("new_name")


def raising(error):
    def fail(*args):
        raise error("stop")

    return fail


def test_a_cached_result_that_cannot_be_read_keeps_no_tenant_from_its_name(old, worker, monkeypatch):
    """It was signed with a key that is gone, say."""
    with in_schema(old):
        ids = [QUtilities.add_async_task("tests.tasks.add", n, cached=60) for n in (1, 2)]
    work(worker)
    with in_schema(old):
        tenant_cache().set(f"{conf().site}:{ids[0]}", "not signed", 60)
    rename()
    assert QUtilities.get_result(ids[1], cached=True, schema_name="new_name") == 2
    assert QUtilities.get_result(ids[0], cached=True, schema_name="new_name") is None
    assert not policies.is_paused("new_name")


@pytest.mark.parametrize(
    ("new", "why"), [("acme_corp", "has the schema name 'acme_corp' already"), ("pg_x", "PostgreSQL reserves")], ids=str
)
def test_a_name_that_cannot_be_is_refused(old, new, why):
    with pytest.raises(CommandError, match=why):
        call_command("mstenant", "rename", old, new)
    assert tenancy.get_tenant(old)


def test_a_schema_that_is_there_is_refused(old):
    sql("CREATE SCHEMA new_name")
    try:
        with pytest.raises(CommandError, match="has a schema 'new_name' already"):
            rename()
    finally:
        sql("DROP SCHEMA new_name")


def test_both_names_are_needed():
    with pytest.raises(CommandError, match="Give both names"):
        call_command("mstenant", "rename", "acme_corp")


def rename_by_hand() -> None:
    sql("ALTER SCHEMA old_name RENAME TO new_name")
    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name="old_name").update(schema_name="new_name")
    tenancy.forget_tenants()


def test_a_rename_by_hand_runs_nothing_of_before(old, worker):
    with in_schema(old):
        QUtilities.add_async_task("tests.tasks.note_where", note_key())
    rename_by_hand()
    for _ in range(MOST_PUT_OFFS + 1):
        work(worker)
        make_due()
    assert tasks.notes(note_key()) == []
    assert len(get_broker().dead()) == 1


def test_a_rename_by_hand_is_completed(old, worker):
    with in_schema(old):
        id = QUtilities.add_async_task("tests.tasks.note_where", note_key())
    rename_by_hand()
    work(worker)
    rename()
    make_due()
    work(worker)
    assert [note["schema"] for note in tasks.notes(note_key())] == ["new_name"]
    assert QUtilities.fetch_task(id, schema_name="new_name").success
    rename()  # again: nothing is left to do
