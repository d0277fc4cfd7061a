from django.contrib import admin
from django.db import connection
from django.http import HttpRequest

from shop.models import Line, Order, Payment, Report


class TenantsOwnAdmin(admin.ModelAdmin):
    """Pages of a tenant's site. The public schema has no tables for them, so there they are not shown."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return connection.schema_name != "public" and super().has_module_permission(request)


class LineInline(admin.TabularInline):
    model = Line
    extra = 0


class PaymentInline(admin.TabularInline):
    model = Payment
    extra = 0


@admin.register(Order)
class OrderAdmin(TenantsOwnAdmin):
    inlines = [LineInline, PaymentInline]
    list_display = ["number", "buyer", "amount", "status", "created"]
    list_filter = ["status"]


@admin.register(Report)
class ReportAdmin(TenantsOwnAdmin):
    list_display = ["title", "made_in", "orders", "revenue", "created"]
