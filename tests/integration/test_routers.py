"""A project's database router has no say in what tenant_q itself reads and writes.

The database that the router names has none of the tables, so whatever goes there fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import IntegrityError, connection, router
from django.db.models.signals import post_save
from django.test import Client
from django_q.models import Schedule, Task

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.checks import check_all
from tenant_q.exceptions import QueueFull
from tenant_q.lifecycle import prune_results, task_rows
from tenant_q.models import AuditRecord, GroupPart
from tenant_q.schedules import by_hand
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import make_due, sql, work
from tests.integration.planning import PAST
from tests.schemas import served_at

A = "acme_corp"
EFFECT = f"{__name__}.take_effect"


@pytest.fixture
def elsewhere(tenants, settings, unlimited) -> Iterator[None]:
    routers = settings.DATABASE_ROUTERS
    settings.DATABASE_ROUTERS = ["tests.routers.Elsewhere", *routers]
    assert router.db_for_read(Task) == router.db_for_write(Schedule) == "elsewhere"
    yield
    settings.DATABASE_ROUTERS = routers
    with in_public():
        AuditRecord.objects.all().delete()


def run(func: str, *args: Any, **keywords: Any) -> Task:
    id = QUtilities.add_async_task(func, *args, schema_name=A, **keywords)
    return QUtilities.fetch_task(id, schema_name=A)


def test_tasks_and_their_results(elsewhere, worker):
    ids = {
        "plain": QUtilities.add_async_task("tests.tasks.add", 1, group="g", schema_name=A),
        "hooked": QUtilities.add_async_task("tests.tasks.add", 1, group="g", hook="tests.tasks.hook", schema_name=A),
        "once": QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A, q_options={"transactional": True}),
        "failed": QUtilities.add_async_task("tests.tasks.fail", group="g", schema_name=A),
        "iter": QUtilities.add_async_tasks_from_iter("tests.tasks.add", [(1,), (2,)], schema_name=A),
        "sync": QUtilities.add_async_task("tests.tasks.add", 1, sync=True, schema_name=A),
    }
    chain = QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.add", (2,))], schema_name=A)
    work(worker)
    found = {name: QUtilities.fetch_task(id, schema_name=A).success for name, id in ids.items()}
    assert found == dict.fromkeys(ids, True) | {"failed": False}
    assert {name: QUtilities.get_status(id, schema_name=A) for name, id in ids.items()}["plain"] == "success"
    with in_schema(A):
        assert len(QUtilities.get_result_group(chain)) == 2
        assert len(QUtilities.fetch_task_group("g", failures=True)) == 3
        assert QUtilities.get_group_count("g", failures=True) == 1
        QUtilities.delete_task_group("g", tasks=True)
        assert QUtilities.get_group_count("g") == 0


def test_rows_with_receivers_of_the_projects_own(elsewhere, worker):
    saved = []

    def note(instance: Task, using: str, **_: object) -> None:
        saved.append(using)

    post_save.connect(note, sender=Task)
    try:
        QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
        work(worker)
    finally:
        post_save.disconnect(note, sender=Task)
    assert saved == ["default"]
    assert schemas.count_tasks(A) == 1


def test_a_redelivered_task_finds_its_row(elsewhere, make_worker, monkeypatch):
    first = make_worker("w1")
    id = QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
    with monkeypatch.context() as killed:
        killed.setattr(first.completer, "_acknowledge", lambda: None)
        first.tick()
    get_broker().reclaim("w1", running=None)
    second = make_worker("w2")
    work(second)
    assert second.lifespan.started == 0
    assert QUtilities.fetch_task(id, schema_name=A).attempt_count == 1


def test_pruning(elsewhere, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 1}
    policies.change(A, actor="boss", act="set", max_results=1)
    prune_results.prune(A)


def ignore(**_: object) -> None:
    """A receiver of the project's."""


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("names", [[A], ["acme_corp", "globex_inc", "initech_llc", "four", "five"]], ids=len)
def test_schedules(elsewhere, scheduler, is_watched, names):
    new = [name for name in names if name in ("four", "five")]
    if new:
        schemas.clone_tenants(new)
    if is_watched:
        post_save.connect(ignore, sender=Schedule)
    try:
        for name in names:
            QUtilities.create_schedule("tests.tasks.add", 1, name="n", next_run=PAST, schema_name=name)
            QUtilities.create_schedule(
                "tests.tasks.add", 1, schedule_type="D", next_run=PAST, repeats=1, schema_name=name
            )
            with pytest.raises(IntegrityError):
                QUtilities.create_schedule("tests.tasks.add", name="n", schema_name=name)
        scheduler.once = True
        while scheduler.slot.done == 0:
            scheduler.tick()
        assert [get_broker().queue_size(name) for name in names] == [2] * len(names)
    finally:
        post_save.disconnect(ignore, sender=Schedule)
        for name in new:
            schemas.drop_tenant(name)


def test_acts_of_operators_and_staff(elsewhere):
    with in_schema(A):
        row = QUtilities.create_schedule("tests.tasks.add", 1, schedule_type="D")
        assert by_hand.pause(row.pk, actor="boss")
        assert by_hand.resume(row.pk, actor="boss")
        assert by_hand.run_now(row, actor="boss")
        id = QUtilities.add_async_task("tests.tasks.add", 1)
        assert QUtilities.cancel(id, by="boss")
    policies.change(A, actor="boss", act="set", max_queued=1)
    with pytest.raises(QueueFull):
        for _ in range(3):
            QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
    for command in ("msinfo", "msschedules", "msdead"):
        call_command(command)
    call_command("msschedules", "--check")
    with in_public():
        assert AuditRecord.objects.using("default").count() >= 4


def test_parts_of_other_brokers(elsewhere):
    with in_public():
        assert GroupPart.record(A, "1", "g", "0", "text", 60) == 1
        assert GroupPart.live(A, "1", "g").delete()[0] == 1


@pytest.fixture
def browser(elsewhere, worker) -> Iterator[Client]:
    """A superuser in the admin of a tenant."""
    with served_at(A, "acme-corp.localhost"):
        client = Client(HTTP_HOST="acme-corp.localhost")
        with in_schema(A):
            client.force_login(get_user_model().objects.create_superuser("boss"))
        yield client
        with in_schema(A):
            get_user_model().objects.all().delete()


def test_a_tenants_admin(browser, worker):
    QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A)
    QUtilities.add_async_task("tests.tasks.fail", schema_name=A)
    work(worker)
    schedule = QUtilities.create_schedule("tests.tasks.add", 1, schedule_type="D", schema_name=A)
    with in_schema(A):
        (good,), (bad,) = (task_rows.rows().filter(success=success) for success in (True, False))
    for path in (
        "",
        "django_q/success/",
        "django_q/failure/",
        "django_q/schedule/",
        "django_q/schedule/add/",
        "tenant_q/livetask/",
        f"django_q/success/{good.pk}/change/",
        f"django_q/failure/{bad.pk}/change/",
        f"django_q/schedule/{schedule.pk}/change/",
        f"django_q/schedule/{schedule.pk}/delete/",
        f"django_q/success/{good.pk}/delete/",
    ):
        assert browser.get(f"/admin/{path}").status_code == 200, path
    data = {"func": "tests.tasks.add", "args": "3", "kwargs": "", "schedule_type": "D", "repeats": "-1", "name": "new"}
    data |= {"next_run_0": "2999-01-01", "next_run_1": "00:00:00"}
    assert browser.post("/admin/django_q/schedule/add/", data).status_code == 302
    changed = data | {"name": "other"}
    assert browser.post(f"/admin/django_q/schedule/{schedule.pk}/change/", changed).status_code == 302
    for act in ("run_now", "pause", "resume"):
        assert browser.post(f"/admin/django_q/schedule/{schedule.pk}/act/{act}/").status_code == 302
    assert browser.post(f"/admin/django_q/success/{good.pk}/act/run_again/").status_code == 302
    chosen = {"action": "delete_selected", "_selected_action": [bad.pk], "post": "yes"}
    assert browser.post("/admin/django_q/failure/", chosen).status_code == 302
    assert browser.post(f"/admin/django_q/success/{good.pk}/delete/", {"post": "yes"}).status_code == 302
    assert browser.post(f"/admin/django_q/schedule/{schedule.pk}/delete/", {"post": "yes"}).status_code == 302
    assert sql("SELECT name FROM acme_corp.django_q_schedule") == [("new",)]
    assert schemas.count_tasks(A) == 0
    assert get_broker().counts().queued == 2


# A replica that lags


def take_effect() -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO router_effect VALUES (1)")


def test_a_transactional_task_takes_effect_once_beside_a_replica_that_lags(tenants, settings, make_worker, monkeypatch):
    """Its worker is killed between the commit and the acknowledgement."""
    sql("CREATE TABLE acme_corp.router_effect (n int)")
    routers = settings.DATABASE_ROUTERS
    settings.DATABASE_ROUTERS = ["tests.routers.LaggingReplica"]
    try:
        first = make_worker("w1")
        QUtilities.add_async_task(EFFECT, schema_name=A, q_options={"transactional": True})
        with monkeypatch.context() as killed:
            killed.setattr(first.completer, "finish", lambda: None)
            first.tick()
        get_broker().reclaim("w1", running=None)
        make_due()
        work(make_worker("w2"))
        assert sql("SELECT count(*) FROM acme_corp.router_effect") == [(1,)]
    finally:
        settings.DATABASE_ROUTERS = routers
        sql("DROP TABLE acme_corp.router_effect")


# What `check` says


def found() -> set[str]:
    return {message.id for message in check_all()}


def test_check_names_a_router_that_sends_writes_elsewhere(elsewhere):
    (message,) = [one for one in check_all() if "TenantPolicy" in one.msg]
    assert (message.id, message.is_serious()) == ("tenant_q.E011", True)
    assert "sends writes of tenant_q.TenantPolicy to 'elsewhere', but the tenants are in 'default'" in message.msg


def test_check_names_a_replica_whose_schema_nobody_switches(tenants, settings):
    routers = settings.DATABASE_ROUTERS
    settings.DATABASE_ROUTERS = ["tests.routers.Replica"]
    try:
        assert "tenant_q.W007" in found()
        settings.TENANT_Q = {"databases": ["replica"]}
        assert not {"tenant_q.W007", "tenant_q.E011"} & found()
    finally:
        settings.DATABASE_ROUTERS = routers
