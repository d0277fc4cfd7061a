"""Policies: how a tenant shares the workers with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tenant_q.brokers.protocol.server import Server, refusal


@dataclass(frozen=True, slots=True)
class Policy:
    """How a tenant shares the workers.

    Attributes:
        weight: Its share of worker-seconds against other tenants'.
        max_running: How many workers may be busy with it at once; None is without limit.
        max_queued: How many of its packages may wait, queued or delayed; None is without limit.
        paused: Whether none of its packages is started.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_queued: int | None = None
    paused: bool = False


class Policies(Server, Protocol):
    """The policies in force. A broker without `supports_tenant_queues` refuses all but the default."""

    def set_policies(self, policies: Mapping[str, Policy], *, complete: bool = False) -> None:
        """Put tenants' policies in force in the broker. Each also applies to tasks already queued.

        Args:
            policies: The policies, by schema.
            complete: Whether all other tenants lose their policies.
        """
        if any(policy != Policy() for policy in policies.values()):
            raise refusal(self, "pause, cap or weigh tenants")

    def policies(self) -> Mapping[str, Policy]:
        """Return the policies that the broker has in force, by schema; tenants without one are left out."""
        return {}
