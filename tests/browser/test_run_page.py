"""The page of a workflow run in a real browser: readable in both schemes and at both widths, and refreshed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from tenant_q.tenancy import in_schema
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tenant_q.workflows.plan import Plan, PlanStep
from tenant_q.workflows.states import StepState
from tests.runs import delete_runs, make_run

A = "acme_corp"
WIDTHS = {"phone": 390, "desktop": 1280}
WIDE = Plan(
    "shop.workflows.wide",
    (
        PlanStep("begin"),
        *(PlanStep(f"a_rather_long_name_of_step_{n}", after=("begin",)) for n in range(8)),
        PlanStep("join", after=tuple(f"a_rather_long_name_of_step_{n}" for n in range(8))),
    ),
    on_end={},
)
OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll(".tenant-q-box")].map(box => box.getBoundingClientRect());
  const crosses = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const pairs = boxes.flatMap((a, i) => boxes.slice(0, i).filter(b => crosses(a, b)));
  const outside = [...document.querySelectorAll(".tenant-q-box")].flatMap(box =>
    [...box.querySelectorAll("text")].filter(text => text.getBoundingClientRect().right
      > box.querySelector("rect").getBoundingClientRect().right).map(text => text.textContent));
  return pairs.length + outside.length;
}"""
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(one => one / 255).map(
      one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll(".tenant-q-box text")].map(text => {
    const [a, b] = [text, text.parentNode.querySelector("rect")].map(
      one => luminance(getComputedStyle(one).fill)).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    delete_runs(A)


def is_icon(said: Any) -> bool:
    """The test project has no icon for browsers."""
    return str(said.location["url"]).endswith("/favicon.ico")


def page_of(run: WorkflowRun) -> str:
    return f"/admin/tenant_q_workflows/workflowrun/{run.pk}/change/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_run_is_readable(visit, scheme: str, width: int):
    states = {f"a_rather_long_name_of_step_{number}": state for number, state in enumerate(StepState)}
    run = make_run(A, WIDE, states, key="k" * 200, error="e" * 300)
    page = visit(A, page_of(run))
    problems: list[str] = []
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" and not is_icon(said) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.reload()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    frame = page.locator(".tenant-q-graph-frame")
    assert frame.evaluate("frame => frame.scrollWidth > frame.clientWidth")  # a wide graph scrolls in its frame
    assert page.locator(".tenant-q-name").first.evaluate("name => name.getBoundingClientRect().height") >= 13
    assert page.evaluate(OVERLAPS) == 0
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    assert problems == []


def test_the_page_follows_a_run_until_it_has_ended(visit):
    run = make_run(A, WIDE, {"begin": "ready"})
    page = visit(A, page_of(run))
    frame = page.locator(".tenant-q-graph-frame")
    page.set_viewport_size({"width": 390, "height": 900})
    frame.evaluate("frame => { frame.scrollLeft = 20; }")
    with in_schema(A):
        WorkflowStep.objects.filter(run=run.pk, name="begin").update(state="succeeded")
    page.wait_for_selector(".tenant-q-is-succeeded .tenant-q-name >> text=begin")
    assert frame.evaluate("frame => frame.scrollLeft") == 20
    with in_schema(A):
        WorkflowRun.objects.update(state="failed", ended=run.created)
    page.wait_for_selector("[data-live-ended]", state="attached")
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request))
    page.wait_for_timeout(3500)
    assert asked == []


def test_a_run_is_resumed_after_its_preview(visit):
    states = {"reserve": "succeeded", "charge": "failed", "pick": "succeeded"}
    run = make_run(A, states=states, state="failed")
    page = visit(A, page_of(run))
    page.click("text=Resume…")
    assert "ship" in page.locator("#content ol").inner_text()
    page.click("text=Yes, resume it")
    page.wait_for_selector("text=The run was resumed.")
