"""Pages that are not lists of rows: views of their own, in the look of the admin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse

from tenant_q.admin.gate import GatedAdmin


class PagesAdmin(GatedAdmin):
    """An admin of what no table holds. What it shows is asked for each time."""

    class Media:
        css = {"all": ["tenant_q/admin.css"]}
        js = ["tenant_q/live.js"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        """The pages: route, and the view; by the last part of the URL's name."""
        raise NotImplementedError

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path(route, self._guarded(self.admin_site.admin_view(view)), name=f"{prefix}_{name}")
            for name, (route, view) in self.get_views().items()
        ]

    def list_url(self) -> str:
        """The URL of the first page."""
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist", current_app=self.admin_site.name
        )

    def page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        """A page of the admin with this template."""
        base = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media}
        return TemplateResponse(request, f"tenant_q/admin/{template}.html", base | context)
