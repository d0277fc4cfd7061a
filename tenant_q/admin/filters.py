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
from tenant_q.admin import own_failures
from tenant_q.admin.links import is_id, url_of
from tenant_q.schedules import schedule_rows
from tenant_q.schedules.row_names import group_of
from tenant_q.support.visible import visible

FUNCTIONS = 50
"""The most functions that the filter lists; the search finds the others."""
STARTED_BY_SCHEDULE = "schedule:"
"""The start of the key of a run that a schedule started; `by` is the group of its tasks."""
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


class OutcomeFilter(admin.SimpleListFilter):
    """A choice between the lists of successful and of failed tasks, which keeps the other filters.

    Django-Q2 has a page for each outcome.
    """

    title = _("outcome")
    parameter_name = "outcome"
    outcomes = (("success", _("Successful")), ("failure", _("Failed")))
    is_always_set = True
    own_filters = ("cause", "p", "e")
    """The parameters that only one of the two lists has."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        allowed = request.user.has_perm  # type: ignore[union-attr]
        self.lists = [
            (name, label, url)
            for name, label in self.outcomes
            if (allowed(f"django_q.view_{name}") or allowed(f"django_q.change_{name}"))
            and (url := url_of(model_admin, f"django_q_{name}_changelist"))
        ]
        self.current = model_admin.opts.model_name
        return [(name, label) for name, label, _url in self.lists] if len(self.lists) > 1 else []

    def choices(self, changelist: Any) -> Iterator[Any]:
        kept = changelist.get_query_string(remove=[*self.own_filters, "o"])
        for name, label, url in self.lists:
            yield {"selected": name == self.current, "query_string": url + kept, "display": label}

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset


class ScheduleFilter(admin.SimpleListFilter):
    """A filter of tasks by their schedule, with the first `FUNCTIONS` schedules of the tenant by name."""

    title = _("schedule")
    parameter_name = "schedule"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = schedule_rows.rows().only("name")
        found = [(row.pk, group_of(row)) for row in rows.order_by("name", "pk")[:FUNCTIONS]]
        self.groups = {str(pk): name for pk, name in found}
        chosen = request.GET.get(self.parameter_name, "")
        if chosen not in self.groups and is_id(chosen):
            self.groups |= {str(row.pk): group_of(row) for row in rows.filter(pk=int(chosen))}
        shown = (
            dict.fromkeys([chosen] if chosen else [], chosen) | self.groups
        )  # a filter without choices filters nothing
        return [(pk, visible(name)) for pk, name in shown.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        group = self.groups.get(self.value() or "")
        return queryset.none() if group is None else self.of_group(queryset, group)

    def of_group(self, queryset: Any, group: str) -> Any:
        """Return the filtered rows that belong to a schedule."""
        return queryset.filter(group=group)


class RunScheduleFilter(ScheduleFilter):
    """A filter of workflow runs by the schedule that started them."""

    def of_group(self, queryset: Any, group: str) -> Any:
        return queryset.filter(by=group, key__startswith=STARTED_BY_SCHEDULE)


class CauseFilter(admin.SimpleListFilter):
    """A filter of failed tasks by their cause, which the index of failures has, with the first `FUNCTIONS` causes."""

    title = _("cause")
    parameter_name = "cause"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = own_failures.causes(FUNCTIONS)
        chosen = request.GET.get(self.parameter_name)
        return [(name, visible(name)) for name in ([chosen] if chosen and chosen not in names else []) + names]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(pk__in=own_failures.with_cause(self.value() or "")) if self.value() else queryset


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
