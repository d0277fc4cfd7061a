"""What a tenant keeps: its orders with their lines and payments, and the reports its tasks write. Each tenant has these
tables in its own schema.
"""

from django.db import models


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        PICKED = "picked"
        PACKED = "packed"
        SHIPPED = "shipped"
        CANCELLED = "cancelled"

    number = models.CharField(max_length=80, unique=True)
    buyer = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NEW)
    message = models.TextField("last message to the buyer", default="", blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.number


class Line(models.Model):
    class Status(models.TextChoices):
        ORDERED = "ordered"
        RESERVED = "reserved"
        PICKED = "picked"

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    article = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField(default=1)
    picked = models.PositiveIntegerField(default=0)
    is_sold_out = models.BooleanField("sold out", default=False)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ORDERED)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.quantity} {self.article}"


class Payment(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="payments")
    key = models.CharField("idempotency key", max_length=32, unique=True)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    is_refunded = models.BooleanField("refunded", default=False)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.amount} for {self.order}"


class Report(models.Model):
    title = models.CharField(max_length=100)
    made_in = models.CharField("schema it was made in", max_length=63)
    orders = models.IntegerField()
    revenue = models.DecimalField(max_digits=12, decimal_places=2)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.title
