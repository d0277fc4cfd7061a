"""Tasks and results that are too large are refused at the source, with size and limit in the message."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django_q.conf import Conf
from django_q.models import Task
from django_q.tasks import async_task

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import BATCH_BYTES, Message
from tenant_q.exceptions import EnqueueError
from tenant_q.lifecycle import bulk_rows, failure_text, push, result_checks
from tenant_q.package.build import build
from tenant_q.package.signing import size_of
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import make_due, redis_key, sql, work

ACME = "acme_corp"
TEXT = "tests.tasks.text"
LIMIT = 100_000


@pytest.fixture
def limited(tenants, settings) -> None:
    settings.TENANT_Q = settings.TENANT_Q | {"max_bytes": LIMIT, "max_list_bytes": 3 * LIMIT}


def row(id: str) -> Task:
    with in_schema(ACME):
        found = QUtilities.fetch_task(id)
    assert found is not None
    return found


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "submit",
    [
        lambda value: QUtilities.add_async_task("tests.tasks.add", value),
        lambda value: QUtilities.add_async_task("tests.tasks.add", a=value),
        lambda value: QUtilities.add_async_tasks_from_iter("tests.tasks.add", [(1,), (value,)]),
        lambda value: QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.add", (value,))]),
        lambda value: async_task("tests.tasks.add", value),
        lambda value: QUtilities.add_async_task("tests.tasks.add", value, q_options={"on_commit": True}),
    ],
)
def test_arguments_that_are_too_large_raise_where_they_are_enqueued(limited, monkeypatch, submit, compressed):
    """Compressed or not, it is what comes out at the other end that counts."""
    from django_q.conf import Conf

    monkeypatch.setattr(Conf, "COMPRESSED", compressed)
    with in_schema(ACME):
        with pytest.raises(EnqueueError, match=r"tests.tasks.add .* takes 10\d{4} bytes, .*max_bytes'\] is 100000"):
            submit("x" * LIMIT)
        assert get_broker().counts().open == 0, "nothing of it is enqueued"
        submit("x" * (LIMIT - 2000))


def test_a_result_that_is_too_large_is_a_failed_row(limited, worker):
    with in_schema(ACME):
        id, other = QUtilities.add_async_task(TEXT, LIMIT), QUtilities.add_async_task(TEXT, LIMIT - 100)
    work(worker)
    assert not row(id).success
    assert "tests.tasks.text returned a str of 100" in row(id).result
    assert "OversizedResult" in row(id).result
    assert "TENANT_Q['max_bytes'] is 100000" in row(id).result
    assert len(row(other).result) == LIMIT - 100


def test_a_transactional_task_with_a_result_that_is_too_large_rolls_back(limited, worker):
    with in_schema(ACME), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS too_large (n int)")
        cursor.execute("TRUNCATE too_large")
    with in_schema(ACME):
        id = QUtilities.add_async_task(f"{__name__}.insert", LIMIT, q_options={"transactional": True})
    work(worker)
    assert "OversizedResult" in row(id).result
    with in_schema(ACME), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM too_large")
        assert cursor.fetchone() == (0,)
        cursor.execute("DROP TABLE too_large")


def insert(length: int) -> str:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO too_large VALUES (1)")
    return "x" * length


def test_each_part_of_an_iter_counts_by_itself(limited, worker):
    with in_schema(ACME):
        id = QUtilities.add_async_tasks_from_iter(TEXT, [(LIMIT - 1000,), (LIMIT - 1000,)])
        failed = QUtilities.add_async_tasks_from_iter(TEXT, [(1,), (LIMIT,)])
    work(worker)
    with in_schema(ACME):
        assert [len(part) for part in QUtilities.get_result(id)] == [LIMIT - 1000] * 2
    assert not row(failed).success
    assert row(failed).result[0] == "x"


def test_the_list_of_an_iter_has_a_limit_of_its_own(limited, worker):
    with in_schema(ACME):
        id = QUtilities.add_async_tasks_from_iter(TEXT, [(LIMIT - 1000,)] * 4, hook="tests.tasks.hook")
    work(worker)
    found = row(id)
    assert not found.success
    assert found.result.startswith("OversizedResult: the results of tests.tasks.text have 39")
    assert "TENANT_Q['max_list_bytes'] is 300000" in found.result
    assert [note["success"] for note in tasks.notes(f"hook:{id}")] == [False]
    assert get_broker().counts().open == 0
    assert get_broker().parts(ACME, id) == {}, "the parts are forgotten"


def test_the_text_of_a_failure_is_shortened(worker, monkeypatch):
    monkeypatch.setattr(failure_text, "LONGEST_TEXT", 10_000)
    with in_schema(ACME):
        id = QUtilities.add_async_task(f"{__name__}.fail_at_length", 1_000_000)
    work(worker)
    text = row(id).result
    assert len(text) < 11_000
    assert "characters are left out" in text
    assert text.startswith("xxx")
    assert text.rstrip().endswith("xxx")


def fail_at_length(length: int) -> None:
    raise ValueError("x" * length)


def test_a_link_whose_arguments_are_within_the_limit_is_enqueued_after_any_result(limited, worker):
    with in_schema(ACME):
        group = QUtilities.create_async_tasks_chain([(TEXT, (LIMIT - 100,)), (TEXT, (LIMIT - 100,))])
    work(worker)
    with in_schema(ACME):
        assert [len(one) for one in QUtilities.get_result_group(group)] == [LIMIT - 100] * 2


def test_an_outcome_that_waits_for_its_tenant_is_not_limited(limited, worker, monkeypatch):
    """Result and arguments travel together then, and were within the limit each."""
    value = "x" * (LIMIT - 2000)
    with in_schema(ACME):
        id = QUtilities.add_async_task("tests.tasks.add", value, "")
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", refuse_rows)
        work(worker)
    assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0), "its saving is put off"
    sql(f"ALTER TABLE {ACME}.django_q_task RENAME TO away")
    try:
        make_due()
        work(worker)
    finally:
        sql(f"ALTER TABLE {ACME}.away RENAME TO django_q_task")
    assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0), "its worker puts it off again"
    make_due()
    work(worker)
    assert row(id).result == value


def refuse_rows(*_: Any) -> Any:
    raise DatabaseError("this table is broken")


# What a worker takes


def put(*sizes: int) -> None:
    tasks.client().hset(redis_key("costs"), f"{ACME};f", 0.01)
    get_broker().enqueue([Message(f"{n:032}", ACME, "f", "x" * size) for n, size in enumerate(sizes)])


def test_a_fetch_stops_at_four_mebibytes(tenants):
    broker: Any = get_broker()
    put(*[BATCH_BYTES // 4] * 6)
    assert [len(broker.fetch(f"w{n}").leases) for n in range(3)] == [3, 3, 0], "a message is more than its payload"


def test_a_package_that_is_larger_comes_alone(tenants):
    broker: Any = get_broker()
    put(1, BATCH_BYTES + 1, 1, 1)
    assert [len(broker.fetch(f"w{n}").leases) for n in range(4)] == [1, 1, 2, 0]


# Values whose pickles do not load


class Unloadable:
    def __reduce__(self) -> Any:
        return (_refuse, ())


def _refuse() -> None:
    raise RuntimeError("not today")


class TwoArguments(Exception):
    """The best known kind: pickled with one argument, and built with two."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def unloadable(how: str) -> Any:
    values = {"value": Unloadable(), "exception": TwoArguments(1, 2), "within": [{"a": (1, TwoArguments(1, 2))}]}
    return values[how]


@pytest.mark.parametrize("how", ["value", "exception", "within"])
@pytest.mark.parametrize("cached", [False, 60])
def test_a_result_whose_pickle_does_not_load_is_a_failed_row(worker, how, cached):
    with in_schema(ACME):
        id = QUtilities.add_async_task(f"{__name__}.unloadable", how, cached=cached)
    work(worker)
    with in_schema(ACME):
        (found,) = Task.objects.filter(id=id)
    assert not found.success
    assert "UnpicklableResult" in found.result
    assert "whose pickle does not load (" in found.result
    assert ("not today" if how == "value" else "TwoArguments") in found.result


def test_an_exception_that_loads_is_a_result(worker):
    with in_schema(ACME):
        id = QUtilities.add_async_task(f"{__name__}.an_exception")
    work(worker)
    assert row(id).success
    assert isinstance(row(id).result, ValueError)


def an_exception() -> Exception:
    return ValueError("a result")


def test_plain_values_are_not_loaded(tenants, monkeypatch):
    """It would double the cost of the check."""
    loaded: list[bytes] = []
    monkeypatch.setattr(result_checks.pickle, "loads", loaded.append)
    package = build("tests.tasks.add", (), {}, schema=ACME)
    for value in (None, 1, "x", [1, {"a": (1, 2.0, b"x", {3}, frozenset())}], True):
        result_checks.check_result(value, package)
    assert loaded == []
    result_checks.check_result(time.struct_time(range(9)), package)
    assert len(loaded) == 1


@pytest.mark.parametrize("compressed", [False, True])
def test_enqueue_measures_what_travels(limited, monkeypatch, compressed):
    monkeypatch.setattr(Conf, "COMPRESSED", compressed)
    package = build("tests.tasks.add", ("x" * 50_000,), {}, schema=ACME)
    text = push.sealed(package)
    assert (len(text) < 10_000) is compressed
    assert abs(size_of(text) - len(pickle.dumps(package.task, protocol=pickle.HIGHEST_PROTOCOL))) <= 3


def test_a_schedule_whose_arguments_are_too_large_is_a_failed_task(settings, scheduler, worker):
    """And its tenant's other schedules fire."""
    settings.TENANT_Q = settings.TENANT_Q | {"max_bytes": 20_000}
    from django.utils import timezone
    from django_q.models import Schedule

    with in_schema(ACME):
        for name, size in (("large", 30_000), ("small", 1)):
            arguments = f"('{'x' * size}',)"
            Schedule.objects.create(
                name=name, func="tests.tasks.add", args=arguments, schedule_type="O", next_run=timezone.now()
            )
    scheduler.tick()
    work(worker)
    with in_schema(ACME):
        (failed,) = Task.objects.filter(group="large")
        assert not failed.success
        assert "TENANT_Q['max_bytes'] is 20000" in failed.result
        assert Task.objects.filter(group="small").count() == 1
        assert not Schedule.objects.exists()
