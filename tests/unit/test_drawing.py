"""The graph of a workflow as a drawing: nothing overlaps, nothing is unescaped, and it is fast."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from time import process_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_q.workflows import layout as layouts
from tenant_q.workflows.drawing import LABELS, MOST_STEPS, mermaid, svg
from tenant_q.workflows.layout import HEIGHT, Shape, layout
from tenant_q.workflows.plan import Plan, PlanStep

SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def shapes(draw: st.DrawFn, most: int = 30) -> Shape:
    """Graphs in which each node depends on some before it."""
    count = draw(st.integers(1, most))
    return tuple(
        tuple(sorted(draw(st.sets(st.integers(0, number - 1), max_size=4)))) if number else ()
        for number in range(count)
    )


def plan_of(shape: Shape, names: list[str] | None = None, **more: Any) -> Plan:
    named = names or [f"step_{number}" for number in range(len(shape))]
    steps = (PlanStep(named[number], after=tuple(named[one] for one in after)) for number, after in enumerate(shape))
    return Plan("shop.workflows.order", tuple(steps), **more)


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def boxes_of(root: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """The left, top, right and bottom of each box."""
    found = []
    for box in root.iter(f"{SVG}svg"):
        if box is not root:
            left, top, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
            found.append((left, top, left + width, top + height))
    return found


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@given(shapes(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_boxes_overlap(shape: Shape, has_last: bool):
    root = drawn(svg(plan_of(shape, on_end={} if has_last else None), {"step_0": "failed"}))
    boxes = boxes_of(root)
    assert len(boxes) == len(shape) + has_last
    assert not [(one, other) for place, one in enumerate(boxes) for other in boxes[:place] if overlap(one, other)]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height for box in boxes)


@given(shapes())
@settings(max_examples=150, deadline=None)
def test_no_edge_passes_under_a_box(shape: Shape):
    placed = layout(shape, 120)
    for _first, _last, way in placed.edges:
        for x, top in way:
            for left, box_top in placed.boxes:
                assert box_top != top or not left <= x <= left + placed.box_width


@given(shapes())
@settings(max_examples=60, deadline=None)
def test_each_step_is_below_those_it_depends_on(shape: Shape):
    placed = layout(shape, 120)
    for node, after in enumerate(shape):
        wanted = max((placed.boxes[one][1] + HEIGHT for one in after), default=0)
        assert placed.boxes[node][1] > wanted or not after


def test_sorting_undoes_crossings():
    #    a  b  c            and their successors are declared in the opposite order
    shape: Shape = ((), (), (), (2,), (1,), (0,))
    graph = layouts._Graph(shape)
    assert layouts._crossings(graph, graph.layers()) == 3
    assert layouts._crossings(graph, layouts._with_few_crossings(graph)) == 0


@given(st.lists(st.text(min_size=1, max_size=120), min_size=3, max_size=3, unique=True))
@settings(max_examples=150, deadline=None)
def test_names_are_escaped_and_fit_their_boxes(names: list[str]):
    plan = plan_of(((), (0,), (0,)), names)
    root = drawn(svg(plan, {names[0]: "<script>", names[1]: "failed"}, {names[2]: "<b>7 of 10"}))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "title",
        "desc",
        "path",
        "rect",
        "text",
    }
    for box in root.iter(f"{SVG}svg"):
        if box is not root:
            name = box.find(f"{SVG}text[@class='tenant-q-name']")
            assert name is not None
            assert len(name.text or "") * 7.9 + 12 <= float(box.attrib["width"])


def test_long_names_that_begin_alike_stay_different():
    names = [f"a_name_that_is_longer_than_the_widest_box_{number}" for number in range(3)]
    shown = [name.text for name in drawn(svg(plan_of(((), (), ()), names))).iter(f"{SVG}text")]
    assert len(set(shown)) == 3
    assert all("…" in str(name) for name in shown)


def test_colour_and_words_say_the_state():
    plan = plan_of(tuple(() for _ in LABELS))
    states = {f"step_{number}": state for number, state in enumerate(LABELS)}
    text = svg(plan, states, {"step_3": "7 of 10, 1 failed"})
    for state, label in LABELS.items():
        assert f"tenant-q-is-{state}" in text
        assert f">{label}</text>" in text or state == "mapping"
    assert ">7 of 10, 1 failed</text>" in text
    assert 'role="img"' in text
    assert ">8 steps, 1 waiting, 1 ready" in text


def test_a_graph_of_50_steps_takes_less_than_200_ms():
    shape = tuple(tuple({max(0, number - 1 - number % 7), number // 2}) if number else () for number in range(50))
    layouts.layout.cache_clear()
    begun = process_time()
    svg(plan_of(shape, on_end={}))
    assert process_time() - begun < 0.2


def test_a_graph_with_very_many_long_edges_is_drawn_without_places_for_them():
    shape = tuple(tuple({0, number - 1}) if number else () for number in range(500))
    root = drawn(svg(plan_of(shape)))
    tops = [box[1] for box in boxes_of(root)]
    assert all(one < other for one, other in pairwise(tops))


def test_a_plan_larger_than_any_declared_one_is_not_drawn():
    assert svg(plan_of(tuple(() for _ in range(MOST_STEPS + 1)))) == ""


def test_mermaid():
    plan = plan_of(((), (0,), (0,)), ["fetch", "book", 'say("hi")\n; drop'], on_end={})
    text = mermaid(plan, {"fetch": "succeeded", "book": "failed", 'say("hi")\n; drop': "no state"})
    lines = text.splitlines()
    assert lines[0] == "flowchart TD"
    assert '    n0["fetch<br/>succeeded"]:::succeeded' in lines
    assert "    n0 --> n1" in lines
    assert "    n2 -.-> n3" in lines
    (hostile,) = [line for line in lines if "drop" in line]
    assert re.fullmatch(r'    n2\["[\w #;.-]*"\]', hostile)
