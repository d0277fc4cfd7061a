"""A worker does nothing for a lease that may have run out: no row, no hook, no link, no part, no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.brokers.redis import RedisBroker
from tenant_q.cluster import fence as fences
from tenant_q.cluster.fence import Fence
from tenant_q.cluster.lease_keeper import LeaseKeeper
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.support import clock
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import know_as_short, make_due, sql, work

HERE = __name__
A = "acme_corp"
RUNS: list[Any] = []
HOOKS: list[Any] = []
NOW: list[float] = [0.0]


@pytest.fixture(autouse=True)
def machine(monkeypatch, tenants) -> Iterator[None]:
    """A machine whose clock goes on when a test says so, and a table for effects."""
    RUNS.clear()
    HOOKS.clear()
    NOW[:] = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: NOW[0])
    sql(f"CREATE TABLE IF NOT EXISTS {A}.effects (what text)")
    sql(f"TRUNCATE {A}.effects")
    yield
    sql(f"DROP TABLE {A}.effects")


@pytest.fixture
def renewals(monkeypatch) -> list[Any]:
    """Who was renewed, call by call."""
    calls: list[Any] = []
    renew = RedisBroker.renew

    def record(self: RedisBroker, workers: Any, seconds: float) -> Any:
        calls.append(list(workers))
        return renew(self, workers, seconds)

    monkeypatch.setattr(RedisBroker, "renew", record)
    return calls


# Tasks


def pause() -> None:
    """The machine stands still for longer than a lease."""
    NOW[0] += conf().lease + 1


def lose(*names: str) -> None:
    """The machine stands still; the leases run out, and another worker has the packages."""
    pause()
    get_broker().reclaim("w1", running=None)
    for name in names or ("w2",):
        RUNS.append([lease.id for lease in get_broker().fetch(name).leases])


def effect(what: str = "effect") -> str:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effects VALUES (%s)", [what])
    return what


def lose_and_return(what: str = "stale") -> str:
    effect(what)
    if not RUNS:
        lose()
    return what


def lose_and_fail() -> None:
    lose()
    raise ValueError("stale")


def pause_and_return(what: str = "done") -> str:
    effect(what)
    pause()
    return what


def hook(task: Task) -> None:
    HOOKS.append(task.id)


def hook_that_loses(task: Task) -> None:
    hook(task)
    lose()


def add(func: str, *args: Any, **keywords: Any) -> str:
    know_as_short(f"{HERE}.{func}", A)
    return QUtilities.add_async_task(f"{HERE}.{func}", *args, schema_name=A, **keywords)


def row(id: str) -> Task | None:
    return QUtilities.fetch_task(id, schema_name=A)


def effects() -> list[str]:
    return [what for (what,) in sql(f"SELECT what FROM {A}.effects ORDER BY what")]


# A lease that is lost


@pytest.mark.seam
@pytest.mark.parametrize("options", [{}, {"transactional": True}, {"cached": 60}, {"save": False}], ids=str)
def test_nothing_is_kept_of_a_task_whose_lease_is_lost(tenants, worker, options, caplog):
    id = add("lose_and_return", hook=f"{HERE}.hook", q_options=options)
    worker.tick()
    assert [[id]] == RUNS, "another worker has it"
    assert row(id) is None
    with in_schema(A):
        assert QUtilities.get_result(id, cached=True) is cache.get(id) is None
    assert HOOKS == []
    assert effects() == ([] if "transactional" in options else ["stale"])
    assert get_broker().counts().leased == 1
    assert get_broker().statistics()["stale_acks"] == 0, "it was not even tried"
    assert f"The lease of {id} ran out" in caplog.text
    assert worker.completer.is_empty()
    get_broker().reclaim("w2", running=None)
    work(worker)
    assert get_broker().counts().open == 0
    assert [id] == HOOKS, "of the delivery that counts"


def test_a_failed_attempt_is_not_put_back_for_a_lease_that_is_lost(tenants, worker, caplog):
    id = add("lose_and_fail", q_options={"max_attempts": 3})
    worker.tick()
    assert (row(id), get_broker().counts().delayed, get_broker().counts().leased) == (None, 0, 1)
    assert "will start again" not in caplog.text


def test_the_link_of_a_stale_worker_does_not_run(tenants, worker):
    """The first link is cancelled while a worker that was paused runs it."""
    with in_schema(A):
        group = QUtilities.create_async_tasks_chain([(f"{HERE}.lose_and_return",), (f"{HERE}.effect", ("next",))])
    worker.tick()
    ((id,),) = RUNS
    get_broker().reclaim("w2", running=None)
    QUtilities.cancel(id, schema_name=A)
    work(worker)
    assert effects() == ["stale"]
    found = QUtilities.fetch_task_group(group, schema_name=A)
    assert [(task.id, task.success) for task in found] == [(id, False)]


def test_a_part_of_a_stale_worker_does_not_count(tenants, worker):
    with in_schema(A):
        iter_id = QUtilities.add_async_tasks_from_iter(f"{HERE}.lose_and_return", [("one",)], cached=False)
    worker.tick()
    assert get_broker().count_parts(A, iter_id) == 0
    assert row(iter_id) is None
    get_broker().reclaim("w2", running=None)
    work(worker)
    assert row(iter_id).result == ["one"]


def test_what_waits_in_a_lost_batch_is_not_started(tenants, worker, caplog):
    ids = [add("lose_and_return"), add("effect"), add("effect")]
    know_as_short(f"{HERE}.lose_and_return", A)
    worker.tick()
    assert [ids[:1]] == RUNS, "each alone from now on"
    assert effects() == ["stale"]
    assert all(f"The lease of {id} ran out" in caplog.text for id in ids)


@pytest.mark.parametrize("chains", [1, 2])
def test_a_hook_that_takes_too_long_is_the_last_one(tenants, worker, chains):
    """The machine stands still during the first hook: neither the other one is called, nor do the chains go on."""
    with in_schema(A):
        for _ in range(chains):
            know_as_short(f"{HERE}.effect", A)
            chain = [(f"{HERE}.effect", ("first",), {"hook": f"{HERE}.hook_that_loses"}), (f"{HERE}.effect", ("next",))]
            QUtilities.create_async_tasks_chain(chain)
    worker.tick()
    assert len(HOOKS) == 1
    assert effects() == ["first"] * chains
    assert get_broker().counts().open == chains, "no link was enqueued"


def test_a_stale_worker_leaves_the_parts_of_an_iter_alone(tenants, worker, monkeypatch):
    """They are needed by the worker that has the last part now."""
    with in_schema(A):
        iter_id = QUtilities.add_async_tasks_from_iter(f"{HERE}.effect", [("one",)], cached=False)
    flush = worker.completer._acknowledge

    def lose_first() -> None:
        get_broker().reclaim("w1", running=None)
        flush()

    worker.completer._acknowledge = lose_first
    worker.tick()
    assert get_broker().count_parts(A, iter_id) == 1


# A lease that was in doubt


@pytest.mark.parametrize("options", [{}, {"transactional": True}], ids=str)
def test_a_lease_that_was_in_doubt_and_is_still_held_counts(tenants, worker, renewals, options):
    """Nobody gave it to another worker: the task is not run again."""
    id = add("pause_and_return", q_options=options)
    worker.tick()
    assert row(id).result == "done"
    assert get_broker().counts().open == 0
    assert renewals == [["w1"]], "it was queried once, and renewed by that"
    assert effects() == ["done"]


def test_nothing_is_asked_without_a_doubt(tenants, worker, renewals):
    for _ in range(5):
        add("effect", hook=f"{HERE}.hook")
    work(worker)
    assert len(HOOKS) == 5
    assert renewals == []


def away(*_: Any) -> Any:
    raise BrokerError("away")


def test_an_outcome_is_kept_through_an_outage_of_the_broker(tenants, worker, monkeypatch):
    """Nobody can say whether the lease is still held, and nothing is thrown away."""
    id = add("pause_and_return", hook=f"{HERE}.hook")
    with monkeypatch.context() as outage:
        outage.setattr(RedisBroker, "renew", away)
        for _ in range(3):
            with pytest.raises(BrokerError):
                worker.tick()
            pause()
        assert row(id) is None
        assert HOOKS == []
        assert worker.has_unfinished()
    worker.tick()
    assert row(id).result == "done"
    assert row(id).attempt_count == 1
    assert (HOOKS, effects(), get_broker().counts().open) == ([id], ["done"], 0)


def test_a_transactional_task_waits_for_the_broker_before_its_commit(tenants, worker, monkeypatch):
    answers: list[Callable[..., Any]] = [away, away, RedisBroker.renew]
    busy: list[Any] = []

    def renew(self: RedisBroker, *arguments: Any) -> Any:
        busy.append((worker.slot.running, worker.slot.overdue(0)))
        return answers.pop(0)(self, *arguments)

    monkeypatch.setattr(RedisBroker, "renew", renew)
    monkeypatch.setattr(fences, "DOUBT_PAUSE", 0.01)
    id = add("pause_and_return", q_options={"transactional": True})
    worker.tick()
    assert (row(id).result, effects(), answers) == ("done", ["done"], [])
    assert busy == [(id, False)] * 3, "the sentinel knows what it does, and its timeout is over"


def test_a_transactional_task_does_not_wait_for_ever(tenants, worker, monkeypatch):
    monkeypatch.setattr(fences, "LONGEST_DOUBT", -1.0)
    monkeypatch.setattr(fences, "DOUBT_PAUSE", 0.0)
    id = add("pause_and_return", q_options={"transactional": True})
    with monkeypatch.context() as outage:
        outage.setattr(RedisBroker, "renew", away)
        worker.tick()
    assert (row(id), effects()) == (None, [])
    assert get_broker().counts().delayed == 1
    make_due()
    work(worker)
    assert (row(id).result, effects()) == ("done", ["done"])


# A cancel


def cancel_this_and_return() -> str:
    """Another delivery is given up for a cancel while this one runs, and this worker's lease is still good."""
    effect("stale")
    if not RUNS:
        get_broker().reclaim("w1", running=None)
        lease = get_broker().fetch("w2").leases[0]
        RUNS.append([lease.id])
        get_broker().cancel(A, lease.id, "TaskCancelled: cancelled")
        get_broker().reclaim("w2", running=None)
        OTHER[0].tick()
    return "stale"


OTHER: list[Any] = []


@pytest.mark.parametrize("options", [{}, {"transactional": True}], ids=str)
def test_a_success_never_overwrites_a_cancel(tenants, worker, make_worker, options):
    """As after a failover that rolled the lease back: no time passes, so the worker has no doubt."""
    OTHER[:] = [make_worker("w2")]
    with in_schema(A):
        group = QUtilities.create_async_tasks_chain(
            [
                (f"{HERE}.cancel_this_and_return", (), {"hook": f"{HERE}.hook", "q_options": options}),
                (f"{HERE}.effect", ("next",)),
            ]
        )
    work(worker)
    ((id,),) = RUNS
    (task,) = QUtilities.fetch_task_group(group, failures=True, schema_name=A)
    assert (task.id, task.success, task.result) == (id, False, "TaskCancelled: cancelled")
    assert effects() == ([] if options else ["stale"]), "and the chain does not go on"
    assert set(HOOKS) == {id}
    assert get_broker().counts().open == 0


# What the worker knows


@pytest.fixture
def fence(tenants) -> Fence:
    return Fence("w1", get_broker(), Slot())


def take(fence: Fence) -> Any:
    add("effect")
    sent = clock.now()
    (lease,) = fence.broker.fetch("w1").leases
    fence.fetched(sent)
    return lease


def test_a_lease_is_good_for_its_time_and_by_renewals(fence, renewals):
    """Each renewal counts from before it was sent."""
    lease_seconds = conf().lease
    fence.slot.begin_renewing(NOW[0], lease_seconds)
    lease = take(fence)
    for _ in range(3):
        NOW[0] += lease_seconds - 1
        assert fence.holds(lease)
        fence.slot.renew(NOW[0], NOW[0] + 0.5, lease_seconds)
    NOW[0] += lease_seconds - 0.1
    assert fence.holds(lease)
    assert renewals == []
    NOW[0] += 0.2
    assert fence.holds(lease)
    assert renewals == [["w1"]]


@pytest.mark.parametrize("how", ["late", "late answer", "an outage in between"])
def test_a_renewal_after_a_gap_settles_nothing(fence, renewals, how):
    """The lease may have run out before the renewal came."""
    seconds = conf().lease
    fence.slot.begin_renewing(NOW[0], seconds)
    lease = take(fence)
    if how == "an outage in between":
        NOW[0] += 1
        fence.slot.renew(NOW[0], NOW[0], seconds, is_unbroken=False)
    elif how == "late":
        NOW[0] += seconds + 1
        fence.slot.renew(NOW[0], NOW[0], seconds)
    else:
        NOW[0] += seconds
        fence.slot.renew(NOW[0] - seconds + 1, NOW[0], seconds)
    NOW[0] += 0.5
    assert fence.holds(lease)
    assert renewals == [["w1"]]
    assert fence.holds(lease)
    assert renewals == [["w1"]], "it is trusted again"
    NOW[0] += 0.2
    fence.slot.renew(NOW[0], NOW[0], seconds)
    NOW[0] += seconds - 0.1
    assert fence.holds(lease)
    assert renewals == [["w1"]], "and renewed without a gap"


def test_what_is_lost_stays_lost(fence):
    lease = take(fence)
    lose()
    assert not fence.holds(lease)
    assert not fence.holds(lease)
    get_broker().reclaim("w2", running=None)
    sent = clock.now()
    (again,) = fence.broker.fetch("w1").leases
    fence.fetched(sent)
    pause()
    assert fence.holds(again)
    assert not fence.holds(lease), "the same package, and another lease"


def test_the_sentinel_has_its_workers_know(tenants, monkeypatch, worker, renewals):
    children: Any = SimpleNamespace(workers=[SimpleNamespace(key="w1", slot=worker.slot)])
    keeper = LeaseKeeper(get_broker(), children)
    worker.slot.begin_renewing(NOW[0], conf().lease)
    keeper.renew()
    assert worker.slot.renewed == (0.0, NOW[0] + conf().lease)
    with monkeypatch.context() as outage:
        outage.setattr(RedisBroker, "renew", away)
        NOW[0] += 1
        with pytest.raises(BrokerError):
            keeper.renew()
    assert worker.slot.renewed == (0.0, NOW[0] - 1 + conf().lease)
    keeper.note_outage()
    keeper.renew()
    assert worker.slot.renewed == (NOW[0], NOW[0] + conf().lease), "it may be another server by now"
    NOW[0] += 1
    keeper.renew()
    assert worker.slot.renewed == (NOW[0] - 1, NOW[0] + conf().lease)
    assert renewals == [["w1"]] * 3


def test_the_clock_goes_on_while_the_machine_is_suspended():
    import importlib
    import time

    real = importlib.reload(clock)
    assert real.now() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)


def test_a_broker_without_leases_leaves_no_doubt(monkeypatch, worker):
    monkeypatch.setattr(RedisBroker, "supports_leases", False)
    fence = Fence("w1", get_broker(), Slot())
    fence.fetched(NOW[0])
    lease = take(fence)
    NOW[0] += 1e6
    assert fence.holds(lease)
