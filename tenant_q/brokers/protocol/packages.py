"""One tenant's packages: find them, cancel them, and read the progress of those that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenant_q.brokers.protocol.limits import CANCELLED
from tenant_q.brokers.protocol.server import Server, refusal
from tenant_q.states import Progress, State


@dataclass(frozen=True, slots=True)
class Live:
    """A package that is still to be run, or is being run.

    Attributes:
        id: The id of the package.
        schema: The name of its queue.
        func: The name under which its run time is estimated.
        place: "leased", "queued" or "delayed".
        at: When a delayed one is due, in seconds since the epoch; None for the others.
        payload: The signed package.
        give_up_reason: Why it is to be given up instead of run; None if it may be run.
        deaths: How many of its starts ended with the death of their worker.
    """

    id: str
    schema: str
    func: str
    place: str
    at: float | None
    payload: str
    give_up_reason: str | None = None
    deaths: int = 0


class Packages(Server, Protocol):
    """The packages of one tenant. A broker without `supports_tenant_queues` raises `ConfigurationError`.

    Attributes:
        supports_tenant_queues: Whether each tenant has a queue of its own, with policies, counts, and packages that
            are found by their ids.
    """

    supports_tenant_queues: bool = False

    def live(self, schema: str, *, limit: int = 100, place: str = "") -> list[Live]:
        """Return a tenant's first packages in the broker: leased ones, queued ones in order, then delayed ones.

        Args:
            schema: The schema of the tenant.
            limit: The most packages.
            place: "leased", "queued" or "delayed" for the packages of one place only; empty for all.
        """
        raise refusal(self, "list a tenant's tasks")

    def find(self, schema: str, id: str) -> Live | None:
        """Return a tenant's package from the broker if it is still to be run, or is being run; else None."""
        raise refusal(self, "find a task")

    def place(self, schema: str, id: str) -> str | None:
        """Return the place of a tenant's package in the broker: "queued", "delayed", "leased" or "dead"; else None."""
        raise refusal(self, "find a task")

    def state(self, schema: str, id: str) -> State | None:
        """Return the state of a tenant's package in the broker; None if it has no such package.

        A package that was cancelled before its worker took it is CANCELLED; one that a worker may still be running is
        RUNNING.
        """
        raise refusal(self, "find a task")

    def real_id(self, schema: str, alias: str) -> str | None:
        """Return the id of the tenant's task for which another id stands in the broker, or None (see `Unique`)."""
        return None

    def cancel(self, schema: str, id: str, reason: str) -> str | None:
        """Have the broker give up a tenant's package instead of delivering it.

        It moves to the head of its queue, unless it was far back; if it is leased, it is among those of `cancelled`.

        Args:
            schema: The schema of the tenant.
            id: The id of the package.
            reason: The reason, which begins with `CANCELLED`.

        Returns:
            Where it was, "queued", "delayed" or "leased"; None if the tenant has no such package still to be run.
        """
        raise refusal(self, "cancel a task")

    def cancel_all(self, schema: str, ids: Sequence[str], reason: str) -> Mapping[str, str]:
        """Have the broker give up packages of a tenant, as `cancel` does with one.

        Args:
            schema: The schema of the tenant.
            ids: The ids of the packages.
            reason: The reason, which begins with `CANCELLED`.

        Returns:
            Where each was that is still to be run, by id.
        """
        raise refusal(self, "cancel a task")

    def set_progress(self, reported: Mapping[str, tuple[str, Progress]]) -> None:
        """Keep the progress of leased packages in the broker, for as long as their leases.

        Args:
            reported: For each worker, the id of a package that it holds and the progress of that package.
        """
        raise refusal(self, "keep a task's progress")

    def get_progress(self, schema: str, id: str) -> Progress | None:
        """Return the progress of a tenant's package from the broker; None if it reported none, or is not leased."""
        raise refusal(self, "keep a task's progress")


def state_at(place: str, give_up_reason: str | None, *, may_run: bool) -> State:
    """Return the state of a package that has this place in the broker.

    Args:
        place: "queued", "delayed", "leased" or "dead".
        give_up_reason: Why it is to be given up instead of run, or None.
        may_run: Whether its worker may be running it: if it was cancelled, then after the worker took it.
    """
    if place == "dead":
        return State.FAILURE
    if give_up_reason is not None and give_up_reason.startswith(CANCELLED) and not may_run:
        return State.CANCELLED
    return State.RUNNING if place == "leased" else State(place)
