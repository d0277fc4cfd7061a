"""The pages of contenders on one schema: as many modules are imported for them as for the others."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
