"""What `make bench` tells: tables of medians, with the lowest and the highest of the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.contenders import DJANGO_Q2, Contender
from benchmarks.gauges import Cost
from benchmarks.harness import median

if TYPE_CHECKING:
    from benchmarks.workflows import Round as WorkflowRound

# The steps of a workflow.
STEPS = 4

Found = Mapping[str, Mapping[str, Sequence[Any]]]
Row = Sequence[Any]
QUESTIONS = ("after kill -9 of a worker", "result", "a late worker", "among tenants", "the schema")


def tables(
    compared: Sequence[Contender], found: Found, growth: Mapping[str, Any], rounds: Sequence[WorkflowRound] = ()
) -> str:
    parts = [
        ("Tasks a second, from the first saved row to the last", throughput),
        ("Enqueued a second; in bulk, Django-Q2 has a loop", enqueueing),
        (
            "Milliseconds from enqueueing to the start of the task; half load is half of what it runs or enqueues",
            latencies,
        ),
        ("A task's cost, all processes and both servers; its enqueueing is not in it", costs),
        ("Where the time of one worker goes, in microseconds a task, waiting for the servers included", steps),
        ("Memory of all processes of the cluster (PSS), and from its start to the first saved row", sizes),
    ]
    told = [f"{title}:\n{harness.table(*make(compared, found))}" for title, make in parts if make(compared, found)[1]]
    if rounds:
        told.append(
            "Workflows of tenant_q, diamonds of four no-op steps; milliseconds from start to end while idle:"
            f"\n{harness.table(*workflows(rounds))}"
        )
    told.append(f"What each guarantees:\n{guarantees(compared)}")
    if growth:
        told += [f"How it grows, {name}:\n{harness.table(*grown(points))}" for name, points in growth.items()]
    return "\n\n".join(told)


def throughput(compared: Sequence[Contender], found: Found) -> tuple[Row, Sequence[Row]]:
    kinds = ("no-op", "1 ms", "default")
    heads = ("contender", "tasks", "no-op", "min-max", "x", "1 ms", "min-max", "x", "default conn.", "min-max", "x")
    rows = [
        (one.title, _tasks(one, found), *(cell for kind in kinds for cell in _speed(one, found[kind], _per_s)))
        for one in compared
    ]
    return heads, rows


def enqueueing(compared: Sequence[Contender], found: Found) -> tuple[Row, Sequence[Row]]:
    rows = [
        (one.title, *_speed(one, found["single"], float), *_speed(one, found["bulk"], float))
        for one in compared
        if found["single"].get(one.key)
    ]
    return ("contender", "one by one", "min-max", "x", "in bulk", "min-max", "x"), rows


def latencies(compared: Sequence[Contender], found: Found) -> tuple[Row, Sequence[Row]]:
    heads = ("contender", "load", "tasks/s", "p50", "min-max", "p99", "min-max", "max", "sender p99")
    rows = []
    for one in compared:
        for kind in ("idle", "half load"):
            if seen := found[kind].get(one.key):
                p50, p99 = [late.p50 for late in seen], [late.p99 for late in seen]
                speed, most = median([late.per_s for late in seen]), max(late.most for late in seen)
                sender = median([late.sender_p99 for late in seen])
                rows.append((one.title, kind, speed, median(p50), _span(p50), median(p99), _span(p99), most, sender))
    return heads, rows


def costs(compared: Sequence[Contender], found: Found) -> tuple[Row, Sequence[Row]]:
    heads = ("contender", "CPU ms", "min-max", "Redis commands", "statements", "commits")
    rows = []
    for one in compared:
        used = cost_per_task(one, found)
        counted: Cost = found["counted"][one.key][0]
        cpu = [cost.cpu_ms for cost in used]
        commits = median([cost.commits for cost in used])
        words = [f"{value:.3f}" for value in (counted.redis_commands, counted.statements, commits)]
        rows.append((one.title, median(cpu), _span(cpu), *words))
    return heads, rows


def steps(compared: Sequence[Contender], found: Found) -> tuple[Row, Sequence[Row]]:
    taken = {one.title: found["steps"][one.key][0] for one in compared if found["steps"].get(one.key)}
    names = list(dict.fromkeys(step for seen in taken.values() for step in seen))
    rows = [(name, *(seen.get(name, 0.0) for seen in taken.values())) for name in names]
    return ("step", *taken), [*rows, ("together", *(sum(seen.values()) for seen in taken.values()))] if rows else []


def workflows(rounds: Sequence[WorkflowRound]) -> tuple[Row, Sequence[Row]]:
    per_s = [one.per_s for one in rounds]
    p50, p99 = [one.idle_p50 for one in rounds], [one.idle_p99 for one in rounds]
    heads = ("tenants", "workflows", "workflows/s", "min-max", "steps/s", "idle p50", "min-max", "idle p99", "min-max")
    figures = (median(per_s), _span(per_s), STEPS * median(per_s), median(p50), _span(p50), median(p99), _span(p99))
    return heads, [(rounds[0].tenants, rounds[0].runs, *figures)]


def cost_per_task(contender: Contender, found: Found) -> list[Cost]:
    """In each round: what the run of the no-op tasks cost beyond one with a single task."""
    pairs = zip(found["start"][contender.key], found["no-op"][contender.key], strict=True)
    return [(many.cost - few.cost) / (many.tasks - few.tasks) for few, many in pairs]


def sizes(compared: Sequence[Contender], found: Found) -> tuple[Row, Sequence[Row]]:
    rows = []
    for one in compared:
        idle = [run.memory_mb for run in found["start"][one.key]]
        busy = [run.memory_mb for run in found["no-op"][one.key]]
        first = [run.first_s for run in found["start"][one.key]]
        rows.append((one.title, *(cell for values in (idle, busy, first) for cell in (median(values), _span(values)))))
    return ("contender", "idle MB", "min-max", "after tasks MB", "min-max", "first task s", "min-max"), rows


def guarantees(compared: Sequence[Contender]) -> str:
    kinds = {one.kind: one for one in compared}
    return "\n".join(
        f"  {one.title.partition(',')[0]}: "
        + "; ".join(f"{asked}: {answer}" for asked, answer in zip(QUESTIONS, one.guarantees, strict=True))
        for one in kinds.values()
    )


def grown(points: Sequence[Mapping[str, Any]]) -> tuple[Row, Sequence[Row]]:
    heads = tuple(points[0])
    return heads, [tuple(point.values()) for point in points]


def write_into(path: Path, told: str) -> None:
    """Put the tables between the two marks of a page."""
    begin, end = "<!-- figures -->\n", "<!-- end of figures -->"
    page = path.read_text()
    head, _, rest = page.partition(begin)
    path.write_text(f"{head}{begin}\n```\n{told}\n```\n\n{end}{rest.partition(end)[2]}")


def as_json(compared: Sequence[Contender], found: Found) -> dict[str, Any]:
    """All that was measured, round by round."""
    return {
        one.key: {
            "title": one.title,
            "guarantees": dict(zip(QUESTIONS, one.guarantees, strict=True)),
            **{
                kind: [_plain(value) for value in values[one.key]]
                for kind, values in found.items()
                if one.key in values
            },
            "cost per task": [asdict(cost) for cost in cost_per_task(one, found)],
        }
        for one in compared
    }


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _per_s(run: Any) -> float:
    return float(run.tasks_per_s)


def _tasks(contender: Contender, found: Found) -> int:
    return int(found["no-op"][contender.key][0].tasks)


def _speed(contender: Contender, values: Mapping[str, Sequence[Any]], speed: Callable[[Any], float]) -> Row:
    """Median, span, and the ratio to Django-Q2."""
    if not (own := [speed(value) for value in values.get(contender.key, ())]):
        return ("", "", "")
    theirs = [speed(value) for value in values.get(DJANGO_Q2.key, ())]
    return (median(own), _span(own), f"{median(own) / median(theirs):.1f}" if theirs else "")


def _span(values: Sequence[float]) -> str:
    digits = 0 if max(values) >= 100 else 2
    return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}"
