"""Draw the graph of a workflow or of a run: as an SVG for pages, and as the text of a Mermaid diagram.

Every name is escaped: a tenant's own role can write the rows of its runs. The colours are classes of `admin.css`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenant_q.support.visible import visible
from tenant_q.workflows.layout import HEIGHT, Layout, Shape, layout
from tenant_q.workflows.plan import ALL_OK, ALWAYS, ANY_FAILED, ANY_OK, ON_END, Plan, PlanStep
from tenant_q.workflows.states import StepState

MOST_STEPS, MOST_EDGES = 1000, 5000
"""The most steps, and the most edges, of a graph that is drawn."""
LABELS: Mapping[str, Any] = {
    StepState.WAITING: gettext_lazy("waiting"),
    StepState.READY: gettext_lazy("ready"),
    StepState.PARKED: gettext_lazy("parked"),
    StepState.MAPPING: gettext_lazy("working on items"),
    StepState.SUCCEEDED: gettext_lazy("succeeded"),
    StepState.FAILED: gettext_lazy("failed"),
    StepState.SKIPPED: gettext_lazy("skipped"),
    StepState.CANCELLED: gettext_lazy("cancelled"),
}
"""The states of steps in words."""
_WHEN: Mapping[str, Any] = {
    ALL_OK: "",
    ANY_OK: gettext_lazy("runs if a step before it succeeded"),
    ANY_FAILED: gettext_lazy("runs if a step before it failed"),
    ALWAYS: gettext_lazy("runs whatever became of the steps before it"),
}
_PADDING = 12
_NAME, _WORDS = 7.9, 6.6  # pixels of a character of 13 px in a monospaced font, and of 11 px in another one
_NARROWEST, _WIDEST = 104, 244
_SHORT = 60


def svg(
    plan: Plan, states: Mapping[str, str] | None = None, notes: Mapping[str, str] | None = None, *, id: str = "graph"
) -> SafeString:
    """Return the graph of a plan as an SVG, to be used inside a page. An empty text if it is too large to be drawn.

    Args:
        plan: The plan.
        states: The states of the steps of a run, by name; None for a workflow that has none.
        notes: Words in place of a step's state, by name, such as "7 of 10, 1 failed".
        id: The start of the ids in the SVG.
    """
    steps, shape = _shape_of(plan)
    if len(steps) > MOST_STEPS or sum(map(len, shape)) > MOST_EDGES:
        return mark_safe("")
    states, notes = states or {}, notes or {}
    words = [str(notes.get(step.name) or LABELS.get(states.get(step.name, ""), "")) for step in steps]
    names = [_short(visible(step.name)) for step in steps]
    placed = layout(shape, _box_width(names, words))
    parts = [
        f'<svg class="tenant-q-graph" role="img" aria-labelledby="{escape(id)}-title {escape(id)}-desc" '
        f'width="{placed.width}" height="{placed.height}" viewBox="0 0 {placed.width} {placed.height}">',
        f'<title id="{escape(id)}-title">{escape(_("Graph of %(name)s") % {"name": visible(plan.workflow)})}</title>',
        f'<desc id="{escape(id)}-desc">{escape(_described(steps, states))}</desc>',
        *_edges(placed, steps),
    ]
    for step, name, said, (left, top) in zip(steps, names, words, placed.boxes, strict=True):
        state = states.get(step.name, "")
        parts.append(_box(step, name, said, state if state in LABELS else "", left, top, placed.box_width))
    return mark_safe("".join([*parts, "</svg>"]))


def mermaid(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """Return the graph of a plan as the text of a Mermaid flowchart.

    Args:
        plan: The plan.
        states: The states of the steps of a run, by name; None for a workflow that has none.
    """
    steps, shape = _shape_of(plan)
    states = states or {}
    lines = ["flowchart TD"]
    for number, step in enumerate(steps):
        state = states.get(step.name, "")
        label = _mermaid_text(step.name)
        if state in LABELS:
            lines.append(f'    n{number}["{label}<br/>{state}"]:::{state}')
        else:
            lines.append(f'    n{number}["{label}"]')
    for last, after in enumerate(shape):
        arrow = "-.->" if _is_last(steps[last]) else "-->"
        lines += [f"    n{first} {arrow} n{last}" for first in after]
    used = {state for step in steps if (state := states.get(step.name, "")) in LABELS}
    lines += [f"    classDef {state} {_MERMAID[state]}" for state in LABELS if state in used and state in _MERMAID]
    return "\n".join(lines) + "\n"


_MERMAID: Mapping[str, str] = {
    StepState.READY: "stroke:#417690,stroke-width:2px",
    StepState.PARKED: "stroke:#b37700,stroke-width:2px",
    StepState.MAPPING: "stroke:#417690,stroke-width:2px",
    StepState.SUCCEEDED: "stroke:#2f9e58,stroke-width:2px",
    StepState.FAILED: "stroke:#d9433b,stroke-width:2px",
    StepState.SKIPPED: "stroke-dasharray:4 3",
    StepState.CANCELLED: "stroke:#b37700,stroke-dasharray:4 3",
}


def _mermaid_text(text: str) -> str:
    return "".join(one if one.isalnum() or one in "_ .-" else f"#{ord(one)};" for one in visible(text))


def _shape_of(plan: Plan) -> tuple[list[PlanStep], Shape]:
    """Return the steps of a plan, and for each the numbers of those before it. The last step comes after all ends."""
    steps = list(plan.steps)
    place = {step.name: number for number, step in enumerate(steps)}
    shape = [tuple(place[name] for name in dict.fromkeys(step.after)) for step in steps]
    if plan.on_end is not None and ON_END not in place:
        inner = {number for after in shape for number in after}
        shape.append(tuple(number for number in range(len(steps)) if number not in inner))
        steps.append(PlanStep(ON_END, options=plan.on_end))
    return steps, tuple(shape)


def _is_last(step: PlanStep) -> bool:
    return step.name == ON_END


def _described(steps: Iterable[PlanStep], states: Mapping[str, str]) -> str:
    """Return a graph in words: how many steps are in which state."""
    names = [step.name for step in steps if not _is_last(step)]
    counts = Counter(states.get(name, "") for name in names)
    found = [f"{counts[state]} {label}" for state, label in LABELS.items() if counts[state]]
    return ", ".join([_("%(count)s steps") % {"count": len(names)}, *found])


def _box_width(names: Iterable[str], words: Iterable[str]) -> int:
    longest = max([_columns(name) * _NAME for name in names] + [_columns(text) * _WORDS for text in words], default=0)
    return 2 * round(min(max(longest + 2 * _PADDING, _NARROWEST), _WIDEST) / 2)


def _columns(text: str) -> int:
    """Return how many columns of a monospaced font a text takes."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _short(text: str) -> str:
    """Return a name that fits the widest box. One that is too long loses its middle: names often begin alike."""
    room = int((_WIDEST - 2 * _PADDING) / _NAME)
    if _columns(text) <= room:
        return text
    kept = min(len(text), room) - 1
    while _columns(text[: kept - kept // 2]) + _columns(text[len(text) - kept // 2 :]) > room - 1:
        kept -= 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _edges(placed: Layout, steps: list[PlanStep]) -> Iterable[str]:
    """Yield the edges of a graph, which are behind its boxes, and the head of an arrow where one or more arrive."""
    middle, arrived = placed.box_width // 2, set()
    for first, last, way in placed.edges:
        left, top = placed.boxes[first]
        x, y = left + middle, top + HEIGHT
        path = [f"M{x} {y}"]
        left, top = placed.boxes[last]
        for next_x, next_top in [*way, (left + middle, top - 4)]:
            half = (y + next_top) // 2
            path.append(f"C{x} {half} {next_x} {half} {next_x} {next_top}")
            x, y = next_x, next_top
            if next_top != top - 4:
                y += HEIGHT
                path.append(f"V{y}")
        kind = " tenant-q-edge-last" if _is_last(steps[last]) else ""
        yield f'<path class="tenant-q-edge{kind}" d="{"".join(path)}"/>'
        arrived.add((left + middle, top))
    for x, y in sorted(arrived):
        yield f'<path class="tenant-q-arrow" d="M{x - 5} {y - 8}L{x} {y - 1}L{x + 5} {y - 8}Z"/>'


def _box(step: PlanStep, name: str, said: str, state: str, left: int, top: int, width: int) -> str:
    """Return the box of a step. What does not fit in is cut off, whatever the font."""
    title = [visible(step.name), said, str(_WHEN.get(step.when, "")), _("optional") if step.optional else ""]
    kind = f"tenant-q-box tenant-q-is-{state or 'plain'}"
    below = f'<text class="tenant-q-words" x="{_PADDING}" y="36">{escape(said[:_SHORT])}</text>' if said else ""
    return (
        f'<svg class="{kind}" x="{left}" y="{top}" width="{width}" height="{HEIGHT}" overflow="hidden">'
        f"<title>{escape(': '.join(filter(None, title))[:1000])}</title>"
        f'<rect class="tenant-q-frame" x="1" y="1" width="{width - 2}" height="{HEIGHT - 2}" rx="4"/>'
        f'<rect class="tenant-q-mark" x="1" y="1" width="5" height="{HEIGHT - 2}" rx="2"/>'
        f'<text class="tenant-q-name" x="{_PADDING}" y="{20 if said else 27}">{escape(name)}</text>{below}</svg>'
    )
