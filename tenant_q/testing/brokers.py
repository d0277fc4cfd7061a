"""Brokers in this process that take the place of the real ones for the time of a test."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tenant_q import brokers
from tenant_q.brokers import django_q
from tenant_q.brokers.protocol import Broker, Message
from tenant_q.tenancy import keys_of, queue_suffix
from tenant_q.testing.memory_broker import MemoryBroker


class SteeredClock:
    """The time of the brokers of a test: the present, moved on so that nobody waits for what is delayed."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def move_on(self, seconds: float) -> None:
        """Move the clock on, so that what is delayed for this long is due."""
        self.ahead += max(0.0, seconds) + 0.001


class CollectingBroker(MemoryBroker):
    """An in-memory broker that hands over each message that it accepts.

    Args:
        cluster: The name of the cluster.
        clock: A function that returns the seconds since the epoch.
        keys_of: A function that returns the keys of the tenants that have these schemas now, by schema.
        accepted: Called with each new message.
    """

    client = None

    def __init__(
        self,
        cluster: str,
        clock: Callable[[], float],
        keys_of: Callable[[Iterable[str]], Mapping[str, str]],
        accepted: Callable[[Message], None],
    ) -> None:
        super().__init__(cluster, clock, keys_of)
        self.accepted = accepted

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        new = [message for message in messages if not self._is_known(message)]
        count = super().enqueue(messages, limited=limited)
        for message in new:
            if message.id in self.messages:  # no other package has its unique key
                self.accepted(message)
        return count


class StandInBrokers(dict[str, Broker]):
    """The brokers of a test by the names of their queues, each made when it is first used.

    They share groups and cached results, as the clusters of a site do.
    """

    def __init__(self, clock: Callable[[], float], accepted: Callable[[Message], None]) -> None:
        super().__init__()
        self.clock = clock
        self.accepted = accepted
        self.groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
        self.groups_until: dict[tuple[str, ...], float] = {}

    def __contains__(self, queue: object) -> bool:
        return True

    def __missing__(self, queue: str) -> Broker:
        broker = CollectingBroker(queue.removesuffix(queue_suffix()), self.clock, keys_of, self.accepted)
        broker.kept, broker.kept_until = self.groups, self.groups_until
        self[queue] = broker
        return broker

    def clear(self) -> None:
        """Keep the brokers: what a test has enqueued survives a change of the settings."""

    def of_cluster(self, cluster: str, *_args: Any, **_kwargs: Any) -> Broker:
        """Return the broker of a cluster, in the place of a new client of Redis."""
        return self[f"{cluster}{queue_suffix()}"]


@contextmanager
def brokers_of_a_test(stand_ins: StandInBrokers) -> Iterator[None]:
    """Put the brokers of a test in the place of the real ones, for our calls and for Django-Q2's."""
    with patch.object(brokers, "_made", stand_ins), patch.object(django_q, "RedisBroker", stand_ins.of_cluster):
        yield
