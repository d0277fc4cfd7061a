"""Read what the overview shows: how much is where now, and the figures of the last day, of one tenant or of all.

It costs a few statements and round trips, however many tenants, rows and failures there are: no tenant's tasks are
counted, and a tenant's overview reads nothing of other tenants.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from operator import add

from tenant_q import tenancy
from tenant_q.brokers import Broker, site_brokers
from tenant_q.brokers.days import Day, TenantFigures
from tenant_q.brokers.protocol import Counts
from tenant_q.models import Failure
from tenant_q.operations import failures, status
from tenant_q.operations.failures import FailureFilter
from tenant_q.operations.status import ClusterStatus
from tenant_q.schedules.planned_runs import PlannedRun, planned_runs

MOST_TENANTS = 5
"""The most tenants by each measure."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """How much is where now, of one tenant or of all.

    Attributes:
        at: When it was read, in seconds since the epoch.
        places: How many packages are where; None for a tenant if a broker has one queue for all tenants.
        failed: The number of failures. Of all tenants, those that were not run again; of one tenant, all rows of failed
            tasks that its table has.
        next_run: The next run of a schedule, or None. Of all tenants, the first one that is not held.
        clusters: The clusters of the site that run or went recently; empty for one tenant.
    """

    at: float
    places: Counts | None
    failed: int
    next_run: PlannedRun | None
    clusters: tuple[ClusterStatus, ...] = ()

    @property
    def workers(self) -> int:
        """The number of workers that the site's running clusters should have."""
        return sum(cluster.workers for cluster in self.clusters if not cluster.is_gone)

    @property
    def is_served(self) -> bool:
        """Whether a cluster of the site runs."""
        return any(cluster.is_ours and not cluster.is_gone for cluster in self.clusters)


@dataclass(frozen=True, slots=True)
class Overview:
    """What the overview shows.

    Attributes:
        numbers: How much is where now.
        day: The figures of the last day, over all clusters.
        tenants: The tenants that did most, the busiest first; empty for one tenant.
        has_figures: Whether the brokers of the site keep figures.
    """

    numbers: Numbers
    day: Day
    tenants: tuple[TenantFigures, ...] = ()
    has_figures: bool = True


def read_overview(schema: str | None = None, *, of_day: bool = False) -> Overview:
    """Read the overview of one tenant, or of all. Its parameters but for `of_day` and its errors are `read_numbers`'.

    Args:
        schema: The schema of the tenant; None for all tenants.
        of_day: Whether the tenants that did most are those of the last day, instead of the last hour.
    """
    brokers = site_brokers()
    numbers = _read_numbers(brokers, schema)
    day = reduce(add, (broker.day(schema) for broker in brokers))
    tenants = _busiest(brokers, of_day=of_day) if schema is None else []
    return Overview(numbers, day, tuple(tenants), any(broker.supports_tenant_queues for broker in brokers))


def read_numbers(schema: str | None = None) -> Numbers:
    """Read how much is where now, of one tenant or of all.

    Args:
        schema: The schema of the tenant; None for all tenants.

    Raises:
        BrokerError: A broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    return _read_numbers(site_brokers(), schema)


def _read_numbers(brokers: Sequence[Broker], schema: str | None) -> Numbers:
    now = time.time()
    if schema is None:
        counts: list[Counts | None] = [broker.counts() for broker in brokers]
        clusters = tuple(status.clusters(brokers[0]))
        return Numbers(
            now, _sum_of_counts(counts), failures.count(FailureFilter()), _first(planned_runs(1, held=False)), clusters
        )
    counts = [broker.tenant_counts(schema) for broker in brokers]
    physical = tenancy.physical_schema(schema)
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        failed = Failure.rows().filter(schema_name=physical).count()
    return Numbers(now, _sum_of_counts(counts), failed, _first(planned_runs(1, physical)))


def _first(found: Sequence[PlannedRun]) -> PlannedRun | None:
    return found[0] if found else None


def _sum_of_counts(found: Iterable[Counts | None]) -> Counts | None:
    """Return the sum of what brokers counted for the overview; None if one of them cannot count a tenant's packages."""
    total = Counts(0, 0, 0, 0)
    for one in found:
        if one is None:
            return None
        total = Counts(
            total.queued + one.queued, total.leased + one.leased, total.delayed + one.delayed, total.dead + one.dead
        )
    return total


def _busiest(brokers: Sequence[Broker], *, of_day: bool) -> list[TenantFigures]:
    """Return the overview's tenants that did most, over all clusters, the busiest first."""
    found: dict[str, TenantFigures] = {}
    for one in chain.from_iterable(broker.top_tenants(day=of_day, most=MOST_TENANTS) for broker in brokers):
        found[one.schema] = found[one.schema] + one if one.schema in found else one
    return sorted(found.values(), key=lambda one: (-one.busy_seconds, -one.done, one.schema))
