"""A schedule with many runs to make up for is named: in the log, in the admin, by `msschedules --check`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import checks
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, EnqueueError
from tenant_q.schedules import catch_up, row_runs, validation
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.planning import fire_due, fire_due_together

A, B = "acme_corp", "globex_inc"


@pytest.fixture(autouse=True)
def _none_is_logged(tenants) -> Iterator[None]:
    catch_up._behind.clear()
    yield
    catch_up._behind.clear()


@pytest.fixture
def fire(caplog) -> Callable[..., list[str]]:
    """Let a tenant's due schedules fire. Returns what was logged of it."""

    def fire_it(schema: str = A, *, together: bool = False) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "tenant_q.schedules"):
            if together:
                fire_due_together([A, B], lambda packages: None)
            else:
                fire_due(schema, lambda packages: None)
        return [record.getMessage() for record in caplog.records if record.name == "tenant_q.schedules"]

    return fire_it


def make(ago: timedelta, schema: str = A, **fields: Any) -> Schedule:
    values = {"schedule_type": "D", "next_run": timezone.now() - ago, "name": "report"} | fields
    return QUtilities.create_schedule("math.floor", 2.5, schema_name=schema, **values)


@pytest.mark.parametrize("together", [False, True])
def test_the_log_names_it_once(fire, together):
    row = make(timedelta(days=2519, hours=1))
    make(timedelta(days=98), name="some")
    make(timedelta(days=2519), B, schedule_type="O")
    (said,) = fire(together=together)
    assert said.startswith(
        f"Schedule 'report' (id {row.pk}) of {A} began to make up for 2,520 runs, one by one, the first of 20"
    )
    assert "set its next_run to a time in the future, or Q_CLUSTER['catch_up'] to False" in said
    assert fire(together=together) == [], "once"
    with in_schema(A):
        Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(hours=1))
        fire(together=together)  # it has caught up
        Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(days=200))
    (said,) = fire(together=together)
    assert "201 runs" in said


def test_nothing_is_said_without_catching_up(fire, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False}
    make(timedelta(days=2519))
    assert fire() == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule_type": "C", "cron": "* * * * *"}, "1,001 runs or more"),
        ({"repeats": 150}, "150 runs,"),
        ({"repeats": 50}, None),
        ({"schedule_type": "Y"}, None),
    ],
)
def test_how_many_runs(fire, fields, words):
    row = make(timedelta(days=2519), **fields)
    with in_schema(A):
        Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(days=2519))
    said = fire()
    assert len(said) == bool(words) and (not words or words in said[0])


def check(*arguments: str) -> str:
    out = StringIO()
    call_command("msschedules", "--check", *arguments, stdout=out)
    return out.getvalue()


def test_the_check_names_it():
    row = make(timedelta(days=2519, hours=1))
    make(timedelta(days=5), name="some")
    text = check()
    assert f"{A}: schedule {row.pk} (report), function math.floor, is behind by 2,520 runs, since 20" in text
    assert "(some), function math.floor, is behind" not in text
    (found,) = json.loads(check("--json"))["behind"]
    assert (found["schema"], found["id"], found["runs"]) == (A, row.pk, 2520)
    assert datetime.fromisoformat(found["next_run"]) == row.next_run
    assert json.loads(check("--json", "--schema", B))["behind"] == []


def fired_moments(schema: str = A) -> list[datetime]:
    """Let a tenant's only schedule fire until it has caught up. Returns the planned moments of its runs."""
    packages: list[Any] = []
    while fire_due(schema, packages.extend):
        pass
    return [datetime.fromisoformat(package.kwargs["at"]) for package in packages]


LIMITS = [
    ("O", None, 1),
    ("D", None, 3),
    ("M", None, 3),
    ("I", None, 3),
    ("C", "*/7 5 * * *", 3),
    ("C", "0 0 1 1 *", 2),
]


@pytest.mark.parametrize(("kind", "cron", "expected"), LIMITS)
@pytest.mark.parametrize("place", ["setting", "schedule"])
def test_a_number_fires_the_latest_runs(settings, kind, cron, expected, place):
    options: Any = {} if place == "setting" else {"q_options": {"catch_up": 3, "group": "own"}}
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": 3 if place == "setting" else False}
    row = make(timedelta(days=700), schedule_type=kind, minutes=5, cron=cron, intended_date_kwarg="at", **options)
    with in_schema(A):
        Schedule.objects.filter(pk=row.pk).update(next_run=timezone.now() - timedelta(days=700))
        row.refresh_from_db()
    everything = [row.next_run]
    while kind != "O" and everything[-1] <= timezone.now():
        everything.append(row_runs.after_fire(row, everything[-1], everything[-1], catch_up=True))
    missed = everything[:-1] if kind != "O" else everything
    assert fired_moments() == missed[-3:] and len(missed[-3:]) >= expected


def test_a_schedule_decides_for_itself(settings):
    make(timedelta(days=9, hours=1), intended_date_kwarg="at", q_options={"catch_up": False})
    assert len(fired_moments()) == 1
    with in_schema(A):
        Schedule.objects.all().delete()
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False}
    make(timedelta(days=9, hours=1), intended_date_kwarg="at", q_options={"catch_up": True})
    assert len(fired_moments()) == 10


def test_repeats_limit_the_latest_runs(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": 5}
    row = make(timedelta(days=9, hours=1), intended_date_kwarg="at", repeats=2)
    assert fired_moments() == [row.next_run + timedelta(days=8), row.next_run + timedelta(days=9)]


def test_a_fire_that_was_rolled_back_is_not_enqueued_again(settings):
    """The id comes from the stored next run, although a later one fires."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": 2}
    make(timedelta(days=9, hours=1), intended_date_kwarg="at")
    ids: list[str] = []

    def lose(packages: list[Any]) -> None:
        ids.extend(package.id for package in packages)
        raise BrokerError("lost")

    for _attempt in range(2):
        with pytest.raises(BrokerError):
            fire_due(A, lose)
    assert len(ids) == 2 and len(set(ids)) == 1


@pytest.mark.parametrize("value", [1, 0, "all", 2.5])
def test_a_wrong_value_is_named(value):
    with in_schema(A):
        row = Schedule(func="math.floor", args="2.5", kwargs=f"q_options={{'catch_up': {value!r}}}")
        found = [reason for _field, reason in validation.problems(row, A)]
    (reason,) = found
    assert reason.startswith(f"Q_options['catch_up'] is {value!r}")
    assert reason.endswith("; it must be True, False, or a whole number of runs from 2 on.")


def test_a_task_enqueued_by_code_has_no_such_option():
    with pytest.raises(EnqueueError, match="unknown option 'catch_up'"):
        QUtilities.add_async_task("math.floor", 2.5, q_options={"catch_up": 2}, schema_name=A)


def test_the_check_reports_that_the_project_has_not_decided(settings):
    assert checks.check_catch_up() == []
    settings.Q_CLUSTER = {key: value for key, value in settings.Q_CLUSTER.items() if key != "catch_up"}
    assert [message.id for message in checks.check_catch_up()] == ["tenant_q.I001"]
    assert conf().catch_up is False
