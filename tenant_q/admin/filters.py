"""Filters and a paginator that stay fast on a long list, because none of them reads all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from tenant_q import tenancy

FUNCTIONS = 50
"""The most functions that the filter lists; the search finds the others."""
COUNTED = 100_000
"""The most rows that are counted. A longer list ends there, and filters find the other rows."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts at most `COUNTED` rows, so that its time does not grow with the table."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:COUNTED].count())


class FunctionFilter(admin.SimpleListFilter):
    """A filter by function, with the first `FUNCTIONS` functions of the tenant's tasks by name."""

    title = _("function")
    parameter_name = "func"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = model_admin.model.objects.using(tenancy.database_alias()).order_by(self.parameter_name)
        names = list(rows.values_list(self.parameter_name, flat=True).distinct()[:FUNCTIONS])
        chosen = request.GET.get(self.parameter_name)
        return [(name, name) for name in ([chosen] if chosen and chosen not in names else []) + names]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(**{self.parameter_name: self.value()}) if self.value() else queryset


class WorkflowFilter(FunctionFilter):
    """A filter by workflow, with the first `FUNCTIONS` workflows of the tenant's runs by path."""

    title = _("workflow")
    parameter_name = "workflow"


class GroupFilter(admin.SimpleListFilter):
    """A filter by the full name of a group, which is typed because there may be as many groups as tasks."""

    title = _("group")
    parameter_name = "group"
    template = "tenant_q/admin/text_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("", "")]  # a filter without choices is not shown

    def choices(self, changelist: Any) -> Iterator[Any]:
        kept = changelist.get_query_string(remove=[self.parameter_name, "p"])
        others = [
            (name, value)
            for name, value in changelist.params.items()
            if name != self.parameter_name and isinstance(value, str)
        ]
        others += [(name, one) for name, many in changelist.filter_params.items() for one in many]
        own = {self.parameter_name, "p"}
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "others": sorted({pair for pair in others if pair[0] not in own}),
            "clear": kept,
        }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(group=self.value()) if self.value() else queryset
