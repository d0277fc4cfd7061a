"""Admin pages that are not lists of rows: views of their own in the look of the admin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django import VERSION
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from tenant_q.admin.gate import GatedAdmin


class PagesAdmin(GatedAdmin):
    """An admin of something that no table holds, read anew for each request."""

    class Media:
        css = {"all": ["tenant_q/admin.css"]}
        js = ["tenant_q/live.js"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        """Return the admin's own pages: route and view, by the last part of the URL's name."""
        raise NotImplementedError

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path(route, self._guarded(self.admin_site.admin_view(view)), name=f"{prefix}_{name}")
            for name, (route, view) in self.get_views().items()
        ]

    def list_url(self) -> str:
        """Return the URL of the first of the admin's own pages."""
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist", current_app=self.admin_site.name
        )

    def page(self, request: HttpRequest, template: str, *, step: str = "", **context: Any) -> HttpResponse:
        """Return a page in the look of the admin, from one of our templates.

        Args:
            request: The request.
            template: The name of the template.
            step: The name of a page that follows the first one, such as a confirmation; empty for the first page.
            context: The context of the template.
        """
        base = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media}
        base |= {"crumbs": self._crumbs(step), "crumbs_are_a_list": VERSION >= (6, 1)}  # as on Django's own pages
        return TemplateResponse(request, f"tenant_q/admin/{template}.html", base | context)

    def _crumbs(self, step: str) -> list[tuple[str, Any]]:
        """Return the breadcrumbs of one of the admin's own pages: URLs, empty for the last, and labels."""
        site, label = self.admin_site.name, self.opts.app_label
        way = [
            (reverse("admin:index", current_app=site), _("Home")),
            (reverse("admin:app_list", args=[label], current_app=site), self.opts.app_config.verbose_name),
            (self.list_url() if step else "", capfirst(self.opts.verbose_name_plural)),
        ]
        return [*way, ("", step)] if step else way
