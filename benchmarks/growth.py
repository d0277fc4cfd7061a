"""How tenant_q's speed grows with tenants, backlog and the size of results, as figures and as pictures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import contenders
from benchmarks.contenders import Contender
from benchmarks.harness import ROOT, median
from benchmarks.runs import Run, run

if TYPE_CHECKING:
    from servers import Servers

PICTURES = ROOT / "docs" / "explanation" / "img"
# All results of a run are this many bytes at most.
MOST_BYTES = 200_000_000
WIDTH, HEIGHT, MARGIN = 640, 320, 60

Point = dict[str, Any]
Step = Callable[[str, Callable[[], Run]], Run]


def measure(
    servers: Servers, options: argparse.Namespace, compared: Sequence[Contender], others: Sequence[Run], step: Step
) -> dict[str, list[Point]]:
    """The three series, and their pictures.

    Parameters: `compared`, whose databases are there already; `others`, runs of Django-Q2 to be shown beside.
    """
    made = {one.key: one for one in compared}

    def with_tenants(count: int) -> Contender:
        one = contenders.tenant_q(count)
        if one.key not in made:
            made[one.key] = one
            one.prepare()
        return made[one.key]

    def run_with(tenants: int, job: str, tasks: int, *args: int) -> Run:
        return run(with_tenants(tenants), servers, job, tasks, *args)

    middle = sorted(options.tenants)[len(options.tenants) // 2]
    plans: dict[str, list[tuple[int, Callable[[], Run]]]] = {
        "tenants": [(count, partial(run_with, count, "nothing", options.tasks)) for count in options.growth_tenants],
        "backlog": [(count, partial(run_with, middle, "nothing", count)) for count in options.growth_backlog],
        "result bytes": [
            (size, partial(run_with, middle, "sized", fewer(options.tasks, size), size))
            for size in options.growth_results
        ],
    }
    speeds: dict[str, dict[int, list[Run]]] = {name: {x: [] for x, _ in plan} for name, plan in plans.items()}
    for _ in range(options.rounds):
        for name, plan in plans.items():
            for x, act in plan:
                speeds[name][x].append(step(f"tenant_q, {x:,} {name}", act))
    found = {name: [_point(name, x, runs) for x, runs in by_x.items()] for name, by_x in speeds.items()}
    beside = median([one.tasks_per_s for one in others]) if others else None
    if not options.quick:
        PICTURES.mkdir(parents=True, exist_ok=True)
        for name, points in found.items():
            path = PICTURES / f"growth-{name.replace(' ', '-')}.svg"
            path.write_text(picture(f"tasks a second by {name}", name, points, beside))
    return found


def fewer(tasks: int, size: int) -> int:
    return max(100, min(tasks, MOST_BYTES // size))


def _point(name: str, x: int, runs: Sequence[Run]) -> Point:
    speeds = [one.tasks_per_s for one in runs]
    return {name: x, "tasks": runs[0].tasks, "tasks/s": median(speeds), "min": min(speeds), "max": max(speeds)}


# Pictures


def picture(title: str, name: str, points: Sequence[Point], beside: float | None = None) -> str:
    """A line of medians with the span of each point, over a logarithmic scale; `beside` is a dashed line."""
    low, high = math.log10(points[0][name]), math.log10(points[-1][name])
    top: float = 1.1 * max(*(point["max"] for point in points), beside or 0)

    def across(value: float) -> float:
        return MARGIN + (math.log10(value) - low) / ((high - low) or 1) * (WIDTH - 2 * MARGIN)

    def up(value: float) -> float:
        return HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN)

    parts = [_text(WIDTH / 2, 30, title, "middle")]
    for value in _ticks(top):
        parts += [_line(MARGIN, up(value), WIDTH - MARGIN, up(value), "#ccc")]
        parts += [_text(MARGIN - 8, up(value) + 4, f"{value:,.0f}", "end")]
    for point in points:
        x = across(point[name])
        parts += [_line(x, up(point["min"]), x, up(point["max"]), "#16a")]
        parts += [f'<circle cx="{x:.1f}" cy="{up(point["tasks/s"]):.1f}" r="4" fill="#16a"/>']
        parts += [_text(x, HEIGHT - MARGIN + 20, f"{point[name]:,}", "middle")]
    places = " ".join(f"{across(point[name]):.1f},{up(point['tasks/s']):.1f}" for point in points)
    parts += [f'<polyline points="{places}" fill="none" stroke="#16a" stroke-width="2"/>']
    parts += [_text(WIDTH / 2, HEIGHT - 15, name, "middle")]
    if beside:
        parts += [_line(MARGIN, up(beside), WIDTH - MARGIN, up(beside), "#b40", 'stroke-dasharray="6 4"')]
        parts += [_text(MARGIN + 4, up(beside) - 6, "Django-Q2, no-op tasks", "start")]
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    look = 'font-family="sans-serif" font-size="13"'
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>', back, *parts, "</svg>", ""])


def _ticks(top: float) -> list[float]:
    """Round numbers, four to eight of them."""
    step = 10 ** math.floor(math.log10(top))
    while top / step < 4:
        step /= 2
    return [number * step for number in range(int(top / step) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, color: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" {more}/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
