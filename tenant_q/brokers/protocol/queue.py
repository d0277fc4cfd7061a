"""The queues: what goes in, what a worker takes out, and how it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tenant_q.brokers.protocol.leases import Lease
from tenant_q.brokers.protocol.limits import BATCH_LIMIT, BATCH_SECONDS


@dataclass(frozen=True, slots=True)
class Unique:
    """The unique key of a package: at most one package of its tenant that waits or runs has it.

    Attributes:
        func: The name of the package's function.
        key: The key among the packages of this function.
        until_start: Whether the key is released when the task starts instead of when it ends.
        needs_alias: Whether the package's id, which its caller has, must stand for another package that has the key.
    """

    func: str
    key: str
    until_start: bool = False
    needs_alias: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A package on its way to the broker.

    Attributes:
        id: The id of the package.
        schema: The schema of its tenant.
        func: The name under which its run time is estimated.
        payload: The signed package.
        delay: When it is due, in seconds from now.
        once: Whether the id is deterministic: it stays known for a day after its acknowledgement, and enqueueing a
            known id does nothing.
        tenant: The key of the tenant it was made for, empty for none.
        follows: The id of the package from which this one follows, empty for none: as long as that one is there, this
            id stays known.
        unique: The unique key of the package, or None.
        priority: Its level among the tenant's packages, a higher one first. They share a tenant's turns; its share
            among other tenants stays as it is.
        interval: The seconds between two starts of its function; 0 without a rate. The package is leased only when its
            rate allows a start. What is enqueued last decides.
        is_site_rate: Whether the rate counts over all tenants, instead of for each tenant.
    """

    id: str
    schema: str
    func: str
    payload: str
    delay: float = 0.0
    once: bool = False
    tenant: str = ""
    follows: str = ""
    unique: Unique | None = None
    priority: int = 0
    interval: float = 0.0
    is_site_rate: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of a fetch.

    Attributes:
        leases: The leases that the worker has now, in the order in which to run the packages.
        next_delayed: The seconds until the first delayed package is due, or a rate allows the next start of a package
            that waits for it; None if there is neither.
    """

    leases: tuple[Lease, ...] = ()
    next_delayed: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A lease to acknowledge.

    Attributes:
        lease: The lease.
        seconds: The worker-seconds that the package used.
        waited: The seconds from when it was enqueued or due to its start; None where that is not known.
        failed: Whether its outcome is a failure.
    """

    lease: Lease
    seconds: float
    waited: float | None = None
    failed: bool = False


class Queue(Protocol):
    """The way of a package: enqueue, fetch, and one of acknowledge, give back, put off, dead-letter."""

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        """Put packages on their tenants' queues in the broker, except those whose unique key another package has.

        A package keeps its priority and its rate wherever it is moved later. When it is cancelled, it loses both.

        Args:
            messages: The packages.
            limited: Whether their tenant's `max_queued` counts. Then all must be of one tenant.

        Returns:
            How many were not known before.

        Raises:
            QueueFull: There is no room for all of those that are not known. None is enqueued.
            TenantDeleted: One of their tenants was deleted. None is enqueued.
            TenantLeaving: One of their tenants is being decommissioned. None is enqueued.
            EnqueueError: The broker, which has no `supports_tenant_queues`, keeps no unique keys.
        """

    def enqueue_unique(self, message: Message, *, limited: bool = False) -> str:
        """Enqueue a package with a unique key, and return the id of the package that has the key now. As `enqueue`."""

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        """Fetch a batch from the queues, on lease: slices of the tenants whose turn it is.

        Args:
            worker: The worker's key.
            wait: For how many seconds at most to block first, until there may be work.
            limit: The most packages.
            seconds: The expected work of the batch.
        """

    def acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        """Have the broker forget packages that were fetched from the queues and whose outcome is saved.

        Returns:
            The ids of those whose lease the worker does not hold.
        """

    def give_back(self, worker: str, leases: Sequence[Lease]) -> int:
        """Return unstarted packages to the heads of their queues, and return how many.

        Each has used up a start of its rate, as any lease does.
        """

    def put_off(
        self,
        worker: str,
        lease: Lease,
        *,
        delay: float,
        payload: str | None = None,
        seconds: float = 0.0,
        unready: bool = False,
    ) -> None:
        """Return a leased package to its queue, to be delivered later.

        Args:
            worker: The worker's key.
            lease: Its lease on the package.
            delay: When the package is due, in seconds from now.
            payload: The signed package that takes the place of its own, or None.
            seconds: The worker-seconds that it used.
            unready: Whether it waits for its tenant to be there.
        """

    def dead_letter(self, worker: str, lease: Lease, cause: str) -> None:
        """Move a leased package from its queue to the dead letters, with the cause."""

    def purge(self) -> None:
        """Empty the queues: forget every queued, delayed and dead package."""


def queue_names(schema: str, tenant: str | None) -> tuple[str, ...]:
    """Return the names that the queue of a tenant may have, of which its broker has chosen one."""
    return (schema, f"{schema}#{tenant}") if tenant else (schema,)
