"""How long outcomes are kept: by number and age, by the settings and by each tenant's policy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy
from tenant_q.brokers.redis import RedisBroker
from tenant_q.cluster import scheduler_pruning
from tenant_q.cluster.scheduler_pruning import Pruning
from tenant_q.exceptions import BrokerError, ConfigurationError
from tenant_q.lifecycle import prune_results
from tenant_q.models import AuditRecord, TenantPolicy
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import work
from tests.integration.planning import sent_to_server

A, B = "acme_corp", "globex_inc"
DAY = 86_400.0


@pytest.fixture(autouse=True)
def _plain(settings: Any, tenants: tuple[str, ...]) -> None:
    """No limit but those of the test."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 0}


@pytest.fixture
def pruning() -> Pruning:
    return Pruning(set())


def keep(settings: Any, **keys: Any) -> None:
    settings.TENANT_Q = settings.TENANT_Q | keys


def add(*days: float, schema: str = A, success: bool = True, **values: Any) -> list[str]:
    """Add rows of tasks that ended so many days ago. Return their ids."""
    with in_schema(schema):
        made = []
        for age in days:
            moment = timezone.now() - timedelta(days=age)
            id = values.get("id") or f"{Task.objects.count():032x}"
            row = {"id": id, "name": id, "func": "f", "started": moment, "stopped": moment, "success": success}
            made.append(Task.objects.create(**row | values).id)
    return made


def kept(schema: str = A, *, success: bool | None = None) -> list[float]:
    """Return the ages in days of the rows that are there."""
    with in_schema(schema):
        rows = Task.objects.all() if success is None else Task.objects.filter(success=success)
        now = timezone.now()
        return sorted(round((now - row.stopped).total_seconds() / DAY, 1) for row in rows)


# What exceeds a limit


@pytest.mark.seam
def test_successes_are_kept_for_as_long_as_the_setting_says(settings):
    keep(settings, keep_successes={"days": 10})
    add(1, 9, 11, 12)
    add(20, success=False)
    prune_results.prune(A)
    assert (kept(success=True), kept(success=False)) == ([1, 9], [20])


@pytest.mark.seam
def test_failures_are_kept_for_as_long_as_the_setting_says(settings):
    keep(settings, keep_failures={"days": 10})
    add(1, 9, 11, 12, success=False)
    add(20)
    prune_results.prune(A)
    assert (kept(success=False), kept(success=True)) == ([1, 9], [20])


def test_as_many_failures_are_kept_as_the_setting_says(settings):
    keep(settings, keep_failures={"rows": 2})
    add(1, 2, 3, 4, success=False)
    add(1, 2, 3, 4)
    prune_results.prune(A)
    assert (kept(success=False), kept(success=True)) == ([1, 2], [1, 2, 3, 4])


@pytest.mark.parametrize(("rows", "left"), [(2, [1, 2]), (4, [1, 2, 3])])
@pytest.mark.parametrize("kind", ["keep_successes", "keep_failures"])
def test_the_limit_that_is_reached_first_counts(settings, kind, rows, left):
    keep(settings, **{kind: {"days": 3.5, "rows": rows}})
    add(1, 2, 3, 4, 5, success=kind == "keep_successes")
    prune_results.prune(A)
    assert kept() == left


def test_a_save_limit_that_is_set_counts_too(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 2}
    keep(settings, keep_successes={"days": 10})
    add(1, 2, 3)
    prune_results.prune(A)
    assert kept() == [1, 2]


def test_the_default_of_save_limit_ends_where_successes_are_kept_by_age(settings):
    keep(settings, keep_successes={"days": 10})
    settings.Q_CLUSTER = {key: value for key, value in settings.Q_CLUSTER.items() if key != "save_limit"}
    add(*[1] * 251)
    prune_results.prune(A)
    assert len(kept()) == 251
    keep(settings, keep_successes=None)
    prune_results.prune(A)
    assert len(kept()) == 250


def test_the_numbers_count_for_each_group_where_save_limit_does(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit_per": "group"}
    keep(settings, keep_failures={"rows": 1})
    for group in ("a", "b"):
        add(1, 2, success=False, group=group)
    prune_results.prune(A)
    assert kept() == [1, 1]


def test_unset_failures_are_kept_and_the_last_run_of_a_schedule_is_not(settings):
    """As in Django-Q2: nothing changes for a project that sets nothing."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 1}
    (old,) = add(400)
    add(1)
    add(500, success=False)
    schedule(old)
    prune_results.prune(A)
    assert kept() == [1, 500]


def schedule(task: str) -> Schedule:
    """Make a schedule whose last run was this task."""
    with in_schema(A):
        return Schedule.objects.create(func="math.sqrt", schedule_type="D", task=task, next_run=timezone.now())


@pytest.mark.seam
@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("limit", [{"days": 10}, {"rows": 1}])
def test_the_last_outcome_of_a_schedule_is_kept_with_the_schedule(settings, success, limit):
    keep(settings, keep_successes=limit, keep_failures=limit)
    (old,) = add(400, success=success)
    add(1, 399, success=success)
    yearly = schedule(old)
    prune_results.prune(A)
    assert kept() == [1, 400]
    with in_schema(A):
        assert yearly.success() is success
        assert yearly.last_run() is not None
        yearly.delete()
    prune_results.prune(A)
    assert kept() == [1]


@pytest.mark.parametrize("success", [True, False])
def test_a_row_whose_package_is_still_in_the_broker_is_never_pruned(settings, worker, success):
    keep(settings, keep_successes={"days": 1, "rows": 1}, keep_failures={"days": 1, "rows": 1})
    id = QUtilities.add_async_task("tests.tasks.nothing", schema_name=A)
    add(30, 40, success=success)
    add(50, success=success, id=id)
    add(0.1, success=success)
    prune_results.prune(A)
    assert kept() == [0.1, 50]
    work(worker)
    with in_schema(A):
        Task.objects.filter(id=id).update(stopped=timezone.now() - timedelta(days=50))
    prune_results.prune(A)
    assert 50 not in kept()


def test_nothing_is_pruned_while_the_broker_is_away(settings, monkeypatch):
    keep(settings, keep_successes={"days": 1})
    add(2)

    def away(*_: Any) -> Any:
        raise BrokerError("away")

    monkeypatch.setattr(RedisBroker, "may_come", away)
    with pytest.raises(BrokerError):
        prune_results.prune(A)
    assert kept() == [2]


def test_a_failure_that_was_replaced_meanwhile_stays(settings, monkeypatch):
    """Between the look and the deletion its task ran again with the same id, and succeeded."""
    keep(settings, keep_failures={"days": 1})
    (id,) = add(2, success=False)

    def replaced(broker: Any, ids: Any) -> set[str]:
        with in_schema(A):
            Task.objects.filter(id=id).update(success=True, stopped=timezone.now())
        return set()

    monkeypatch.setattr(RedisBroker, "may_come", replaced)
    prune_results.prune(A)
    assert kept() == [0]


# The policies of tenants


def change(schema: str = A, **values: Any) -> TenantPolicy:
    return policies.change(schema, actor="olga", act="limit", **values)


@pytest.mark.seam
def test_a_policy_comes_before_the_settings(settings):
    keep(settings, keep_successes={"days": 10}, keep_failures={"days": 10, "rows": 2})
    change(success_days=2.5, failure_days=20, max_failures=3)
    for schema in (A, B):
        add(1, 2, 3, 11, schema=schema)
        add(1, 2, 3, 11, schema=schema, success=False)
        prune_results.prune(schema)
    assert (kept(success=True), kept(success=False)) == ([1, 2], [1, 2, 3])
    assert (kept(B, success=True), kept(B, success=False)) == ([1, 2, 3], [1, 2])


def test_a_change_leaves_a_record():
    change(success_days=30, max_failures=5)
    change(success_days=None)
    record = AuditRecord.objects.first()
    assert (record.before["success_days"], record.after["success_days"], record.after["max_failures"]) == (30, None, 5)


@pytest.mark.parametrize(
    "values",
    [
        {"success_days": 0},
        {"failure_days": -1},
        {"failure_days": 1e9},
        {"success_days": float("nan")},
        {"max_failures": 0},
    ],
)
def test_values_that_are_not_possible(values):
    with pytest.raises(ConfigurationError, match=f"{next(iter(values))} of acme_corp cannot be "):
        change(**values)


@pytest.mark.parametrize(
    ("argument", "name", "value", "saved"),
    [
        ("--success-days", "success_days", "1.5", 1.5),
        ("--failure-days", "failure_days", "90", 90.0),
        ("--failure-days", "failure_days", "none", None),
        ("--max-failures", "max_failures", "100", 100),
    ],
)
def test_operators_limit_what_a_tenant_keeps(argument, name, value, saved):
    call_command("mstenant", "limit", A, argument, value, verbosity=0)
    assert getattr(policies.policy_of(A), name) == saved


def test_what_a_tenant_keeps_is_listed_where_it_is_set():
    out = StringIO()
    call_command("mstenant", "limit", A, "--failure-days", "90", stdout=out)
    assert "max results -, failure days 90: " in out.getvalue()
    call_command("mstenant", "list", stdout=out)
    assert [line.split() for line in out.getvalue().splitlines()][-1][-3:] == ["90", "no", "0"]
    assert "success days" not in out.getvalue()


def test_days_that_are_no_number():
    with pytest.raises(CommandError, match="'soon' is not a number of days"):
        call_command("mstenant", "limit", A, "--success-days", "soon")


# In the background


def test_a_worker_prunes_failures_by_number(settings, worker):
    keep(settings, keep_failures={"rows": 1})
    add(1, 2, success=False)
    worker.pruner._next = 0.0
    worker.pruner._noted_at[A] = float("-inf")
    worker.pruner.prune_when_due(worker.completer.saved)
    assert kept() == [1]


@pytest.mark.seam
def test_the_scheduler_prunes_tenants_that_save_nothing_any_more(settings, scheduler):
    keep(settings, keep_successes={"days": 10}, keep_failures={"days": 5, "rows": 1})
    for schema in (A, B):
        add(1, 11, schema=schema)
        add(1, 2, 6, schema=schema, success=False)
    scheduler.tick()
    for schema in (A, B):
        assert (kept(schema, success=True), kept(schema, success=False)) == ([1], [1])


def test_the_scheduler_prunes_a_tenant_by_its_policy_alone(pruning):
    change(failure_days=5)
    for schema in (A, B):
        add(6, schema=schema, success=False)
    pruning.work()
    assert (kept(A), kept(B)) == ([], [6])


def test_a_tenant_is_looked_at_again_when_its_oldest_outcome_is_too_old(settings, pruning, monkeypatch):
    keep(settings, keep_successes={"days": 1})
    (id,) = add(0.5)
    pruning.work()
    seconds = pruning._looks[A].at - time.monotonic()
    assert seconds == pytest.approx(scheduler_pruning.MOST_SECONDS, abs=5)
    with in_schema(A):
        Task.objects.filter(id=id).update(stopped=timezone.now() - timedelta(hours=23.5))
    pruning._looks.clear()
    pruning.work()
    assert pruning._looks[A].at - time.monotonic() == pytest.approx(1800, abs=5)
    with in_schema(A):
        Task.objects.filter(id=id).update(stopped=timezone.now() - timedelta(hours=25))
    pruning.work()
    assert kept() == [1.0], "it is not looked at yet"
    clock = time.monotonic
    monkeypatch.setattr(scheduler_pruning.time, "monotonic", lambda: clock() + 1800)
    pruning.work()
    assert kept() == []


def test_a_changed_limit_applies_at_the_next_pass(pruning):
    change(failure_days=5)
    add(4, success=False)
    pruning.work()
    change(failure_days=3)
    pruning.work()
    assert kept() == []


def test_a_tenant_whose_table_is_locked_keeps_no_other_waiting(settings, pruning, caplog):
    keep(settings, keep_failures={"days": 1})
    add(2, success=False)
    add(2, schema=B, success=False)
    with locked(A):
        pruning.work()
    assert (kept(A), kept(B)) == ([2], [])
    assert [record.schema for record in caplog.records if getattr(record, "event", "") == "result.prune_failed"] == [A]


@contextmanager
def locked(schema: str) -> Iterator[None]:
    """Lock a tenant's table of tasks as a migration does."""
    other = connection.copy()
    other.set_schema_to_public()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(f'LOCK TABLE "{schema}".django_q_task IN ACCESS EXCLUSIVE MODE')
        yield
    finally:
        other.rollback()
        other.close()


def test_a_pass_ends_in_time_and_the_next_goes_on(settings, pruning, monkeypatch):
    keep(settings, keep_failures={"days": 1})
    monkeypatch.setattr(scheduler_pruning, "COUNTED_TOGETHER", 1)
    monkeypatch.setattr(scheduler_pruning, "BUSY_SECONDS", -1.0)
    for schema in (A, B):
        add(2, schema=schema, success=False)
    pruning.work()
    assert sorted([kept(A), kept(B)]) == [[], [2]]
    for _ in range(3):
        pruning.work()
    assert (kept(A), kept(B)) == ([], [])


def test_many_old_outcomes_go_in_portions(settings, pruning, monkeypatch):
    keep(settings, keep_failures={"days": 1})
    monkeypatch.setattr(prune_results, "PRUNED_AT_ONCE", 2)
    monkeypatch.setattr(scheduler_pruning, "BUSY_SECONDS", -1.0)
    add(2, 3, 4, 5, 6, success=False)
    counts = []
    for _ in range(4):
        pruning.work()
        counts.append(len(kept()))
    assert counts == [3, 1, 0, 0]


def test_a_tenant_that_is_gone_is_forgotten(settings, pruning):
    change(failure_days=1)
    pruning.work()
    assert set(pruning._looks) == {A}
    TenantPolicy.objects.all().delete()
    pruning.work()
    assert set(pruning._looks) == set()


def test_what_the_pruning_costs(settings, pruning):
    """Without limits, one statement every half minute; else two more, and one for every ten tenants."""
    with sent_to_server() as sent:
        pruning.work()
    assert len(sent) == 1
    keep(settings, keep_failures={"days": 1})
    names = [f"retained_{number:03}" for number in range(100)]
    schemas.clone_tenants(names)
    try:
        for name in names[:5]:
            add(2, schema=name, success=False)
        connection.set_schema_to_public()
        with sent_to_server() as sent:
            pruning.work()
        tenants = 100 + 3
        looks = -(-tenants // scheduler_pruning.COUNTED_TOGETHER)
        assert len(sent) <= 3 + looks + 2 * 5, "two for each tenant with something to prune"
        with sent_to_server() as sent:
            pruning.work()
        assert len(sent) <= 3, "nothing is due"
    finally:
        for name in names:
            schemas.drop_tenant(name)
        tenancy.forget_tenants()
