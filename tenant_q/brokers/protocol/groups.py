"""Groups: the cached results of a group, and the parts of an iter.

They are the site's, because the tasks of a group may run in several of its clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Groups(Protocol):
    """The parts of groups. `tenant` is a tenant's key; None for the tenant that has the schema's name now."""

    def add_parts(
        self, schema: str, group: str, parts: Mapping[str, str], *, seconds: int | None, tenant: str | None = None
    ) -> int:
        """Record parts of a group in the broker. A part that is recorded already stays.

        Args:
            schema: The schema of the tenant.
            group: The name of the group.
            parts: The payloads, by index.
            seconds: How long the group is kept; None for good.
            tenant: The key of the tenant.

        Returns:
            How many parts of the group are recorded; 0 if its tenant was deleted a short time ago, because then
            nothing is recorded.
        """

    def parts(
        self, schema: str, group: str, *, tenant: str | None = None, most_bytes: int | None = None
    ) -> Mapping[str, str]:
        """Return the parts of a group that the broker has recorded, by index.

        Args:
            schema: The schema of the tenant.
            group: The name of the group.
            tenant: The key of the tenant.
            most_bytes: The largest total size of their payloads, or None.

        Raises:
            GroupTooLarge: Their payloads are larger than `most_bytes`.
        """

    def count_parts(self, schema: str, group: str) -> int:
        """Return how many parts of a group the broker has recorded."""

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        """Have the broker forget the parts of a group, and return how many there were."""
