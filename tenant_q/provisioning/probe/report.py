"""What a probe of tenants' roles has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tenant_q.support.plurals import counted


@dataclass(frozen=True, slots=True)
class Finding:
    """A way out of a tenant's schema, or what deserves a warning.

    Attributes:
        kind: What opens it, such as "table", "membership" or "attempt".
        tenants: The tenants that have it, by schema name; the group of all tenants' roles by its own name.
        right: The right, such as "SELECT".
        object: What the right is for, as SQL names it.
        through: Who was granted it: PUBLIC or a role.
        opens: The statement that opens it.
        closes: The statements that close it, for the owner of the object; separated by semicolons. Empty if unknown.
    """

    kind: str
    tenants: tuple[str, ...]
    right: str
    object: str
    through: str
    opens: str
    closes: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a probe proves nothing: for one tenant, or for all if `tenant` is None. The text names the way out."""

    tenant: str | None
    text: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe of tenants' roles has found.

    Attributes:
        tenants: The tenants whose roles were probed, by schema name.
        mode: How the sessions of the attempts were opened: "login" or "role".
        rights: How many rights were checked.
        attempts: How many attempts were made.
        kinds: The titles of the attempts that were made for every tenant.
        crossings: What tenants' roles can do outside of their schemas.
        warnings: What no grant of this project decides, and what tasks will miss.
        problems: Why the probe, or a part of it, proves nothing.
        seconds: How long it took.
    """

    tenants: tuple[str, ...]
    mode: str
    rights: int
    attempts: int
    kinds: tuple[str, ...]
    crossings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    seconds: float

    @property
    def is_closed(self) -> bool:
        """Whether the probe shows that no role of a tenant gets out of its schema."""
        return not self.crossings and not self.problems

    @property
    def sentence(self) -> str:
        """What the probe found, in one sentence that names the way out."""
        if self.is_closed:
            return f"No crossing: {counted(self.rights, 'right')} checked, {counted(self.attempts, 'attempt')} refused."
        parts = [counted(len(self.crossings), "crossing")] if self.crossings else []
        parts += [counted(len(self.problems), "problem")] if self.problems else []
        first = next((one.text for one in self.problems), "") or next(
            f"run {one.closes}" if one.closes else f"look at {one.right} on {one.object}" for one in self.crossings
        )
        return f"{' and '.join(parts)}, which `python manage.py mstenant probe --all` lists; first {first.rstrip('.')}."

    def crossings_of(self, schema: str) -> int:
        """Return how many crossings the probe found for a tenant."""
        return sum(schema in one.tenants for one in self.crossings)

    def is_proven(self, schema: str) -> bool:
        """Return whether the probe of a tenant was completed."""
        return schema in self.tenants and all(one.tenant not in (None, schema) for one in self.problems)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return a probe's findings without repetitions; the tenants of those with the same statements are put together."""
    found: dict[tuple[Any, ...], dict[str, None]] = {}
    for one in findings:
        key = (one.kind, one.right, one.object, one.through, one.opens, one.closes)
        found.setdefault(key, {}).update(dict.fromkeys(one.tenants))
    return [Finding(key[0], tuple(tenants), *key[1:]) for key, tenants in found.items()]
