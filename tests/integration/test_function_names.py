"""What is kept of partials, bound methods and callable objects names their code, and holds none of their data."""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable
from typing import Any

import pytest
from django_q import tasks as django_q_tasks
from django_q.models import Task
from prometheus_client import generate_latest

from tenant_q.admin.live import as_row, find_live
from tenant_q.brokers import get_broker
from tenant_q.exceptions import EnqueueError
from tenant_q.lifecycle.run_again import run_again
from tenant_q.operations import metrics
from tenant_q.package.functions import NOT_A_PATH
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import know_as_short, redis_key, work

HERE = __name__
IBAN = "DE89370400440532013000"
ACME = "acme_corp"


def book(*args: Any, **kwargs: Any) -> None: ...


noted: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_is_noted() -> None:
    noted.clear()


class Account:
    def __init__(self, iban: str) -> None:
        self.iban = iban

    def __repr__(self) -> str:
        return f"<Account {self.iban}>"

    def book(self, *args: Any) -> None: ...

    def __call__(self, *args: Any) -> None: ...

    @staticmethod
    def check(text: str) -> str:
        return text.upper()

    @classmethod
    def open(cls, text: str) -> str:
        return text.upper()

    def unbound(self: Any) -> str:
        return str(self).upper()

    @staticmethod
    def note(task: Task) -> None:
        noted.append(task.func)


WITH_DATA: dict[str, Callable[[int], Any]] = {
    f"{HERE}.book (partial)": lambda n: functools.partial(book, f"{IBAN}{n}"),
    f"{HERE}.Account.book (bound method)": lambda n: Account(f"{IBAN}{n}").book,
    f"{HERE}.Account (object)": lambda n: Account(f"{IBAN}{n}"),
    "operator.itemgetter (object)": lambda n: operator.itemgetter(f"{IBAN}{n}"),
}


def everything_in_redis() -> str:
    """All that Redis holds under the cluster's tag, but packages."""
    client = tasks.client()
    found: list[Any] = []
    for key in client.scan_iter(f"{redis_key('')[:-1]}*"):
        kind = client.type(key)
        if kind == b"hash":
            found.append(client.hgetall(key))
        elif kind == b"string":
            found.append(client.get(key))
        found.append(key)
    return str(found)


def of_acme() -> list[Task]:
    with in_schema(ACME):
        return list(Task.objects.all())


@pytest.mark.parametrize("stored", WITH_DATA)
@pytest.mark.parametrize("enqueue", [QUtilities.add_async_task, django_q_tasks.async_task])
def test_a_callable_with_data_is_named_by_its_code(tenants, worker, caplog, stored, enqueue):
    caplog.set_level(logging.DEBUG, logger="tenant_q")
    with in_schema(ACME):
        for n in range(5):
            enqueue(WITH_DATA[stored](n), {f"{IBAN}{n}": 1})
        rows = [as_row(live) for live in find_live(10)]
    assert {row.func for row in rows} == {stored}
    work(worker)
    assert {task.func for task in of_acme()} == {stored}
    name = stored.partition(" ")[0]
    assert list(get_broker().totals().functions) == [name]
    assert IBAN not in everything_in_redis()
    exposed = generate_latest(metrics.registry()).decode()
    assert f'func="{name}"' in exposed and IBAN not in exposed
    assert IBAN not in caplog.text.replace(str(WITH_DATA), "")
    assert {record.func for record in caplog.records if record.name == "tenant_q.worker"} <= {name, "-"}


@pytest.mark.parametrize("stored", WITH_DATA)
def test_what_a_row_does_not_hold_is_not_run_again(tenants, worker, stored):
    with in_schema(ACME):
        QUtilities.add_async_task(WITH_DATA[stored](1), {f"{IBAN}1": 1})
    work(worker)
    (task,) = of_acme()
    with in_schema(ACME), pytest.raises(EnqueueError, match="its row does not hold its data"):
        run_again(task, task.args, task.kwargs, task.result, actor="me")
    assert get_broker().counts().open == 0


def test_neither_is_a_row_with_a_hook_that_it_does_not_hold(tenants, worker):
    with in_schema(ACME):
        QUtilities.add_async_task(book, hook=functools.partial(book, IBAN))
    work(worker)
    (task,) = of_acme()
    assert task.hook == f"{HERE}.book (partial)"
    with in_schema(ACME), pytest.raises(EnqueueError, match="cannot be run again"):
        run_again(task, task.args, task.kwargs, task.result, actor="me")


@pytest.mark.parametrize(
    "func",
    ["functools.partial(<function book at 0x7f>, 'x')", "<built-in function floor>", "<bound method A.b of <A>>"],
)
def test_nor_is_a_row_of_the_version_before(tenants, func):
    with in_schema(ACME), pytest.raises(EnqueueError, match="cannot be run again"):
        run_again(Task(id="1" * 32, name="old", func=func, success=False), (), {}, None, actor="me")


@pytest.mark.parametrize(
    ("func", "stored"),
    [
        (Account.check, "Account.check"),
        (Account.open, "Account.open"),
        (Account.unbound, "Account.unbound"),
        (str.upper, None),
    ],
    ids=["static", "class", "plain", "of a builtin type"],
)
def test_a_method_of_a_class_is_run_again(tenants, worker, func, stored):
    path = f"{HERE}.{stored}" if stored else "builtins.str.upper"
    with in_schema(ACME):
        QUtilities.add_async_task(func, "x", hook=Account.note if stored else None)
    work(worker)
    (task,) = of_acme()
    with in_schema(ACME):
        run_again(task, task.args, task.kwargs, task.result, actor="me")
    work(worker)
    assert [(task.func, task.result) for task in of_acme()] == [(path, "X")] * 2
    assert len(noted) == (2 if stored else 0), "its hook too, a static method by its path"


def test_texts_that_are_no_paths_are_counted_together(tenants, worker):
    """A row shows what was given; Redis and the metrics keep one name for all of them."""
    given = {f"book('{IBAN}', {n})" for n in range(5)}
    with in_schema(ACME):
        for func in given:
            QUtilities.add_async_task(func)
        django_q_tasks.async_task("a.b\n" * 100, task_name="n" * 101)  # checks nothing
        assert {row.func for row in map(as_row, find_live(10))} >= given
    work(worker)
    assert {task.func for task in of_acme()} == given | {("a.b\n" * 100)[:256]}
    assert list(get_broker().totals().functions) == [NOT_A_PATH]
    assert IBAN not in everything_in_redis()


def test_a_partial_that_is_known_as_short_comes_in_batches(tenants, worker):
    """When each had a name of its own, each was unknown and ran in a batch of its own."""
    know_as_short(f"{HERE}.book", ACME)
    with in_schema(ACME):
        for n in range(10):
            QUtilities.add_async_task(functools.partial(book, f"{IBAN}{n}"))
    assert len(get_broker().fetch("w1").leases) == 10
