"""What a tenant keeps: its orders and the reports its tasks write. Each tenant has these tables in its own schema."""

from django.db import models


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        PICKED = "picked"
        PACKED = "packed"
        SHIPPED = "shipped"

    number = models.CharField(max_length=80, unique=True)
    buyer = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NEW)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.number


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
