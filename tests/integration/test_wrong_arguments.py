"""A wrong type in a public call raises an error of one sentence before it reaches a server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from django.core.exceptions import ValidationError
from django.db import connection

from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.exceptions import EnqueueError, ProgressError, WrongArgument
from tenant_q.package.running import running
from tenant_q.tenancy import get_tenant, in_schema, validate_schema_name
from tenant_q.utils import QUtilities
from tests.integration.planning import on_the_wire

A = "acme_corp"
FUNC = "math.floor"
NO_TEXT = [None, 5, b"x", "", " ", 1.5, [], {}, object()]
NO_SCHEMA = [5, b"x", "", " ", True, [], object()]
NO_WAIT = [None, "5", b"5", float("nan"), float("inf"), 10**400, True, [], object()]
NO_CACHED = ["yes", b"x", -5, 10**30, 1.5, [], object()]
NO_BOOL = [None, "yes", b"x", 5, [], object()]
NO_BROKER = ["redis", b"x", 5, [], object()]
NO_GROUP = [None, "", b"x", 1.5, True, [], object()]
NO_FUNC = [None, 5, b"a.b", "", " ", [], {}, object()]
NO_LIST = [None, 5, "a.b", b"a.b", {"a": 1}, object()]
NO_DICT = [5, "x", b"x", [], ["a"], object()]


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def with_options(name: str) -> Callable[[Any], Any]:
    return lambda value: QUtilities.add_async_task(FUNC, 2.5, q_options={name: value})


def with_keyword(name: str) -> Callable[[Any], Any]:
    return lambda value: QUtilities.add_async_task(FUNC, 2.5, **{name: value})


def assigned(name: str) -> Callable[[Any], Any]:
    def act(value: Any) -> Any:
        task = AsyncTask(FUNC, 2.5)
        setattr(task, name, value)
        return task.run()

    return act


def started(make: Callable[[], Any], method: str, name: str) -> Callable[[Any], Any]:
    def act(value: Any) -> Any:
        one = make()
        one.id, one.group = "1" * 32, "g"
        one.started = True
        return getattr(one, method)(**{name: value})

    return act


def in_task(act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        token = running.set(object())  # type: ignore[arg-type]
        try:
            return act(value)
        finally:
            running.reset(token)

    return call


NEEDS: dict[str, Callable[..., Any]] = {
    "add_async_task": partial(QUtilities.add_async_task, FUNC),
    "create_schedule": partial(QUtilities.create_schedule, FUNC),
    "add_async_tasks_from_iter": partial(QUtilities.add_async_tasks_from_iter, FUNC, [1]),
    "create_async_tasks_chain": partial(QUtilities.create_async_tasks_chain, [FUNC]),
    "get_result": partial(QUtilities.get_result, "id"),
    "fetch_task": partial(QUtilities.fetch_task, "id"),
    "get_status": partial(QUtilities.get_status, "id"),
    "cancel": partial(QUtilities.cancel, "id"),
    "get_progress": partial(QUtilities.get_progress, "id"),
    "delete_task_from_cache": partial(QUtilities.delete_task_from_cache, "id"),
    "get_result_group": partial(QUtilities.get_result_group, "g"),
    "fetch_task_group": partial(QUtilities.fetch_task_group, "g"),
    "get_group_count": partial(QUtilities.get_group_count, "g"),
    "delete_task_group": partial(QUtilities.delete_task_group, "g"),
    "get_queue_size": QUtilities.get_queue_size,
    "get_workflow": partial(QUtilities.get_workflow, "id"),
}


def keyword(call: Callable[..., Any], name: str) -> Callable[[Any], Any]:
    return lambda value: call(**{name: value})


NO_OPTION: dict[str, list[Any]] = {
    "hook": [5, b"x", " ", [], object()],
    "group": [b"x", 1.5, True, []],
    "save": ["x", 5, b"x", []],
    "sync": ["x", 5, b"x", []],
    "ack_failure": ["x", 5, b"x", []],
    "cached": NO_CACHED,
    "broker": NO_BROKER,
    "cluster": [5, b"x", []],
    "timeout": [0, -5, 10**400, "60", b"x", True, float("nan"), []],
    "task_name": [b"x", 1.5, ["x"], object()],
    "chain": [5, "a.b"],
    "iter_count": ["x", b"x"],
}

CASES: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    **{f"{name}(schema_name)": (keyword(call, "schema_name"), NO_SCHEMA) for name, call in NEEDS.items()},
    "AsyncTask(schema_name)": (lambda value: AsyncTask(FUNC, schema_name=value).run(), NO_SCHEMA),
    "Iter(schema_name)": (lambda value: Iter(FUNC, [1], schema_name=value).run(), NO_SCHEMA),
    "Chain(schema_name)": (lambda value: Chain([FUNC], schema_name=value).run(), NO_SCHEMA),
    "in_schema()": (lambda value: in_schema(value).__enter__(), [None, *NO_SCHEMA]),
    # Functions
    "add_async_task(func)": (QUtilities.add_async_task, NO_FUNC),
    "add_async_tasks_from_iter(func)": (lambda value: QUtilities.add_async_tasks_from_iter(value, [1]), NO_FUNC),
    "create_async_tasks_chain([func])": (
        lambda value: QUtilities.create_async_tasks_chain([value]),
        [value for value in NO_FUNC if value != []] + [(), [], (FUNC, (), {}, 4), (FUNC, (), 5), (FUNC, (), [1])],
    ),
    "create_schedule(func)": (QUtilities.create_schedule, NO_FUNC),
    "AsyncTask(func)": (lambda value: AsyncTask(value).run(), NO_FUNC),
    "Iter(func)": (lambda value: Iter(value, [1]).run(), NO_FUNC),
    "Chain.append(func)": (lambda value: (chain := Chain(), chain.append(value), chain.run()), NO_FUNC),
    # Lists
    "add_async_tasks_from_iter(args_iter)": (lambda value: QUtilities.add_async_tasks_from_iter(FUNC, value), NO_LIST),
    "create_async_tasks_chain(chain)": (QUtilities.create_async_tasks_chain, [*NO_LIST, len]),
    "Iter(args)": (lambda value: Iter(FUNC, value), [value for value in NO_LIST if value is not None]),
    "Iter(kwargs)": (lambda value: Iter(FUNC, [1], kwargs=value), NO_DICT),
    "Chain(chain)": (Chain, [value for value in NO_LIST if value is not None]),
    # Ids and groups
    **{
        f"{name}(task_id)": (getattr(QUtilities, name), NO_TEXT)
        for name in ("get_result", "fetch_task", "get_status", "cancel", "get_progress", "delete_task_from_cache")
    },
    **{
        f"{name}(group_id)": (getattr(QUtilities, name), NO_GROUP)
        for name in ("get_result_group", "fetch_task_group", "get_group_count", "delete_task_group")
    },
    "start_workflow(path)": (QUtilities.start_workflow, NO_TEXT),
    "get_workflow(id)": (QUtilities.get_workflow, NO_TEXT),
    "create_async_tasks_chain(group)": (keyword(NEEDS["create_async_tasks_chain"], "group"), [b"x", 1.5, True, []]),
    "Chain(group)": (keyword(Chain, "group"), [b"x", 1.5, True, []]),
    # Waiting
    **{
        f"{name}({option})": (keyword(NEEDS[name], option), values)
        for name in ("get_result", "fetch_task", "get_result_group", "fetch_task_group")
        for option, values in (("wait", NO_WAIT), ("cached", NO_CACHED))
    },
    **{
        f"{name}({option})": (keyword(NEEDS[name], option), values)
        for name in ("get_result_group", "fetch_task_group")
        for option, values in (("count", ["5", -1, b"x", [], True]), ("failures", NO_BOOL))
    },
    **{
        f"{type(make()).__name__}.{method}(wait)": (started(make, method, "wait"), NO_WAIT)
        for make in (lambda: AsyncTask(FUNC), lambda: Iter(FUNC, [1]), lambda: Chain([FUNC]))
        for method in ("result", "fetch")
    },
    "get_group_count(failures)": (keyword(NEEDS["get_group_count"], "failures"), NO_BOOL),
    "get_group_count(cached)": (keyword(NEEDS["get_group_count"], "cached"), NO_CACHED),
    "delete_task_group(tasks)": (keyword(NEEDS["delete_task_group"], "tasks"), NO_BOOL),
    "delete_task_group(cached)": (keyword(NEEDS["delete_task_group"], "cached"), NO_CACHED),
    # Options of a call
    **{
        f"{name}({option})": (keyword(NEEDS.get(name) or make, option), values)
        for name, make in {
            "create_async_tasks_chain": None,
            "Iter": partial(Iter, FUNC, [1]),
            "Chain": partial(Chain, [FUNC]),
        }.items()
        for option, values in (("cached", NO_CACHED), ("sync", ["x", 5, b"x", []]), ("broker", NO_BROKER))
    },
    "get_queue_size(broker)": (keyword(QUtilities.get_queue_size, "broker"), NO_BROKER),
    "delete_task_from_cache(broker)": (keyword(NEEDS["delete_task_from_cache"], "broker"), NO_BROKER),
    "cancel(by)": (keyword(NEEDS["cancel"], "by"), [None, 5, b"x", []]),
    "add_async_task(q_options)": (keyword(NEEDS["add_async_task"], "q_options"), [5, "x", b"x", [], 0, object()]),
    "AsyncTask(q_options)": (lambda value: AsyncTask(FUNC, q_options=value).cached, [5, "x", b"x", [], object()]),
    "Iter(kwargs q_options)": (lambda value: Iter(FUNC, [1], kwargs={"q_options": value}).run(), [5, "x", [1]]),
    **{
        f"{kind}({option})": (make(option), values)
        for option, values in NO_OPTION.items()
        for kind, make in (("option", with_options), ("keyword", with_keyword))
    },
    **{f"AsyncTask.{option}": (assigned(option), NO_BROKER[:3]) for option in ("broker", "sync", "save")},
    "AsyncTask.cached": (assigned("cached"), NO_CACHED),
    "AsyncTask.hook": (assigned("hook"), [5, b"x"]),
    "AsyncTask.group": (assigned("group"), [b"x", 1.5]),
    **{
        f"option({option})": (with_options(option), values)
        for option, values in {
            "max_deliveries": [0, "1", None, True],
            "max_attempts": [-1, "1", None, True],
            "retry_delay": [-1, "1", None, []],
            "retry_backoff": [0, 10**400, "1", None, []],
            "delay": [-1, 10**400, "1", None, []],
            "on_commit": ["x", 1, []],
            "transactional": ["x", 1, []],
            "databases": [None, 5, "default", ["nobody"], [5]],
            "tenant_cache_seconds": [-1, "1", None, []],
        }.items()
    },
    # Schedules
    **{
        f"create_schedule({field})": (keyword(NEEDS["create_schedule"], field), [5, b"x", ["x"]])
        for field in ("hook", "name", "cron", "cluster", "intended_date_kwarg", "next_run")
    },
    # Progress
    "set_progress(fraction)": (
        in_task(QUtilities.set_progress),
        [None, "x", b"x", -1, 2, 10**400, float("nan"), float("inf"), []],
    ),
}


@pytest.fixture
def silence(tenants: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tenant is current, and whatever reaches a server is an error."""
    connection.set_tenant(get_tenant(A))

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the broker was asked")

    with monkeypatch.context() as patched:
        patched.setattr(redis.ConnectionPool, "get_connection", refuse)
        with on_the_wire() as asked:
            yield
    connection.set_schema_to_public()
    assert asked == [], "the database was asked"


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_argument_is_told_in_one_sentence(silence, name):
    act, values = CASES[name]
    for value in [*values, Unshowable()]:
        with pytest.raises((EnqueueError, ProgressError)) as caught:
            act(value)
        said = str(caught.value)
        assert re.search(r"; (it must be|they must be|pass|divide) ", said), said
        assert said.endswith(".") and "\n" not in said and len(said) < 300


def test_the_function_of_an_iter_is_told_before_its_arguments(silence):
    with pytest.raises(WrongArgument, match=r"add_async_tasks_from_iter\(\) was called with func=5 "):
        QUtilities.add_async_tasks_from_iter(5, [])  # type: ignore[arg-type]


def test_a_value_that_cannot_be_shown_is_an_object(silence):
    no_list = type("list", (), {"__module__": "builtins"})()  # `reprlib` goes by the name of the type
    with pytest.raises(WrongArgument, match=r"wait=an object \(list\); it must be"):
        QUtilities.get_result("id", wait=no_list)


def test_it_is_a_type_error_too():
    assert issubclass(WrongArgument, TypeError)


@pytest.mark.parametrize("name", [None, 5, b"acme", [], object()])
def test_what_is_no_text_is_no_name_of_a_schema(name):
    with pytest.raises(ValidationError, match="it is not a text"):
        validate_schema_name(name)


@pytest.mark.parametrize("chain", ["a.b", b"a.b", {"a.b": 1}])
def test_a_text_is_no_chain_of_its_letters(tenants, chain):
    with in_schema(A), pytest.raises(WrongArgument, match="chain="):
        QUtilities.create_async_tasks_chain(chain)


def test_links_in_other_forms(tenants):
    with in_schema(A):
        links = ["tests.tasks.nothing", ["tests.tasks.add", (1,)], ("tests.tasks.add", 2), ("tests.tasks.nothing", ())]
        group = QUtilities.create_async_tasks_chain(links, sync=True)
        assert QUtilities.get_result_group(group, count=4) == [None, 1, 2, None]


def test_groups_may_be_numbers(tenants):
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", 3, group=17, sync=True, timeout=-1, save=1, hook="")
        assert QUtilities.get_result_group(17) == [3]  # type: ignore[arg-type]  # the number is accepted too
        assert QUtilities.get_group_count("17") == 1
