from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from customers.models import Customer


def index(request: HttpRequest) -> HttpResponse:
    """All tenants with links, for the demo; a real service would not tell who its customers are."""
    customers = Customer.objects.exclude(schema_name="public").order_by("name")
    return render(request, "customers/index.html", {"customers": customers, "port": request.get_port()})
