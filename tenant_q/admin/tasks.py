"""The admin of a tenant's finished tasks, with a button to run a task again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django_q.models import Task

from tenant_q.admin import links, own_failures
from tenant_q.admin.buttons import Button, ButtonsAdmin
from tenant_q.admin.count_links import list_link
from tenant_q.admin.errors import error_text
from tenant_q.admin.filters import (
    BoundedPaginator,
    CauseFilter,
    FunctionFilter,
    GroupFilter,
    OutcomeFilter,
    ScheduleFilter,
)
from tenant_q.admin.gate import TenantAdmin
from tenant_q.admin.values import as_text, block, stored_block, unsigned_note
from tenant_q.exceptions import TenantQError
from tenant_q.lifecycle import run_again, task_rows
from tenant_q.lifecycle.failure_text import Failure, read_failure
from tenant_q.lifecycle.task_rows import PICKLED
from tenant_q.schedules import offered_schedules
from tenant_q.support import moments
from tenant_q.support.durations import duration
from tenant_q.support.visible import visible

_SAVE_BUTTONS = ("show_save", "show_save_and_continue", "show_save_and_add_another")
_SHORT = 200
_STOPPED = ("stopped", admin.DateFieldListFilter)


class TaskList(ChangeList):
    """A list of tasks, which looks for the schedules of those on its page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        schedules = links.schedules_by_group(task.group for task in self.result_list)
        for task in self.result_list:
            task.tenant_q_origin = links.origin_of(self.model_admin, request, task.func, task.group, schedules)


class TaskAdmin(ButtonsAdmin, TenantAdmin):
    """Finished tasks, read-only. Columns with pickles are read as text, so that a bad value breaks no page."""

    change_list_template = "tenant_q/admin/change_list.html"
    search_fields = ("name", "func", "id__exact")
    search_help_text = _("Function, name, or whole id")
    list_filter: ClassVar[Any] = (OutcomeFilter, FunctionFilter, ScheduleFilter, GroupFilter, _STOPPED)
    actions = ("run_again",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet would count the table
    paginator = BoundedPaginator
    shown_in_list: tuple[str, ...] = ()
    """The columns with pickles that the list shows."""

    # What is read

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and str(match.url_name).endswith("_changelist")
        return task_rows.as_texts(rows, self.shown_in_list if is_list and request.method != "POST" else PICKLED)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return every field of a task: who may change a task may run it again, and nothing else."""
        return flatten_fieldsets(self.get_fieldsets(request, obj))

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        context: dict[str, Any] = {
            "show_save": False,
            "show_save_and_continue": False,
            "show_save_and_add_another": False,
        }
        context |= {"title": capfirst(self.opts.verbose_name), "tenant_q_is_read_only": True}
        return super().changeform_view(request, object_id, form_url, context | (extra_context or {}))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        title = {"title": capfirst(self.opts.verbose_name_plural)}
        return super().changelist_view(request, title | (extra_context or {}))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TaskList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        task = super().get_object(request, object_id, from_field)
        if task is not None:
            schedules = links.schedules_by_group([task.group])
            task.tenant_q_origin = links.origin_of(self, request, task.func, task.group, schedules)
        return task

    # What is shown

    def label(self, obj: Any) -> str:
        return visible(obj.func)

    @admin.display(description=_("task"), ordering="func")
    def call(self, task: Any) -> Any:
        return links.two_lines(visible(task.func), visible(task.name))

    @admin.display(description=_("group"))
    def others(self, task: Any) -> Any:
        """Return the group of a task as a link to the tasks of that group."""
        url = links.url_of(self, f"django_q_{self.opts.model_name}_changelist", group=task.group)
        return links.linked(url, visible(task.group)) if task.group else "-"

    @admin.display(description=_("group"), ordering="group")
    def shown_group(self, task: Any) -> Any:
        """Return the group of a task for a column of the admin, and what made the task below it."""
        group, origin = self.others(task), getattr(task, "tenant_q_origin", None)
        return links.two_lines(group, links.linked(origin.url, origin.label)) if origin else group

    @admin.display(description=_("schedule or run"))
    def origin(self, task: Any) -> Any:
        found = getattr(task, "tenant_q_origin", None)
        return format_html("{}: {}", found.label, links.linked(found.url, found.name)) if found else "-"

    @admin.display(description=_("started"), ordering="started")
    def shown_started(self, task: Any) -> Any:
        return moments.shown(task.started)

    @admin.display(description=_("stopped"), ordering="stopped")
    def shown_stopped(self, task: Any) -> Any:
        return moments.shown(task.stopped)

    @admin.display(description=_("duration"))
    def duration(self, task: Task) -> str:
        return duration(task.time_taken())

    @admin.display(description=_("attempt"), ordering="attempt_count")
    def attempt(self, task: Task) -> int:
        return int(task.attempt_count) or 1

    @admin.display(description=_("arguments"))
    def shown_args(self, task: Any) -> Any:
        return stored_block(task_rows.read(task, "args"), _("Arguments"))

    @admin.display(description=_("keyword arguments"))
    def shown_kwargs(self, task: Any) -> Any:
        return stored_block(task_rows.read(task, "kwargs"), _("Keyword arguments"))

    @admin.display(description=_("result"))
    def shown_result(self, task: Any) -> Any:
        return stored_block(task_rows.read(task, "result"), _("Result"))

    # What is done

    def get_buttons(self, request: HttpRequest, obj: Any) -> Sequence[Button]:
        return [Button("run_again", _("Run again"))]

    @admin.action(description=_("Run selected tasks again"), permissions=["change"])
    def run_again(self, request: HttpRequest, queryset: Any) -> None:
        done = 0
        for task in queryset:
            try:
                self._run_again(task, request.user.get_username())
                done += 1
            except TenantQError as error:
                self.message_user(request, f"{task.name}: {error_text(error)}", messages.ERROR)
        if done:
            text = ngettext("%(count)s task was queued again.", "%(count)s tasks were queued again.", done)
            url = list_link(request, self.admin_site, "livetask")
            self.message_user(request, links.linked(url, text % {"count": done}), messages.SUCCESS)

    def _run_again(self, task: Any, actor: str) -> None:
        args, kwargs = run_again.signed(task, "args"), run_again.signed(task, "kwargs")
        offered_schedules.refuse_again(task, args.origin if args.origin == kwargs.origin else None)
        result = run_again.signed(task, "result").value if run_again.may_be_parts(args.value) else None
        run_again.run_again(task, args.value, kwargs.value, result, actor=actor)


_ABOUT = (("func", "name", "id"), ("others", "origin", "cluster", "hook"))
_TIMES = (("shown_started", "shown_stopped", "duration", "attempt"),)


class SuccessAdmin(TaskAdmin):
    """Tasks that returned a result."""

    list_display = ("call", "shown_group", "attempt", "duration", "shown_stopped")
    fieldsets = (
        (None, {"fields": _ABOUT}),
        (_("Run"), {"fields": (*_TIMES, "shown_result")}),
        (_("Call"), {"fields": ("shown_args", "shown_kwargs")}),
    )


class FailureAdmin(TaskAdmin):
    """Tasks that ended without a result."""

    list_display = ("call", "failure", "shown_group", "attempt", "duration", "shown_stopped")
    fieldsets = (
        (None, {"fields": (("cause", "message"), "traceback")}),
        (_("Task"), {"fields": _ABOUT}),
        (_("Run"), {"fields": _TIMES}),
        (_("Call"), {"fields": ("shown_args", "shown_kwargs")}),
    )
    shown_in_list = ("result",)
    list_filter = (OutcomeFilter, FunctionFilter, CauseFilter, ScheduleFilter, GroupFilter, _STOPPED)
    search_help_text = _("Function, cause, name, or whole id")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        found, has_duplicates = super().get_search_results(request, queryset, search_term)
        if text := search_term.strip():
            found |= queryset.filter(pk__in=own_failures.with_cause_like(text))
        return found, has_duplicates

    @admin.display(description=_("cause"))
    def cause(self, task: Any) -> Any:
        cause = self._failure(task).cause
        return format_html('<span class="tenant-q-state tenant-q-bad">{}</span>', cause) if cause else "-"

    @admin.display(description=_("message"))
    def message(self, task: Any) -> Any:
        text = format_html('<div class="tenant-q-text">{}</div>', self._failure(task).message)
        return text if task_rows.read(task, "result").is_signed else unsigned_note() + text

    @admin.display(description=_("failure"))
    def failure(self, task: Any) -> Any:
        """Return a failed task's cause and the first words of its message, for a column of the admin."""
        message = " ".join(self._failure(task).message.split())
        short = message if len(message) <= _SHORT else f"{message[:_SHORT]}…"
        return links.two_lines(self.cause(task), short)

    @admin.display(description=_("traceback"))
    def traceback(self, task: Any) -> Any:
        failure = self._failure(task)
        return block(failure.traceback, _("Traceback")) if failure.traceback else "-"

    def _failure(self, task: Any) -> Failure:
        stored = task_rows.read(task, "result")
        if stored.error:
            return Failure("", stored.error, "")
        return read_failure(as_text(stored.value) if stored.value is not None else "")
