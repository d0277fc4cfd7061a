"""`make bench-scheduler`: what a look at ten thousand tenants' schedules costs, and how late a schedule starts.

Each number of tenants is measured in rounds, and each round alternates between the scheduler and a loop over all
schemas as the package of 2020 makes it, on the same tables; the figure is the median of the rounds. Lateness is that
of a real `mscluster`, from the planned moment until the broker has the task, and until a worker runs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import BenchmarkError

if TYPE_CHECKING:
    from benchmarks.scheduler_starts import Starts
    from benchmarks.scheduler_ticks import Size

RESULTS = Path(__file__).with_name("results-scheduler.json")
# The burst is measured with no more tenants than this.
BURST_TENANTS = 1000


def main() -> int:
    options = parse()
    try:
        with harness.project(durable=not options.no_sync):
            around = harness.surroundings()
            print(harness.told(around), flush=True)
            found = measure(options)
            print(f"\nload {harness.load()} after")
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    asked = {name: value for name, value in vars(options).items() if name != "json"}
    harness.write_json(options.json, around | {"load_after": harness.load(), "options": asked} | found)
    return 1 if any(one["missed"] or one["twice"] for one in found["starts"]) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scheduler", description=__doc__.partition("\n")[0])
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--tenants", nargs="+", default=[1000, 10000], **number, help="how many, one after another")
    parser.add_argument("--rounds", default=3, **number, help="how often each tick is measured")
    parser.add_argument("--seconds", default=60, **number, help="for how long schedules are due each second")
    parser.add_argument("--per-second", default=100, **number, help="how many are due each second")
    parser.add_argument("--burst", default=10000, **number, help="how many are due at once")
    parser.add_argument("--workers", default=2, **number, help="of the cluster that starts them")
    parser.add_argument("--patience", default=120, **number, help="how many seconds late a task is given up")
    parser.add_argument("--no-sync", action="store_true", help="servers that do not wait for the disk")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where the figures are written")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Each number of tenants by itself; what was found is printed at once."""
    from benchmarks import scheduler_ticks

    names: list[str] = []
    found: dict[str, list[dict[str, Any]]] = {"ticks": [], "starts": []}
    for count in sorted(options.tenants):
        begun = time.monotonic()
        more = harness.tenant_names(count)[len(names) :]
        scheduler_ticks.make_tenants(more)
        names += more
        print(f"\n{count:,} tenants, made in {time.monotonic() - begun:.0f} s\n", flush=True)
        size = scheduler_ticks.measure(names, options.rounds)
        print(report_ticks(size), flush=True)
        starts = measure_cluster(names, options)
        print(report_starts(starts), flush=True)
        found["ticks"].append(asdict(size))
        found["starts"] += [{"due": due} | asdict(one) for due, one in starts.items()]
    return found


def measure_cluster(names: Sequence[str], options: argparse.Namespace) -> dict[str, Starts]:
    """Lateness, and the burst where there are not too many tenants, of a cluster that has looked at the whole index."""
    from benchmarks import scheduler_starts as starts
    from tenant_q import brokers

    def lateness(busy: bool) -> Starts:
        start = starts.soon(options.seconds * options.per_second)
        planned = starts.each_second(names, start, options.seconds, options.per_second, busy=busy)
        return starts.measure(names, list(planned), options.patience)

    brokers.get_broker().purge()
    found = {}
    with harness.cluster(options.workers) as running:
        harness.wait_until(lambda: "Verified the due index" in running.log, 300, "that the index is verified")
        found["each second, workers idle"] = lateness(busy=False)
        found["each second, workers busy"] = lateness(busy=True)
        if len(names) <= BURST_TENANTS:
            planned = list(starts.at_once(names, starts.soon(options.burst), options.burst))
            found["at one moment"] = starts.measure(names, planned, options.patience)
    return found


def report_ticks(size: Size) -> str:
    ours, loop = size.scheduler, size.loop
    ticks = [
        (
            "nothing due",
            ours.idle_ms,
            loop.idle_ms,
            loop.idle_ms / ours.idle_ms,
            ours.idle_statements,
            loop.idle_statements,
        ),
        (
            "100 due",
            ours.busy_ms,
            loop.busy_ms,
            loop.busy_ms / ours.busy_ms,
            ours.busy_statements,
            loop.busy_statements,
        ),
    ]
    look = (size.schedules, size.pages, size.look_ms, size.longest_ms, size.slow_ms, size.verify_s)
    tick_heads = ("a tick", "scheduler ms", "loop ms", "ratio", "statements", "the loop's")
    look_heads = ("schedules", "pages a look", "look ms", "longest tick ms", "each 30 s ms", "at the start s")
    return f"{harness.table(tick_heads, ticks)}\n\n{harness.table(look_heads, [look])}\n"


def report_starts(starts: Mapping[str, Starts]) -> str:
    rows = [
        (f"{due}: {what}", one.planned, times.p50, times.p99, times.most, one.missed, one.twice)
        for due, one in starts.items()
        for what, times in (("enqueued", one.enqueued), ("started", one.started))
        if (due, what) != ("each second, workers idle", "started")  # they wait on purpose
    ]
    return harness.table(("due", "schedules", "p50 ms", "p99 ms", "max ms", "missed", "twice"), rows)


if __name__ == "__main__":
    sys.exit(main())
