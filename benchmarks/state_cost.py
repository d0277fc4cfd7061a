"""What it costs to look whether a task left something: the same short tasks with another version of the code, in turns.

python -m benchmarks.state_cost --before PATH [--rounds 9] [--tasks 3000] [--func FUNC]

`PATH` is a checkout of the other version. Each run is a fresh process with one worker, alone, on the same servers.
Prints the processor time of the worker for each task, in microseconds: the medians, what the two of each turn differ
by, and the least, which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, clone_tenants, median, project, tenant_names

TENANTS = 10
_RUN = """
import os, sys, time
import django
django.setup()
import logging
logging.getLogger("tenant_q").setLevel(logging.WARNING)
from tenant_q.brokers import get_broker
try:
    from tenant_q.cluster import worker
    from tenant_q.cluster.child import settle_in_child
    from tenant_q.cluster.shared_memory import Slot
except ImportError:  # a version before the folders
    from tenant_q import worker
    from tenant_q.role import settle_in_child
    from tenant_q.slot import Slot
from tenant_q.utils import QUtilities

func, tasks, tenants = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
settle_in_child(os.getppid())
one = worker.Worker("cost", get_broker(), Slot(), once=True)


def run(count):
    for name in tenants:
        QUtilities.add_async_tasks_from_iter(func, [()] * (count // len(tenants)), schema_name=name)
    begun = time.process_time()
    while one.broker.counts().open:
        one.tick()
    return time.process_time() - begun


run(500)  # what is loaded and looked up once
print(1e6 * run(tasks) / tasks)
"""


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--func", default="tests.tasks.nothing")
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "now": ROOT}
    spent: dict[str, list[float]] = {name: [] for name in trees}
    with project(durable=False):
        names = tenant_names(TENANTS)
        clone_tenants(names)
        for number in range(options.rounds):
            for name in list(trees)[:: 1 if number % 2 else -1]:
                spent[name].append(_run(trees[name], options.func, options.tasks, names))
    before, now = median(spent["before"]), median(spent["now"])
    pairs = median([b - a for a, b in zip(spent["before"], spent["now"], strict=True)])
    print(f"before {before:.1f} us a task, now {now:.1f}: {now - before:+.1f} us ({100 * (now / before - 1):+.1f} %)")
    least, most = min(spent["before"]), min(spent["now"])
    share = 100 * (most / least - 1)
    print(f"the least of each: before {least:.1f} us, now {most:.1f}: {most - least:+.1f} us ({share:+.1f} %)")
    print(f"median of the pairs' differences: {pairs:+.1f} us ({100 * pairs / before:+.1f} %)")
    return 0


def _run(tree: Path, func: str, tasks: int, names: list[str]) -> float:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / "testproject")])}
    command = [sys.executable, "-c", _RUN, func, str(tasks), ",".join(names)]
    return float(subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
