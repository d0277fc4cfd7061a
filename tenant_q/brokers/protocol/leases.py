"""Leases: the right of a worker to run a package until a deadline, and what becomes of it when the worker dies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one package.

    Attributes:
        id: The id of the package.
        schema: The name of the queue it was in. For the second tenant of a schema's name and later ones that is the
            name followed by `#` and the tenant's key; a tenant that was renamed keeps its queue.
        payload: The signed package.
        token: The fencing token. No worker gets it again, even after a failover that lost leases.
        starts: How many runs ended with the death of their worker; None if it was never given back by a death.
        give_up_reason: Why the package is to be given up instead of run; None if it may be run.
        death: How the last worker died whose death was charged to the package, where that is known.
    """

    id: str
    schema: str
    payload: str
    token: Any
    starts: int | None = None
    give_up_reason: str | None = None
    death: str | None = None

    @property
    def is_redelivered(self) -> bool:
        """Whether the leased package may have been run before, in part or whole."""
        return self.starts is not None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A leased package that was cancelled since `worker` took it, and the reason."""

    id: str
    worker: str
    reason: str


class Leases(Protocol):
    """The leases in force. A broker without `supports_leases` has none, and so does nothing here.

    Attributes:
        supports_leases: Whether a package that a worker holds can be renewed, given back and recalled by its id.
    """

    supports_leases: bool = False

    def renew(self, workers: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, str]]:
        """Have the broker extend the leases of living workers.

        Args:
            workers: The workers' keys.
            seconds: From now until the new deadline.

        Returns:
            For each worker, the ids of its packages with the tokens of their leases.
        """
        return {}

    def reclaim(
        self,
        worker: str,
        *,
        running: str | None,
        give_up_reason: str | None = None,
        charged: bool = True,
        death: str | None = None,
    ) -> int:
        """Have the broker end the leases of a dead worker, and give back its packages.

        The package that it was running is charged a start, or gets the give-up reason.

        Args:
            worker: The worker's key.
            running: The id of the package that it was running, or None.
            give_up_reason: Why that package is given up instead of run again, or None.
            charged: Whether the death counts as a start of that package; False if the worker was killed to stop the
                cluster.
            death: How the worker died, in words; kept with the package that is charged.

        Returns:
            How many packages were given back.
        """
        return 0

    def expire(self) -> int:
        """Have the broker give back the packages whose leases ran out, and return how many."""
        return 0

    def cancelled(self) -> list[Cancelled]:
        """Return the leased packages that were cancelled in the broker, whose workers are still to be notified."""
        return []

    def release_unique(self, worker: str, lease: Lease) -> None:
        """Have the broker release the unique key of a leased package that starts, if it has the key until then only."""
        return

    def note_late(self, ids: Sequence[str], *, seconds: float) -> None:
        """Have the broker remember for `seconds` that these packages are acknowledged long after they were saved."""
        return

    def may_come(self, ids: Sequence[str]) -> set[str]:
        """Return the ids of packages that may be leased again: in the broker, also dead, or noted as late."""
        return set()


def outage_seconds(lease: float) -> float:
    """Return the shortest pause between two scans for expired leases that counts as an outage, in seconds."""
    return max(1.5, lease / 2)
