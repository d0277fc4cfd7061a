"""What operators see: how many packages are where, and how tasks went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenant_q.brokers.days import Day, TenantFigures
from tenant_q.brokers.loads import Load, Totals


@dataclass(frozen=True, slots=True)
class Counts:
    """How many packages are where.

    Attributes:
        queued: They wait for a worker.
        leased: A worker holds them.
        delayed: They wait until they are due.
        dead: They are dead letters.
        paused: Those of paused tenants, among the queued and delayed ones.
        unready: Those of other tenants that wait for their tenant to be there.
    """

    queued: int
    leased: int
    delayed: int
    dead: int
    paused: int = 0
    unready: int = 0

    @property
    def open(self) -> int:
        """The number of a broker's packages that are still to be run."""
        return self.queued + self.leased + self.delayed

    @property
    def runnable(self) -> int:
        """The number of a broker's packages that will be run without anything else happening first."""
        return self.open - self.paused - self.unready


class Monitoring(Protocol):
    """Counts and figures. A broker without `supports_tenant_queues` counts all tenants together."""

    def counts(self) -> Counts:
        """Count the broker's packages: queued, leased, delayed and dead."""

    def queue_size(self, schema: str | None = None) -> int:
        """Count the broker's queued packages: of one tenant, or of all."""

    def tenant_counts(self, schema: str) -> Counts | None:
        """Count one tenant's packages, in one round trip: queued, leased, delayed and dead.

        Returns:
            The counts; None from a broker without `supports_tenant_queues`, which has one queue for all tenants.
        """
        return None

    def loads(self) -> Mapping[str, Load]:
        """Return the load of each tenant of which the broker has or had packages, in one round trip."""
        return {}

    def totals(self) -> Totals:
        """Return the broker's figures since its server was new, by tenant and function, in one round trip."""
        return Totals({}, {})

    def day(self, schema: str | None = None) -> Day:
        """Return the broker's figures of the last day, of one tenant or of all, in one round trip.

        A broker without `supports_tenant_queues` keeps none.
        """
        return Day()

    def top_tenants(self, *, day: bool = False, most: int = 10) -> list[TenantFigures]:
        """Return the tenants that did most by the broker's figures, in one round trip.

        Args:
            day: Whether the last day counts, which is 20 to 24 hours here, instead of the last hour.
            most: The most tenants by each measure.

        Returns:
            Those with the most done, the most failed, and the most busy seconds, each tenant once, in no order.
        """
        return []

    def note_busy(self, ids: Sequence[str], seconds: float) -> None:
        """Note in the broker which packages run, for the day of figures: a sample that stands for some seconds.

        A sentinel calls it every `days.SAMPLE_SECONDS`, also if nothing runs.
        """
        return

    def record_periods(self) -> int:
        """Have the broker keep the figures of the periods that have ended since the last call, and what is queued now.

        A sentinel calls it now and then. Of a cluster whose sentinels do not, `day` knows the last 70 minutes only.

        Returns:
            How many periods were recorded by this call; another sentinel may have been first.
        """
        return 0

    def name_labels(self, kind: str, names: Sequence[str], *, most: int) -> set[str]:
        """Return the names with series of their own in the metrics, as the broker keeps them for every process.

        A name keeps its series. One that was counted under "other" stays there until `most` is raised. So no counter
        ever goes back, except that of the others when it is raised.

        Args:
            kind: What they are names of, as "tenants".
            names: All that exist, the first ones preferred. A name that is missing makes room for another.
            most: The most names with series of their own.
        """
        return set()

    def statistics(self) -> Mapping[str, int]:
        """Return how often the broker refused `stale_acks`, found leases `expired`, and found entries `broken`."""
        return {}
