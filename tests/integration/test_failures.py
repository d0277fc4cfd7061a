"""The index of the failures of all tenants: what it says, and what is done with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from tenant_q.models import Failure
from tenant_q.operations import failures
from tenant_q.operations.failures import FailureFilter

NOW = timezone.now()


def entry(schema: str, id: str, *, minutes: float = 0, **values: object) -> Failure:
    """Make an entry of a task that failed some minutes ago."""
    stopped = NOW - timedelta(minutes=minutes)
    made = {"func": "shop.tasks.bill", "cause": "ValueError", "is_pending": False} | values
    return Failure.rows().create(schema_name=schema, task_id=id, stopped=stopped, **made)


@pytest.fixture(autouse=True)
def no_entries(tenants: object) -> Iterator[None]:
    yield
    Failure.rows().all().delete()


def test_failures_are_grouped_by_cause_and_function() -> None:
    entry("testone", "a", minutes=9, schedule="nightly")
    entry("testone", "b", minutes=1)
    entry("testtwo", "c", minutes=5, schedule="nightly")
    entry("testtwo", "d", cause="KeyError")
    entry("testtwo", "e", again="f")

    found = failures.groups(FailureFilter(), limit=10)

    assert [(one.cause, one.func, one.count, one.tenants, one.schedules) for one in found] == [
        ("ValueError", "shop.tasks.bill", 3, 2, 1),
        ("KeyError", "shop.tasks.bill", 1, 1, 0),
    ]
    assert (found[0].first, found[0].last) == (at(9), at(1))
    assert failures.groups(FailureFilter(), limit=1, offset=1) == found[1:]


def at(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (FailureFilter(), "dcba"),
        (FailureFilter(since=at(5)), "dc"),
        (FailureFilter(until=at(8)), "ba"),
        (FailureFilter(func="shop.tasks.ship"), "b"),
        (FailureFilter(cause="KeyError"), "c"),
        (FailureFilter(cause="?"), "d"),
        (FailureFilter(schema="testtwo"), "dc"),
        (FailureFilter(schedule="nightly"), "a"),
        (FailureFilter(ids=frozenset([("testone", "a"), ("testtwo", "a")])), "a"),
        (FailureFilter(schema="testone", func="shop.tasks.bill"), "a"),
        (FailureFilter(ids=frozenset()), ""),
    ],
)
def test_a_filter_finds(wanted: FailureFilter, ids: str) -> None:
    entry("testone", "a", minutes=9, schedule="nightly")
    entry("testone", "b", minutes=8, func="shop.tasks.ship")
    entry("testtwo", "c", minutes=3, cause="KeyError")
    entry("testtwo", "d", minutes=1, cause="")

    assert "".join(one.task_id for one in failures.failures(wanted, limit=10)) == ids
    assert failures.count(wanted) == len(ids)
