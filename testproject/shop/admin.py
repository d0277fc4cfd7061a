from django.contrib import admin

from shop.models import Order, Report


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["number", "buyer", "amount", "status", "created"]
    list_filter = ["status"]


@admin.register(Report)
class ReportAdmin(admin.ModelAdmin):
    list_display = ["title", "made_in", "orders", "revenue", "created"]
