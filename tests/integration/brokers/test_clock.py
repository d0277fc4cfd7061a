"""The clock of Redis' server is set back: leases and delays go on as if it had not been."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tenant_q.brokers.protocol import Message, Settled
from tenant_q.brokers.redis import RedisBroker, scripts

HOUR = 3600.0


class SetBack:
    """A broker whose server's clock is set by the test: the scripts add an offset to the time."""

    def __init__(self, monkeypatch: Any) -> None:
        source = scripts.source
        read = "local time = redis.call('TIME')"
        moved = f"{read}; time[1] = time[1] + tonumber(redis.call('GET', KEYS[1] .. ':offset') or '0')"

        def patched(name: str) -> str:
            text = source(name)
            assert text.count(read) == text.count("'TIME'") <= 1
            return text.replace(read, moved)

        monkeypatch.setattr(scripts, "source", patched)
        self.broker = RedisBroker(f"c{uuid.uuid4().hex[:8]}")
        self.client: Any = self.broker.client

    def step(self, seconds: float) -> None:
        """Set the server's clock."""
        self.client.incrby(f"{self.broker.tag}:offset", round(seconds))

    def pass_time(self, seconds: int) -> int:
        """Let time pass, with a scan each second. Returns how many leases ran out."""
        expired = 0
        for _ in range(seconds):
            self.step(1)
            expired += self.broker.expire()
        return expired

    def put(self, *ids: str, **fields: Any) -> None:
        self.broker.enqueue([Message(id, "acme_corp", "f", f"payload of {id}", **fields) for id in ids])

    def fetch(self, worker: str = "w1") -> list[str]:
        return [lease.id for lease in self.broker.fetch(worker).leases]


@pytest.fixture
def server(monkeypatch, settings) -> Iterator[SetBack]:
    settings.TENANT_Q = {"lease": 5}
    server = SetBack(monkeypatch)
    assert server.broker.expire() == 0
    yield server
    for name in server.client.scan_iter(f"{server.broker.tag}*"):
        server.client.delete(name)


def test_the_lease_of_a_dead_machine_does_not_wait_for_the_step(server):
    server.put("a")
    assert server.fetch() == ["a"]
    server.pass_time(2)
    server.step(-HOUR)
    assert server.pass_time(1) == 0
    assert server.pass_time(6) == 1
    assert server.fetch("w2") == ["a"]


@pytest.mark.parametrize("is_scanned", [True, False])
def test_a_lease_that_is_given_after_the_step_has_its_time(server, is_scanned):
    """Also before the next scan has taken note of it."""
    server.put("a")
    server.step(-HOUR)
    if is_scanned:
        server.broker.expire()
    assert server.fetch() == ["a"]
    assert server.pass_time(3) == 0
    server.broker.renew(["w1"], 5)
    assert server.pass_time(4) == 0
    assert server.pass_time(4) == 1


@pytest.mark.parametrize("how", ["before", "after", "after, and put off"])
def test_a_delay_does_not_wait_for_the_step(server, how):
    if how == "before":
        server.put("a", delay=10)
    server.pass_time(2)
    server.step(-HOUR)
    if how == "after":
        server.put("a", delay=8)
    elif how == "after, and put off":
        server.put("a")
        (lease,) = server.broker.fetch("w1").leases
        server.broker.put_off("w1", lease, delay=8)
    server.pass_time(6)
    batch = server.broker.fetch("w1")
    assert batch.leases == ()
    assert batch.next_delayed == pytest.approx(2, abs=1.5)
    server.pass_time(4)
    assert server.fetch() == ["a"]


def test_a_page_shows_when_a_task_is_due_by_the_servers_clock(server):
    server.put("a", delay=HOUR)
    server.step(-10 * HOUR)
    server.pass_time(1)
    (live,) = server.broker.live("acme_corp")
    found = server.broker.find("acme_corp", "a")
    assert live.at == pytest.approx(time.time() - 9 * HOUR, abs=5)
    assert found is not None
    assert found.at == live.at


def test_what_is_known_stays_known_for_its_time(server):
    server.put("a", "b", "c", once=True)
    (lease,) = server.broker.fetch("w1", limit=1).leases
    server.broker.acknowledge("w1", [Settled(lease, 0.001)])
    server.broker.note_late(["late"], seconds=20)
    server.step(-48 * HOUR)
    server.pass_time(1)
    (lease,) = server.broker.fetch("w1", limit=1).leases
    server.broker.acknowledge("w1", [Settled(lease, 0.001)])
    server.put("a", "b", once=True)
    assert server.broker.counts().queued == 1, "c"
    assert server.broker.may_come(["late"]) == {"late"}
    server.pass_time(25)
    assert server.broker.may_come(["late"]) == set()


def test_the_clock_is_set_back_twice(server):
    server.put("a", delay=6)
    for _ in range(2):
        server.step(-HOUR)
        server.pass_time(2)
    assert server.fetch() == []
    server.pass_time(5)
    assert server.fetch() == ["a"]
