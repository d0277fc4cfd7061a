"""The overview: of a tenant in its admin, and of all tenants in the operators'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst

from tenant_q import tenancy
from tenant_q.admin.errors import error_text
from tenant_q.admin.gate import PublicAdmin, TenantAdmin
from tenant_q.admin.overview_charts import DAY, HOUR, RANGES
from tenant_q.admin.overview_content import content, tiles
from tenant_q.admin.overview_links import SiteLinks, TenantLinks
from tenant_q.admin.pages import PagesAdmin
from tenant_q.exceptions import TenantQError
from tenant_q.operations.overview import read_numbers, read_overview


class OverviewPagesAdmin(PagesAdmin):
    """The pages of an overview, which nobody can change."""

    class Media:
        css = {"all": ["tenant_q/charts.css"]}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"changelist": ("", self.changelist_view)}

    def get_schema(self) -> str | None:
        """Return the schema of the tenant that the overview is of; None for all tenants."""
        raise NotImplementedError

    def get_links(self, request: HttpRequest) -> TenantLinks | SiteLinks:
        """Return the lists to which the counts of the overview lead."""
        raise NotImplementedError

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the overview; with `?part=numbers` only its numbers, for the script that refreshes them."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.GET.get("part") == "numbers":
            return self.page(request, "overview_numbers", **self._numbers(request))
        context = {"title": capfirst(self.opts.verbose_name), **self.overview(request), **(extra_context or {})}
        return self.page(request, "overview", **context)

    def overview(self, request: HttpRequest) -> dict[str, Any]:
        """Return the context of the template of the overview's content."""
        hours = DAY if request.GET.get("hours") == str(DAY) else HOUR
        url = self.list_url()
        try:
            found = read_overview(self.get_schema(), of_day=hours == DAY)
        except TenantQError as error:
            return {"error": error_text(error)}
        return {
            "list_url": url,
            "ranges": [(label, f"{url}?hours={one}", one == hours) for one, label in RANGES.items()],
            **content(found, hours, self.get_links(request)),
        }

    def _numbers(self, request: HttpRequest) -> dict[str, Any]:
        try:
            return {"tiles": tiles(read_numbers(self.get_schema()), self.get_links(request))}
        except TenantQError as error:
            return {"error": error_text(error)}


class OverviewAdmin(OverviewPagesAdmin, TenantAdmin):
    """What happens in a tenant now, in the last hour and in the last day."""

    def get_schema(self) -> str:
        return tenancy.task_schema()

    def get_links(self, request: HttpRequest) -> TenantLinks:
        return TenantLinks(request, self.admin_site)


class SiteOverviewAdmin(OverviewPagesAdmin, PublicAdmin):
    """What happens in all tenants now, in the last hour and in the last day."""

    def get_schema(self) -> None:
        return None

    def get_links(self, request: HttpRequest) -> SiteLinks:
        return SiteLinks(request, self.admin_site)
