"""What an operator looks at, read at one moment: clusters and their processes, tenants and their load, what fires next.

All doors stand on `site()`: `msinfo`, `msmonitor`, the operators' admin, the metrics. It costs a few statements and
round trips, however many tenants there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add

from django.utils import timezone

from tenant_q import policies, tenancy
from tenant_q.brokers import Broker, site_brokers, uses_redis
from tenant_q.brokers.loads import Load
from tenant_q.brokers.protocol import Policy
from tenant_q.conf import conf
from tenant_q.models import TenantPolicy
from tenant_q.operations import status
from tenant_q.operations.status import Cluster
from tenant_q.schedules import due_index
from tenant_q.schedules.due_index import Plans

NO_LOAD = Load()
NO_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant. `is_known` is False where only the broker, the index or a policy knows it: it was dropped, say.

    `next_fire` is when the scheduler looks at its first schedule, `held` why that is not on time, or empty;
    `max_results` is how many successes are kept, None for what `save_limit` says.
    """

    schema: str
    is_known: bool = True
    load: Load = NO_LOAD
    policy: Policy = NO_POLICY
    max_results: int | None = None
    schedules: int = 0
    next_fire: datetime | None = None
    held: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """All that runs and waits, at the moment `at`.

    `tenants` are in the order of their names, `total` is the sum of their loads. `late` is by how many seconds the
    schedule that is due longest has not fired, 0 when none is due. `stale_acks` and `expired_leases` are counted since
    the broker's server was new.
    """

    name: str
    at: datetime
    clusters: tuple[Cluster, ...]
    tenants: tuple[Tenant, ...]
    total: Load
    late: float
    stale_acks: int
    expired_leases: int

    def tenant(self, schema: str) -> Tenant | None:
        """The tenant of this name, or None."""
        return next((tenant for tenant in self.tenants if tenant.schema == schema), None)


def read_site() -> Site:
    """The site as it is now. Raises `BrokerError` and `DatabaseAway`."""
    brokers = site_brokers()
    clusters = tuple(status.clusters(brokers[0]))
    loads = _loads(brokers)
    statistics = [broker.statistics() for broker in brokers]
    now = timezone.now()
    plans = due_index.plans()
    due = [plan.due for plan in plans if plan.due is not None]
    return Site(
        name=conf().site,
        at=now,
        clusters=clusters,
        tenants=_tenants(loads, plans),
        total=_total(brokers, loads),
        late=max(0.0, (now - min(due)).total_seconds()) if due else 0.0,
        stale_acks=sum(found.get("stale_acks", 0) for found in statistics),
        expired_leases=sum(found.get("expired", 0) for found in statistics),
    )


def _loads(brokers: Iterable[Broker]) -> Mapping[str, Load]:
    """The loads of tenants over the clusters of the site."""
    found: dict[str, Load] = {}
    for broker in brokers:
        for schema, load in broker.loads().items():
            found[schema] = found[schema] + load if schema in found else load
    return found


def _total(brokers: Iterable[Broker], loads: Mapping[str, Load]) -> Load:
    if uses_redis():
        return reduce(add, loads.values(), NO_LOAD)
    counts = [broker.counts() for broker in brokers]  # one queue for all tenants
    return reduce(add, (Load(one.queued, one.leased, one.delayed) for one in counts), NO_LOAD)


def _tenants(loads: Mapping[str, Load], plans: Iterable[Plans]) -> tuple[Tenant, ...]:
    known = set(tenancy.tenant_names())
    rows = {row.schema_name: row for row in policies.policies()}
    # The index has the names as PostgreSQL has them, which may be folded.
    logical = {tenancy.physical_schema(name): name for name in known}
    planned = {logical.get(plan.schema, plan.schema): plan for plan in plans}
    return tuple(
        _tenant(schema, schema in known, loads.get(schema, NO_LOAD), rows.get(schema), planned.get(schema))
        for schema in sorted({*known, *rows, *loads, *planned})
    )


def _tenant(schema: str, is_known: bool, load: Load, row: TenantPolicy | None, plan: Plans | None) -> Tenant:
    policy = policies.in_force_of(row) if row else NO_POLICY
    schedules, due, held = (plan.schedules, plan.due, plan.held) if plan else (0, None, "")
    return Tenant(schema, is_known, load, policy, row.max_results if row else None, schedules, due, held)
