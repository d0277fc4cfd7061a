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

from tenant_q.schedules import catch_up
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.planning import fire_due, fire_due_together

A, B = "acme_corp", "globex_inc"


@pytest.fixture(autouse=True)
def _none_is_told(tenants) -> Iterator[None]:
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
