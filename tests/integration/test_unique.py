"""Tasks with a unique key: while one waits or runs, enqueueing returns its id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import transaction
from django_q.models import Task
from django_q.tasks import async_task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.redis import RedisBroker
from tenant_q.exceptions import BrokerError, EnqueueError
from tenant_q.states import State
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks_declared
from tests.conftest import MANAGE
from tests.integration.conftest import make_due, redis_key, work
from tests.tasks import client

A, B = "acme_corp", "globex_inc"
ADD = "tests.tasks.add"


def add(*args: Any, schema: str = A, **options: Any) -> str:
    return QUtilities.add_async_task(ADD, *args, schema_name=schema, q_options={"unique": "k"} | options)


def keys() -> dict[str, int]:
    """How many entries each key about uniqueness has."""
    return {name: count for name in ("unique", "unique_of") if (count := client().hlen(redis_key(name)))}


ONE = {"unique": 1, "unique_of": 1}


def test_while_one_waits_its_id_is_returned(worker):
    first = add(1)
    assert add(2) == first
    assert QUtilities.get_queue_size(schema_name=A) == 1
    work(worker)
    assert QUtilities.get_result(first, schema_name=A) == 1
    assert keys() == {}
    assert add(3) != first


def test_the_key_is_that_of_a_tenant_a_function_and_a_value(tenants):
    others = [
        add(1, schema=B),
        add(1, unique="other"),
        add(1, unique=7),
        QUtilities.add_async_task("math.floor", 1.5, schema_name=A, q_options={"unique": "k"}),
    ]
    assert len({add(1), *others}) == 5
    assert add(1, unique="7") == others[2], "a number is a text"


def test_a_plain_task_keeps_no_key(worker):
    QUtilities.add_async_task(ADD, 1, schema_name=A)
    assert keys() == {}


def test_a_declared_function_of_the_arguments_makes_the_key(tenants):
    by_order = tasks_declared.charge.using(schema_name=A)
    first = by_order.enqueue(17, note="a")
    assert by_order.enqueue(17, note="b") == first
    assert by_order.enqueue(order=17) == first
    assert by_order.enqueue(18) != first
    assert by_order.using(unique=None).enqueue(17) != first
    path = "tests.tasks_declared.charge"
    assert QUtilities.add_async_task(path, 17, schema_name=A) == first, "by its path too"
    with pytest.raises(EnqueueError, match=r"'unique' of .*charge fails on the arguments .*missing 1 required"):
        by_order.enqueue()  # type: ignore[call-arg]
    with pytest.raises(EnqueueError, match=r"unique key of .*charge is None; it must be"):
        by_order.using(unique=lambda *args, **kwargs: None).enqueue(17)


def test_it_is_kept_between_retries_and_released_at_the_end(worker):
    first = QUtilities.add_async_task("math.sqrt", -1, schema_name=A, q_options={"unique": "k", "max_attempts": 2})
    options = {"unique": "k"}
    work(worker)
    assert QUtilities.get_status(first, schema_name=A) is State.DELAYED
    assert QUtilities.add_async_task("math.sqrt", 4, schema_name=A, q_options=options) == first
    make_due()
    work(worker)
    assert keys() == {}


def test_until_the_start(worker):
    options = {"unique": "k", "unique_until": "start"}
    first = QUtilities.add_async_task("tests.tasks_declared.enqueue_again", options, schema_name=A, q_options=options)
    work(worker)
    second = QUtilities.get_result(first, schema_name=A)
    assert second and second != first
    assert keys() == {}


def test_until_the_end_a_task_finds_itself(worker):
    options = {"unique": "k"}
    first = QUtilities.add_async_task("tests.tasks_declared.enqueue_again", options, schema_name=A, q_options=options)
    work(worker)
    assert QUtilities.get_result(first, schema_name=A) == first
    assert schemas.count_tasks(A) == 1


def test_a_retry_does_not_take_a_key_that_was_released_at_the_start(worker):
    options = {"unique": "k", "unique_until": "start", "max_attempts": 2}
    first = QUtilities.add_async_task("math.sqrt", -1, schema_name=A, q_options=options)
    work(worker)
    assert keys() == {}
    assert QUtilities.add_async_task("math.sqrt", 4, schema_name=A, q_options=options) != first


def cancelled(id: str) -> None:
    assert QUtilities.cancel(id, schema_name=A)


def purged(id: str) -> None:
    get_broker().purge()


def dead(id: str) -> None:
    (lease,) = get_broker().fetch("w2").leases
    get_broker().dead_letter("w2", lease, "a cause")


def forgotten(id: str) -> None:
    get_broker().forget_tenant(A, tenancy.current_key(A), "TaskCancelled: gone", seconds=0)


@pytest.mark.parametrize("end", [cancelled, purged, dead, forgotten], ids=lambda end: end.__name__)
@pytest.mark.parametrize("delay", [0, 60])
def test_what_does_not_run_any_more_releases_its_key(tenants, end, delay):
    if end is dead and delay:
        pytest.skip("a worker must have it")
    first = add(1, delay=delay)
    assert keys() == ONE
    end(first)
    assert client().hlen(redis_key("unique")) == 0
    assert client().hlen(redis_key("unique_of")) == (1 if end is dead else 0)


def test_a_dead_letter_takes_its_key_again_if_it_is_free(tenants):
    first = add(1)
    dead(first)
    second = add(2)
    assert second != first
    dead(second)
    assert get_broker().retry_dead({first: "", second: ""}) == 2
    assert add(3) == first
    assert get_broker().counts().queued == 2
    get_broker().purge()
    assert keys() == {}


def test_a_purge_leaves_the_keys_of_running_tasks(tenants):
    first = add(1)
    (lease,) = get_broker().fetch("w2").leases
    add(1, unique="other")
    get_broker().purge()
    assert keys() == ONE
    assert add(2) == first == lease.id


def test_a_full_queue_takes_no_key_and_refuses_no_task_that_waits(tenants, unlimited):
    policies.change(A, actor="test", act="limit", max_queued=1)
    first = add(1)
    assert add(1) == first
    with pytest.raises(EnqueueError):
        add(1, unique="other")
    assert keys() == ONE


# Aliases


def by_django_q2() -> str:
    with in_schema(A):
        return async_task(tasks_declared.charge, 17)


def on_commit() -> str:
    with transaction.atomic():
        return tasks_declared.charge.using(schema_name=A, on_commit=True).enqueue(17)


@pytest.mark.parametrize("enqueue", [by_django_q2, on_commit], ids=lambda enqueue: enqueue.__name__)
def test_an_id_that_was_returned_too_early_stands_for_the_task(worker, enqueue):
    first = tasks_declared.charge.using(schema_name=A).enqueue(17)
    alias = enqueue()
    assert alias != first and get_broker().counts().open == 1
    assert QUtilities.get_status(alias, schema_name=A) is State.QUEUED
    assert QUtilities.get_status(alias, schema_name=B) is State.UNKNOWN
    assert QUtilities.get_result(alias, schema_name=A) is None
    work(worker)
    assert QUtilities.get_status(alias, schema_name=A) is State.SUCCESS
    assert QUtilities.get_result(alias, schema_name=A) == "charged 17"
    assert QUtilities.fetch_task(alias, schema_name=A).id == first
    assert QUtilities.fetch_task(alias, schema_name=B) is None
    assert 0 < client().ttl(redis_key(f"alias:{A};{alias}")) <= 24 * 3600


@pytest.mark.parametrize("enqueue", [by_django_q2, on_commit], ids=lambda enqueue: enqueue.__name__)
def test_a_task_is_cancelled_by_an_alias(worker, enqueue):
    first = tasks_declared.charge.using(schema_name=A).enqueue(17)
    assert QUtilities.cancel(enqueue(), schema_name=A, by="ann")
    assert QUtilities.get_status(first, schema_name=A) is State.CANCELLED


def test_the_first_id_of_django_q2_is_the_task_itself(worker):
    first = by_django_q2()
    assert tasks_declared.charge.using(schema_name=A).enqueue(17) == first
    work(worker)
    assert QUtilities.get_result(first, schema_name=A) == "charged 17"


def test_an_alias_outlives_the_delay_of_its_task(tenants):
    tasks_declared.charge.using(schema_name=A, delay=7200).enqueue(17)
    alias = by_django_q2()
    assert client().ttl(redis_key(f"alias:{A};{alias}")) > 25 * 3600


def test_an_alias_that_names_itself_leads_nowhere(tenants):
    id = "f" * 32
    client().set(redis_key(f"alias:{A};{id}"), id)
    assert QUtilities.get_status(id, schema_name=A) is State.UNKNOWN
    assert QUtilities.get_progress(id, schema_name=A) is None
    assert QUtilities.get_result(id, schema_name=A) is None
    assert not QUtilities.cancel(id, schema_name=A)


@pytest.mark.parametrize("cursor", ["no number", "-1", "9" * 30])
def test_leases_expire_whatever_the_cursor_of_the_sweep_is(tenants, cursor):
    first = add(1)
    (lease,) = get_broker().fetch("w2").leases
    client().hset(redis_key("sweep"), "unique_of", cursor)
    client().zadd(redis_key("leases"), {first: 1})
    assert get_broker().expire() == 1 and lease.id == first
    assert client().hget(redis_key("sweep"), "unique_of") is None


def test_a_result_is_read_without_the_broker(worker, monkeypatch, caplog):
    def refuse(*_: Any) -> None:
        raise BrokerError("away")

    monkeypatch.setattr(RedisBroker, "real_id", refuse)
    assert QUtilities.get_result("0" * 32, schema_name=A) is None
    assert "whether 00000000000000000000000000000000 stands for another task: away" in caplog.text


def test_a_rollback_takes_no_key(tenants):
    task = tasks_declared.charge.using(schema_name=A, on_commit=True)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        task.enqueue(17)
        assert keys() == {}, "nothing is pushed yet"
        raise ZeroDivisionError
    assert keys() == {}
    with transaction.atomic():
        id = task.enqueue(17)
    assert task.enqueue(17) and keys() == ONE
    assert tasks_declared.charge.using(schema_name=A).enqueue(17) == id


# What cannot be unique


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: QUtilities.add_async_tasks_from_iter(ADD, [1], q_options={"unique": "k"}), "the parts of an iter"),
        (lambda: QUtilities.add_async_tasks_from_iter(tasks_declared.charge, [1]), "the parts of an iter"),
        (lambda: QUtilities.create_async_tasks_chain([(tasks_declared.charge, (1,))]), "the links of a chain"),
        (lambda: QUtilities.create_async_tasks_chain([ADD, ("tests.tasks_declared.charge", (1,))]), "links of a chain"),
        (lambda: QUtilities.create_async_tasks_chain([ADD, (ADD, (1,), {"q_options": {"unique": 1}})]), "of a chain"),
        (lambda: QUtilities.add_async_task(tasks_declared.charge, 1, sync=True), "does not work with sync"),
        (lambda: async_task(tasks_declared.charge, 1, sync=True), "does not work with sync"),
        (lambda: add(1, unique=""), r"q_options\['unique'\] is ''"),
        (lambda: add(1, unique="x" * 501), "a text of 1 to 500 characters"),
        (lambda: add(1, unique=1.5), "a whole number"),
        (lambda: add(1, unique_until="now"), "'start' or 'end'"),
        (lambda: QUtilities.add_async_task(ADD, q_options={"unique_until": "end"}), "no effect without 'unique'"),
    ],
)
def test_what_cannot_be_unique_is_refused(tenants, call, text):
    with in_schema(A), pytest.raises(EnqueueError, match=text):
        call()
    assert get_broker().counts().open == 0 and keys() == {}


def test_where_all_runs_at_once_nothing_is_unique(tenants, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"sync": True}
    ids = {tasks_declared.charge.using(schema_name=A).enqueue(17) for _ in range(2)}
    with in_schema(A):
        assert Task.objects.filter(id__in=ids, success=True).count() == 2


# Many at once

ENQUEUE = """
import json
from tests import tasks_declared
ids = {{tasks_declared.charge.using(schema_name="{schema}").enqueue(17) for _ in range({count})}}
print(json.dumps(sorted(ids)))
"""


def test_a_thousand_enqueues_from_eight_processes_make_one_task(tenants, settings):
    code = ENQUEUE.format(schema=A, count=125)
    processes = [
        subprocess.Popen(
            [sys.executable, str(MANAGE), "shell", "-c", code],
            env=os.environ | {"Q_NAME": settings.Q_CLUSTER["name"]},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    ids = {id for answer in answers for id in json.loads(answer.strip().splitlines()[-1])}
    assert len(ids) == 1
    assert [one.id for one in get_broker().live(A)] == list(ids)
    assert keys() == ONE


def test_keys_of_packages_that_an_earlier_version_ended_are_released(tenants):
    first = add(1)
    broker: Any = get_broker()
    (lease,) = broker.fetch("w2").leases
    for name in ("messages", "leased"):  # as its acknowledgement does
        client().hdel(redis_key(name), first)
    client().zrem(redis_key("leases"), first)
    client().delete(redis_key("held:w2"), redis_key(f"running:{A}"))
    second = add(2)
    assert lease.id == first != second, "who comes next does not wait for it"
    broker.expire()
    assert client().hkeys(redis_key("unique_of")) == [second.encode()]
    assert add(3) == second
