"""The admin of a tenant's workflow runs: their list, the page of a run, and what can be done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from psycopg import sql

from tenant_q import tenancy
from tenant_q.admin import links, run_page, run_values
from tenant_q.admin.filters import STARTED_BY_SCHEDULE, BoundedPaginator, RunScheduleFilter, WorkflowFilter
from tenant_q.admin.gate import GatedAdmin
from tenant_q.admin.run_acts import RunActsAdmin
from tenant_q.admin.run_values import cut
from tenant_q.admin.state_words import RUN_STATES
from tenant_q.admin.values import LONGEST
from tenant_q.sql import statement
from tenant_q.support import moments
from tenant_q.support.visible import visible, visible_lines
from tenant_q.workflows import drawing, run_counts
from tenant_q.workflows.models import WorkflowRun
from tenant_q.workflows.states import OPEN_RUN, RunState

ITEMS_A_PAGE = 100
"""The items of a step on a page."""
KEY_SHOWN = 40
"""The characters of a key in the list."""
_OPEN = "open"
_LARGE = ("plan", "input", "config")


class RunStateFilter(admin.SimpleListFilter):
    """A filter by the state of runs. Open are those that are not decided yet."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(_OPEN, _("Open")), *((str(state), label) for state, (label, _style) in RUN_STATES.items())]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == _OPEN:
            return queryset.filter(state__in=OPEN_RUN)
        return queryset.filter(state=self.value()) if self.value() else queryset


class RunList(ChangeList):
    """A list of runs, which counts the steps of those on its page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        counts = run_counts.progress_of(tenancy.current_schema(), [run.pk for run in self.result_list])
        schedules = links.schedules_by_group(map(_schedule_of, self.result_list))
        for run in self.result_list:
            run.tenant_q_progress = counts.get(run.pk, (0, 0))
            run.tenant_q_origin = links.origin_of(self.model_admin, request, "", _schedule_of(run), schedules)


class WorkflowRunAdmin(RunActsAdmin):
    """The workflow runs of the current tenant. A run is read-only: what happens to it is done by actions."""

    change_list_template = "tenant_q/admin/change_list.html"
    list_display = ("named", "state_label", "shown_key", "progress", "started_or_created", "took")
    list_filter = (RunStateFilter, WorkflowFilter, RunScheduleFilter)
    search_fields = ("id__exact", "key", "workflow")
    search_help_text = gettext_lazy("Workflow, key, or whole id")
    ordering = ("-created",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet would count the table
    paginator = BoundedPaginator
    list_per_page = 50

    # Where it is, and who may do what

    def is_here(self, request: HttpRequest) -> bool:
        if not super().is_here(request):
            return False
        schema = tenancy.current_schema()
        known: dict[str, bool] = request.__dict__.setdefault("_tenant_q_runs", {})
        if schema not in known:
            known[schema] = _has_runs(schema)
        return known[schema]

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {
            "cancel": ("<path:object_id>/cancel/", self.cancel_view),
            "resume": ("<path:object_id>/resume/", self.resume_view),
            "skip": ("<path:object_id>/skip/<str:step>/", self.skip_view),
            "step": ("<path:object_id>/step/<str:step>/<int:item>/", self.step_view),
            "items": ("<path:object_id>/step/<str:step>/", self.step_view),
        }

    def get_urls(self) -> list[Any]:
        return [*super().get_urls(), *GatedAdmin.get_urls(self)]

    # The list

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and str(match.url_name).endswith("_changelist")
        return rows.defer(*_LARGE, "error") if is_list else rows

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        title = {"title": capfirst(self.opts.verbose_name_plural)}
        return admin.ModelAdmin.changelist_view(self, request, title | (extra_context or {}))

    @admin.display(description=gettext_lazy("workflow"), ordering="workflow")
    def label(self, run: Any) -> str:
        return visible(run.workflow)

    @admin.display(description=gettext_lazy("workflow"), ordering="workflow")
    def named(self, run: Any) -> Any:
        return links.two_lines(self.label(run), run.pk)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_label(self, run: Any) -> Any:
        words, style = RUN_STATES.get(run.state, (visible(run.state), "tenant-q-soft"))
        return format_html('<span class="tenant-q-state {}">{}</span>', style, words)

    @admin.display(description=gettext_lazy("key"), ordering="key", empty_value="-")
    def shown_key(self, run: Any) -> Any:
        """Return the key of a run for a column of the admin, and a link to the schedule that started it."""
        key, origin = cut(visible(run.key or ""), KEY_SHOWN), getattr(run, "tenant_q_origin", None)
        return links.two_lines(key, links.linked(origin.url, origin.name)) if origin else key or None

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, run: Any) -> Any:
        words = _("%(done)s of %(all)s") % dict(zip(("done", "all"), run.tenant_q_progress, strict=True))
        return links.linked(f"{self.run_url('change', run)}#changelist", words)

    @admin.display(description=gettext_lazy("started"), ordering="created")
    def started_or_created(self, run: Any) -> Any:
        return moments.shown(run.started or run.created)

    @admin.display(description=gettext_lazy("duration"))
    def took(self, run: Any) -> str:
        return run_page.taken(run.started, run.ended)

    # The page of a run

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        """Show a run; with `?part=live` only what changes while it runs, for the script that refreshes it."""
        run = self.run_of(request, object_id)
        is_part = request.GET.get("part") == "live"
        view = run_page.read_run(run)
        context: dict[str, Any] = {"run": run, "view": view, "state": self.state_label(run), "fields": _Fields(run)}
        context |= {"took": run_page.taken(run.started, run.ended), "urls": self._urls(request, run)}
        context["graph"] = drawing.svg(view.plan, view.states, view.notes, id="tenant-q-run") if view.plan else ""
        context["can_see_tasks"] = _can_see_tasks(request)
        schedules = links.schedules_by_group([_schedule_of(run)])
        context["origin"] = links.origin_of(self, request, "", _schedule_of(run), schedules)
        context["tasks_url"] = links.url_of(self, "django_q_failure_changelist", group=run.pk)
        values, is_cut = run_page.context_of(run, view.plan)
        context |= {"context": run_values.as_json(values), "context_is_cut": is_cut}
        if not is_part:
            context |= {"input": run_values.as_json(run.input), "config": run_values.as_json(run.config)}
        title = {"title": visible(run.workflow)} | (extra_context or {})
        return self.page(request, "run_live" if is_part else "run", step=str(run.pk), **title, **context)

    def step_view(self, request: HttpRequest, object_id: str, step: str, item: int = -1) -> HttpResponse:
        """Show a step, or an item of one, with whole values; for a step with items also a page of these."""
        run, step = self.run_of(request, object_id), unquote(step)
        row = run_page.step_of(run.pk, step, item)
        if row is None:
            raise Http404(_("There is no such step."))
        counts = run_counts.items_of(tenancy.current_schema(), run.pk).get(step) if item < 0 else None
        chosen = request.GET.get("state", "")
        rows = run_page.items_of(run.pk, step, chosen)
        count = counts.get(chosen, 0) if counts and chosen else sum((counts or {}).values())
        shown = _CountedPaginator(rows, ITEMS_A_PAGE, count).get_page(request.GET.get("p"))
        items = list(shown) if counts else []
        failed = run_page.existing_tasks([row, *items])
        name = visible(row.name) if item < 0 else f"{visible(row.name)} [{item}]"
        values = {column: run_values.in_full(row, column) for column in ("item", "output", "context")}
        return self.page(
            request,
            "run_step",
            step=name,
            title=name,
            run=run,
            row=run_page.as_step_row(run, row, failed, counts, short=LONGEST),
            values=values,
            counts=[(state, drawing.LABELS.get(state, state), number) for state, number in (counts or {}).items()],
            chosen=chosen,
            page=shown,
            items=[run_page.as_step_row(run, one, failed) for one in items],
            can_see_tasks=_can_see_tasks(request),
            urls=self._urls(request, run),
        )

    def _urls(self, request: HttpRequest, run: Any) -> Mapping[str, str]:
        """Return the URLs of what this user may do to a run now."""
        found = {"page": self.run_url("change", run), "base": self.run_url("change", run).removesuffix("change/")}
        if self.has_change_permission(request, run):
            found["skip"] = f"{found['base']}skip/"
            if run_page.can_be_cancelled(run):
                found["cancel"] = self.run_url("cancel", run)
            if run_page.can_be_resumed(run):
                found["resume"] = self.run_url("resume", run)
        if self.has_delete_permission(request, run):
            found["delete"] = self.run_url("delete", run)
        return found


class _Fields:
    """The columns of a run as its page shows them."""

    def __init__(self, run: Any) -> None:
        self.key = visible(run.key or "")
        self.by = visible(run.by)
        self.error = visible_lines(run.error)[:LONGEST]
        self.is_over = run.ended is not None
        self.waits_for_end = run.ended is None and run.state not in OPEN_RUN
        self.is_pending = run.state == RunState.PENDING
        self.resumed = max(0, run.generation - 1)


class _CountedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator of rows whose number is known already."""

    def __init__(self, rows: Any, per_page: int, known: int) -> None:
        super().__init__(rows, per_page)
        self._known = known

    @cached_property
    def count(self) -> int:
        return self._known


def _schedule_of(run: Any) -> str:
    """Return the group of the tasks of the schedule that started a run; empty for another run."""
    return run.by if (run.key or "").startswith(STARTED_BY_SCHEDULE) else ""


def _can_see_tasks(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm("django_q.view_failure"))


def _has_runs(schema: str) -> bool:
    """Return whether the tables of workflows exist in the current schema, which may not be migrated yet."""
    table = sql.Identifier(tenancy.physical_schema(schema), WorkflowRun._meta.db_table).as_string()
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        ((is_there,),) = cursor.execute(sql.SQL(statement("has_table")).format(table=sql.Literal(table))).fetchall()
    return bool(is_there)
