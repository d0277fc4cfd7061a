"""The overview in a browser: it fits a desktop's page and a phone's, and its numbers follow what happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message, Settled
from tenant_q.models import DueSchedule
from tenant_q.schedules import index_upkeep
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities

A = "acme_corp"
LONG = "shop.tasks." + "x" * 89
OUTSIDE = """() => [...document.querySelectorAll(".tenant-q-overview *")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width > 1 && !one.closest(".visually-hidden") && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => `${one.tagName} ${one.className.baseVal ?? one.className}: ${one.textContent.slice(0, 40)}`)"""


@pytest.fixture(autouse=True)
def busy(tenants: tuple[str, ...]) -> Iterator[None]:
    """A tenant with tasks of functions with long names, and a schedule with a long one."""
    broker = get_broker()
    broker.enqueue([Message(id=f"t{n}", schema=A, func=f"{LONG[:-1]}{n}", payload="p") for n in range(6)])
    for n in range(6):
        (lease,) = broker.fetch("w").leases
        broker.acknowledge("w", [Settled(lease, 10.0**-n, failed=n == 3)])
    with in_schema(A):
        Schedule.objects.create(name=LONG, func=LONG, schedule_type=Schedule.DAILY, next_run=timezone.now())
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())
    yield
    connection.set_schema_to_public()
    DueSchedule.objects.all().delete()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_overview_fits(visit: Any, width: int, scheme: Any):
    for schema, paths in (("public", ("siteoverview/?hours=24", "siteoverview/", "")), (A, ("overview/?hours=24", ""))):
        page = visit(schema, f"/admin/tenant_q/{paths[0]}")
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        for path in paths:
            page.goto(page.url.partition("/admin/")[0] + f"/admin/tenant_q/{path}")
            assert page.locator(".tenant-q-plot").count() == 5
            for summary in page.locator(".tenant-q-chart summary").all():
                summary.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (schema, path)
            assert page.evaluate(OUTSIDE) == [], (schema, path)
            heights = page.eval_on_selector_all(
                ".tenant-q-tick", "all => all.map(one => one.getBoundingClientRect().height)"
            )
            assert min(heights) >= 11, "labels keep their size on a phone"
            grey = page.eval_on_selector(".tenant-q-tick", "one => getComputedStyle(one).fill")
            behind = page.eval_on_selector("body", "one => getComputedStyle(one).backgroundColor")
            assert contrast(grey, behind) >= 4.5, (scheme, grey, behind)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG computes it."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_numbers_follow_what_happens(visit: Any):
    page = visit("public", "/admin/tenant_q/")
    tile = page.locator(".tenant-q-tile", has_text="Queued").locator("dd").first
    assert tile.text_content().strip() == "0"
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", 1)
    page.wait_for_function("document.querySelector('.tenant-q-tile dd').textContent.trim() === '1'")
    tile.get_by_role("link").click()
    page.wait_for_selector("#result_list >> text=acme_corp")
