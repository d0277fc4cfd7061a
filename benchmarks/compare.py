"""`make bench`: tenant_q beside Django-Q2, and beside Celery and dramatiq where `make bench-peers` installed them.

All have the same servers, the same number of workers, the same tasks and a database of their own, and keep every result
in it. They run in turns, and the figure is the median of the rounds. Tasks are enqueued before the workers start.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks import contenders, gauges, harness, isolation, report, workflows
from benchmarks.contenders import DJANGO_Q2, Contender
from benchmarks.harness import BenchmarkError, median
from benchmarks.runs import latency, run

if TYPE_CHECKING:
    from servers import Servers

T = TypeVar("T")

RESULTS = Path(__file__).with_name("results.json")
DOC = harness.ROOT / "docs" / "explanation" / "performance.md"
QUICK = {
    "tasks": 1000,
    "rounds": 1,
    "tenants": [1, 20],
    "default_tasks": 200,
    "singles": 500,
    "bulk": 5000,
    "counted": 500,
    "seconds": 1,
    "growth_tenants": [1, 10],
    "growth_backlog": [200, 2000],
    "growth_results": [10, 1000],
    "peers": False,
    "peer_tasks": 200,
    "workflow_runs": 100,
    "workflow_tenants": 20,
    "isolation_tasks": 2000,
}
# A second while nothing else is to do.
IDLE_RATE = 20.0

# By kind of figure, then by contender: one value a round.
Found = dict[str, dict[str, list[Any]]]


def main() -> int:
    options = parse()
    found: Found = defaultdict(lambda: defaultdict(list))
    growth: dict[str, Any] = {}
    try:
        with harness.project(durable=options.durable) as servers:
            around = harness.surroundings()
            around["versions"] |= contenders.peer_versions() if options.peers else {}
            print(harness.told(around), flush=True)
            _close_connections()
            gauges.enable_statements(servers)
            compared = choose(options)
            contest = Contest(compared, found)
            contest.each(lambda one: step(f"{one.title} is prepared", one.prepare))
            for number in range(options.rounds):
                say(f"Round {number + 1} of {options.rounds}")
                contest.each(lambda one: measure(one, servers, options, found))
            for number in range(options.rounds):
                say(f"Latency, round {number + 1} of {options.rounds}")
                contest.each(lambda one: measure_latency(one, servers, options, found), late_ones(compared, options))
            contest.each(lambda one: step(f"{one.title}, counted", lambda: count(one, servers, options, found)))
            if options.growth and compared:
                from benchmarks import growth as growing

                growth = growing.measure(servers, options, compared, found["no-op"].get(DJANGO_Q2.key, []), step)
            # Last: it makes tenants in the database that the others copy.
            flows = contest.attempt("Workflows", lambda: measure_workflows(options)) if options.workflow_runs else None
        modes = contest.attempt("Isolation", lambda: measure_isolation(options)) if options.isolation_tasks else None
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    told = report.tables(compared, found, growth, flows or ()) if compared else "No contender came to an end."
    if modes:
        told += f"\n\n{isolation.TITLE}:\n{isolation.told(modes)}"
    print(told)
    for title, reason in contest.failed.items():
        print(f"Error: {title} is left out: {reason}", file=sys.stderr)
    if options.doc and not contest.failed:
        report.write_into(DOC, f"{harness.told(around)}\n\n{told}")
    chosen = {name: value for name, value in vars(options).items() if name != "json"}
    figures: dict[str, Any] = {"options": chosen, "figures": report.as_json(compared, found), "growth": growth}
    figures |= {"workflows": [asdict(one) for one in flows or ()], "isolation": [asdict(one) for one in modes or ()]}
    harness.write_json(options.json, around | figures | {"failed": contest.failed})
    return 1 if contest.failed else 0


class Contest:
    """The contenders that are still in it. One that fails is left out, with all of its figures; the others go on.

    Parameters: `compared`, the contenders, of which those that fail are taken out; `found`, their figures.
    """

    def __init__(self, compared: list[Contender], found: Found) -> None:
        self.compared = compared
        self.found = found
        self.failed: dict[str, str] = {}

    def each(self, act: Callable[[Contender], Any], some: Sequence[Contender] | None = None) -> None:
        """Do something with each that is still in it, or with some of them."""
        for contender in list(self.compared if some is None else some):
            try:
                act(contender)
            except Exception as error:  # whatever it is, the others' figures are good
                self.failed[contender.title] = f"{type(error).__name__}: {error}"
                self.compared.remove(contender)
                for values in self.found.values():
                    values.pop(contender.key, None)
                say(f"{contender.title} is left out: {error}")

    def attempt(self, title: str, act: Callable[[], T]) -> T | None:
        """Measure what is beside the contenders. It is left out if it fails."""
        try:
            return act()
        except Exception as error:  # as above
            self.failed[title] = f"{type(error).__name__}: {error}"
            say(f"{title}: left out: {error}")
            return None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--tasks", default=20_000, **number, help="of each kind, in each round")
    parser.add_argument("--rounds", default=5, **number, help="how often all contenders have their turn")
    parser.add_argument("--tenants", nargs="+", default=[1, 100, 1000], **number, help="of tenant_q, in turns too")
    parser.add_argument("--default-tasks", default=2000, **number, help="where each task connects anew, which is slow")
    parser.add_argument("--peer-tasks", default=20_000, **number, help="of Celery and dramatiq")
    parser.add_argument("--singles", default=5000, **number, help="that are enqueued one by one")
    parser.add_argument("--bulk", default=20_000, **number, help="that are enqueued in bulk")
    parser.add_argument("--counted", default=5000, **number, help="whose statements and commands are counted")
    parser.add_argument("--seconds", default=15, **number, help="for how long latency is measured")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="these contenders, as tenant_q_100 or django_q2")
    yes_or_no = argparse.BooleanOptionalAction
    parser.add_argument("--peers", default=True, action=yes_or_no, help="Celery and dramatiq too, if installed")
    parser.add_argument("--workflow-runs", default=1000, **number, help="in each round; 0 leaves workflows out")
    parser.add_argument("--workflow-tenants", default=100, **number, help="of these runs")
    parser.add_argument("--isolation-tasks", default=8000, **number, help="of each mode; 0 leaves the modes out")
    parser.add_argument("--durable", action="store_true", help="servers that wait for the disk")
    parser.add_argument("--growth", action="store_true", help="also with tenants, backlog and result size, as pictures")
    parser.add_argument("--growth-tenants", nargs="+", default=[1, 10, 100, 1000], **number)
    parser.add_argument("--growth-backlog", nargs="+", default=[1000, 10_000, 100_000], **number)
    parser.add_argument("--growth-results", nargs="+", default=[10, 1000, 100_000], **number, help="bytes")
    parser.add_argument("--doc", action="store_true", help="write what is printed into docs/explanation too")
    parser.add_argument("--quick", action="store_true", help="everything small and without peers, in about a minute")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where the figures are written")
    options = parser.parse_args()
    if options.quick:
        parser.set_defaults(**QUICK)
        options = parser.parse_args()
    return options


def choose(options: argparse.Namespace) -> list[Contender]:
    found = [contenders.tenant_q(count) for count in options.tenants] + [DJANGO_Q2]
    if options.peers:
        found += contenders.peers(middle(options))
    if options.only:
        found = [one for one in found if one.key in options.only]
    if not found:
        raise BenchmarkError(f"No contender has one of the names {', '.join(options.only)}.")
    return found


def middle(options: argparse.Namespace) -> int:
    return int(sorted(options.tenants)[len(options.tenants) // 2])


def late_ones(compared: list[Contender], options: argparse.Namespace) -> list[Contender]:
    """Those whose latency is measured: Django-Q2 has one schema, so tenant_q with one tenant is like it."""
    keys = (*(contenders.tenant_q(count).key for count in (1, middle(options))), DJANGO_Q2.key)
    return [one for one in compared if one.key in keys]


def measure(contender: Contender, servers: Servers, options: argparse.Namespace, found: Found) -> None:
    """One round."""
    is_peer = contender.kind in ("celery", "dramatiq")
    tasks = options.peer_tasks if is_peer else options.tasks

    def keep(kind: str, act: Callable[[], Any]) -> None:
        found[kind][contender.key].append(step(f"{contender.title}, {kind}", act))

    keep("start", lambda: run(contender, servers, "nothing", 1))
    keep("no-op", lambda: run(contender, servers, "nothing", tasks))
    keep("1 ms", lambda: run(contender, servers, "one_ms", tasks))
    if contender.tenants in (0, middle(options)):
        fewer = tasks if contender.keeps_connections else min(tasks, options.default_tasks)
        keep("default", lambda: run(contender, servers, "nothing", fewer, CONN_MAX_AGE="0"))
        keep("single", lambda: contender.act("single", options.singles))
        if not is_peer:
            fewer = options.bulk if contender.kind == "tenant_q" else options.singles
            keep("bulk", lambda: contender.act("bulk", fewer))
    contender.clear()


def measure_latency(contender: Contender, servers: Servers, options: argparse.Namespace, found: Found) -> None:
    # The sender has its share of the same processors, so that what it can send is a limit too.
    run_per_s = median([one.tasks_per_s for one in found["no-op"][contender.key]])
    singles = found["single"].get(contender.key) or found["single"].get(contenders.tenant_q(middle(options)).key)
    half = min(run_per_s, median(singles) if singles else run_per_s) / 2
    for kind, what, rate in (("idle", "trickle", IDLE_RATE), ("half load", "stream", half)):
        found[kind][contender.key].append(
            step(
                f"{contender.title}, {kind}",
                partial(latency, contender, servers, what, rate, options.seconds),
            )
        )


def count(contender: Contender, servers: Servers, options: argparse.Namespace, found: Found) -> None:
    few = run(contender, servers, "nothing", 1, counted=True)
    many = run(contender, servers, "nothing", options.counted, counted=True)
    found["counted"][contender.key].append((many.cost - few.cost) / (options.counted - 1))
    if contender.kind == "tenant_q":
        found["steps"][contender.key].append(steps(contender, options.counted))


def measure_workflows(options: argparse.Namespace) -> list[workflows.Round]:
    names = workflows.prepare(options.workflow_tenants)
    return [
        step("Workflows", lambda: workflows.measure(names, options.workflow_runs, options.seconds))
        for _ in range(options.rounds)
    ]


def measure_isolation(options: argparse.Namespace) -> list[isolation.Speed]:
    return step("Isolation", lambda: isolation.measure(options.tenants, options.isolation_tasks, options.rounds))


def steps(contender: Contender, tasks: int) -> dict[str, float]:
    """Where one worker's time goes, in microseconds a task."""
    contender.clear()
    contender.act("queue", "nothing", tasks)
    taken: dict[str, float] = contender.act(tasks, module="benchmarks.steps")
    return taken


def _close_connections() -> None:
    """The test project's database is copied, which nobody may use meanwhile."""
    from django.db import connections

    connections.close_all()


def step(what: str, act: Callable[[], T]) -> T:
    begun = time.monotonic()
    result = act()
    say(f"{what}: {time.monotonic() - begun:.1f} s")
    return result


def say(text: str) -> None:
    print(f"{text}.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
