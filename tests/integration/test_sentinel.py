"""The round of a sentinel whose steps fail. It has no processes; its calls of the broker are real."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest
import redis

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.cluster import children, sentinel_rounds
from tenant_q.cluster.child import Child
from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.cluster.sentinel import Plan, Sentinel
from tenant_q.cluster.sentinel_rounds import SentinelBroken
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BrokerError
from tenant_q.operations.status import ClusterState

ERRORS = [BrokerError("away"), redis.ConnectionError("raw"), MemoryError(), KeyError("a defect")]


class FakeProcess:
    pid, sentinel, exitcode, peak_memory = 1, None, None, None

    def is_alive(self) -> bool:
        return True


@pytest.fixture
def watcher(tenants, settings, monkeypatch):
    """A sentinel that started no process, and ends none of this one's."""
    monkeypatch.setattr(children.orphans, "end", lambda known, seconds: (set(), set()))
    settings.TENANT_Q = {"lease": 1}
    made = Sentinel(Plan(workers=1), -1, Heartbeat())
    monkeypatch.setattr(made.stopping, "wait", lambda *_: [])
    made.rounds.local = [step for step in made.rounds.local if step.act != made._take_order]
    process: Any = FakeProcess()
    made.children.alive.append(Child("worker", "w1", Slot(), process))
    yield made
    made.stopping.restore()


def fail_with(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


def count_steps(watcher: Sentinel, monkeypatch: Any) -> list[str]:
    """Replace what the steps do by a note of it."""
    done: list[str] = []
    for step in watcher.rounds.steps():
        monkeypatch.setattr(step, "act", lambda what=step.what: done.append(what))
        step.due = 0.0
    return done


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_step_that_fails_stops_no_other(watcher, monkeypatch, error):
    done = count_steps(watcher, monkeypatch)
    steps = list(watcher.rounds.steps())
    for failing in steps:
        for step in steps:
            step.due = 0.0
        act, failing.act = failing.act, fail_with(error)
        watcher.rounds.run_one()
        failing.act = act
        assert set(done) == {step.what for step in steps} - {failing.what}
        done.clear()


@pytest.mark.parametrize("error", ERRORS[1:], ids=lambda error: type(error).__name__)
def test_a_vital_step_that_stays_broken_ends_the_cluster(watcher, monkeypatch, error):
    count_steps(watcher, monkeypatch)
    watcher.rounds.renew.act = fail_with(error)
    begun = time.monotonic()
    with pytest.raises(SentinelBroken, match=r"for 1 seconds it could not renew leases"):
        while time.monotonic() < begun + 20:
            watcher.rounds.run_one()
    assert time.monotonic() - begun > 1


def test_a_broker_that_is_away_ends_no_cluster(watcher, monkeypatch):
    done = count_steps(watcher, monkeypatch)
    watcher.rounds.renew.act = fail_with(BrokerError("away"))
    watcher._show.act = fail_with(KeyError("a defect"))  # the cluster can do without its status
    begun = time.monotonic()
    while time.monotonic() < begun + 2:
        watcher.rounds.run_one()
        time.sleep(0.02)
    assert "expire leases" in done


def test_each_step_shows_the_parent_that_the_round_goes_on(watcher, monkeypatch):
    """So an outage in which each call takes its time is no silence."""
    seen: list[int] = []
    for step in watcher.rounds.steps():
        monkeypatch.setattr(step, "act", lambda: seen.append(watcher.rounds.heartbeat.count))
        step.due = 0.0
    watcher.rounds.run_one()
    assert len(seen) > 8
    assert len(set(seen)) == len(seen)


def test_a_broker_that_is_slow_gets_each_step_in_turn(watcher, monkeypatch):
    """Renewing comes first, and no round waits for more than one slow call after it."""
    done = count_steps(watcher, monkeypatch)
    monkeypatch.setattr(sentinel_rounds, "ROUND_SECONDS", 0.01)
    for step in watcher.rounds.remote:
        step.every = 0.0
        step.act = lambda what=step.what: (done.append(what), time.sleep(0.02))
    expected = [step.what for step in watcher.rounds.remote]
    watcher.rounds.local = []
    for what in expected:
        watcher.rounds.renew.due = 0.0
        done.clear()
        watcher.rounds.run_one()
        assert done == ["renew leases", what]


def test_the_figures_of_the_day_are_recorded(watcher):
    while any(step.due == 0.0 for step in watcher.rounds.steps()):
        watcher.rounds.run_one()
    assert get_broker().record_periods() == 0, "the sentinel has recorded them"


def test_what_workers_run_is_sampled(watcher):
    get_broker().enqueue([Message("long", "acme_corp", "f", "payload")])
    (lease,) = get_broker().fetch("w1").leases
    labels = {"schema": "acme_corp", "task_id": lease.id, "func": "f"}
    assert watcher.children.alive[0].slot.start(labels, None)
    watcher._sampled -= 10
    watcher._record_figures()
    (period,) = get_broker().day("acme_corp").periods
    assert 10 <= period.busy_seconds < 20


@pytest.mark.parametrize(("state", "given"), [(ClusterState.IDLE, 1), (ClusterState.STOPPED, 3)])
def test_renewals_do_not_wait_for_many_slow_calls(watcher, monkeypatch, state, given):
    """A round gives back the packages of some dead workers; the end gives back all."""
    monkeypatch.setattr(sentinel_rounds, "ROUND_SECONDS", 0.0)
    process: Any = FakeProcess()
    watcher.children.ended += [Child("worker", f"dead{n}", Slot(), process) for n in range(3)]
    watcher._state = state
    watcher._reclaim()
    assert len(watcher.children.ended) == 3 - given


def test_a_start_that_fails_is_tried_again_with_back_off(watcher, monkeypatch):
    tries = []

    def start(role: str, key: str, **_: Any) -> Child:
        tries.append(time.monotonic())
        if len(tries) <= 3:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        process: Any = FakeProcess()
        return Child(role, key, Slot(), process)

    monkeypatch.setattr(children, "start", start)
    watcher.children.want("worker", 2)
    deadline = time.monotonic() + 20
    while len(watcher.children.workers) < 2 and time.monotonic() < deadline:
        watcher.rounds.run_one()
        if len(tries) == 1:
            assert watcher.children.trouble.startswith("no worker can be started: [Errno 11]")
    assert len(tries) == 4 and watcher.children.trouble == ""
    assert [tries[1] - tries[0] >= 0.1, tries[2] - tries[1] >= 0.2, tries[3] - tries[2] >= 0.4] == [True] * 3


def test_what_one_dead_worker_held_keeps_no_other_waiting(watcher, monkeypatch):
    asked = []

    def reclaim(worker: str, **_: Any) -> int:
        asked.append(worker)
        if worker == "broken":
            raise ValueError("nothing that can be read")
        return 0

    monkeypatch.setattr(watcher.leases.broker, "reclaim", reclaim)
    for key in ("broken", "w2"):
        process: Any = FakeProcess()
        watcher.children.ended.append(Child("worker", key, Slot(), process))
    watcher.leases.reclaim()
    assert asked == ["broken", "w2"]
    assert [child.key for child in watcher.children.ended] == ["broken"], "it is tried again"
