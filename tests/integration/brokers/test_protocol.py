"""The protocol: both brokers define all of it."""

from __future__ import annotations

import inspect

import pytest

from tenant_q.brokers.protocol import Broker
from tenant_q.brokers.redis import RedisBroker
from tenant_q.testing.memory_broker import MemoryBroker


@pytest.mark.parametrize("made", [MemoryBroker, RedisBroker])
def test_every_method_of_the_protocol_is_there(made):
    for name, method in inspect.getmembers(Broker, inspect.isfunction):
        if not name.startswith("_"):
            found = inspect.signature(getattr(made, name)).parameters
            assert list(found) == list(inspect.signature(method).parameters), name
            assert [one.kind for one in found.values()] == [
                one.kind for one in inspect.signature(method).parameters.values()
            ]


def test_both_support_every_part(broker):
    assert broker.supports_leases
    assert broker.supports_tenant_queues


def test_the_server(broker):
    broker.ping()
    assert broker.info()
    assert broker.warnings() == []
    broker.close()


def test_the_epoch_only_grows_and_shows_a_loss(driver):
    broker = driver.broker
    assert broker.raise_epoch(1, known=0) == 1
    before = driver.snapshot()
    assert broker.raise_epoch(5, known=1) == 5
    assert broker.raise_epoch(3, known=5) == 5, "a higher one stays"
    driver.restore(before)
    assert broker.raise_epoch(6, known=5) is None
    assert broker.raise_epoch(6, known=5) is None, "nothing was written"
    assert broker.raise_epoch(6, known=0) == 6
    assert broker.raise_epoch(2**52, known=6) == 2**52


def test_an_empty_server_has_no_epoch(broker):
    assert broker.raise_epoch(6, known=5) is None
    assert broker.raise_epoch(6, known=0) == 6
