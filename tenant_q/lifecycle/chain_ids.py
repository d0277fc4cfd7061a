"""The ids of the links of a chain, which follow from the id of its group."""

from __future__ import annotations

from tenant_q.package.build import deterministic_id


def first_id(group: str) -> str:
    """Return the id of the first link of a chain whose group was made for it, by which the chain's status is found."""
    return deterministic_id(group, "first link")


def next_id(group: str | None, id: str) -> str:
    """Return the id of the link of a chain that follows the link with this id."""
    return deterministic_id(group, id, "next")
