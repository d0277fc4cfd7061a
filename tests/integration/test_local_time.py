"""With `USE_TZ=False` every time is local: what fires, what is saved, and what pages and commands show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.db import connections
from django.template.loader import render_to_string
from django.utils import timezone
from django_q.models import Schedule, Task
from prometheus_client import generate_latest

from tenant_q import tenancy
from tenant_q.admin import live, operators
from tenant_q.admin.schedules import PREVIEWED
from tenant_q.brokers import get_broker
from tenant_q.models import AuditRecord
from tenant_q.operations import health
from tenant_q.operations.metrics import registry
from tenant_q.operations.site import read_site
from tenant_q.operations.status import Death
from tenant_q.schedules import by_hand, row_runs
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import sql, work
from tests.integration.planning import fire_due, fire_due_together

A, B = "acme_corp", "globex_inc"
KOLKATA = ZoneInfo("Asia/Kolkata")  # five and a half hours before UTC, the zone of the test project
SOON = timedelta(seconds=90)


@pytest.fixture(autouse=True)
def local(tenants, settings) -> Iterator[None]:
    """Sessions and adapters are made anew, for Django sets them up by these settings."""
    connections.close_all()
    settings.TIME_ZONE = "Asia/Kolkata"
    settings.USE_TZ = False
    tenancy.forget_tenants()
    yield
    AuditRecord.objects.filter(act__in=[by_hand.PAUSE, by_hand.RESUME]).delete()
    connections.close_all()


def now() -> datetime:
    """What a clock on the wall in Kolkata shows."""
    return datetime.now(KOLKATA).replace(tzinfo=None)


def is_now(moment: datetime, ahead: timedelta = timedelta(0)) -> bool:
    return timezone.is_naive(moment) and abs(moment - now() - ahead) < SOON


def stored(column: str, table: str) -> datetime:
    """What PostgreSQL has, with its offset, past Django's adapters."""
    ((text,),) = sql(f"SELECT to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') FROM {A}.{table}")
    return datetime.fromisoformat(f"{text}+00:00")


def command(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def make(schema: str = A, **fields: Any) -> Schedule:
    return QUtilities.create_schedule("math.floor", 2.5, schema_name=schema, **fields)


def test_django_shows_what_is_expected_here():
    assert is_now(timezone.now())


def test_the_page_of_running_and_queued_tasks():
    QUtilities.add_async_task("math.floor", 2.5, q_options={"delay": 3600}, schema_name=A)
    with in_schema(A):
        (found,) = live.find_live(10)
        row = live.as_row(found)
    assert row.due and is_now(row.due, timedelta(hours=1))
    page = render_to_string("tenant_q/admin/live_table.html", {"rows": [row], "limit": 100})
    assert f"{row.due:%H:%M}" in page or f"{row.due:%I:%M}".lstrip("0") in page


def test_dead_packages_and_deaths():
    broker = get_broker()
    QUtilities.add_async_task("math.floor", 2.5, schema_name=A)
    (lease,) = broker.fetch("w").leases
    broker.dead_letter("w", lease, "a cause")
    (found,) = broker.dead()
    assert is_now(operators._as_dead_row(found)["when"])
    assert f"{now():%Y-%m-%d %H:}" in command("msdead", "list") and "+05:30" in command("msdead", "list")
    assert is_now(Death(found.died, "worker", 1, "was killed").moment)


@pytest.mark.parametrize("together", [False, True])
def test_schedules_fire_when_their_time_has_come(together, worker):
    due, later = now() - timedelta(minutes=1), now() + timedelta(minutes=1)
    made = make(schedule_type="D", next_run=due, intended_date_kwarg="planned", name="due")
    make(schedule_type="D", next_run=later, name="later")
    pushed: list[Any] = []
    if together:
        assert fire_due_together([A, B], pushed.extend) == {A: 1}
    else:
        assert fire_due(A, pushed.extend) == 1
    assert pushed[0].kwargs["planned"] == due.isoformat()
    with in_schema(A):
        assert Schedule.objects.get(pk=made.pk).next_run == due + timedelta(days=1)


def test_a_schedule_of_the_scheduler(scheduler, worker):
    make(schedule_type="I", minutes=10, next_run=now() - timedelta(minutes=25), name="each")
    make(schedule_type="C", cron="0 4 * * *", name="at four")
    assert scheduler.tick() == 0.0
    while scheduler.tick() == 0.0:
        pass
    work(worker)
    with in_schema(A):
        assert Task.objects.filter(group="each", success=True).count() == 3
        assert Schedule.objects.get(name="at four").next_run.hour == 4
        task = Task.objects.order_by("stopped").last()
    assert is_now(task.started) and is_now(task.stopped)
    assert read_site().late == 0.0


def test_a_row_has_the_real_moment(worker):
    QUtilities.add_async_task("math.floor", 2.5, schema_name=A)
    work(worker)
    assert abs(stored("stopped", "django_q_task") - datetime.now(KOLKATA)) < SOON
    assert len(QUtilities.get_result_group("none", schema_name=A) or []) == 0


def test_a_changed_recurrence_pause_and_resume():
    planned = now().replace(microsecond=0) + timedelta(days=6)
    made = make(schedule_type="W", next_run=planned, name="report")
    with in_schema(A):
        Schedule.objects.update_or_create(name="report", defaults={"schedule_type": "H"})
        row = Schedule.objects.get(pk=made.pk)
        assert now() < row.next_run <= now() + timedelta(hours=1)
        before = row.next_run
        assert by_hand.pause(row.pk, actor="x") and by_hand.resume(row.pk, actor="x")
        assert Schedule.objects.get().next_run == before
        assert row_runs.preview(row, timezone.now(), PREVIEWED)[1] == before + timedelta(hours=1)
        by_hand.run_now(row, actor="x")


def test_the_commands_show_local_time_with_its_offset():
    planned = now().replace(microsecond=0) + timedelta(hours=3)
    make(schedule_type="D", next_run=planned, name="report")
    (found,) = json.loads(command("msschedules", "--json"))
    assert datetime.fromisoformat(found["next_run"]) == planned.replace(tzinfo=KOLKATA)
    shown = f"{planned:%Y-%m-%d %H:%M:%S}+05:30"
    assert shown in command("msschedules")
    assert "agrees with the schedules" in command("msschedules", "--check")
    tenant = next(one for one in json.loads(command("msinfo", "--json"))["tenants"] if one["schema"] == A)
    assert datetime.fromisoformat(tenant["next_fire"]) == planned.replace(tzinfo=KOLKATA)
    assert f"{planned:%H:%M}" in command("msinfo")


def test_what_is_late_is_late_by_the_real_clock(monkeypatch):
    make(schedule_type="D", next_run=now() - timedelta(minutes=5))
    make(B, schedule_type="D", next_run=now() + timedelta(hours=3))
    assert 290 < read_site().late < 400
    assert not health.examine(seconds=30).outages
    text = generate_latest(registry()).decode()
    (late,) = re.findall(r"^tenant_q_scheduler_late_seconds(?:{.*})? (\S+)$", text, re.MULTILINE)
    assert 290 < float(late) < 400
