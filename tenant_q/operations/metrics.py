"""Export the metrics of the site for Prometheus. This needs `prometheus_client`, the extra `metrics`.

At most `TENANT_Q["metrics_labels"]` tenants and as many functions have series of their own; the rest is summed up as
"other". Every cluster and every web process exports the metrics of the whole site, so do not sum over instances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import add
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tenant_q import tenancy
from tenant_q.brokers import Broker, site_brokers
from tenant_q.brokers.loads import BOUNDS, Figures, Totals
from tenant_q.conf import conf
from tenant_q.operations.site import NO_LOAD, Site, Tenant, read_site
from tenant_q.operations.status import age
from tenant_q.operations.workflow_runs import STATES
from tenant_q.support import workflows_app
from tenant_q.support.visible import visible

OTHER = "other"
_EVERY = 2
"""Every second bound becomes a bucket: 1 ms, 4 ms, 16 ms, ... 70 min."""
_CLUSTER = ("cluster", "host", "id")
_V = TypeVar("_V")


def registry() -> CollectorRegistry:
    """Return a Prometheus registry whose metrics are read anew for each scrape."""
    made = CollectorRegistry(auto_describe=False)
    made.register(SiteCollector())
    return made


class SiteCollector(Collector):
    """The metrics of the site, read once for each scrape."""

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering it queries no server

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the site. Raises `BrokerError` or `DatabaseAway`."""
        site = read_site()
        brokers = site_brokers()
        totals = _totals(brokers)
        tenants = sorted((one.schema for one in site.tenants if _has_metrics(one)), key=_busiest(totals.tenants))
        functions = sorted(totals.functions, key=_busiest(totals.functions))
        most = conf().metrics_labels
        named_tenants = brokers[0].name_labels("tenants", tenants, most=most)
        named_functions = brokers[0].name_labels("functions", functions, most=most)
        yield from _of_clusters(site)
        yield from _of_the_site(site)
        yield _packages(site, named_tenants)
        if workflows_app.is_installed():
            yield from _workflow_runs(site, named_tenants)
        yield from _of_tenants(_by_label(totals.tenants, named_tenants, add))
        yield from _of_functions(_by_label(totals.functions, named_functions, add))


def _totals(brokers: Iterable[Broker]) -> Totals:
    tenants: dict[str, Figures] = {}
    functions: dict[str, Figures] = {}
    for broker in brokers:
        found = broker.totals()
        for kept, more in ((tenants, found.tenants), (functions, found.functions)):
            for name, one in more.items():
                kept[name] = kept[name] + one if name in kept else one
    return Totals(tenants, functions)


def _has_metrics(one: Tenant) -> bool:
    """Return whether a tenant has metrics: it exists, or has a load or runs. The broker also knows dropped ones."""
    return one.is_known or one.load != NO_LOAD or bool(one.runs.states) or one.schema == tenancy.public_schema()


def _tenant_count(site: Site) -> int:
    return sum(one.is_known and one.schema != tenancy.public_schema() for one in site.tenants)


def _busiest(found: Mapping[str, Figures]) -> Callable[[str], tuple[int, str]]:
    """Return a sort key that puts the names with the most tasks first among the labels of metrics."""
    return lambda name: (-(found[name].done + found[name].failed) if name in found else 0, name)


def _by_label(found: Mapping[str, _V], named: set[str], join: Callable[[_V, _V], _V]) -> dict[str, _V]:
    """Return the metrics' values of the named labels, and all other values joined as `OTHER`."""
    kept = {visible(name): value for name, value in found.items() if name in named}
    for name, value in found.items():
        if name not in named:  # a tenant may be called "other"
            kept[OTHER] = join(kept[OTHER], value) if OTHER in kept else value
    return kept


def _of_clusters(site: Site) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "tenant_q_cluster_up", "1 while the cluster publishes its status, 0 when it is gone", labels=_CLUSTER
    )
    seen = GaugeMetricFamily(
        "tenant_q_sentinel_age_seconds", "Since the sentinel published its status", labels=_CLUSTER
    )
    processes = GaugeMetricFamily("tenant_q_processes", "Running processes", labels=(*_CLUSTER, "role"))
    busy = GaugeMetricFamily("tenant_q_workers_busy", "Workers that run a task", labels=_CLUSTER)
    restarts = CounterMetricFamily("tenant_q_restarts", "Processes that died and were replaced", labels=_CLUSTER)
    silent = GaugeMetricFamily(
        "tenant_q_scheduler_silent_seconds", "Since the scheduler's last sign of life", labels=_CLUSTER
    )
    for one in site.clusters:
        labels = (one.name, one.host, one.id[:8])
        up.add_metric(labels, 0 if one.is_gone else 1)
        seen.add_metric(labels, age(one.seen))
        if one.is_gone:
            continue
        for role in ("worker", "scheduler", "exporter"):
            processes.add_metric((*labels, role), len(one.of_role(role)))
        busy.add_metric(labels, sum(process.is_busy for process in one.of_role("worker")))
        restarts.add_metric(labels, one.restarts)
        for process in one.of_role("scheduler"):
            silent.add_metric(labels, process.silent)
    yield from (up, seen, processes, busy, restarts, silent)


def _of_the_site(site: Site) -> Iterator[Metric]:
    yield GaugeMetricFamily("tenant_q_tenants", "Tenants", value=_tenant_count(site))
    paused = sum(one.policy.paused for one in site.tenants)
    yield GaugeMetricFamily("tenant_q_tenants_paused", "Paused tenants", value=paused)
    yield GaugeMetricFamily("tenant_q_scheduler_late_seconds", "Lateness of the oldest due schedule", value=site.late)
    expired = "Leases that expired because their worker's sentinel was gone"
    yield CounterMetricFamily("tenant_q_leases_expired", expired, value=site.expired_leases)
    yield CounterMetricFamily(
        "tenant_q_stale_acks", "Acknowledgements that were refused because the lease was lost", value=site.stale_acks
    )


def _packages(site: Site, named: set[str]) -> Metric:
    packages = GaugeMetricFamily("tenant_q_packages", "Packages by place", labels=("schema", "place"))
    places: dict[tuple[str, str], int] = defaultdict(int)
    for one in site.tenants:
        schema = visible(one.schema) if one.schema in named else OTHER
        for place in ("queued", "leased", "delayed", "dead"):
            places[schema, place] += getattr(one.load, place)
    for labels, count in places.items():
        packages.add_metric(labels, count)
    return packages


def _workflow_runs(site: Site, named: set[str]) -> Iterator[Metric]:
    runs = GaugeMetricFamily("tenant_q_workflow_runs", "Workflow runs that are kept", labels=("schema", "state"))
    found = _by_label({one.schema: one.runs for one in site.tenants if one.runs.states}, named, add)
    for schema, counts in found.items():
        for state in STATES:
            runs.add_metric((schema, state), counts.of(state))
    yield runs
    overdue = "Open workflow runs that no scheduler has looked at in time"
    yield GaugeMetricFamily("tenant_q_workflow_runs_overdue", overdue, value=site.runs.overdue)


def _of_tenants(found: Mapping[str, Figures]) -> Iterator[Metric]:
    yield _ended("tenant_q_tasks", "schema", found)
    waits = HistogramMetricFamily("tenant_q_task_wait_seconds", "From enqueued or due to started", labels=("schema",))
    for schema, one in found.items():
        waits.add_metric((schema,), _buckets(one.waits), one.wait_seconds)
    yield waits


def _of_functions(found: Mapping[str, Figures]) -> Iterator[Metric]:
    yield _ended("tenant_q_function_tasks", "func", found)
    runs = HistogramMetricFamily("tenant_q_function_run_seconds", "From started to ended", labels=("func",))
    for func, one in found.items():
        runs.add_metric((func,), _buckets(one.runs), one.run_seconds)
    yield runs


def _ended(name: str, label: str, found: Mapping[str, Figures]) -> Metric:
    tasks = CounterMetricFamily(name, "Tasks that ended", labels=(label, "outcome"))
    for value, one in found.items():
        tasks.add_metric((value, "done"), one.done)
        tasks.add_metric((value, "failed"), one.failed)
    return tasks


def _buckets(counts: tuple[int, ...]) -> list[tuple[str, float]]:
    """Return the cumulative buckets of a histogram in the metrics."""
    buckets = [(str(bound), float(sum(counts[: n + 1]))) for n, bound in enumerate(BOUNDS) if n % _EVERY == 0]
    return [*buckets, ("+Inf", float(sum(counts)))]
