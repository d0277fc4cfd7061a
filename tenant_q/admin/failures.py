"""The operators' page of all tenants' failures: by cause and function, by tenant, by schedule, and one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenant_q import tenancy
from tenant_q.admin.count_links import list_link
from tenant_q.admin.failure_acts import FailureActsAdmin
from tenant_q.admin.failure_filters import SINCE, TEXTS, Filters, as_id, read_filters
from tenant_q.exceptions import TenantQError
from tenant_q.models import Failure
from tenant_q.operations import failure_upkeep, failures
from tenant_q.operations.failures import FailureGroup, FailurePart
from tenant_q.support import moments
from tenant_q.support.visible import visible

A_PAGE = 100
"""The groups, tenants, schedules or failures on a page."""
GROUPS, TENANTS, SCHEDULES, ALL = "", "tenants", "schedules", "all"
VIEWS: Mapping[str, Any] = {
    GROUPS: gettext_lazy("By cause and function"),
    TENANTS: gettext_lazy("By tenant"),
    SCHEDULES: gettext_lazy("By schedule"),
    ALL: gettext_lazy("One by one"),
}
"""What the page lists, as the texts of the parameter `show`."""


class FailedTaskAdmin(FailureActsAdmin):
    """The failures of all tenants, read from their index in the public schema."""

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"changelist": ("", self.changelist_view), **super().get_views()}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the failures that the request's filter names to operators."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        filters, shown, number = read_filters(request.GET), request.GET.get("show", ""), _page_number(request)
        shown = shown if shown in VIEWS else GROUPS
        context: dict[str, Any] = {"title": _("Failures"), "filters": filters, "shown": shown, "number": number}
        context |= {"views": [(name, label, filters.url(show=name)) for name, label in VIEWS.items()]}
        context |= {"texts": [(name, label, getattr(filters, name)) for name, label in TEXTS.items()]}
        context |= {"times": _times(filters), "is_filtered": bool(filters.fields), **(extra_context or {})}
        context |= {"can_retry": self.has_change_permission(request), "can_delete": self.has_delete_permission(request)}
        try:
            count = failures.count(filters.wanted)
            rows = self._rows(request, filters, shown, (number - 1) * A_PAGE)
            context["is_incomplete"] = bool(failure_upkeep.unfinished())
        except TenantQError as error:
            return self.page(request, "failures", error=visible(str(error)), **context)
        if number > 1:
            context["previous_url"] = filters.url(show=shown, p=str(number - 1))
        if len(rows) > A_PAGE:
            context["next_url"] = filters.url(show=shown, p=str(number + 1))
        return self.page(request, "failures", rows=rows[:A_PAGE], count=count, all_of=filters.url(), **context)

    def _rows(self, request: HttpRequest, filters: Filters, shown: str, offset: int) -> list[dict[str, Any]]:
        """Return a page of what the page of failures lists, and one row more if others follow."""
        wanted, limits = filters.wanted, {"limit": A_PAGE + 1, "offset": offset}
        if shown == GROUPS:
            return [_as_group_row(filters, group) for group in failures.groups(wanted, **limits)]
        if shown == SCHEDULES:
            return [_as_schedule_row(filters, part) for part in failures.parts(wanted, "schedule", **limits)]
        tenants = _Tenants(list_link(request, self.admin_site, "tenantpolicy"))
        if shown == TENANTS:
            found = failures.parts(wanted, "schema_name", **limits)
            return [_as_tenant_row(filters, part, tenants) for part in found]
        return [_as_failure_row(filters, failure, tenants) for failure in failures.failures(wanted, **limits)]


def _as_group_row(filters: Filters, group: FailureGroup) -> dict[str, Any]:
    own = filters.of_group(group)
    return {
        "cause": visible(group.cause) or _("unknown"),
        "func": visible(group.func),
        "count": group.count,
        "tenants": group.tenants,
        "schedules": group.schedules,
        "first": group.first,
        "last": group.last,
        "url": own.url(show=ALL),
        "tenants_url": own.url(show=TENANTS),
        "schedules_url": own.url(show=SCHEDULES),
        "of_group": own.url(),
    }


def _as_tenant_row(filters: Filters, part: FailurePart, tenants: _Tenants) -> dict[str, Any]:
    name, url = tenants.find(part.name)
    return _as_part_row(replace(filters, schema=name), part, visible(name)) | {"name_url": url}


def _as_schedule_row(filters: Filters, part: FailurePart) -> dict[str, Any]:
    return _as_part_row(replace(filters, schedule=part.name), part, visible(part.name))


def _as_part_row(own: Filters, part: FailurePart, name: str) -> dict[str, Any]:
    seen = {"first": part.first, "last": part.last}
    return {"name": name, "count": part.count, "url": own.url(show=ALL), "of_group": own.url(), **seen}


def _as_failure_row(filters: Filters, failure: Failure, tenants: _Tenants) -> dict[str, Any]:
    schema, url = tenants.find(failure.schema_name)
    return {
        "key": as_id((failure.schema_name, failure.task_id)),
        "id": visible(failure.task_id),
        "schema": visible(schema),
        "tenant_url": url,
        "func": visible(failure.func),
        "cause": visible(failure.cause) or _("unknown"),
        "schedule": visible(failure.schedule),
        "schedule_url": replace(filters, schedule=failure.schedule).url(show=ALL) if failure.schedule else "",
        "attempts": failure.attempts,
        "stopped": failure.stopped,
    }


class _Tenants:
    """The tenants of the schemas that the index of failures names, read with one statement, and their pages."""

    def __init__(self, page_url: str) -> None:
        self._page = page_url
        self._names = {tenancy.physical_schema(name): name for name in tenancy.tenant_names()}

    def find(self, schema: str) -> tuple[str, str]:
        """Return the name of a schema's tenant, and the URL of its page; without a tenant the schema, and no URL."""
        name = self._names.get(schema, schema)
        return name, f"{self._page}{quote(name, safe='')}/" if self._page and schema in self._names else ""


def _times(filters: Filters) -> list[tuple[str, Any]]:
    """Return the choices of the time of failures, with the one of the request, which may be another."""
    since = filters.wanted.since
    own = [] if since is None or filters.since in SINCE else [(filters.since, moments.text(since))]
    return [*SINCE.items(), *own]


def _page_number(request: HttpRequest) -> int:
    text = request.GET.get("p", "")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 7 else 1
