"""The real cluster: a schedule that somebody adds starts on time. How late it is is printed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q.brokers import get_broker
from tenant_q.cluster.scheduler import POLL_SECONDS
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until

WAIT = 60_000


@pytest.fixture
def cluster(tenants, mscluster) -> Any:
    """One whose scheduler has nothing to do and sleeps until the next poll."""
    started = mscluster("--workers", "1")
    wait_until(lambda: "Verified the due index" in started.log, what="the scheduler to be at rest")
    return started


@pytest.fixture
def admin(tenants) -> Iterator[Client]:
    """The testproject's admin of one tenant, logged in, at the tenant's own host."""
    name, host = "globex_inc", "globex-inc.localhost"  # a host name has no underscore
    client = Client(HTTP_HOST=host)
    with schemas.served_at(name, host):
        with in_schema(name):
            user = get_user_model().objects.create_superuser("boss")
            client.force_login(user)
        yield client
        with in_schema(name):
            client.logout()
            user.delete()


def told(capsys: Any, text: str) -> None:
    with capsys.disabled():
        print(f"\n  {text}")


def started(schema: str, name: str) -> Task:
    with in_schema(schema):
        (task,) = QUtilities.fetch_task_group(name, wait=WAIT)
    assert task.success, task.result
    return task


def check_on_time(task: Task, added: Any, planned: Any, how: str, capsys: Any) -> None:
    late = (task.started - planned).total_seconds()
    told(capsys, f"{how}: started {1000 * late:.0f} ms late, {(task.started - added).total_seconds():.2f} s after it")
    assert late > -0.001, "never too early"
    assert late < POLL_SECONDS / 2, "it was notified: no poll found it"


@pytest.mark.seam
def test_a_schedule_added_through_the_orm_starts_on_time(cluster, capsys):
    added = timezone.now()
    planned = added + timedelta(seconds=1)
    with in_schema("acme_corp"):
        Schedule.objects.create(name="soon", func="tests.tasks.nothing", schedule_type="D", next_run=planned)
    check_on_time(started("acme_corp", "soon"), added, planned, "added through the ORM", capsys)


@pytest.mark.seam
def test_a_schedule_added_through_the_admin_starts_on_time(cluster, admin, capsys):
    added = timezone.now()
    planned = added + timedelta(seconds=1)
    form = {
        "name": "soon",
        "func": "tests.tasks.own_schema",
        "schedule_type": "D",
        "repeats": "-1",
        "next_run_0": f"{planned:%Y-%m-%d}",
        "next_run_1": f"{planned:%H:%M:%S.%f}",
    }
    answer = admin.post("/admin/django_q/schedule/add/", form)
    connection.set_schema_to_public()
    assert answer.status_code == 302, answer.content.decode()
    task = started("globex_inc", "soon")
    assert task.result == "globex_inc"
    check_on_time(task, added, planned, "added through the admin", capsys)


def test_a_schedule_moved_to_an_earlier_time_starts_on_time(cluster, capsys):
    with in_schema("acme_corp"):
        made = QUtilities.create_schedule(
            "tests.tasks.nothing", name="n", schedule_type="D", next_run=timezone.now() + timedelta(days=1)
        )
        added = planned = timezone.now()
        Schedule.objects.filter(pk=made.pk).update(next_run=planned)
    check_on_time(started("acme_corp", "n"), added, planned, "moved to now", capsys)


def test_what_a_stopped_cluster_missed_is_fired_when_one_starts(tenants, mscluster):
    planned = timezone.now()
    with in_schema("acme_corp"):
        QUtilities.create_schedule("tests.tasks.nothing", name="n", schedule_type="D", next_run=planned)
    assert get_broker().counts().open == 0
    cluster = mscluster("--workers", "1")
    started("acme_corp", "n")
    with in_schema("acme_corp"):
        assert Schedule.objects.get().next_run == planned + timedelta(days=1)
    assert cluster.stop() == 0
