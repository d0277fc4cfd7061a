"""The list of a tenant's schedules in the admin: its columns and its filters."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import OuterRef, Q, Subquery
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext_lazy as _

from tenant_q import tenancy
from tenant_q.admin import links
from tenant_q.admin.filters import FunctionFilter
from tenant_q.admin.from_code import entry_of
from tenant_q.admin.gate import GatedAdmin
from tenant_q.admin.values import kind_of
from tenant_q.lifecycle import task_rows
from tenant_q.models import DueSchedule
from tenant_q.schedules import by_hand, code_entries, due_index
from tenant_q.support import moments, workflows_app
from tenant_q.support.visible import visible

_HELD = {
    due_index.PAUSED: _("Held: the tasks of this site are paused"),
    due_index.EXCLUDED: _("Not served by the scheduler"),
    due_index.UNREADY: _("Held: this site is not ready"),
    due_index.FAILED: _("Held: the last attempt failed"),
}


class StateFilter(admin.SimpleListFilter):
    """A filter for active, paused and ended schedules."""

    title = _("state")
    parameter_name = "state"
    states = {
        "active": Q(next_run__isnull=False) & ~Q(repeats=0),
        "paused": Q(next_run__isnull=True) & ~Q(repeats=0),
        "ended": Q(repeats=0),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("active", _("Active")), ("paused", _("Paused")), ("ended", _("Ended"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        chosen = self.states.get(self.value() or "")
        return queryset if chosen is None else queryset.filter(chosen)


class LastOutcomeFilter(admin.SimpleListFilter):
    """A filter for schedules by the outcome of the last run whose task is kept."""

    title = _("last outcome")
    parameter_name = "last"
    outcomes = {"success": Q(last_success=True), "failure": Q(last_success=False), "none": Q(last_success=None)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("success", _("Success")), ("failure", _("Failure")), ("none", _("None"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        chosen = self.outcomes.get(self.value() or "")
        return queryset if chosen is None else queryset.filter(chosen)


class ScheduleTableAdmin(GatedAdmin):
    """The list of schedules: name and function, when each runs, and links to what it has started."""

    change_list_template = "tenant_q/admin/change_list.html"
    list_display: Any = ("named", "state", "kind", "shown_next_run", "last_run", "tasks")
    list_filter: ClassVar[Any] = (StateFilter, LastOutcomeFilter, FunctionFilter, "schedule_type")
    show_facets = admin.ShowFacets.NEVER  # each facet would count the table
    search_fields = ("name", "func", "args", "kwargs")
    search_help_text = _("Name, function or arguments")

    def get_queryset(self, request: HttpRequest) -> Any:
        last = task_rows.rows().filter(id=OuterRef("task"))
        columns = {f"last_{name}": Subquery(last.values(name)) for name in ("success", "stopped")}
        return super().get_queryset(request).annotate(**columns)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        self._note_held(request)
        return super().changelist_view(request, {"title": _("Scheduled tasks"), **(extra_context or {})})

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        held, from_code = getattr(request, "tenant_q_held", {}), getattr(request, "tenant_q_from_code", {})

        @admin.display(description=_("state"))
        def state(row: Any) -> Any:
            row.tenant_q_code_entry = code_entries.entry_of(row, from_code)
            return self.state(row, held)

        return [state if column == "state" else column for column in super().get_list_display(request)]

    def _note_held(self, request: HttpRequest) -> None:
        """Keep in the admin's request which schedules are held, and why, and which come from code."""
        schema = tenancy.physical_schema(tenancy.current_schema())
        with tenancy.as_owner_in_public():
            entries = DueSchedule.objects.using(tenancy.database_alias()).filter(schema_name=schema).exclude(held="")
            request.tenant_q_held = dict(entries.values_list("schedule_id", "held"))  # type: ignore[attr-defined]
        found = code_entries.entries_of(tenancy.current_schema())
        request.tenant_q_from_code = found  # type: ignore[attr-defined]

    @admin.display(description=_("name"), ordering="name")
    def label(self, row: Any) -> str:
        return row.name or _("Schedule %(id)s") % {"id": row.pk}

    @admin.display(description=_("schedule"), ordering="name")
    def named(self, row: Any) -> Any:
        return links.two_lines(visible(self.label(row)), visible(row.func))

    @admin.display(description=_("tasks"))
    def tasks(self, row: Any) -> Any:
        """Return links to the lists in the admin of what a schedule has started."""
        pages = [("django_q_success", _("Successful")), ("django_q_failure", _("Failed"))]
        if _starts_workflow(row.func):
            pages.append(("tenant_q_workflows_workflowrun", _("Workflow runs")))
        found = [(links.url_of(self, f"{page}_changelist", schedule=row.pk), label) for page, label in pages if row.pk]
        return (
            format_html_join(" ", '<a class="tenant-q-link" href="{}">{}</a>', [one for one in found if one[0]]) or "-"
        )

    @admin.display(description=_("runs"), ordering="schedule_type")
    def kind(self, row: Any) -> str:
        return kind_of(row)

    @admin.display(description=_("next run"), ordering="next_run", empty_value="-")
    def shown_next_run(self, row: Any) -> Any:
        return moments.shown(row.next_run) if row.next_run and row.repeats != 0 else None

    @admin.display(description=_("last run"))
    def last_run(self, row: Any) -> Any:
        if row.last_success is None:
            return "-"
        good, bad = ("success", "tenant-q-good", _("Success")), ("failure", "tenant-q-bad", _("Failure"))
        model, style, words = good if row.last_success else bad
        link = links.linked(links.url_of(self, f"django_q_{model}_change", row.task), words, f"tenant-q-state {style}")
        return links.two_lines(link, moments.shown(row.last_stopped))

    def state(self, row: Any, held: Any = None) -> Any:
        """Return the state of a schedule for the admin, and whether it comes from code."""
        entry = entry_of(row)
        if row.repeats == 0:
            style, words = "tenant-q-soft", _("Ended")
        elif entry is not None and entry.withdrawn:
            style, words = "tenant-q-soft", _("Withdrawn")
        elif by_hand.is_paused(row):
            style, words = "tenant-q-warn", _("Paused")
        elif why := (held or {}).get(row.pk):
            style, words = "tenant-q-warn", _HELD.get(why, why)
        else:
            style, words = "tenant-q-good", _("Active")
        shown = format_html('<span class="tenant-q-state {}">{}</span>', style, words)
        if entry is None:
            return shown
        return format_html('{} <span class="tenant-q-state tenant-q-soft">{}</span>', shown, _("From code"))


def _starts_workflow(path: str) -> bool:
    """Return whether the function of a schedule is a workflow."""
    if not workflows_app.is_installed():
        return False
    from tenant_q.workflows import registry  # a project without the app never imports it

    return registry.find(path) is not None
