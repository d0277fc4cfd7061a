"""What the host of the public schema serves: the list of tenants."""

from django.urls import path

from customers.views import index

urlpatterns = [path("", index)]
