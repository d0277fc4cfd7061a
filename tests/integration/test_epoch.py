"""The epoch: a scheduler notices that the broker was emptied, or is older than it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tenant_q.brokers import get_broker
from tenant_q.brokers.adapter import AdaptedBroker
from tenant_q.exceptions import BrokerError
from tenant_q.models import BrokerEpoch
from tenant_q.workflows import epoch, run_index
from tests import tasks
from tests.integration.conftest import redis_key, sql
from tests.integration.planning import LATER, elsewhere, on_the_wire


@pytest.fixture(autouse=True)
def one_open_run(tenants):
    sql("DELETE FROM tenant_q_brokerepoch")
    sql("INSERT INTO tenant_q_dueworkflow VALUES ('acme_corp', 'r1', %s, 'running', %s)", cluster(), LATER)
    epoch.forget()
    yield
    sql("DELETE FROM tenant_q_dueworkflow")
    sql("DELETE FROM tenant_q_brokerepoch")
    epoch.forget()


def cluster() -> str:
    return get_broker().cluster


def held() -> int | None:
    found: Any = tasks.client().get(redis_key("epoch"))
    return None if found is None else int(found.split()[0])


def lose() -> None:
    tasks.client().delete(redis_key("epoch"))


def is_due() -> bool:
    return bool(run_index.look([cluster()]).due)


def make_scheduler() -> Callable[[], bool]:
    """The beats of a process of its own."""
    known: dict[str, Any] = {"_written": {}, "_left": {}}

    def beat() -> bool:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in known.items():
                patch.setattr(epoch, name, value)
            return epoch.beat(cluster())

    return beat


def test_each_beat_raises_it_in_postgresql_and_then_in_the_broker(tenants):
    for number in (1, 2, 3):
        with on_the_wire() as found:
            assert not epoch.beat(cluster())
        assert len(found) == 1
        assert held() == number
    assert BrokerEpoch.objects.get(pk=cluster()).written == 2
    assert not is_due()


@pytest.mark.seam
def test_an_emptied_broker_is_noticed_once(tenants, caplog):
    epoch.beat(cluster()), epoch.beat(cluster())
    lose()
    with caplog.at_level(logging.WARNING, "tenant_q"):
        assert epoch.beat(cluster())
    assert "lost data; made 1 of its open workflow runs due earlier" in caplog.text
    assert is_due()
    assert held() == 3
    assert not epoch.beat(cluster())


def test_a_broker_that_was_emptied_while_no_scheduler_ran_is_noticed(tenants):
    make_scheduler()(), make_scheduler()()
    first = make_scheduler()
    first(), first()
    lose()
    assert make_scheduler()()
    assert is_due()


def test_a_broker_restored_to_an_earlier_state_is_noticed(tenants):
    for _ in range(5):
        epoch.beat(cluster())
    run = tasks.client().info("server")["run_id"]
    tasks.client().set(redis_key("epoch"), f"3 {run}")
    assert epoch.beat(cluster())
    assert is_due()
    assert not epoch.beat(cluster())


def test_a_broker_that_was_restarted_is_noticed(tenants):
    """It may lack the writes of its last moment, and with them the last number."""
    for _ in range(5):
        epoch.beat(cluster())
    tasks.client().set(redis_key("epoch"), f"{held()} anotherrun")
    assert epoch.beat(cluster())
    assert is_due()
    assert not epoch.beat(cluster())


def test_the_first_beat_ever_is_no_loss(tenants):
    assert not epoch.beat(cluster())
    assert not is_due()


def test_two_schedulers_see_no_loss_where_there_is_none(tenants, monkeypatch):
    """One is at any point of its beat while the other does whole beats."""
    one, other = make_scheduler(), make_scheduler()
    one(), other(), one()
    raise_epoch = type(get_broker()).raise_epoch

    def between(self: Any, number: int, *, known: int) -> int | None:
        monkeypatch.setattr(type(self), "raise_epoch", raise_epoch)
        assert [other(), other()] == [False, False]
        found: int | None = raise_epoch(self, number, known=known)
        assert [other(), other()] == [False, False]
        return found

    for _ in range(3):
        monkeypatch.setattr(type(get_broker()), "raise_epoch", between)
        assert not one()
    assert not is_due()


def test_both_of_two_schedulers_may_notice_a_loss_and_neither_sees_another_one(tenants, monkeypatch):
    one, other = make_scheduler(), make_scheduler()
    one(), other(), one(), other()
    lose()
    make_all_due = run_index.make_all_due

    def between(*arguments: Any) -> Any:
        monkeypatch.setattr(run_index, "make_all_due", make_all_due)
        assert other(), "the broker does not hold the number again yet"
        return make_all_due(*arguments)

    monkeypatch.setattr(run_index, "make_all_due", between)
    assert one()
    assert [one(), other(), one(), other()] == [False] * 4
    assert is_due()


def test_a_scheduler_that_dies_before_runs_are_due_leaves_the_loss_to_the_next(tenants, monkeypatch):
    epoch.beat(cluster()), epoch.beat(cluster())
    lose()
    with monkeypatch.context() as killed:
        killed.setattr(run_index, "make_all_due", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            epoch.beat(cluster())
    assert held() is None
    epoch.forget()
    assert epoch.beat(cluster())
    assert is_due()


def test_a_scheduler_that_dies_before_its_write_repeats_the_work(tenants, monkeypatch):
    epoch.beat(cluster()), epoch.beat(cluster())
    lose()
    raise_epoch = type(get_broker()).raise_epoch

    def fail(self: Any, number: int, *, known: int) -> int | None:
        if not known:
            raise BrokerError("gone")
        found: int | None = raise_epoch(self, number, known=known)
        return found

    with monkeypatch.context() as killed:
        killed.setattr(type(get_broker()), "raise_epoch", fail)
        with pytest.raises(BrokerError):
            epoch.beat(cluster())
    assert is_due(), "it was committed before"
    assert epoch.beat(cluster())


def test_postgresql_that_is_restored_catches_up(tenants):
    for _ in range(5):
        epoch.beat(cluster())
    sql("UPDATE tenant_q_brokerepoch SET number = 2, written = 1")
    assert [make_scheduler()(), epoch.beat(cluster())] == [False, False]
    assert not epoch.beat(cluster())
    lose()
    assert epoch.beat(cluster())


def test_a_run_whose_entry_is_locked_is_made_due_by_a_later_beat(tenants):
    epoch.beat(cluster()), epoch.beat(cluster())
    lose()
    with elsewhere() as other:
        other.execute("SELECT * FROM tenant_q_dueworkflow FOR UPDATE")
        assert epoch.beat(cluster())
        assert not epoch.beat(cluster())
        assert not is_due()
    assert not epoch.beat(cluster())
    assert is_due()


def test_another_broker_has_no_epoch(tenants, monkeypatch):
    monkeypatch.setattr(epoch, "get_broker", lambda _: AdaptedBroker("ours", None))
    assert not epoch.beat("ours")
    assert BrokerEpoch.objects.count() == 0
