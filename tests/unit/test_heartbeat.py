"""When a parent takes its sentinel for one that hangs."""

from __future__ import annotations

import pytest

from tenant_q import brokers
from tenant_q.cluster import heartbeat
from tenant_q.cluster.heartbeat import Heartbeat, Watchdog


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched():
    pulse, clock = Heartbeat(), Clock()
    return pulse, clock, Watchdog(pulse, longest=2.0, clock=clock)


def test_silence_is_what_follows_the_last_beat(watched):
    pulse, clock, watchdog = watched
    for _ in range(3):
        clock.now += 1.0
        watchdog.look()
    assert watchdog.silent == 3.0
    pulse.beat()
    clock.now += 1.0
    assert watchdog.look() == 0.0
    clock.now += 0.5
    assert watchdog.look() == 0.5


def test_a_pause_of_the_whole_cluster_is_no_silence(watched):
    """The parent was stopped too, or the machine was suspended: the sentinel has had no chance either."""
    _, clock, watchdog = watched
    clock.now += 3600.0
    assert watchdog.look() == 2.0


@pytest.mark.parametrize(
    ("ours", "redis", "expected"),
    [
        ({}, {}, 60),
        ({"lease": 300}, {}, 300),
        ({}, {"socket_timeout": 120, "socket_connect_timeout": 30}, 300),
        ({}, {"socket_timeout": None}, 60),
    ],
)
def test_the_limit_is_longer_than_a_lease_and_than_a_call(settings, ours, redis, expected):
    settings.TENANT_Q = ours
    settings.Q_CLUSTER = {"name": "x", "redis": redis}
    brokers.forget_brokers()
    assert heartbeat.longest_silence() == expected
    brokers.forget_brokers()


def test_the_limit_leaves_time_for_the_retries_of_another_broker(settings):
    settings.Q_CLUSTER = {"name": "x", "sqs": {"aws_region": "x"}}
    assert heartbeat.longest_silence() == 600
