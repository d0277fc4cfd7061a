"""The end of a tenant and its new name: what a broker keeps of it goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Drained:
    """What a broker has found of a tenant that is being decommissioned.

    Attributes:
        cancelled: How many of its packages waited and were forgotten.
        held: How many of its packages workers hold.
    """

    cancelled: int = 0
    held: int = 0


class Tenants(Protocol):
    """What a broker knows of tenants besides their packages. `tenant` is a tenant's key.

    A broker without `supports_tenant_queues` does not note cached results; they end with their time.
    """

    def note_cached(self, schema: str, id: str, *, seconds: int | None, tenant: str | None = None) -> None:
        """Note in the broker that a tenant has a result in a cache for `seconds`; None for good."""
        return

    def cached_ids(self, schema: str, tenant: str) -> list[str]:
        """Return the ids of a tenant's results that are in a cache, as noted in the broker."""
        return []

    def forget_cached(self, schema: str, tenant: str, ids: Sequence[str]) -> None:
        """Note in the broker that these results of a tenant are in no cache any more."""
        return

    def drain_tenant(self, schema: str, tenant: str) -> Drained:
        """Have the broker refuse new packages of a tenant that is being decommissioned, and forget those that wait.

        What workers hold stays; call it again until they have ended it, because they may return it to its queue. The
        refusal lasts until `forget_tenant`. A broker without `supports_tenant_queues` refuses and forgets nothing.

        Args:
            schema: The name of its schema.
            tenant: The key of the tenant.
        """
        return Drained()

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        """Have the broker forget all that a deleted tenant has: packages, policy, groups, estimates, figures.

        What its workers hold is cancelled; call it again when they have ended it.

        Args:
            schema: The last name of its schema.
            tenant: The key of the tenant.
            reason: The reason of the cancel, which begins with `CANCELLED`.
            seconds: How long packages for it are refused, and nothing else is kept for it.

        Returns:
            How many packages its workers still hold.
        """

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        """Note in the broker that a tenant's schema has a new name. All that the tenant has stays where it is."""
