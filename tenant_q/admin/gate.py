"""Restrict pages to the sites of tenants, or to the public site. Elsewhere they do not exist."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import Http404, HttpRequest
from django.utils.translation import gettext as _

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway, TenantQError
from tenant_q.support.visible import visible

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class GatedAdmin(ModelAdmin):
    """Pages that exist only where `is_here`. Elsewhere no index lists them, and their URLs return 404."""

    def is_here(self, request: HttpRequest) -> bool:
        """Return whether these admin pages exist in the requested site. Raises `DatabaseAway`."""
        raise NotImplementedError

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the gated page's rows on the tenants' connection, whatever the project's routers say."""
        return super().get_queryset(request).using(tenancy.database_alias())

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        obj.delete(using=tenancy.database_alias())

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.is_here(request) and super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.is_here(request) and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.is_here(request) and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.is_here(request) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.is_here(request) and super().has_delete_permission(request, obj)

    def message_user(self, request: HttpRequest, message: Any, *args: Any, **kwargs: Any) -> None:
        """Add a message to a gated page, with escaped control characters in names of tasks and schedules."""
        message = message if hasattr(message, "__html__") else visible(str(message))
        super().message_user(request, message, *args, **kwargs)

    def get_urls(self) -> list[Any]:
        urls = super().get_urls()
        for url in urls:
            url.callback = self._guarded(url.callback)
        return urls

    def _guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.is_here(request):
                raise Http404(_("This site does not have this page."))
            return view(request, *args, **kwargs)

        return guarded


class TenantAdmin(GatedAdmin):
    """Pages of a schema with Django-Q2's tables: of a tenant, or the public schema if it has them too."""

    def is_here(self, request: HttpRequest) -> bool:
        schema = tenancy.current_schema()
        known: dict[str, bool] = request.__dict__.setdefault("_tenant_q_tables", {})
        if schema not in known:
            known[schema] = _has_tables()
        return known[schema]


class PublicAdmin(GatedAdmin):
    """Pages of the public site about all tenants."""

    def is_here(self, request: HttpRequest) -> bool:
        return tenancy.current_schema() == tenancy.public_schema()


def _has_tables() -> bool:
    """Return whether the current schema has Django-Q2's tables, without which the gate hides their pages."""
    try:
        schema = tenancy.task_schema()
        if schema != tenancy.public_schema():
            tenancy.verify(schema)
    except DatabaseAway:
        raise
    except TenantQError:
        return False
    return True
