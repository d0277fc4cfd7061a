"""`make bench-scheduler`: what a look at ten thousand tenants' schedules costs, and how late a schedule starts.

Each number of tenants is measured in rounds, and each round alternates between the scheduler and a loop over all
schemas as the package of 2020 makes it, on the same tables; what is told is the median of the rounds. Lateness is that
of a real `mscluster`, from the planned moment until the broker has the task, and until a worker runs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

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
            sizes, lateness, bursts = measure(options)
        print(report(sizes, lateness, bursts))
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    figures = {"ticks": [asdict(one) for one in sizes], "lateness": [asdict(one) for one in lateness]}
    figures |= {"bursts": [asdict(one) for one in bursts]}
    harness.write_json(options.json, around | {"options": vars(options)} | figures)
    return 1 if any(one.missed or one.twice for one in (*lateness, *bursts)) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scheduler", description=__doc__.partition("\n")[0])
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--tenants", nargs="+", default=[1000, 10000], **number, help="how many, one after another")
    parser.add_argument("--rounds", default=5, **number, help="how often each tick is measured")
    parser.add_argument("--seconds", default=60, **number, help="for how long schedules are due each second")
    parser.add_argument("--per-second", default=100, **number, help="how many are due each second")
    parser.add_argument("--burst", default=10000, **number, help="how many are due at once")
    parser.add_argument("--workers", default=2, **number, help="of the cluster that starts them")
    parser.add_argument("--patience", default=120, **number, help="how many seconds late a task is given up")
    parser.add_argument("--no-sync", action="store_true", help="servers that do not wait for the disk")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where the figures are written")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> tuple[list[Size], list[Starts], list[Starts]]:
    from benchmarks import scheduler_ticks

    names: list[str] = []
    sizes: list[Size] = []
    lateness: list[Starts] = []
    bursts: list[Starts] = []
    for count in sorted(options.tenants):
        begun = time.monotonic()
        more = harness.tenant_names(count)[len(names) :]
        scheduler_ticks.make_tenants(more)
        names += more
        say(f"{count} tenants are there after {time.monotonic() - begun:.0f} s")
        sizes.append(scheduler_ticks.measure(names, options.rounds))
        say("Ticks are measured")
        late, burst = measure_cluster(names, options)
        lateness.append(late)
        bursts += [burst] if burst else []
    return sizes, lateness, bursts


def measure_cluster(names: Sequence[str], options: argparse.Namespace) -> tuple[Starts, Starts | None]:
    """Lateness, and the burst where there are not too many tenants, of a cluster that has looked at the whole index."""
    from benchmarks import scheduler_starts as starts
    from tenant_q import brokers

    brokers.get_broker().purge()
    burst = None
    with harness.cluster(options.workers) as running:
        harness.wait_until(lambda: "The due index is verified" in running.log, 300, "that the index is verified")
        start = starts.soon(options.seconds * options.per_second)
        planned = list(starts.each_second(names, start, options.seconds, options.per_second))
        late = starts.measure(names, planned, options.patience)
        say("Lateness is measured")
        if len(names) <= BURST_TENANTS:
            planned = list(starts.at_once(names, starts.soon(options.burst), options.burst))
            burst = starts.measure(names, planned, options.patience)
            say("The burst is measured")
    return late, burst


def report(sizes: Sequence[Size], lateness: Sequence[Starts], bursts: Sequence[Starts]) -> str:
    kinds = (("nothing due", "idle"), ("100 due", "busy"))
    ticks = [
        (
            f"{size.tenants:,}, {words}",
            ours := getattr(size.scheduler, f"{kind}_ms"),
            theirs := getattr(size.loop, f"{kind}_ms"),
            theirs / ours,
            getattr(size.scheduler, f"{kind}_statements"),
            getattr(size.loop, f"{kind}_statements"),
        )
        for size in sizes
        for words, kind in kinds
    ]
    looks = [
        (f"{one.tenants:,}", one.schedules, one.pages, one.look_ms, one.longest_ms, one.slow_ms, one.verify_s)
        for one in sizes
    ]
    starts = [
        (f"{one.tenants:,}, {words}, {what}", one.planned, late.p50, late.p99, late.most, one.missed, one.twice)
        for words, found in (("each second", lateness), ("at once", bursts))
        for one in found
        for what, late in (("enqueued", one.enqueued), ("started", one.started))
    ]
    tick_heads = ("tenants", "tick ms", "loop ms", "ratio", "statements", "loop's")
    look_heads = ("tenants", "schedules", "pages", "look ms", "longest tick ms", "each 30 s ms", "first check s")
    start_heads = ("tenants, due", "schedules", "p50 ms", "p99 ms", "max ms", "missed", "twice")
    return "\n\n".join(
        (
            "A tick, and a pass of a loop over all schemas:\n" + harness.table(tick_heads, ticks),
            "The look of an idle tick, and what is done beside:\n" + harness.table(look_heads, looks),
            "From the planned moment until the broker has the task, and until a worker runs it:\n"
            + harness.table(start_heads, starts),
        )
    )


def say(text: str) -> None:
    print(f"{text}.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
