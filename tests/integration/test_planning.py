"""A recurrence that is changed plans the next run anew, whichever way of the ORM changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.models import AuditRecord
from tenant_q.schedules import by_hand
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import sql
from tests.integration.planning import fire_due, is_right

A = "acme_corp"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _in_tenant(tenants) -> Iterator[None]:
    with in_schema(A):
        yield
    connection.set_schema_to_public()
    AuditRecord.objects.filter(act__in=[by_hand.PAUSE, by_hand.RESUME]).delete()


@pytest.fixture
def row() -> Schedule:
    """A weekly schedule that runs in six days, as late in the day as it is now."""
    made = QUtilities.create_schedule("math.floor", 2.5, name="report", schedule_type="W", next_run=in_days(6))
    return Schedule.objects.get(pk=made.pk)


def in_days(days: float) -> datetime:
    return (timezone.now() + days * DAY).replace(microsecond=0)


def save(row: Schedule, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


def save_fields(row: Schedule, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=[*values])


def update_or_create(row: Schedule, **values: Any) -> None:
    Schedule.objects.update_or_create(name=row.name, defaults=values)


def save_anew(row: Schedule, **values: Any) -> None:
    """An object that was not loaded but made, with the key of a row that is there."""
    kept = {field.name: getattr(row, field.name) for field in Schedule._meta.concrete_fields}
    Schedule(**kept | values).save()


WAYS = [save, save_fields, update_or_create, save_anew]
ways = pytest.mark.parametrize("change", WAYS)


@ways
@pytest.mark.parametrize("paused", [False, True])
def test_a_new_cron_text_plans_anew_and_a_paused_schedule_stays_paused(row, change: Callable[..., None], paused: bool):
    if paused:
        by_hand.pause(row.pk, actor="x")
        row.refresh_from_db()
    change(row, schedule_type="C", cron="30 6 * * *")
    found = Schedule.objects.get()
    if paused:
        assert found.next_run is None
    else:
        assert timezone.now() < found.next_run < timezone.now() + DAY
        local = timezone.localtime(found.next_run)
        assert (local.hour, local.minute) == (6, 30)
    assert is_right(A)


@ways
def test_another_cron_text_plans_anew(change):
    made = QUtilities.create_schedule("math.floor", 2.5, name="report", schedule_type="C", cron="30 6 1 1 *")
    change(Schedule.objects.get(pk=made.pk), cron="45 7 * * *")
    found = timezone.localtime(Schedule.objects.get().next_run)
    assert (found.hour, found.minute) == (7, 45) and found < timezone.now() + DAY


@ways
def test_a_next_run_given_in_the_same_call_wins(row, change):
    wanted = in_days(3)
    change(row, schedule_type="C", cron="30 6 * * *", next_run=wanted)
    assert Schedule.objects.get().next_run == wanted


@ways
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"schedule_type": "D"}, lambda before, now: before - 5 * DAY if before - 6 * DAY <= now else before - 6 * DAY),
        ({"schedule_type": "O"}, lambda before, now: before),
        ({"schedule_type": "W"}, lambda before, now: before),
        ({"schedule_type": "W", "minutes": 5, "cron": "* * * * *"}, lambda before, now: before),
        ({"name": "report", "func": "math.ceil", "repeats": 3}, lambda before, now: before),
    ],
    ids=["daily", "once", "the same", "of no meaning", "other fields"],
)
def test_other_types_keep_their_phase_and_other_fields_change_nothing(row, change, values, expected):
    before = row.next_run
    change(row, **values)
    assert Schedule.objects.get().next_run == expected(before, timezone.now())


def test_a_shorter_interval_begins_within_it(row):
    save(row, schedule_type="I", minutes=60)
    assert Schedule.objects.get().next_run <= timezone.now() + timedelta(hours=1)
    update_or_create(row, minutes=5)
    found = Schedule.objects.get().next_run
    assert timezone.now() - timedelta(seconds=30) < found <= timezone.now() + timedelta(minutes=5)
    assert (found - row.next_run) % timedelta(minutes=5) == timedelta(0), "it keeps its phase"


def test_a_row_that_was_loaded_before_the_last_run_brings_no_old_next_run_back(row):
    loaded = Schedule.objects.get()
    Schedule.objects.update(next_run=in_days(13), task="1" * 32)  # as the scheduler moves it on
    save(loaded, schedule_type="D")
    assert timezone.now() < Schedule.objects.get().next_run <= timezone.now() + DAY


def test_what_was_paused_meanwhile_stays_paused(row):
    loaded = Schedule.objects.get()
    by_hand.pause(row.pk, actor="x")
    save(loaded, schedule_type="D")
    assert Schedule.objects.get().next_run is None


def test_a_schedule_resumes_with_the_recurrence_that_it_got_while_it_was_paused(row):
    before = row.next_run
    by_hand.pause(row.pk, actor="x")
    update_or_create(row, schedule_type="D")
    by_hand.resume(row.pk, actor="x")
    found = Schedule.objects.get().next_run
    assert found <= timezone.now() + DAY
    assert (found - before) % DAY == timedelta(0)


def test_a_recurrence_without_a_moment_is_refused(row):
    before = row.next_run
    with pytest.raises(ValidationError):
        update_or_create(row, schedule_type="C", cron="nonsense")
    assert (Schedule.objects.get().next_run, Schedule.objects.get().cron) == (before, row.cron)


def test_an_object_that_was_created_and_changed_is_planned_anew():
    row = Schedule.objects.create(func="math.floor", schedule_type="D", next_run=in_days(1))
    save(row, schedule_type="H")
    assert Schedule.objects.get().next_run <= timezone.now() + timedelta(hours=1)


def test_it_runs_at_the_new_moment_only(row):
    update_or_create(row, schedule_type="H")
    planned = Schedule.objects.get().next_run
    Schedule.objects.update(next_run=planned - timedelta(hours=2))  # it is due
    pushed: list[Any] = []
    assert fire_due(A, pushed.extend) == 1
    assert Schedule.objects.get().next_run == planned - timedelta(hours=1)


def test_what_does_not_go_through_save_keeps_its_next_run(row):
    """These are named in docs/explanation/scheduler.md: who writes a recurrence so writes the next run too."""
    before = row.next_run
    Schedule.objects.update(schedule_type="D")
    assert Schedule.objects.get().next_run == before
    row.schedule_type = "H"
    Schedule.objects.bulk_update([row], ["schedule_type"])
    assert Schedule.objects.get().next_run == before
    sql("UPDATE acme_corp.django_q_schedule SET schedule_type = 'W'")
    assert Schedule.objects.get().next_run == before
