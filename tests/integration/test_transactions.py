"""Transactions of ours within the caller's, and beside others that stand in their way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.lifecycle import prune_results, results
from tenant_q.schedules import due_index, fire
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import sql
from tests.integration.planning import PAST, entries, insert


def run_in_sync() -> None:
    QUtilities.add_async_task("tests.tasks.nothing", sync=True)


def run_transactional_in_sync() -> None:
    QUtilities.add_async_task("tests.tasks.nothing", sync=True, q_options={"transactional": True})


def look_up_successes() -> None:
    results.successes(["a" * 32])


def lock_rows() -> None:
    with tenancy.in_patient_transaction(7):
        assert lock_timeout() == "7ms"


def lock_rows_in_vain() -> None:
    with pytest.raises(ZeroDivisionError), tenancy.in_patient_transaction():
        raise ZeroDivisionError


def prune() -> None:
    prune_results.prune("acme_corp")


def lock_timeout() -> str:
    return str(sql("SELECT current_setting('lock_timeout')")[0][0])


@pytest.mark.parametrize(
    "act",
    [run_in_sync, run_transactional_in_sync, look_up_successes, lock_rows, lock_rows_in_vain, prune],
    ids=lambda act: act.__name__,
)
@pytest.mark.parametrize("own", ["0", "12s"])
def test_what_runs_in_the_callers_transaction_leaves_its_lock_timeout(tenants, act, own):
    with in_schema("acme_corp"), transaction.atomic(), connection.cursor() as cursor:
        if own != "0":
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [own])
        act()
        assert lock_timeout() == own
    assert lock_timeout() == "0"


# Beside others


@pytest.fixture(params=[psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def strict(tenants, monkeypatch, request) -> Iterator[None]:
    """A project that sets an isolation level."""
    connections.close_all()
    options = connection.settings_dict.get("OPTIONS", {})
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {**options, "isolation_level": request.param})
    yield
    connections.close_all()


class Rival:
    """Changes something each time, up to `times`, in the middle of a transaction of ours."""

    def __init__(self, real: Callable[..., Any], statement: str, times: int) -> None:
        self.real, self.statement, self.left = real, statement, times

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self.real(*args, **kwargs)
        if self.left:
            self.left -= 1
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
                other.execute(self.statement)
        return found


MOVE = "UPDATE acme_corp.django_q_schedule SET name = 'moved'"


@pytest.mark.parametrize("times", [1, 3])
def test_a_due_schedule_that_another_cluster_touches_is_fired_at_once(strict, scheduler, monkeypatch, times):
    scheduler.tick()
    insert(next_run=PAST)
    rival = Rival(fire._tenants_to_fire, MOVE, times)
    monkeypatch.setattr(fire, "_tenants_to_fire", rival)
    scheduler.tick()
    assert rival.left == 0
    assert get_broker().queue_size("acme_corp") == 1
    assert {held for _, _, held in entries().values()} == {""}


def test_what_stays_in_the_way_is_left_alone_for_a_while(strict, scheduler, monkeypatch):
    scheduler.tick()
    insert(next_run=PAST)
    monkeypatch.setattr(fire, "_tenants_to_fire", Rival(fire._tenants_to_fire, MOVE, tenancy.connection.ATTEMPTS))
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 0
    assert {held for _, _, held in entries().values()} == {due_index.FAILED}


def test_a_deadlock_is_tried_again_too(tenants):
    left = [2]

    def act() -> str:
        if left[0]:
            left[0] -= 1
            raise psycopg.errors.DeadlockDetected("deadlock detected")
        return "done"

    assert tenancy.retry_conflicts(act) == "done"


def test_nothing_is_tried_again_within_the_callers_transaction(tenants):
    calls = []

    def act() -> None:
        calls.append(1)
        raise psycopg.errors.SerializationFailure("could not serialize access")

    with pytest.raises(psycopg.errors.SerializationFailure), transaction.atomic():
        tenancy.retry_conflicts(act)
    assert calls == [1]
