"""The status that clusters publish, and the names of clusters that the settings do not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Status(Protocol):
    """What the clusters of a site know of each other.

    A broker without `supports_tenant_queues` forgets clusters that are gone, and notes no strays.
    """

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        """Keep a cluster's status in the broker for `seconds`."""

    def get_stat(self, key: str) -> Any:
        """Return a cluster's status from the broker, or None."""

    def get_stats(self, pattern: str) -> list[Any]:
        """Return the status of every live cluster of this site from the broker."""

    def last_stats(self) -> list[Any]:
        """Return the last status of each cluster of this site from the broker, also of those that are gone."""
        return []

    def forget_stats(self, keys: Sequence[str]) -> None:
        """Have the broker forget the last status of clusters."""
        return

    def note_stray(self) -> None:
        """Have the broker remember for a month that a task was enqueued for this cluster, which no setting names."""
        return

    def strays(self) -> list[str]:
        """Return some names of clusters in the broker that the settings do not name; their queues may be empty."""
        return []

    def forget_strays(self, names: Sequence[str]) -> None:
        """Have the broker forget names of clusters that the settings do not name."""
        return
