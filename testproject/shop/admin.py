from django.contrib import admin
from django.db import connection
from django.http import HttpRequest

from shop.models import Order, Report


class TenantsOwnAdmin(admin.ModelAdmin):
    """Pages of a tenant's site. The public schema has no tables for them, so there they are not shown."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return connection.schema_name != "public" and super().has_module_permission(request)


@admin.register(Order)
class OrderAdmin(TenantsOwnAdmin):
    list_display = ["number", "buyer", "amount", "status", "created"]
    list_filter = ["status"]


@admin.register(Report)
class ReportAdmin(TenantsOwnAdmin):
    list_display = ["title", "made_in", "orders", "revenue", "created"]
