"""Every test that takes `driver` or `broker` runs on the specification (`MemoryBroker`) and on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tenant_q.brokers.protocol import Broker
from tests.integration.brokers.drivers import Driver, InMemory, OnRedis


@pytest.fixture(params=[InMemory, OnRedis])
def driver(request: Any, settings: Any) -> Iterator[Driver]:
    """A broker with queues of its own. Its site is its own too: that is where groups and status are."""
    driver = request.param()
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"name": driver.broker.cluster}
    yield driver
    driver.end()


@pytest.fixture
def broker(driver: Driver) -> Broker:
    return driver.broker
