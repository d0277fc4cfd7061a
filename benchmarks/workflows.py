"""Workflows: diamonds of four no-op steps, of many tenants, with every row kept.

python -m benchmarks.workflows [--tenants 100] [--runs 1000] [--rounds 3] [--seconds 10]

Prints workflows and steps per second of two workers, with all runs started before them, and the milliseconds from the
start of a run to its end while nothing else is to do. `make bench` measures the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from benchmarks import harness, report
from benchmarks.harness import BenchmarkError, percentile

WORKERS = 2
TABLES = ("tenant_q_workflows_run", "tenant_q_workflows_step", "tenant_q_workflows_signal")
PATIENCE = 600.0
# About as many runs a second are started one after another.
IDLE_RATE = 8.0
# So often each tenant has runs before: then nearly every worker has met nearly every tenant.
MEETINGS = 4


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round.

    Attributes:
        tenants: How many tenants had runs.
        runs: How many runs there were.
        per_s: Workflows per second.
        idle_runs: How many runs were started while nothing else was to do.
        idle_p50: Milliseconds from the start of such a run to its end, the median.
        idle_p99: The same, exceeded by one in a hundred.
    """

    tenants: int
    runs: int
    per_s: float
    idle_runs: int
    idle_p50: float
    idle_p99: float


def fill() -> str:
    """Return the SQL that adds the tables of workflows to a schema whose name is in `name`."""
    copies = "".join(
        f"EXECUTE format('CREATE TABLE %I.{table} (LIKE {harness.TEMPLATE}.{table} INCLUDING ALL)', name);"
        for table in TABLES
    )
    return f"{copies} PERFORM public.tenant_q_install_runs(name);"


def prepare(count: int) -> list[str]:
    """Make tenants with the tables of workflows in the project that is set up, and return their names."""
    names = harness.tenant_names(count)
    harness.clone_tenants(names, fill())
    harness.analyze()
    return names


def measure(names: Sequence[str], runs: int, seconds: float) -> Round:
    """Measure one round on tenants that are prepared, with clusters of its own.

    Args:
        names: The tenants.
        runs: How many runs are started before the cluster.
        seconds: For about how long runs are started one after another.
    """
    per_s, idle = _rate(names, runs), _idle(names, seconds)
    return Round(len(names), runs, per_s, len(idle), percentile(idle, 0.5), percentile(idle, 0.99))


def _rate(names: Sequence[str], runs: int) -> float:
    """Return the workflows per second that a cluster runs which finds them started."""
    from benchmarks.flows.workflows import diamond

    started = [diamond.start(schema_name=names[number % len(names)]) for number in range(runs)]
    assert len(started) == runs
    before = _ended()
    with harness.cluster(WORKERS):
        harness.wait_until(lambda: _ended() >= before + runs, PATIENCE, "the end of all runs")
    ids = {run.id for run in started}
    times = [moments for name in names for moments in _times(name, ids)]
    first, last = min(first for first, _ in times), max(last for _, last in times)
    return runs / (last - first).total_seconds()


def _times(name: str, ids: set[str]) -> list[tuple[datetime, datetime]]:
    """Return when each of these runs of a tenant began with its first step, and when it ended."""
    from tenant_q.tenancy import in_schema
    from tenant_q.workflows.models import WorkflowRun, WorkflowStep

    with in_schema(name):
        ended = dict(WorkflowRun.objects.filter(id__in=ids).values_list("id", "ended"))
        begun = dict(WorkflowStep.objects.filter(run__in=ended, name="top").values_list("run", "started"))
    return [(begun[id], ended[id]) for id in ended]


def _idle(names: Sequence[str], seconds: float) -> list[float]:
    """Return the milliseconds of single runs, one after another, on workers that have met nearly every tenant."""
    from benchmarks.flows.workflows import diamond

    found = []
    with harness.cluster(WORKERS):
        before = _ended()
        for _ in range(MEETINGS):
            for name in names:
                diamond.start(schema_name=name)
        harness.wait_until(lambda: _ended() >= before + MEETINGS * len(names), PATIENCE, "the end of the first runs")
        for number in range(max(20, int(seconds * IDLE_RATE))):
            begun = time.time()
            run = diamond.start(schema_name=names[number % len(names)])
            run.wait(30_000)
            if run.row.ended is None:
                raise BenchmarkError(f"{run!r} did not end.")
            found.append((run.row.ended.timestamp() - begun) * 1000)
            time.sleep(0.5 / IDLE_RATE)
    return found


def _ended() -> int:
    """Return how many runs of all tenants have ended."""
    from tenant_q.models import DueWorkflow

    return int(DueWorkflow.objects.filter(state="succeeded").count())


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--tenants", default=100, **number)
    parser.add_argument("--runs", default=1000, **number)
    parser.add_argument("--rounds", default=3, **number)
    parser.add_argument("--seconds", default=10, **number)
    options = parser.parse_args()
    with harness.project(durable=False):
        names = prepare(options.tenants)
        rounds = [measure(names, options.runs, options.seconds) for _ in range(options.rounds)]
        print(harness.table(*report.workflows(rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
