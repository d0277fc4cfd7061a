"""Cancel a group, an iter or a chain as a whole, and chosen tasks, each with one audit record."""

from __future__ import annotations

import os
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from tenant_q.brokers import get_broker
from tenant_q.cluster.interrupt import SIGNAL
from tenant_q.cluster.worker import Worker
from tenant_q.lifecycle import cancel_many, chain_ids, chains, push
from tenant_q.models import AuditRecord
from tenant_q.package.build import deterministic_id
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import redis_key, work

HERE = __name__
A, B = "acme_corp", "globex_inc"
SEEN: list[Any] = []
WORKERS: list[Worker] = []


@pytest.fixture(autouse=True)
def clean(tenants):
    AuditRecord.objects.all().delete()
    SEEN.clear()
    WORKERS.clear()
    yield
    WORKERS.clear()


def see(what: Any = None) -> Any:
    SEEN.append(what)
    return what


def cancel_whole(id: str) -> str:
    """Cancel the chain or the iter of the running task, as somebody outside does, and still succeed."""
    SEEN.append(QUtilities.cancel(id))
    return "to its end"


def cancel_whole_and_be_stopped(id: str) -> None:
    (worker,) = WORKERS
    cancel_whole(id)
    worker.slot.cancel({one.id: one.reason for one in worker.broker.cancelled()})
    os.kill(os.getpid(), SIGNAL)


def add(what: Any = None, schema: str = A, **options: Any) -> str:
    return QUtilities.add_async_task(f"{HERE}.see", what, schema_name=schema, q_options=options)


def status(id: str) -> str:
    return str(QUtilities.get_status(id, A))


def chain(*funcs: str, **options: Any) -> str:
    links = [(f"{HERE}.{func}", (n,)) for n, func in enumerate(funcs)]
    return QUtilities.create_async_tasks_chain(links, schema_name=A, **options)


# A group


@pytest.mark.seam
def test_a_group_is_cancelled_wherever_its_tasks_wait(worker):
    own = [add(group="g"), add(group="g", delay=60), add(group="g", priority=5)]
    add("other", group="h")
    add("plain")
    foreign = add("foreign", schema=B, group="g")
    assert QUtilities.cancel_group("g", A, by="Ada") == 3
    assert [status(id) for id in own] == ["cancelled"] * 3
    assert QUtilities.cancel_group("g", A) == 0, "they are cancelled already"
    assert QUtilities.cancel_group("none", A, by="Ada") == 0
    work(worker)
    assert sorted(SEEN) == ["foreign", "other", "plain"]
    assert QUtilities.get_result(own[1], schema_name=A) == "TaskCancelled: cancelled by Ada"
    assert QUtilities.get_status(foreign, B) == "success"
    (record,) = AuditRecord.objects.all()
    assert (record.actor, record.act, record.schema_name, record.target) == ("Ada", "cancel", A, "g")
    assert record.after == {"count": 3}


def test_a_leased_task_of_a_group_is_cancelled(worker):
    add(group="g")
    broker = get_broker()
    (lease,) = broker.fetch("other").leases
    assert QUtilities.cancel_group("g", A) == 1
    assert [one.id for one in broker.cancelled()] == [lease.id]


def test_a_chain_of_a_named_group_is_cancelled_with_its_group(worker):
    chain("see", "see", group="g")
    assert QUtilities.cancel_group("g", A) == 1
    work(worker)
    assert SEEN == []


def test_a_coroutine_cancels_a_group():
    add(group="g")
    assert async_to_sync(QUtilities.acancel_group)("g", A, by="Ada") == 1


# An iter


@pytest.mark.seam
@pytest.mark.parametrize("begun", [False, True])
def test_an_iter_is_cancelled_as_a_whole(worker, monkeypatch, begun):
    monkeypatch.setattr(cancel_many, "_PARTS", 2)
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(n,) for n in range(5)], schema_name=A)
    other = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [("other",)], schema_name=A)
    if begun:
        worker.tick()
    done = len(SEEN)
    assert done == begun
    assert QUtilities.cancel(id, A, by="Ada") is True
    work(worker)
    assert len(SEEN) == done + 1, "the other iter"
    assert status(id) == "failure"
    assert status(other) == "success"
    result = QUtilities.get_result(id, schema_name=A)
    assert result.count("TaskCancelled: cancelled by Ada") == 5 - done
    assert AuditRecord.objects.get().after == {"count": 5 - done}
    assert QUtilities.cancel(id, A) is False, "it has ended"


def test_an_iter_whose_first_parts_have_ended_is_found(worker, monkeypatch):
    monkeypatch.setattr(cancel_many, "_PARTS", 2)
    tasks.client().hset(redis_key("costs"), f"{A};{HERE}.see", 1e6)  # so that each is fetched alone
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(n,) for n in range(7)], schema_name=A)
    for _ in range(4):
        worker.tick()
    assert QUtilities.cancel(id, A)
    work(worker)
    assert SEEN == [0, 1, 2, 3]


# A chain


@pytest.mark.seam
@pytest.mark.parametrize("ended", [0, 1, 2])
def test_a_chain_is_cancelled_as_a_whole(worker, ended):
    id = chain("see", "see", "see")
    for _ in range(ended):
        worker.tick()
    assert QUtilities.cancel(id, A, by="Ada") is True
    assert status(id) in ("cancelled", "running")
    work(worker)
    assert [*range(ended)] == SEEN
    assert status(id) == "cancelled"
    assert AuditRecord.objects.get().target == id


@pytest.mark.parametrize("func", ["cancel_whole", "cancel_whole_and_be_stopped"])
def test_a_chain_ends_even_if_its_running_link_still_succeeds(worker, func):
    WORKERS.append(worker)
    group = "0" * 31 + "1"
    links = [(f"{HERE}.{func}", (group,)), (f"{HERE}.see", ("second",))]
    push.push([chains.first_link(links, A, {"group": group}, id=chain_ids.first_id(group))])
    work(worker)
    assert SEEN == [True]
    assert status(group) == "cancelled"


def test_a_chain_that_has_ended_or_is_unknown_is_not_cancelled(worker):
    id = chain("see", "see")
    work(worker)
    assert QUtilities.cancel(id, A, by="Ada") is False
    assert QUtilities.cancel("f" * 32, A, by="Ada") is False
    assert QUtilities.cancel("short", A) is False
    assert not AuditRecord.objects.exists()


def test_what_another_tenant_has_is_not_cancelled(worker):
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [(1,), (2,)], schema_name=A)
    assert QUtilities.cancel(id, B) is False
    assert get_broker().find(B, deterministic_id(id, 0)) is None
    work(worker)
    assert len(SEEN) == 2


# Chosen ones


def test_chosen_tasks_are_cancelled_with_one_record(worker):
    ids = [add(n) for n in range(4)]
    with in_schema(A):
        assert cancel_many.cancel_each(A, [*ids[1:3], "unknown"], by="Ada") == 2
    work(worker)
    assert SEEN == [0, 3]
    assert AuditRecord.objects.get().after == {"count": 2}
