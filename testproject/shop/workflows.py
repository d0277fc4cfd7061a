"""What becomes of an order: reserve, charge, pick each line, ship, and say how it ended.

A step that writes only the tenant's own rows is `transactional`: its rows and its end are one transaction, so it takes
effect once. `charge` calls another system, which no transaction can take back, so it passes the key by which the other
system knows a call that is repeated.
"""

from decimal import Decimal

from django.db.models import F

from shop.models import Line, Order, Payment
from shop.tasks import PaymentDeclined
from tenant_q.workflows import Context, Workflow

order = Workflow("order", input={"order": int}, timeout="1h", retention="30d")


class SoldOut(Exception):
    pass


@order.step(transactional=True)
def reserve(ctx: Context) -> dict[str, list[int]]:
    """Reserve every line of the order."""
    lines = Line.objects.filter(order=ctx.input["order"], status=Line.Status.ORDERED)
    found = list(lines.values_list("pk", flat=True))
    lines.update(status=Line.Status.RESERVED)
    return {"lines": found}


@order.step(after=reserve, max_attempts=3, retry_delay=1, no_retry_on=(PaymentDeclined,), timeout=30)
def charge(ctx: Context) -> str:
    """Charge the buyer. Stands for a call to a bank, which declines what is over the tenant's limit."""
    bought = Order.objects.get(pk=ctx.input["order"])
    most = ctx.config.limits.get("order_amount")
    if most is not None and bought.amount > most:
        raise PaymentDeclined(f"The bank declines {bought.amount} for order {bought.number}; the limit is {most}.")
    payment, _ = Payment.objects.get_or_create(
        key=ctx.idempotency_key, defaults={"order": bought, "amount": bought.amount}
    )
    return payment.key


@order.step(after=[reserve, charge], each=(reserve, "lines"), at_once=4, transactional=True)
def pick(ctx: Context) -> str:
    """Pick one line. The lines of an order are picked at the same time."""
    line = Line.objects.select_for_update().get(pk=ctx.item)
    if line.is_sold_out:
        raise SoldOut(f"No {line.article} is left.")
    line.status = Line.Status.PICKED
    line.picked = F("picked") + line.quantity  # two picks of one line would show
    line.save(update_fields=["status", "picked"])
    return line.article


@order.step(after=pick, transactional=True)
def ship(ctx: Context) -> str:
    """Ship the order, of which all lines are picked."""
    Order.objects.filter(pk=ctx.input["order"]).update(status=Order.Status.SHIPPED)
    ctx.set("shipped", ctx.results["pick"])
    return str(ctx.input["order"])


@order.step(after=[charge, pick, ship], when="any_failed", transactional=True)
def undo(ctx: Context) -> str:
    """Give back what the steps before have taken: the money, and the lines."""
    refunded = sum(
        (payment.amount for payment in Payment.objects.filter(order=ctx.input["order"], is_refunded=False)), Decimal(0)
    )
    Payment.objects.filter(order=ctx.input["order"]).update(is_refunded=True)
    Line.objects.filter(order=ctx.input["order"]).update(status=Line.Status.ORDERED, picked=0)
    Order.objects.filter(pk=ctx.input["order"]).update(status=Order.Status.CANCELLED)
    return f"refunded {refunded}"


@order.on_end
def notify(ctx: Context) -> str:
    """Write to the buyer how it ended."""
    bought = Order.objects.get(pk=ctx.input["order"])
    bought.message = f"Dear {bought.buyer}, your order {bought.number} is {bought.status}."
    bought.save(update_fields=["message"])
    return bought.message
