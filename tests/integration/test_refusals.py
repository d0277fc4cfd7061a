"""Errors have three kinds: what one entry is refused for costs that entry alone, and an outage costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django_q.models import Task
from django_q.tasks import async_task

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message, Settled
from tenant_q.brokers.redis import RedisBroker
from tenant_q.exceptions import BrokerDefect, BrokerError, EnqueueError, EntryRefused
from tenant_q.lifecycle import bulk_rows, cached_results, submit
from tenant_q.support.error_kinds import Kind, kind_of_redis
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import make_due, redis_key, sql, work

ACME, GLOBEX = "acme_corp", "globex_inc"
LARGE = 3_000_000


@pytest.fixture
def small_server(tenants) -> Iterator[None]:
    """A Redis that takes no value above a megabyte."""
    client = tasks.client()
    before: Any = client.config_get("proto-max-bulk-len")
    client.config_set("proto-max-bulk-len", "1mb")
    yield
    client.config_set("proto-max-bulk-len", before["proto-max-bulk-len"])


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, mark: str, error: Exception) -> Iterator[list[str]]:
    """Redis refuses each command that has `mark` in one of its arguments. Yields the commands that were refused."""
    refused: list[str] = []
    real = redis.Redis.execute_command

    def execute(self: Any, *arguments: Any, **options: Any) -> Any:
        if any(mark in str(argument) for argument in arguments):
            refused.append(str(arguments[0]))
            raise error
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(redis.Redis, "execute_command", execute)
        yield refused


def row(id: str) -> Task:
    found = QUtilities.fetch_task(id)
    assert found is not None
    return found


# Which kind an error is


@pytest.mark.parametrize(
    "answer",
    [
        "LOADING Redis is loading the dataset in memory", "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down", "CLUSTERDOWN Hash slot not served", "TRYAGAIN Multiple keys request",
        "OOM command not allowed when used memory > 'maxmemory'.", "NOPERM User x has no permissions",
        "NOAUTH Authentication required.", "WRONGPASS invalid username-password pair", "MISCONF Errors writing",
        "NOREPLICAS Not enough good replicas to write.", "ERR max number of clients reached", "MOVED 3999 h:6381",
        "BUSY Redis is busy running a script", "ERR unknown command 'EVALSHA'", "DENIED Redis is in protected mode",
        "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", "NOMULTIBULK OOM x",
        "READONLY You can't write against a read only replica. script: 1, on @user_script:42.",
    ],
)  # fmt: skip
def test_what_concerns_the_server_is_an_outage(answer):
    assert kind_of_redis(_parsed(answer)) is Kind.OUTAGE


@pytest.mark.parametrize(
    "answer",
    [
        "ERR Protocol error: invalid bulk length", "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)", "ERR Protocol error: too big bulk count string",
    ],
)  # fmt: skip
def test_what_one_entry_causes_is_a_refusal(answer):
    assert kind_of_redis(_parsed(answer)) is Kind.REFUSAL


@pytest.mark.parametrize("answer", ["ERR user_script:12: attempt to index a nil value", "ERR value is not an integer"])
def test_what_a_script_does_wrong_is_a_defect(answer):
    assert kind_of_redis(_parsed(answer)) is Kind.DEFECT


@pytest.mark.parametrize("error", [redis.ConnectionError("x"), redis.TimeoutError("x"), redis.RedisError("x")])
def test_no_answer_is_an_outage(error):
    assert kind_of_redis(error) is Kind.OUTAGE


def _parsed(answer: str) -> Exception:
    """The error that the client makes of a server's answer."""
    from redis._parsers.base import BaseParser

    error = BaseParser.parse_error(answer)
    assert isinstance(error, Exception)
    return error


def test_a_defect_in_every_script_is_an_outage(tenants, monkeypatch):
    """A server in front of Redis may have errors of its own: what nothing is served with concerns no entry."""
    broker = get_broker()
    failure = redis.ResponseError("ERR upstream failure")
    with refusing(monkeypatch, "EVAL", failure), pytest.raises(BrokerError, match="upstream failure"):
        broker.enqueue([Message("a" * 32, ACME, "f", "p")])
    with refusing(monkeypatch, "a" * 32, failure), pytest.raises(BrokerDefect, match="upstream failure"):
        broker.enqueue([Message("a" * 32, ACME, "f", "p")])


# Enqueueing


def test_a_package_that_the_server_refuses_is_an_error_of_its_caller(small_server):
    with in_schema(ACME):
        with pytest.raises(
            EnqueueError, match=r"tests.tasks.add cannot be enqueued for acme_corp, as a package of \d{7}"
        ):
            QUtilities.add_async_task("tests.tasks.add", "x" * LARGE)
        with pytest.raises(EnqueueError, match=r"as a package of \d{7}"):
            async_task("tests.tasks.add", "x" * LARGE)
        assert QUtilities.get_result(QUtilities.add_async_task("tests.tasks.add", 1)) is None
    assert get_broker().counts().open == 1


def test_an_outage_with_a_large_package_is_an_outage(tenants, monkeypatch):
    with in_schema(ACME), refusing(monkeypatch, "EVAL", redis.ConnectionError("closed")) as refused:
        monkeypatch.setattr(redis.Redis, "ping", lambda self: self.execute_command("EVALS"))
        with pytest.raises(BrokerError, match="closed"):
            QUtilities.add_async_task("tests.tasks.add", "x" * LARGE)
    assert refused[-1] == "EVALS", "it was asked whether it answers at all"


# Results in the cache


def test_a_cached_result_that_the_server_refuses_is_a_failed_task(worker, small_server, caplog):
    with in_schema(ACME):
        large = QUtilities.add_async_task("tests.tasks.text", LARGE, cached=60)
        small = [QUtilities.add_async_task("tests.tasks.add", n, cached=60) for n in range(3)]
    with in_schema(GLOBEX):
        other = QUtilities.add_async_task("tests.tasks.add", 7)
    work(worker)
    assert get_broker().counts().open == 0
    with in_schema(ACME):
        assert [QUtilities.get_result(id, cached=True) for id in small] == [0, 1, 2]
        failed = row(large)
        assert not failed.success
        assert failed.result.startswith("ResultRefused: the server that was to keep the result refuses it (the cache")
        assert "4000" in failed.result, "its size"
        assert cached_results.find(large).success is False, "whoever waits for it in the cache is served"
    with in_schema(GLOBEX):
        assert QUtilities.get_result(other) == 7


def test_a_cached_result_of_a_group_that_the_broker_refuses_is_a_failed_task(worker, small_server):
    with in_schema(ACME):
        large = QUtilities.add_async_task("tests.tasks.text", LARGE, cached=60, group="g")
        QUtilities.add_async_task("tests.tasks.add", 1, cached=60, group="g")
    work(worker)
    with in_schema(ACME):
        assert row(large).result.startswith("ResultRefused: ")
        assert QUtilities.get_result_group("g", cached=True) == [1]
    assert get_broker().counts().open == 0


def test_a_part_of_an_iter_that_the_broker_refuses_fails_the_iter(worker, small_server):
    with in_schema(ACME):
        id = QUtilities.add_async_tasks_from_iter("tests.tasks.text", [(1,), (LARGE,), (2,)])
    work(worker)
    with in_schema(ACME):
        collated = row(id)
        assert not collated.success
        assert collated.result[0] == "x"
        assert collated.result[1].startswith("ResultRefused: ")
        assert collated.result[2] == "xx"
    assert get_broker().counts().open == 0


def test_a_cache_that_is_away_delays_its_results_for_as_long_as_it_is(worker, monkeypatch):
    from tenant_q.lifecycle import retries

    monkeypatch.setattr(retries, "MOST_PUT_OFFS", 2)
    with in_schema(ACME):
        id = QUtilities.add_async_task("tests.tasks.add", 1, cached=60)
    with monkeypatch.context() as away:
        away.setattr(type(cache._connections[cache._alias]) if hasattr(cache, "_alias") else type(cache), "set", _gone)
        for _ in range(6):
            work(worker)
            assert get_broker().counts().delayed == 1
            make_due()
    work(worker)
    with in_schema(ACME):
        assert QUtilities.get_result(id, cached=True) == 1


def _gone(*arguments: Any, **keywords: Any) -> None:
    raise redis.ConnectionError("gone")


# Acknowledging, returning


ERRORS = [
    redis.ResponseError("ERR refused"), redis.ResponseError("WRONGTYPE x"),
    redis.ResponseError("ERR Protocol error: invalid bulk length"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_an_acknowledgement_that_is_refused_costs_its_package_alone(worker, monkeypatch, error, caplog):
    with in_schema(ACME):
        ids = [submit.submit("tests.tasks.add", (n,), {}, id=f"{n:032x}") for n in range(5)]
    with refusing(monkeypatch, ids[2], error):
        work(worker)
    assert get_broker().counts().open == 0
    assert [dead.id for dead in get_broker().dead()] == [ids[2]]
    with in_schema(ACME):
        assert Task.objects.filter(success=True).count() == 5, "their results were saved before"


@pytest.mark.parametrize("error", ERRORS)
def test_a_retry_that_is_refused_is_the_end_of_its_task(worker, monkeypatch, error):
    with in_schema(ACME):
        bad = QUtilities.add_async_task("tests.tasks.fail", q_options={"max_attempts": 5})
        good = QUtilities.add_async_task("tests.tasks.add", 1)
    with monkeypatch.context() as patch:
        patch.setattr(RedisBroker, "put_off", _raising(EntryRefused("refused")))
        work(worker)
    with in_schema(ACME):
        assert not row(bad).success
        assert "ValueError" in row(bad).result
        assert QUtilities.get_result(good) == 1
    assert get_broker().counts().open == 0


def _raising(error: Exception) -> Any:
    def act(*arguments: Any, **keywords: Any) -> None:
        raise error

    return act


@pytest.mark.parametrize("operation", ["give_back", "dead_letter", "set_progress", "reclaim", "acknowledge"])
@pytest.mark.parametrize("error", ERRORS)
def test_each_operation_gets_by_without_the_entry_that_is_refused(tenants, monkeypatch, operation, error):
    from tenant_q.states import Progress

    broker: Any = get_broker()
    tasks.client().hset(redis_key("costs"), "acme_corp;f", 0.1)
    broker.enqueue([Message(id, ACME, "f", "p") for id in ("a" * 32, "b" * 32)])
    leases = broker.fetch("w1").leases
    assert len(leases) == 2
    with refusing(monkeypatch, "a" * 32, error):
        match operation:
            case "give_back":
                assert broker.give_back("w1", leases) == 1
            case "dead_letter":
                for lease in leases:
                    broker.dead_letter("w1", lease, "c")
            case "set_progress":
                one, two = (broker.fetch(worker, limit=1).leases[0] for worker in ("w1", "w2"))
                progress = {"w1": (one.id, Progress(0.5, "")), "w2": (two.id, Progress(0.25, ""))}
                broker.set_progress(progress)
                assert broker.get_progress(ACME, "b" * 32) is not None
                broker.give_back("w1", [one])
                broker.give_back("w2", [two])
            case "reclaim":
                assert broker.reclaim("w1", running="a" * 32) == 2
            case "acknowledge":
                assert broker.acknowledge("w1", [Settled(lease, 0.1) for lease in leases]) == []
    assert broker.counts().leased == 0
    assert broker.fetch("w2") is not None


def test_a_link_that_is_refused_is_a_failed_row(worker, monkeypatch):
    with in_schema(ACME):
        refused = QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.note_where", ("bad",))])
        served = QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.add", (2,))])
    real = RedisBroker.enqueue

    def enqueue_but(self: Any, messages: Any, **keywords: Any) -> int:
        if any(message.func.endswith("note_where") for message in messages):
            raise EntryRefused("refused for ever")
        return real(self, messages, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(RedisBroker, "enqueue", enqueue_but)
        work(worker)
    with in_schema(ACME):
        assert QUtilities.get_result_group(served) == [1, 2]
        (failed,) = Task.objects.filter(group=refused, success=False)
        assert "refused for ever" in failed.result
    assert get_broker().counts().open == 0


def test_a_worker_survives_a_defect_at_the_broker(worker, monkeypatch, caplog):
    """No entry can be named; it is logged with its traceback, and tried again."""
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(RedisBroker, "fetch", _raising(BrokerDefect("a nil value")))
        assert worker._tick_through_outage() > 0
        assert worker._tick_through_outage() > 0
    assert caplog.text.count("Traceback") == 1
    with in_schema(ACME):
        id = QUtilities.add_async_task("tests.tasks.add", 1)
    worker._tick_through_outage()
    with in_schema(ACME):
        assert QUtilities.get_result(id) == 1


# Rows


def test_a_row_that_postgresql_refuses_is_a_failed_row_without_its_values(worker, monkeypatch):
    """One of a batch; what PostgreSQL takes no more of is made small here."""
    monkeypatch.setattr(bulk_rows, "LARGEST_ROW", 100_000)
    monkeypatch.setattr(bulk_rows, "LARGEST_BATCH", 50_000)
    tasks.client().hset(redis_key("costs"), "acme_corp;tests.tasks.text", 0.1)
    with in_schema(ACME):
        ids = [QUtilities.add_async_task("tests.tasks.text", size) for size in (1, 200_000, 60_000, 2)]
        once = QUtilities.add_async_task("tests.tasks.text", 200_000, q_options={"transactional": True})
    work(worker)
    with in_schema(ACME):
        assert [len(QUtilities.get_result(ids[n])) for n in (0, 2, 3)] == [1, 60_000, 2]
        for id in (ids[1], once):
            assert "ResultRefused: the server that was to keep" in row(id).result
            assert not row(id).success
    assert get_broker().counts().open == 0


def test_a_value_that_the_table_refuses_costs_its_task_alone(worker):
    sql("ALTER TABLE acme_corp.django_q_task ADD CONSTRAINT short CHECK (length(result) < 2000)")
    try:
        tasks.client().hset(redis_key("costs"), "acme_corp;tests.tasks.text", 0.1)
        with in_schema(ACME):
            ids = [QUtilities.add_async_task("tests.tasks.text", size) for size in (1, 5000, 2)]
        work(worker)
        with in_schema(ACME):
            assert [QUtilities.get_result(ids[n]) for n in (0, 2)] == ["x", "xx"]
            assert row(ids[1]).result.startswith("ResultRefused: ")
    finally:
        sql("ALTER TABLE acme_corp.django_q_task DROP CONSTRAINT short")
