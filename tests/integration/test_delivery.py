"""Attempts, delays, transactions: what runs when, how often, and what is left of it."""

from __future__ import annotations

import math
import signal
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.utils import timezone
from django_q.models import Task
from django_q.signals import post_execute_in_worker
from django_q.tasks import async_task

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Lease, Message
from tenant_q.brokers.redis import RedisBroker
from tenant_q.cluster import completer
from tenant_q.cluster import shared_memory as slots
from tenant_q.cluster.child import Child
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BrokerError, EnqueueError
from tenant_q.lifecycle import prune_results, results, retries
from tenant_q.lifecycle.retries import Step
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.package.package import Package
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until
from tests.integration.conftest import know_as_short, make_due, redis_key, sql, work

HERE = __name__
RUNS: list[Any] = []


@pytest.fixture(autouse=True)
def no_runs():
    RUNS.clear()


@pytest.fixture
def effects(tenants):
    """A table in acme_corp, for what tasks do to the tenant's database."""
    with in_schema("acme_corp"), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE effects (what text)")
    yield lambda: [what for (what,) in sql("SELECT what FROM acme_corp.effects ORDER BY 1")]
    sql("DROP TABLE acme_corp.effects")


# Tasks of this module


def fail_until(successful: int) -> int:
    RUNS.append(time.monotonic())
    if len(RUNS) < successful:
        raise ValueError(f"attempt {len(RUNS)}")
    return len(RUNS)


def write(what: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effects VALUES (%s)", [what])
    RUNS.append(what)
    return what


def write_and_fail(what: str) -> None:
    write(what)
    raise ValueError("after the effect")


def write_and_roll_back(what: str) -> None:
    write(what)
    transaction.set_rollback(True)


def write_and_return_what_does_not_pickle(what: str) -> Any:
    write(what)
    return lambda: None


def write_and_fail_on_commit(what: str) -> str:
    write(what)
    transaction.on_commit(lambda: 1 / 0)
    return what


def write_and_lose_the_server_once(what: str) -> str:
    return write_and_lose_the_server(what, times=1)


def write_and_lose_the_server(what: str, times: int = 99) -> str:
    write(what)
    if len(RUNS) <= times:
        with psycopg.connect(connection.connection.info.dsn, password="postgres", autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    return what


def do_nothing() -> None:
    pass


def ask_for_a_tenant_that_is_not_there() -> None:
    QUtilities.add_async_task("math.floor", 1.5, schema_name="nobody")


def add(func: str, *args: Any, schema: str = "acme_corp", **q_options: Any) -> str:
    return QUtilities.add_async_task(f"{HERE}.{func}", *args, schema_name=schema, q_options=q_options)


def row(id: str, schema: str = "acme_corp") -> Task | None:
    return QUtilities.fetch_task(id, schema_name=schema)


def work_through_attempts(worker: Any, most: int = 20) -> None:
    for _ in range(most):
        work(worker)
        if get_broker().counts().open == 0:
            return
        make_due()
    raise AssertionError(f"there is no end: {get_broker().counts()}")


# Attempts


def test_a_task_has_one_attempt_unless_it_is_told(tenants, worker):
    id = add("fail_until", 2)
    work(worker)
    assert (row(id).success, row(id).attempt_count, len(RUNS)) == (False, 1, 1)


def test_a_task_is_started_until_it_succeeds(tenants, worker):
    id = add("fail_until", 3, max_attempts=5, retry_delay=60)
    work(worker)
    assert row(id) is None, "between attempts there is no row"
    assert get_broker().counts().delayed == 1
    work_through_attempts(worker)
    assert (row(id).success, row(id).result, row(id).attempt_count) == (True, 3, 3)
    assert schemas.count_tasks("acme_corp") == 1


def test_a_task_fails_for_good_after_its_last_attempt(tenants, worker):
    id = add("fail_until", 9, max_attempts=3, retry_delay=0)
    work_through_attempts(worker)
    assert len(RUNS) == 3
    assert (row(id).success, row(id).attempt_count) == (False, 3)
    assert "attempt 3" in row(id).result
    assert get_broker().counts().open == 0


def test_attempts_without_limit(tenants, worker):
    id = add("fail_until", 12, max_attempts=0, retry_delay=0)
    work_through_attempts(worker)
    assert row(id).attempt_count == 12


def test_the_settings_are_the_default(tenants, worker, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"max_attempts": 2}
    settings.TENANT_Q = settings.TENANT_Q | {"retry_delay": 0}
    id = add("fail_until", 9)
    work_through_attempts(worker)
    assert row(id).attempt_count == 2


@pytest.mark.parametrize("by_setting", [True, False])
def test_an_acknowledged_failure_is_final(tenants, worker, settings, by_setting):
    if by_setting:
        settings.Q_CLUSTER = settings.Q_CLUSTER | {"ack_failures": True}
    options: dict[str, Any] = {} if by_setting else {"ack_failure": True}
    id = add("fail_until", 2, max_attempts=5, **options)
    work(worker)
    assert (row(id).success, row(id).attempt_count) == (False, 1)


def test_a_hook_is_called_after_the_last_attempt_only(tenants, worker):
    id = add("fail_until", 2, max_attempts=2, retry_delay=0, hook="tests.tasks.hook")
    work(worker)
    assert tasks.notes(f"hook:{id}") == []
    work_through_attempts(worker)
    assert [note["success"] for note in tasks.notes(f"hook:{id}")] == [True]


def test_receivers_in_the_worker_are_called_at_each_attempt(tenants, worker):
    told = []

    def receiver(task: Any, **_: Any) -> None:
        told.append(task["success"])

    post_execute_in_worker.connect(receiver)
    try:
        add("fail_until", 2, max_attempts=2, retry_delay=0)
        work_through_attempts(worker)
    finally:
        post_execute_in_worker.disconnect(receiver)
    assert told == [False, True]


def test_a_chain_goes_on_when_a_link_succeeds_at_last(tenants, worker):
    chain = [(f"{HERE}.fail_until", (2,), {"q_options": {"max_attempts": 2, "retry_delay": 0}}), ("math.floor", (2.5,))]
    group = QUtilities.create_async_tasks_chain(chain, schema_name="acme_corp")
    work_through_attempts(worker)
    assert QUtilities.get_result_group(group, schema_name="acme_corp") == [2, 2]


def test_a_link_is_enqueued_once_though_its_task_comes_again_after_its_id_is_forgotten(tenants, worker, monkeypatch):
    """The broker keeps with a package, for as long as it is there, what was enqueued to follow it."""
    acknowledge = worker.broker.acknowledge
    lost: list[Any] = []

    def lose_first(key: str, settled: Any) -> list[str]:
        if not lost:
            lost.extend(one.lease.id for one in settled)
            raise BrokerError("away")
        return acknowledge(key, settled)

    monkeypatch.setattr(worker.broker, "acknowledge", lose_first)
    with in_schema("acme_corp"):
        QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.add", (2,))])
    with pytest.raises(BrokerError):
        worker.tick()
    (link,) = [one for one in get_broker().live("acme_corp") if one.place == "queued"]
    followed = tasks.client().hgetall(redis_key("followed"))
    assert followed == {lost[0].encode(): link.id.encode()}
    work(worker)
    assert not tasks.client().exists(redis_key("followed")), "with the packages it is gone"
    with in_schema("acme_corp"):
        assert Task.objects.count() == 2


def test_the_parts_of_an_iter_have_attempts(tenants, worker):
    options = {"max_attempts": 3, "retry_delay": 0}
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.fail_until", [2, 2], schema_name="acme_corp", q_options=options)
    work_through_attempts(worker)
    assert sorted(row(id).result) == [2, 3]


def test_delays_grow_up_to_an_hour(tenants, monkeypatch):
    monkeypatch.setattr(retries.random, "random", lambda: 0.0)
    package = Package({"retry_delay": 2, "retry_backoff": 3, "max_attempts": 0})
    delays = []
    for _ in range(9):
        decision = retries.after_failure(failure_of(package))
        assert decision.step is Step.TRY_AGAIN
        delays.append(decision.delay)
        package = decision.counted(package)
    assert delays == [2, 6, 18, 54, 162, 486, 1458, 3600, 3600]
    package = Package(package.task | {"failures": 10**6})
    assert retries.after_failure(failure_of(package)).delay == 3600
    monkeypatch.setattr(retries.random, "random", lambda: 1.0)
    assert retries.after_failure(failure_of(package)).delay == 2700


def failure_of(package: Package) -> Outcome:
    return give_up(package, ValueError("it failed"), is_final=False)


@pytest.mark.parametrize("more", ["value", "what does not pickle"])
def test_each_attempt_has_the_arguments_of_the_call(tenants, worker, more):
    """Whatever an attempt before has done to them."""
    id = add("use_up", ["a", "b"], more, max_attempts=3, retry_delay=0)
    work_through_attempts(worker)
    assert RUNS == [["a", "b"]] * 3
    assert not row(id).success


def test_a_task_that_is_taken_back_has_the_arguments_of_the_call(tenants, worker, effects):
    id = add("use_up_and_lose_the_server_once", ["a", "b"], transactional=True)
    work_through_attempts(worker)
    assert (row(id).result, effects()) == ("b", ["b"])


def use_up(values: list[Any], more: str) -> None:
    RUNS.append(list(values))
    values.pop()
    values.append(more if more == "value" else lambda: more)
    raise ValueError(more)


def use_up_and_lose_the_server_once(values: list[Any]) -> str:
    return write_and_lose_the_server_once(values.pop())


def test_an_attempt_is_put_back_through_an_outage_of_the_broker(tenants, worker, monkeypatch):
    """The worker keeps the outcome: the failed attempt counts, and the task is not run again meanwhile."""
    id = add("fail_until", 2, max_attempts=2, retry_delay=0)
    broken = BrokerError("away")

    def away(*args: Any, **kwargs: Any) -> None:
        raise broken

    with monkeypatch.context() as patch:
        patch.setattr(worker.broker, "put_off", away)
        with pytest.raises(BrokerError):
            worker.tick()
        with pytest.raises(BrokerError):
            worker.tick()
    assert len(RUNS) == 1
    work_through_attempts(worker)
    assert row(id).attempt_count == 2


def test_a_failed_attempt_is_charged_to_its_tenant(tenants, worker):
    before = float(tasks.client().hget(redis_key("vtime"), "acme_corp") or 0)
    QUtilities.add_async_task(
        f"{HERE}.sleep_and_fail", schema_name="acme_corp", q_options={"max_attempts": 2, "retry_delay": 60}
    )
    QUtilities.add_async_task(f"{HERE}.sleep_and_fail", schema_name="globex_inc")  # else nobody waits for it
    work(worker)
    assert float(tasks.client().hget(redis_key("vtime"), "acme_corp")) - before >= 20


def sleep_and_fail() -> None:
    time.sleep(0.02)
    raise ValueError


def test_a_task_that_kills_its_worker_is_given_up_though_it_has_attempts_left(tenants, worker):
    id = add("fail_until", 1, max_attempts=0)
    for _ in range(3):
        get_broker().fetch("dies")
        get_broker().reclaim("dies", running=id)
    work(worker)
    assert row(id).result.startswith("WorkerDied: ")
    assert (RUNS, get_broker().counts().open) == ([], 0)


def test_a_task_that_was_killed_over_its_timeout_is_tried_again(tenants, worker):
    """As one whose timeout is raised in it. It is no second start that a death is charged for."""
    id = add("fail_until", 1, max_attempts=2, retry_delay=0)
    get_broker().fetch("killed")
    get_broker().reclaim("killed", running=id, give_up_reason="it ran over its timeout")
    work_through_attempts(worker)
    assert (row(id).success, row(id).attempt_count, len(RUNS)) == (True, 2, 1)


def test_a_package_of_a_removed_function_is_tried_again(tenants, worker):
    """A newer release may be on its way."""
    options = {"max_attempts": 2, "retry_delay": 0}
    id = QUtilities.add_async_task("tests.tasks.not_there_yet", schema_name="acme_corp", q_options=options)
    work(worker)
    tasks.not_there_yet = tasks.nothing
    try:
        work_through_attempts(worker)
    finally:
        del tasks.not_there_yet
    assert row(id).success


def test_the_tenant_whose_turn_it_is_runs_first_in_a_batch(tenants, worker):
    """Whatever its name."""
    know_as_short(f"{HERE}.note_schema", *tenants)
    tasks.client().hset(redis_key("vtime"), "acme_corp", 1000)
    for name in ("acme_corp", "initech_llc"):
        add("note_schema", schema=name)
    worker.tick()
    assert RUNS == ["initech_llc", "acme_corp"]


def note_schema() -> None:
    RUNS.append(connection.schema_name)


# Delays


def test_a_delayed_task_is_not_run_before_its_time(tenants, worker):
    id = add("fail_until", 1, delay=timedelta(hours=1))
    worker.tick()
    assert (RUNS, get_broker().counts().delayed) == ([], 1)
    make_due()
    work(worker)
    assert row(id).success


def test_a_delay_is_kept_to_the_moment(tenants, worker):
    """It ends by the broker's clock; a worker that looks at that time finds it."""
    add("fail_until", 1, delay=0.3)
    begun = time.monotonic()
    first = get_broker().fetch("looks").next_delayed
    assert first is not None
    assert 0.1 < first <= 0.3
    wait_until(lambda: (worker.tick(), RUNS)[1])
    assert RUNS[0] - begun >= 0.29


def test_a_worker_that_has_work_leaves_what_is_due_soon_to_another(tenants):
    broker = get_broker()
    QUtilities.add_async_task("math.floor", 1.5, schema_name="acme_corp")
    QUtilities.add_async_task("math.floor", 1.5, schema_name="acme_corp", q_options={"delay": 0.5})
    tasks.client().delete(redis_key("wake"))
    assert len(broker.fetch("w1").leases) == 1
    assert tasks.client().llen(redis_key("wake")) == 1, "an idle worker is woken, to see when it is due"


# Enqueueing and the transaction


def test_on_commit_enqueues_when_the_transaction_commits(tenants):
    with in_schema("acme_corp"):
        with transaction.atomic():
            id = QUtilities.add_async_task("math.floor", 1.5, q_options={"on_commit": True})
            assert len(id) == 32
            assert get_broker().counts().queued == 0
        assert get_broker().counts().queued == 1


def test_on_commit_enqueues_nothing_when_the_transaction_rolls_back(tenants):
    with in_schema("acme_corp"), pytest.raises(ZeroDivisionError), transaction.atomic():
        QUtilities.add_async_task("math.floor", 1.5, q_options={"on_commit": True})
        raise ZeroDivisionError
    assert get_broker().counts().open == 0


def test_on_commit_without_a_transaction_enqueues_at_once(tenants):
    add("fail_until", 1, on_commit=True)
    assert get_broker().counts().queued == 1


def test_on_commit_can_be_the_default(tenants, settings):
    settings.TENANT_Q = settings.TENANT_Q | {"on_commit": True}
    with in_schema("acme_corp"):
        with transaction.atomic():
            QUtilities.add_async_task("math.floor", 1.5)
            QUtilities.add_async_tasks_from_iter("math.floor", [1.5])
            async_task("math.floor", 1.5)
            QUtilities.add_async_task("math.floor", 1.5, q_options={"on_commit": False})
            assert get_broker().counts().queued == 1, "the one that does not want to wait"
        assert get_broker().counts().queued == 4


def test_what_cannot_travel_is_told_before_the_commit(tenants):
    with in_schema("acme_corp"), transaction.atomic(), pytest.raises(EnqueueError, match="do not pickle"):
        QUtilities.add_async_task("math.floor", lambda: 1, q_options={"on_commit": True})


def test_on_commit_in_sync_mode(tenants):
    with in_schema("acme_corp"):
        with transaction.atomic():
            add("fail_until", 1, on_commit=True, sync=True)
            assert RUNS == []
        assert len(RUNS) == 1


# Transactional tasks


@pytest.mark.seam
def test_the_work_and_the_row_are_one_transaction(tenants, worker, effects):
    id = add("write", "a", transactional=True)
    work(worker)
    assert effects() == ["a"]
    assert (row(id).success, row(id).result, row(id).attempt_count) == (True, "a", 1)


@pytest.mark.parametrize("func", ["write_and_fail", "write_and_return_what_does_not_pickle"])
def test_a_failure_takes_its_work_back(tenants, worker, effects, func):
    id = add(func, "a", transactional=True)
    work(worker)
    assert (RUNS, effects()) == (["a"], [])
    assert not row(id).success


def test_without_it_the_work_stays(tenants, worker, effects):
    add("write_and_fail", "a")
    work(worker)
    assert effects() == ["a"]


def test_a_task_that_takes_its_own_transaction_back_has_failed(tenants, worker, effects):
    id = add("write_and_roll_back", "a", transactional=True)
    work(worker)
    assert effects() == []
    assert not row(id).success
    assert row(id).result.startswith("the task rolled back its own transaction")


def test_what_fails_on_commit_changes_nothing(tenants, worker, effects, caplog):
    id = add("write_and_fail_on_commit", "a", transactional=True)
    work(worker)
    assert effects() == ["a"]
    assert row(id).success
    assert "a function that it registered with on_commit() failed" in caplog.text


@pytest.mark.seam
def test_a_delivery_that_finds_a_success_does_not_run(tenants, worker, make_worker, effects):
    """Its worker lost the lease after the commit, and before the acknowledgement."""
    id = add("write", "a", transactional=True)
    worker.completer._acknowledge = lambda: None
    worker.tick()
    get_broker().reclaim(worker.key, running=None)
    work(make_worker("w2"))
    assert (RUNS, effects(), row(id).success) == (["a"], ["a"], True)
    assert get_broker().counts().open == 0


def test_a_success_that_comes_after_the_look_up_is_found(tenants, worker, make_worker, effects, monkeypatch):
    """The other delivery commits after this one's batch was looked up, and before its own transaction."""
    id = add("write", "a", transactional=True)
    worker.completer._acknowledge = lambda: None
    worker.tick()
    get_broker().reclaim(worker.key, running=None)
    monkeypatch.setattr(results, "successes", lambda ids: {})
    work(make_worker("w2"))
    assert (RUNS, effects(), row(id).success) == (["a"], ["a"], True)


def forget(id: str, *, others: int = 3) -> None:
    """Let a long time pass for the row of a task, in which more tasks succeed than rows are kept."""
    past = timezone.now() - 100 * prune_results.spared()
    with in_schema("acme_corp"):
        Task.objects.filter(id=id).update(started=past, stopped=past)
        for n in range(others):
            Task.objects.create(
                id=f"{n}" * 32, name=f"{n}", func="f", started=past, stopped=timezone.now(), success=True
            )


def prune(worker: Any) -> None:
    """Prune now what was saved before."""
    worker.pruner._next = 0.0
    worker.pruner._noted_at["acme_corp"] = -math.inf
    worker.pruner.prune_when_due(worker.completer.saved)


@pytest.mark.parametrize("place", ["delayed", "queued", "leased", "dead"])
def test_the_record_of_a_success_lives_as_long_as_its_package(tenants, worker, make_worker, effects, settings, place):
    """A worker was paused inside its transaction and committed late; the other delivery had been put off before."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 2}
    id = add("write", "a", transactional=True)
    worker.completer._acknowledge = lambda: None
    worker.tick()
    broker = get_broker()
    broker.reclaim(worker.key, running=None)
    if place != "queued":
        (lease,) = broker.fetch("w2").leases
        if place == "delayed":
            broker.put_off("w2", lease, delay=60)
        elif place == "dead":
            broker.dead_letter("w2", lease, "the tenant was not there")
    forget(id)
    prune(worker)
    assert row(id) is not None, "its package may come again"
    make_due()
    broker.reclaim("w2", running=None)
    broker.retry_dead({id: ""})
    work(make_worker("w3"))
    assert (RUNS, effects(), broker.counts().open) == (["a"], ["a"], 0)
    prune(worker)
    assert row(id) is not None, "a failover may take the acknowledgement back"
    tasks.client().delete(redis_key("late"))
    wait_until(lambda: prune(worker) or row(id) is None, what="its row to be pruned")
    assert row("2" * 32) is not None


def test_a_row_that_was_acknowledged_in_time_is_not_noted(tenants, worker, effects):
    add("write", "a", transactional=True)
    work(worker)
    assert tasks.client().exists(redis_key("late")) == 0


def test_pruning_waits_for_the_broker(tenants, worker, settings, monkeypatch):
    """Nothing is deleted while nobody knows whether its package comes again; and it is not forgotten."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 2}
    id = add("do_nothing")
    work(worker)
    forget(id)

    def away(*_: Any) -> Any:
        raise BrokerError("away")

    with monkeypatch.context() as outage:
        outage.setattr(RedisBroker, "may_come", away)
        with pytest.raises(BrokerError):
            prune(worker)
    assert row(id) is not None
    worker.pruner._next = 0.0
    worker.pruner.prune_when_due(worker.completer.saved)
    assert row(id) is None


def test_of_two_live_deliveries_one_takes_effect(tenants, worker, effects):
    """The other one is in its transaction right now: this one waits for what comes of it."""
    id = add("write", "a", transactional=True)
    with in_schema("acme_corp"):
        other = connection.copy()
    other.set_schema_to_public()
    with other.cursor() as cursor:
        import hashlib

        digest = hashlib.blake2b(f"acme_corp;{id}".encode(), digest_size=8).digest()
        number = int.from_bytes(digest, signed=True)
        cursor.execute("BEGIN")
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        worker.tick()
        assert RUNS == []
        assert get_broker().counts().delayed == 1
        cursor.execute("ROLLBACK")
    other.close()
    make_due()
    work(worker)
    assert (RUNS, effects()) == (["a"], ["a"])


def test_a_server_that_goes_away_in_the_middle_takes_it_back_and_it_runs_again(tenants, worker, effects):
    id = add("write_and_lose_the_server_once", "a", transactional=True)
    worker.tick()
    assert row(id) is None
    assert get_broker().counts().delayed == 1
    make_due()
    work(worker)
    assert (RUNS, effects()) == (["a", "a"], ["a"])
    assert row(id).success


def test_a_task_that_loses_its_server_each_time_has_failed(tenants, worker, effects):
    id = add("write_and_lose_the_server", "a", transactional=True)
    work_through_attempts(worker)
    assert len(RUNS) == retries.MOST_PUT_OFFS + 1
    assert effects() == []
    assert row(id).result.startswith("DatabaseAway: ")
    assert row(id).attempt_count == len(RUNS)


def test_a_result_that_cannot_be_saved_takes_it_back(tenants, worker, effects):
    sql("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'disk full'; END$$")
    sql("CREATE TRIGGER disk BEFORE INSERT ON acme_corp.django_q_task FOR EACH ROW EXECUTE FUNCTION full_disk()")
    try:
        id = add("write", "a", transactional=True)
        worker.tick()
        assert (RUNS, effects(), get_broker().counts().delayed) == (["a"], [], 1)
    finally:
        sql("DROP FUNCTION full_disk CASCADE")
    make_due()
    work(worker)
    assert effects() == ["a"]
    assert row(id).success


def test_an_error_of_the_task_about_another_tenant_is_a_failure(tenants, worker):
    id = add("ask_for_a_tenant_that_is_not_there", transactional=True)
    work(worker)
    assert not row(id).success
    assert "UnknownTenant" in row(id).result


def test_transactional_attempts(tenants, worker, effects):
    id = add("fail_until", 2, transactional=True, max_attempts=2, retry_delay=0)
    work_through_attempts(worker)
    assert (row(id).success, row(id).attempt_count) == (True, 2)


def test_receivers_of_the_project_see_the_row_of_a_transactional_task(tenants, worker, effects):
    told = []

    def receiver(instance: Task, created: bool, **_: Any) -> None:
        told.append((connection.schema_name, created, connection.in_atomic_block))

    post_save.connect(receiver, sender=Task)
    try:
        add("write", "a", transactional=True)
        work(worker)
    finally:
        post_save.disconnect(receiver, sender=Task)
    assert told == [("acme_corp", True, True)]


def test_a_transactional_task_in_sync_mode(tenants, effects):
    id = add("write", "a", transactional=True, sync=True)
    assert effects() == ["a"]
    assert row(id).success
    with pytest.raises(ValueError, match="after the effect"):
        add("write_and_fail", "b", transactional=True, sync=True)
    assert effects() == ["a"]


# What waits behind a long task


def leases(*ids: str) -> list[Lease]:
    return [Lease(id=id, schema="s", payload="", token=str(n)) for n, id in enumerate(ids)]


LABELS = {"task_id": "a", "schema": "s", "func": "f"}


def test_a_slot_recalls_what_is_not_started():
    slot = Slot()
    slot.plan(leases("a", "b", "c"))
    assert slot.start(LABELS, None)
    assert [(lease.id, lease.token) for lease in slot.recall()] == [("b", "1"), ("c", "2")]
    slot.finish()
    assert not slot.start(LABELS, None), "it was given to another worker"
    assert slot.running is None


def test_a_slot_tells_how_long_packages_wait_behind_the_first():
    slot = Slot()
    assert slot.waiting_seconds == 0
    slot.plan(leases("a", "b"))
    assert slot.waiting_seconds == 0, "the first is not started yet"
    assert slot.start(LABELS, None)
    assert slot.waiting_seconds > 0
    slot.finish()
    assert slot.waiting_seconds > 0, "between two as well"
    assert slot.start(LABELS, None)
    assert slot.waiting_seconds == 0, "none waits"


def test_a_recall_is_for_one_batch():
    slot = Slot()
    slot.plan(leases("a", "b"))
    slot.start(LABELS, None)
    slot.recall()
    slot.plan(leases("c", "d"))
    assert slot.start(LABELS, None)
    assert slot.start(LABELS, None)


def test_what_is_started_first_is_not_recalled():
    """Both orders of the race: the child says what it starts before it looks; the sentinel looks after its word."""
    slot = Slot()
    slot.plan(leases("a", "b"))
    slot.start(LABELS, None)
    slot.start(LABELS, None)
    assert slot.recall() == []


def test_a_task_that_starts_while_the_sentinel_looks_is_not_over_its_timeout(monkeypatch):
    """Its worker was idle until then, since a task whose start the sentinel has just read."""
    now = [0.0]
    monkeypatch.setattr(slots, "time", SimpleNamespace(monotonic=lambda: now[0]))
    slot = Slot()
    slot.occupy(LABELS, 1)
    slot.leave()
    now[0] = 100.0
    read, looks = slot._read, []

    def read_and_start() -> Any:
        found = read()
        looks.append(found)
        if len(looks) == 2:
            slot.occupy(LABELS, 1)
        return found

    monkeypatch.setattr(slot, "_read", read_and_start)
    assert not slot.overdue(3)
    assert len(looks) == 2


def test_a_slot_is_not_silent_after_a_long_task(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(slots, "time", SimpleNamespace(monotonic=lambda: now[0]))
    slot = Slot()
    for end in (slot.finish, slot.leave):
        slot.start(LABELS, None)
        now[0] += 1000.0
        assert slot.silent == 1000.0
        end()
        assert slot.silent == 0.0


def test_a_task_that_ends_while_the_status_is_made_does_not_make_its_worker_silent(monkeypatch):
    now = [0.0]
    process: Any = SimpleNamespace(pid=1)
    monkeypatch.setattr(slots, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for name in ("silent", "log_labels"):
        slot = Slot()
        slot.start(LABELS, None)
        now[0] += 1000.0
        read = getattr(Slot, name).fget

        def read_and_end(slot: Slot, read: Any = read) -> Any:
            found = read(slot)
            slot.finish()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Slot, name, property(read_and_end))
            told = Child("worker", "w1", slot, process).as_process()
        assert told.is_busy or told.silent == 0.0


def test_a_recalled_batch_goes_back(tenants, worker, make_worker):
    know_as_short(f"{HERE}.recall_the_rest", "acme_corp")
    know_as_short("math.floor", "acme_corp")
    recalled: list[Any] = []
    WORKERS[:] = [worker, recalled]
    add("recall_the_rest")
    ids = [QUtilities.add_async_task("math.floor", 1.5, schema_name="acme_corp") for _ in range(3)]
    worker.tick()
    assert recalled == ids
    assert get_broker().counts().queued == 3, "they are another worker's now, in their order"
    assert [lease.id for lease in get_broker().fetch("w2").leases] == ids
    assert worker.lifespan.started == 1


@pytest.mark.parametrize("before", ["refused", "put off"])
def test_what_is_not_run_moves_no_place_in_the_batch(tenants, worker, before):
    """A package that is refused, or put off with its tenant, is passed over: the one that runs is not recalled."""
    know_as_short(f"{HERE}.recall_the_rest", "acme_corp")
    for schema in ("acme_corp", "nobody"):
        know_as_short("math.floor", schema)
    broker = get_broker()
    recalled: list[Any] = []
    WORKERS[:] = [worker, recalled]
    schema = "acme_corp" if before == "refused" else "nobody"
    package = seal(build("math.floor", (1.5,), {}, schema="nobody"))
    broker.enqueue([Message(id, schema, "math.floor", package) for id in ("a" * 32, "b" * 32)])
    add("recall_the_rest")
    ids = [QUtilities.add_async_task("math.floor", 1.5, schema_name="acme_corp") for _ in range(3)]
    tasks.client().zadd(redis_key("ready"), {"acme_corp": 1})
    worker.tick()
    assert worker.lifespan.started == 1
    assert recalled == ids
    assert [lease.id for lease in broker.fetch("w2").leases] == ids
    assert broker.statistics()["stale_acks"] == 0


WORKERS: list[Any] = []


def recall_the_rest() -> None:
    """What the sentinel does when this task runs long."""
    worker, recalled = WORKERS
    waiting = worker.slot.recall()
    worker.broker.give_back(worker.key, waiting)
    recalled.extend(lease.id for lease in waiting)


@pytest.mark.seam
def test_a_finished_outcome_does_not_wait_for_a_long_task(tenants, worker):
    know_as_short("tests.tasks.where", "acme_corp")
    know_as_short(f"{HERE}.wait_for_the_row_of", "acme_corp")
    first = QUtilities.add_async_task("tests.tasks.where", schema_name="acme_corp")
    second = add("wait_for_the_row_of", first)
    worker.tick()
    assert row(second).result is True
    worker.close()
    assert not worker.completer._thread.is_alive()


def wait_for_the_row_of(id: str) -> bool:
    """Another session sees the first one's row, while this task still runs."""
    wait_until(lambda: Task.objects.filter(id=id).exists(), what="the row of the batch-mate")
    return True


def test_the_thread_saves_where_it_should_while_a_task_changes_the_settings(tenants, worker):
    know_as_short("tests.tasks.where", "acme_corp")
    know_as_short(f"{HERE}.change_the_database_and_wait_for_the_row_of", "acme_corp")
    first = QUtilities.add_async_task("tests.tasks.where", schema_name="acme_corp")
    second = add("change_the_database_and_wait_for_the_row_of", first)
    worker.tick()
    assert row(second).result is True


def change_the_database_and_wait_for_the_row_of(id: str) -> bool:
    connection.settings_dict["NAME"] = "postgres"  # its own session is open already
    return wait_for_the_row_of(id)


def test_a_task_that_has_ended_is_not_over_its_timeout(tenants, worker):
    """Its outcome may wait for the thread, which may wait for a server that hangs: nobody is to be killed for that."""
    running: list[Any] = []
    WORKERS[:] = [worker, running]
    id = add("end_while_the_completer_is_held")
    worker.tick()
    assert running == [None]
    assert row(id).success


def end_while_the_completer_is_held() -> None:
    import threading

    worker, running = WORKERS
    is_held = threading.Event()

    def hold() -> None:
        with worker.completer._lock:
            is_held.set()
            deadline = time.monotonic() + 2
            while worker.slot.running and time.monotonic() < deadline:
                time.sleep(0.01)
            running.append(worker.slot.running)

    threading.Thread(target=hold).start()
    is_held.wait()


def test_hooks_are_left_to_the_worker_itself(tenants, worker):
    """A hook has a timeout, and a signal interrupts the main thread only."""
    know_as_short("tests.tasks.where", "acme_corp")
    know_as_short(f"{HERE}.wait_for_the_row_of", "acme_corp")
    first = QUtilities.add_async_task("tests.tasks.where", schema_name="acme_corp", hook=f"{HERE}.note_thread")
    add("wait_for_the_row_of", first)
    worker.tick()
    assert RUNS == ["MainThread"]
    assert get_broker().counts().open == 0


def note_thread(task: Task) -> None:
    import threading

    RUNS.append(threading.current_thread().name)


def test_the_threads_signals_are_the_workers(tenants, worker):
    """A timeout interrupts what the task waits for, also while the thread is there."""
    know_as_short("tests.tasks.where", "acme_corp")
    know_as_short("tests.tasks.sleep", "acme_corp")
    QUtilities.add_async_task("tests.tasks.where", schema_name="acme_corp")
    id = QUtilities.add_async_task("tests.tasks.sleep", 30, schema_name="acme_corp", timeout=1)
    begun = time.monotonic()
    worker.tick()
    assert row(id).result.startswith("TaskTimeout")
    assert time.monotonic() - begun < 25
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_outage_in_the_thread_is_left_to_the_worker(tenants, worker, monkeypatch):
    finished = worker.completer
    know_as_short("tests.tasks.where", "acme_corp")
    QUtilities.add_async_task("tests.tasks.where", schema_name="acme_corp")

    def away() -> None:
        raise BrokerError("away")

    with monkeypatch.context() as patch:
        patch.setattr(finished, "_acknowledge", away)
        with pytest.raises(BrokerError):
            worker.tick()
        finished._thread.complete()
        assert not finished.is_empty()
    work(worker)
    assert finished.is_empty()
    assert get_broker().counts().open == 0
    assert completer.FLUSH_SECONDS < 0.25
    assert tenancy.current_schema() == "public"
