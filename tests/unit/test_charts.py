"""Charts: what is drawn is what the numbers say, a gap stays a gap, and every text is escaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from django.template.loader import render_to_string
from hypothesis import given
from hypothesis import strategies as st

from tenant_q.admin.chart_scales import HEIGHT, count_scale, time_scale
from tenant_q.admin.charts import Axis, Chart, Series, bars, steps

SVG = "{http://www.w3.org/2000/svg}"
NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC
AXIS = Axis.of(NOON, 4, 300)


def shown(chart: Chart) -> str:
    return render_to_string("tenant_q/admin/chart.html", {"chart": chart})


def drawn(chart: Chart) -> ElementTree.Element:
    text = re.search(r"<svg .*</svg>", shown(chart), re.DOTALL)
    assert text
    return ElementTree.fromstring(text[0].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.fixture(autouse=True)
def in_utc(settings: Any) -> None:
    settings.TIME_ZONE = "UTC"


@given(st.floats(0, 1e12))
def test_a_scale_holds_its_largest_value_and_wastes_little(largest: float):
    for scale, least in ((count_scale(largest), 1), (time_scale(largest), 0.002)):
        assert scale.top >= largest
        assert scale.top == least or scale.top <= 4 * largest


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (0, ["0.5", "1"]),
        (3, ["2", "4"]),
        (7, ["4", "8"]),
        (70, ["40", "80"]),
        (11, ["6", "12"]),
        (1500, ["800", "1,600"]),
        (35_000, ["20k", "40k"]),
    ],
)
def test_the_lines_of_counts(largest: float, labels: list[str]):
    scale = count_scale(largest)
    assert [scale.mark(part * scale.top) for part in (0.5, 1)] == labels


def test_the_lines_of_durations():
    scale = time_scale(25.0)
    assert [scale.mark(part * scale.top) for part in (0.5, 1)] == ["20 s", "40 s"]


def test_bars_are_stacked():
    chart = bars("c", "Tasks", AXIS, Series("done", "done", [4, 0, 2, 1]), Series("failed", "bad", [4, 0, 0, 3]))
    done, failed = (shape.path for shape in chart.shapes)
    assert done == "M1 1000V500h8V1000zM21 1000V750h8V1000zM31 1000V875h8V1000z"
    assert failed == "M1 500V0h8V500zM31 875V500h8V875z"


def test_a_gap_is_not_drawn():
    chart = steps("c", "Wait", AXIS, time_scale(0.002), Series("p50", "main", [0.001, None, 0.002, 0.001]))
    fill, line = (shape.path for shape in chart.shapes)
    assert line == "M0 500V500H10M20 0V0H30V500H40"
    assert fill == f"M0 {HEIGHT}V500H10V{HEIGHT}zM20 {HEIGHT}V0H30V500H40V{HEIGHT}z"
    assert re.findall(r'<rect x="(\d+)"', chart.zones) == ["0", "20", "30"], "a period without a value says nothing"


def test_the_table_has_the_latest_period_first_and_links_what_is_counted():
    counts = Series("failed", "bad", [0, None, 2, 3], lambda number: f"/failed/{number}/")
    table = re.findall("<tr>(.*)</tr>", bars("c", "Tasks", AXIS, counts).rows)
    assert [re.sub("<[^a/][^>]*>", " ", row).split() for row in table] == [
        ["12:15\N{EN DASH}12:20</th>", "<a", 'href="/failed/3/">3</a></td>'],
        ["12:10\N{EN DASH}12:15</th>", "<a", 'href="/failed/2/">2</a></td>'],
        ["12:00\N{EN DASH}12:05</th>", "0</td>"],
    ]


def test_the_time_axis_is_labelled_by_the_clock():
    hour = bars("c", "Tasks", Axis.of(NOON - 600, 12, 300), Series("done", "done", [0] * 12))
    assert [tick.text for tick in hour.ticks] == ["12:00", "12:15", "12:30", "12:45"]
    day = bars("c", "Tasks", Axis.of(NOON + 300, 288, 300), Series("done", "done", [0] * 288))
    assert [tick.text for tick in day.ticks] == ["18:00", "00:00", "06:00", "12:00"]
    assert day.ticks[-1].anchor == "end", "it does not leave the page"


def test_a_chart_says_its_values_to_who_cannot_see_it():
    chart = bars("c", "Tasks", AXIS, Series("done", "done", [4, 9, 2, 1]), Series("failed", "bad", [0, 0, 0, 0]))
    svg = drawn(chart)
    title, description = svg.find(f"{SVG}title"), svg.find(f"{SVG}desc")
    assert title is not None and description is not None
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert description.text == "done: 1 in the latest period, 9 at most; failed: 0 in the latest period, 0 at most"
    empty = drawn(steps("c", "Wait", AXIS, time_scale(None), Series("p50", "main", [None] * 4)))
    assert empty.findtext(f"{SVG}desc") == "Nothing is known of these periods."


def test_every_text_is_escaped():
    page = shown(bars("c", "<b>", AXIS, Series("<i>", "done", [1] * 4), Series('"', "bad", [1] * 4)))
    assert "<b>" not in page and "<i>" not in page
    assert "&lt;b&gt;" in page and "&lt;i&gt;" in page


def test_numbers_in_the_drawing_are_not_localized(settings: Any):
    """A decimal comma would break the drawing."""
    settings.LANGUAGE_CODE = "de"
    page = shown(bars("c", "Tasks", Axis.of(NOON, 288, 300), Series("done", "done", [1234] * 288)))
    assert 'viewBox="0 0 2880 1000"' in page
    assert not re.search(r'(x|y|y1|x1)="[\d.]*,', page)
