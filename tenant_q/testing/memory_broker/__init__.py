"""The broker protocol in plain Python: the specification that people read, and a broker for tests.

It has the rules of the Redis broker and none of its cleverness, and a clock that the test steers.
`tests/integration/brokers/test_machine.py` holds the two against each other. Costs and virtual times are in
milliseconds, all other times in seconds. Each module implements one part of `tenant_q.brokers.protocol`.
"""

from __future__ import annotations

from tenant_q.testing.memory_broker.dead_letters import MemoryDeadLetters
from tenant_q.testing.memory_broker.groups import MemoryGroups
from tenant_q.testing.memory_broker.leases import MemoryLeases
from tenant_q.testing.memory_broker.policies import MemoryPolicies
from tenant_q.testing.memory_broker.queue import MemoryQueue
from tenant_q.testing.memory_broker.tenants import MemoryTenants
from tenant_q.testing.memory_broker.waiting import MemoryWaiting


class MemoryBroker(
    MemoryQueue, MemoryLeases, MemoryPolicies, MemoryWaiting, MemoryDeadLetters, MemoryGroups, MemoryTenants
):
    """The queues of one cluster, in this process."""

    kind = "Memory"

    def ping(self) -> None: ...

    def probe(self) -> None: ...

    def info(self) -> str:
        return "Memory"

    def warnings(self) -> list[str]:
        return []

    def raise_epoch(self, number: int, *, known: int) -> int | None:
        if self.epoch < known:
            return None
        self.epoch = max(self.epoch, number)
        return self.epoch

    def close(self) -> None: ...
