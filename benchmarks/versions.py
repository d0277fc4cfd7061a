"""Compare versions of tenant_q: what a call to enqueue and a task cost in each, in turns on the same servers.

python -m benchmarks.versions --before PATH [PATH ...] [--rounds 9] [--tasks 12000] [--tenants 10]

Each `PATH` is a checkout of another version. In each turn a fresh process enqueues tasks one by one, in bulk and as
iters, starts a cluster with two workers and waits for it. Prints microseconds: medians and least values, and the
difference of this version from each of the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, clone_tenants, median, project, tenant_names

FIGURES = ("a call to enqueue", "a package in a bulk call", "a task in the cluster", "a part of an iter in the cluster")
_RUN = """
import subprocess, sys, time
import django
django.setup()
import logging
logging.getLogger("tenant_q").setLevel(logging.ERROR)
from benchmarks.harness import timed, wait_until
try:
    from tenant_q.lifecycle import push
    from tenant_q.package.build import build
except ImportError:  # a version before the folders
    from tenant_q import enqueue
    from tenant_q.package import build
from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities

tasks, names, manage, func = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3], "tests.tasks.nothing"
broker = get_broker()
singles, of_each = tasks // 10, tasks // len(names)


def one_by_one():
    with in_schema(names[0]):
        for _ in range(singles):
            QUtilities.add_async_task(func)


def in_bulk():
    for name in names:
        for first in range(0, of_each, 500):
            push.push([build(func, (), {}, schema=name) for _ in range(min(500, of_each - first))])


def iters():
    for name in names:
        QUtilities.add_async_tasks_from_iter(func, [()] * of_each, schema_name=name)


def drained():
    command = [sys.executable, manage, "mscluster", "--workers", "2"]
    cluster = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        whole = broker.counts().open
        wait_until(lambda: broker.counts().open < whole, 60, "the first task")
        first, begun = broker.counts().open, time.perf_counter()
        wait_until(lambda: broker.counts().open <= 500, 600, "the last 500 tasks")
        milliseconds = 1000 * (time.perf_counter() - begun) / (first - broker.counts().open)
        wait_until(lambda: not broker.counts().open, 60, "the end of all tasks")
        return milliseconds
    finally:
        cluster.terminate()
        cluster.wait(60)


figures = [timed(one_by_one) / singles, timed(in_bulk) / (of_each * len(names)), drained()]
iters()
print(*(1000 * milliseconds for milliseconds in [*figures, drained()]))
"""


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--before", type=Path, required=True, nargs="+", metavar="PATH", help="checkouts to compare with"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=12_000, help="of each kind, in each turn")
    parser.add_argument("--tenants", type=int, default=10)
    options = parser.parse_args()
    trees = [ROOT, *(path.resolve() for path in options.before)]
    found: dict[Path, list[list[float]]] = {tree: [] for tree in trees}
    with project(durable=False):
        names = tenant_names(options.tenants)
        clone_tenants(names)
        for number in range(options.rounds):
            for tree in trees[:: 1 if number % 2 else -1]:
                found[tree].append(run(tree, options.tasks, names))
    for place, figure in enumerate(FIGURES):
        for what, pick in (("median", median), ("least", min)):
            values = {tree: pick([one[place] for one in found[tree]]) for tree in trees}
            own = values.pop(ROOT)
            others = ", ".join(f"{tree.name} {v:.0f} ({100 * (own / v - 1):+.1f} %)" for tree, v in values.items())
            print(f"{figure}, {what}: {own:.0f}; {others}", flush=True)
    return 0


def run(tree: Path, tasks: int, names: list[str]) -> list[float]:
    """Return the figures of one turn of a version, in microseconds."""
    command = [sys.executable, "-c", _RUN, str(tasks), ",".join(names), f"{tree}/testproject/manage.py"]
    environment = os.environ | {"PYTHONPATH": f"{tree}:{tree}/testproject"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-2000:]}")
    return [float(value) for value in done.stdout.split()]


if __name__ == "__main__":
    sys.exit(main())
