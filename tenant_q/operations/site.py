"""Read a snapshot of the site: clusters and their processes, tenants and their loads, and what fires next.

`msinfo`, `msmonitor`, the operators' admin and the metrics are built on `read_site()`. It costs a few statements and
round trips, however many tenants there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from operator import add

from django.utils import timezone

from tenant_q import policies, tenancy
from tenant_q.brokers import Broker, get_broker, site_brokers
from tenant_q.brokers.loads import Load
from tenant_q.brokers.protocol import Policy
from tenant_q.conf import conf, site_clusters
from tenant_q.lifecycle.retention import NO_KEPT, Kept, kept_of
from tenant_q.models import TenantPolicy
from tenant_q.operations import status
from tenant_q.operations.status import ClusterStatus
from tenant_q.operations.unserved import Unserved, count_queues, unserved
from tenant_q.operations.workflow_runs import NO_RUNS, RunCounts, count_runs
from tenant_q.schedules import due_index
from tenant_q.schedules.due_index import Plans

NO_LOAD = Load()
NO_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant in a snapshot.

    Attributes:
        schema: The name of its schema.
        is_known: Whether its row exists, or it is the public schema and has tasks. A tenant without a row was dropped,
            and the broker, the index or a policy still knows it.
        load: Its load, over all clusters.
        policy: Its policy, as the broker enforces it.
        kept: How long its outcomes are kept, as its policy says.
        schedules: The number of its schedules that will run again.
        next_fire: When the scheduler reads the first of them.
        held: Why they are held, or empty.
        runs: Its workflow runs that are kept.
    """

    schema: str
    is_known: bool = True
    load: Load = NO_LOAD
    policy: Policy = NO_POLICY
    kept: Kept = NO_KEPT
    schedules: int = 0
    next_fire: datetime | None = None
    held: str = ""
    runs: RunCounts = NO_RUNS


@dataclass(frozen=True, slots=True)
class Site:
    """A snapshot of the site.

    Attributes:
        name: The name of the site.
        at: When it was taken.
        clusters: The clusters that run or went recently.
        tenants: The tenants, sorted by name.
        total: The sum of their loads.
        late: The seconds for which the oldest due schedule has not fired; 0 if none is due.
        stale_acks: The number of acknowledgements that were refused, since the data of the broker's server began.
        expired_leases: The number of leases that expired, since then.
        unserved: The clusters that do not run and have waiting tasks. If none runs, only those that no setting names.
        runs: The sum of the workflow runs of its tenants.
    """

    name: str
    at: datetime
    clusters: tuple[ClusterStatus, ...]
    tenants: tuple[Tenant, ...]
    total: Load
    late: float
    stale_acks: int
    expired_leases: int
    unserved: tuple[Unserved, ...] = ()
    runs: RunCounts = NO_RUNS

    def tenant(self, schema: str) -> Tenant | None:
        """Return the tenant of this name from the snapshot of the site, or None."""
        return next((tenant for tenant in self.tenants if tenant.schema == schema), None)


def read_site() -> Site:
    """Read a snapshot of the site. Raises `BrokerError` or `DatabaseAway`."""
    brokers = site_brokers()
    clusters = tuple(status.clusters(brokers[0]))
    loads = _site_loads(brokers)
    statistics = [broker.statistics() for broker in brokers]
    now = timezone.now()
    plans = due_index.plans()
    runs = count_runs()
    due = [plan.due for plan in plans if plan.due is not None]
    return Site(
        name=conf().site,
        at=now,
        clusters=clusters,
        tenants=_tenants(loads, plans, runs),
        total=_total(brokers, loads),
        late=max(0.0, (now - min(due)).total_seconds()) if due else 0.0,
        stale_acks=sum(found.get("stale_acks", 0) for found in statistics),
        expired_leases=sum(found.get("expired", 0) for found in statistics),
        unserved=tuple(_unserved(brokers[0], clusters)),
        runs=reduce(add, runs.values(), NO_RUNS),
    )


def _unserved(broker: Broker, clusters: Sequence[ClusterStatus]) -> list[Unserved]:
    found = unserved(clusters, count_queues(broker, clusters, get_broker))
    if any(one.is_ours and not one.is_gone for one in clusters):
        return found
    return [one for one in found if one.cluster not in site_clusters()]


def _site_loads(brokers: Iterable[Broker]) -> Mapping[str, Load]:
    """Return the loads of the site's tenants, summed over its clusters."""
    found: dict[str, Load] = {}
    for broker in brokers:
        for schema, load in broker.loads().items():
            found[schema] = found[schema] + load if schema in found else load
    return found


def _total(brokers: Sequence[Broker], loads: Mapping[str, Load]) -> Load:
    if all(broker.supports_tenant_queues for broker in brokers):
        return reduce(add, loads.values(), NO_LOAD)
    counts = [broker.counts() for broker in brokers]  # one queue for all tenants
    return reduce(add, (Load(one.queued, one.leased, one.delayed) for one in counts), NO_LOAD)


def _tenants(loads: Mapping[str, Load], plans: Iterable[Plans], runs: Mapping[str, RunCounts]) -> tuple[Tenant, ...]:
    known = set(tenancy.tenant_names())
    if tenancy.public_has_tasks():
        known.add(tenancy.public_schema())
    rows = {row.schema_name: row for row in policies.policies()}
    # The indexes name schemas as PostgreSQL does, perhaps in lower case.
    logical = {tenancy.physical_schema(name): name for name in known}
    planned = {logical.get(plan.schema, plan.schema): plan for plan in plans}
    counted = {logical.get(schema, schema): counts for schema, counts in runs.items()}

    def tenant(schema: str) -> Tenant:
        found = _tenant(schema, schema in known, loads.get(schema, NO_LOAD), rows.get(schema), planned.get(schema))
        return replace(found, runs=counted.get(schema, NO_RUNS))

    return tuple(map(tenant, sorted({*known, *rows, *loads, *planned, *counted})))


def _tenant(schema: str, is_known: bool, load: Load, row: TenantPolicy | None, plan: Plans | None) -> Tenant:
    policy = policies.in_force_of(row) if row else NO_POLICY
    schedules, due, held = (plan.schedules, plan.due, plan.held) if plan else (0, None, "")
    return Tenant(schema, is_known, load, policy, kept_of(row), schedules, due, held)
