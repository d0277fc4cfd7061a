"""A snapshot of the site as tables and as JSON, for `msinfo` and `msmonitor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from tenant_q.brokers.loads import Load
from tenant_q.management.console import moment, styled, table, words
from tenant_q.operations.site import Site, Tenant
from tenant_q.operations.status import ClusterStatus, Process, age, recent_deaths
from tenant_q.operations.workflow_runs import STATES, RunCounts
from tenant_q.support import workflows_app
from tenant_q.support.durations import duration
from tenant_q.support.moments import at
from tenant_q.support.plurals import counted

DEATH_SECONDS = 300
"""The death of a process is shown for this time."""
_PLACES = ("queued", "leased", "delayed", "dead")
_CLUSTER = ("cluster", "state", "host", "parent", "sentinel", "up", "workers", "restarts", "version", "trouble")
_PROCESS = ("cluster", "role", "pid", "runs", "schema", "function", "task", "done", "silent")
_TENANT = (
    "schema", "queued", "running", "delayed", "dead", "done/h", "failed/h", "p95 wait", "p95 run", "next run",
    "policy",
)  # fmt: skip

# The columns that a narrow screen leaves out, the least important first.
_LEAST_CLUSTER = ("version", "sentinel", "parent", "up", "restarts")
_LEAST_PROCESS = ("silent", "task", "done", "cluster")
_LEAST_TENANT = ("policy", "runs", "next run", "p95 wait", "delayed", "p95 run", "done/h")


def _work(tenant: Tenant) -> int:
    return tenant.load.queued + tenant.load.leased


# The orders of tenants: the largest first, but names in alphabetical order.
ORDERS: Mapping[str, Callable[[Tenant], Any]] = {
    "load": lambda tenant: (-_work(tenant), -tenant.load.delayed, -tenant.load.done, tenant.schema),
    "queued": lambda tenant: (-tenant.load.queued, tenant.schema),
    "running": lambda tenant: (-tenant.load.leased, tenant.schema),
    "dead": lambda tenant: (-tenant.load.dead, tenant.schema),
    "failed": lambda tenant: (-tenant.load.failed, tenant.schema),
    "wait": lambda tenant: (-(tenant.load.wait_p95 or 0.0), tenant.schema),
    "duration": lambda tenant: (-(tenant.load.run_p95 or 0.0), tenant.schema),
    "name": lambda tenant: tenant.schema,
}


def in_order(tenants: Iterable[Tenant], order: str) -> list[Tenant]:
    """Return the tenants of a site's table, sorted by one of `ORDERS`."""
    return sorted(tenants, key=ORDERS[order])


def headline(site: Site) -> Text:
    """Return the line above a site's tables, which sums it up."""
    total = site.total
    running = sum(not cluster.is_gone for cluster in site.clusters)
    parts = [
        f"{site.name}: {counted(running, 'cluster')}, {counted(len(site.tenants), 'tenant')}",
        f"{total.queued} queued, {total.leased} running, {total.delayed} delayed, {total.dead} dead",
        f"in the last hour {total.done} done and {total.failed} failed",
        f"95% waited at most {duration(total.wait_p95)} and ran at most {duration(total.run_p95)}",
    ]
    if runs := runs_in_words(site.runs):
        parts.append(f"workflow runs: {runs}")
    text = styled("; ".join(parts))
    if site.late >= 1:
        text.append(f"; schedules are {duration(site.late)} late", style="bold red")
    return text


def cluster_table(clusters: Sequence[ClusterStatus], *, width: int | None = None) -> Table:
    """Return a table of the site with a row for each cluster. `width` is as in `console.table`."""
    numbers = ("parent", "sentinel", "up", "restarts")
    return table(_CLUSTER, map(_cluster_row, clusters), numbers=numbers, width=width, least=_LEAST_CLUSTER)


def _cluster_row(one: ClusterStatus) -> tuple[Any, ...]:
    workers = f"{len(one.of_role('worker'))}/{one.workers}"
    if one.is_gone:
        seen = f"{one.trouble}, last seen {duration(age(one.seen))} ago"
        return (one.name, "gone", one.host, one.parent, one.sentinel, None, None, one.restarts, one.version, seen)
    up = duration(age(one.started))
    state = str(one.state)
    return (
        one.name, state, one.host, one.parent, one.sentinel, up, workers, one.restarts, one.version, one.trouble,
    )  # fmt: skip


def processes(clusters: Sequence[ClusterStatus], schema: str | None = None) -> list[tuple[ClusterStatus, Process]]:
    """Return the processes for a table of the site: of the clusters that run, or running a task of one tenant."""
    return [
        (one, process)
        for one in clusters
        for process in one.processes
        if not one.is_gone and schema in (None, process.schema)
    ]


def process_table(found: Iterable[tuple[ClusterStatus, Process]], *, width: int | None = None) -> Table:
    """Return a table of the site with a row for each process. `width` is as in `console.table`."""
    rows = (_process_row(one, process) for one, process in found)
    return table(_PROCESS, rows, numbers=("pid", "runs", "done", "silent"), width=width, least=_LEAST_PROCESS)


def _process_row(one: ClusterStatus, process: Process) -> tuple[Any, ...]:
    if process.is_busy:  # a process that runs a task shows no sign of life meanwhile
        runs = duration(process.seconds)
        what = (runs, process.schema, process.func, process.task_id, process.done, None)
        return (one.name, process.role, process.pid, *what)
    silent = duration(process.silent) if process.silent >= 2 else None
    late = styled(f"{duration(process.late)} late", "yellow") if process.late >= 1 else None
    return (one.name, process.role, process.pid, late, None, None, None, process.done, silent)


def death_lines(clusters: Iterable[ClusterStatus]) -> list[Text]:
    """Return a line below the site's tables for each recent death of a process."""
    return [
        styled(f"{moment(at(death.at))}  {death_of(one, death)}", "red")
        for one in clusters
        for death in recent_deaths(one, DEATH_SECONDS)
    ]


def unserved_lines(site: Site) -> list[Text]:
    """Return a line below the site's tables for each cluster that does not run although tasks wait for it."""
    return [styled(str(one), "bold red") for one in site.unserved]


def death_of(one: ClusterStatus, death: Any) -> str:
    """Return the death of a process in words, for a line below the site's tables."""
    what = f" while it ran {death.func} of {death.schema} ({death.task_id})" if death.task_id else ""
    return f"{death.role} {death.pid} of cluster {one.name} on {one.host} {death.how}{what}, and was replaced"


def tenant_table(tenants: Iterable[Tenant], *, width: int | None = None) -> Table:
    """Return a table of the site with a row for each tenant. `width` is as in `console.table`."""
    with_runs = workflows_app.is_installed()
    columns = (*_TENANT[:-1], "runs", _TENANT[-1]) if with_runs else _TENANT
    least = [name for name in _LEAST_TENANT if name in columns]
    rows = (_tenant_row(tenant, with_runs=with_runs) for tenant in tenants)
    return table(columns, rows, numbers=_TENANT[1:9], width=width, least=least)


def _tenant_row(tenant: Tenant, *, with_runs: bool) -> tuple[Any, ...]:
    load = tenant.load
    places = [getattr(load, name) or None for name in _PLACES]
    dead = styled(words(load.dead), "bold red") if load.dead else None
    failed = styled(words(load.failed), "red") if load.failed else None
    fire = tenant.next_fire or (tenant.held and styled(tenant.held)) or None
    schema = tenant.schema if tenant.is_known else f"{tenant.schema} (no tenant)"
    times = (duration(load.wait_p95), duration(load.run_p95))
    runs = (runs_in_words(tenant.runs),) if with_runs else ()
    return (schema, *places[:3], dead, load.done or None, failed, *times, fire, *runs, policy_in_words(tenant))


def runs_in_words(runs: RunCounts) -> Any:
    """Return the numbers of a tenant's open, failed and overdue workflow runs for its table; None if all are 0."""
    counts = ((runs.open, "open"), (runs.of("failed"), "failed"), (runs.overdue, "overdue"))
    said = ", ".join(f"{count} {name}" for count, name in counts if count)
    return styled(said, "bold red" if runs.overdue else None) if said else None


def policy_in_words(tenant: Tenant) -> Any:
    """Return the values of a tenant's policy for its table that are not the default, in words; None if all are."""
    policy = tenant.policy
    said = ["paused"] if policy.paused else []
    said += [f"weight {policy.weight:g}"] if policy.weight != 1 else []
    limits = {"max_running": policy.max_running, "max_queued": policy.max_queued} | asdict(tenant.kept)
    said += [f"{name.replace('_', ' ')} {words(limit)}" for name, limit in limits.items() if limit is not None]
    return styled(", ".join(said), "yellow" if policy.paused else None) if said else None


def as_json(site: Site, schema: str | None = None) -> dict[str, Any]:
    """Return the site's tables as plain data, with durations in seconds; with a schema, only that tenant."""
    return {
        "site": site.name,
        "at": site.at,
        "late": site.late,
        "stale_acks": site.stale_acks,
        "expired_leases": site.expired_leases,
        "total": _load_as_json(site.total),
        **_runs_as_json(site.runs),
        "unserved": [asdict(one) for one in site.unserved],
        "clusters": [_cluster_as_json(one) for one in site.clusters],
        "tenants": [_tenant_as_json(one) for one in site.tenants if schema in (None, one.schema)],
    }


def _load_as_json(load: Load) -> dict[str, Any]:
    names = ("queued", "leased", "delayed", "dead", "done", "failed", "wait_p95", "run_p95")
    return {name: getattr(load, name) for name in names}


def _cluster_as_json(one: ClusterStatus) -> dict[str, Any]:
    return asdict(one) | {
        "state": str(one.state),
        "processes": [asdict(process) for process in one.processes],
        "deaths": [asdict(death) | {"at": at(death.at)} for death in one.deaths],
    }


def _tenant_as_json(tenant: Tenant) -> dict[str, Any]:
    plan = {"schedules": tenant.schedules, "next_fire": tenant.next_fire, "held": tenant.held or None}
    policy = asdict(tenant.policy) | asdict(tenant.kept)
    return {
        "schema": tenant.schema,
        "is_known": tenant.is_known,
        **_load_as_json(tenant.load),
        **plan,
        **_runs_as_json(tenant.runs),
        "policy": policy,
    }


def _runs_as_json(runs: RunCounts) -> dict[str, Any]:
    if not workflows_app.is_installed():
        return {}
    counts = {state: runs.of(state) for state in STATES}
    return {"workflow_runs": {"open": runs.open, **counts, "overdue": runs.overdue}}
