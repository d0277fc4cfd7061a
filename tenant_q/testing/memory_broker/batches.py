"""A batch of the in-memory broker while it is filled, and the slice of it that one tenant gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenant_q.brokers.protocol import Lease


@dataclass(slots=True)
class Filling:
    """A batch while it is filled.

    Attributes:
        worker: The worker that gets it.
        limit: The most packages.
        budget: The most expected work, in milliseconds.
        leases: The leases taken so far.
        spent: Their expected work, in milliseconds.
        bytes: The bytes of their packages.
        is_full: Whether nothing more is taken.
    """

    worker: str
    limit: int
    budget: float
    leases: list[Lease] = field(default_factory=list)
    spent: float = 0.0
    bytes: int = 0
    is_full: bool = False


@dataclass(slots=True)
class Slice:
    """The part of a batch that one tenant gets in its turn.

    Attributes:
        schema: The queue of the tenant.
        room: The most that it is charged, in milliseconds.
        most: How many packages may still be taken.
        charged: What it is charged so far, in milliseconds.
        spent: The expected work taken so far, in milliseconds.
        is_full: Whether nothing more is taken of this tenant in this turn.
    """

    schema: str
    room: float
    most: int
    charged: float = 0.0
    spent: float = 0.0
    is_full: bool = False
