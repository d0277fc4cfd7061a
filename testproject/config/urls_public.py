"""What the host of the public schema serves: the list of tenants, and the operators' admin of all of them."""

from django.contrib import admin
from django.urls import path

from customers.views import index

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", index),
]
