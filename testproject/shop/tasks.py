"""The tasks. Plain functions: each runs in the schema of the tenant that enqueued it, so no query names the tenant.

A task may run twice: when its worker is killed after the work and before the result is saved, it is delivered again.
So every task here can be repeated without harm.
"""

import time
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Count, Sum

from shop.models import Order, Report
from tenant_q.utils import QUtilities

TAX = Decimal("0.20")


class PaymentDeclined(Exception):
    pass


class NotReady(Exception):
    pass


def revenue_report(title: str = "Revenue") -> dict[str, Any]:
    """A report over the tenant's own orders."""
    totals = Order.objects.aggregate(orders=Count("id"), revenue=Sum("amount", default=Decimal(0)))
    report = Report.objects.create(title=title, made_in=connection.schema_name, **totals)
    return {"report": report.pk, "schema": connection.schema_name, **totals}


def import_catalogue(seconds: float = 10) -> str:
    """Slow: stands for the download of a big file. It reports its progress, and can be cancelled at any point."""
    pages = 40
    for page in range(1, pages + 1):
        time.sleep(seconds / pages)
        QUtilities.set_progress(page / pages, f"page {page} of {pages}")
    return f"catalogue imported in {seconds} s"


def charge_card(order_id: int) -> None:
    """Fails: the row in the tenant's admin says why."""
    raise PaymentDeclined(f"The bank declines the card for order {Order.objects.get(pk=order_id).number}.")


def total_with_tax(order_id: int) -> Decimal:
    """One part of an iter over many orders."""
    return round(Order.objects.get(pk=order_id).amount * (1 + TAX), 2)


def pick(order_id: int) -> str:
    """First link of a chain."""
    return _advance(order_id, Order.Status.NEW, Order.Status.PICKED)


def pack(order_id: int) -> str:
    """Second link; it fails when the first has not run."""
    return _advance(order_id, Order.Status.PICKED, Order.Status.PACKED)


def ship(order_id: int) -> str:
    """Last link."""
    return _advance(order_id, Order.Status.PACKED, Order.Status.SHIPPED)


def _advance(order_id: int, before: Order.Status, after: Order.Status) -> str:
    order = Order.objects.get(pk=order_id)
    if order.status not in (before, after):
        raise NotReady(f"Order {order.number} is {order.status}; it must be {before} before it can be {after}.")
    order.status = after
    order.save(update_fields=["status"])
    return f"{order.number} {after}"
