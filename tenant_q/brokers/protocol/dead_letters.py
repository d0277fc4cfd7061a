"""Dead letters: packages that were given up without a row in their tenant's schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Dead:
    """A package that is not run any more.

    Attributes:
        id: The id of the package.
        schema: The schema of its tenant, as it is called now.
        func: The name under which its run time was estimated.
        died: When it was given up, in seconds since the epoch.
        cause: Why it was given up.
        payload: The signed package.
    """

    id: str
    schema: str
    func: str
    died: float
    cause: str
    payload: str


class DeadLetters(Protocol):
    """The dead packages. A broker without `supports_tenant_queues` keeps none."""

    def dead(
        self,
        schema: str | None = None,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        ids: Collection[str] | None = None,
    ) -> list[Dead]:
        """Return the broker's dead letters.

        Args:
            schema: The schema of a tenant, or None for all tenants.
            limit: The most packages.
            newest_first: Whether the newest come first, instead of the oldest.
            ids: The ids to look for, or None for all.
        """
        return []

    def retry_dead(self, ids_and_payloads: Mapping[str, str]) -> int:
        """Queue dead letters again, each with this payload, or with its own if that is empty; return how many."""
        return 0

    def purge_dead(self, ids: Sequence[str]) -> int:
        """Have the broker forget dead letters, and return how many."""
        return 0
