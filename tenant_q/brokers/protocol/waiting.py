"""What a tenant has waiting, all of it: count it, read it, take it off its queue.

A walk visits it in slices, none of which holds the server up. It may miss packages that are added or leased meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenant_q.brokers.protocol.dead_letters import Dead
from tenant_q.brokers.protocol.packages import Live
from tenant_q.brokers.protocol.server import Server, refusal


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which of a tenant's waiting packages are meant.

    Attributes:
        queued: Whether queued ones are.
        delayed: Whether delayed ones are.
        func: The name under which the run time of their function is estimated; empty for all functions.
    """

    queued: bool = True
    delayed: bool = True
    func: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many packages of a tenant wait."""

    queued: int = 0
    delayed: int = 0


class WaitingPackages(Server, Protocol):
    """The packages of one tenant that wait. A broker without `supports_tenant_queues` raises `ConfigurationError`.

    `tenant` is a tenant's key; None for the tenant that has the schema's name now.
    """

    def count_waiting(self, schema: str, *, tenant: str | None = None) -> Waiting:
        """Count a tenant's queued and delayed packages in the broker."""
        raise refusal(self, "count a tenant's tasks")

    def each_live(self, schema: str) -> Iterator[Sequence[Live]]:
        """Return, slice by slice, a tenant's packages in the broker: those that wait, then those that are leased."""
        raise refusal(self, "list a tenant's tasks")

    def take_waiting(
        self, schema: str, chosen: Chosen, cause: str, *, tenant: str | None = None
    ) -> Iterator[Sequence[Dead]]:
        """Have the broker move a tenant's waiting packages to the dead letters, and return them slice by slice.

        What workers hold stays. A slice is moved when it is asked for.

        Args:
            schema: The schema of the tenant.
            chosen: Which of its packages are moved.
            cause: The cause of their death.
            tenant: The key of the tenant.
        """
        raise refusal(self, "take a tenant's tasks off the queue")

    def tenants_named(self, schema: str) -> list[str]:
        """Return the keys of tenants, existing or gone, of which the broker has a queue under this schema name.

        An empty key stands for packages of no known tenant, whose queue has the name itself.
        """
        raise refusal(self, "purge one tenant")
