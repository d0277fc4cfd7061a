"""The admin of a tenant's finished tasks, with a button to run a task again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django_q.models import Task

from tenant_q.admin.buttons import Button, ButtonsAdmin
from tenant_q.admin.errors import error_text
from tenant_q.admin.filters import BoundedPaginator, FunctionFilter, GroupFilter
from tenant_q.admin.gate import TenantAdmin
from tenant_q.admin.values import as_text, block, stored_block, unsigned_note
from tenant_q.exceptions import EnqueueError, TenantQError
from tenant_q.lifecycle import run_again, task_rows
from tenant_q.lifecycle.failure_text import Failure, read_failure
from tenant_q.lifecycle.task_rows import PICKLED, Stored
from tenant_q.schedules import offered_schedules
from tenant_q.support.durations import duration

_SAVE_BUTTONS = ("show_save", "show_save_and_continue", "show_save_and_add_another")
_SHORT = 100


class TaskAdmin(ButtonsAdmin, TenantAdmin):
    """Finished tasks, read-only. Columns with pickles are read as text, so that a bad value breaks no page."""

    search_fields = ("name", "func", "id__exact")
    list_filter = (("stopped", admin.DateFieldListFilter), FunctionFilter, GroupFilter)
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

    # What is shown

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
            self.message_user(request, text % {"count": done}, messages.SUCCESS)

    def _run_again(self, task: Any, actor: str) -> None:
        args, kwargs = self._signed(task, "args"), self._signed(task, "kwargs")
        offered_schedules.refuse_again(task, args.origin if args.origin == kwargs.origin else None)
        result = self._signed(task, "result").value if run_again.may_be_parts(args.value) else None
        run_again.run_again(task, args.value, kwargs.value, result, actor=actor)

    def _signed(self, task: Any, name: str) -> Stored:
        """Return a column of a task that is to run again from the admin. Raises `EnqueueError` if it is not signed."""
        stored = task_rows.read(task, name)
        what = "result" if name == "result" else "arguments"
        if not stored.is_signed:
            raise EnqueueError(f"its {what} are not signed by a cluster of this site; enqueue the task from code.")
        if stored.error:
            raise EnqueueError(f"its {what} cannot be read ({stored.error}); deploy the code that this names.")
        return stored


_ABOUT = ("func", ("name", "id"), ("group", "cluster"), "hook")
_TIMES = (("started", "stopped"), ("duration", "attempt"))


class SuccessAdmin(TaskAdmin):
    """Tasks that returned a result."""

    list_display = ("name", "stopped", "duration", "attempt", "func", "group")
    fieldsets = (
        (None, {"fields": _ABOUT}),
        (_("Run"), {"fields": (*_TIMES, "shown_result")}),
        (_("Call"), {"fields": ("shown_args", "shown_kwargs")}),
    )


class FailureAdmin(TaskAdmin):
    """Tasks that ended without a result."""

    list_display = ("name", "failure", "stopped", "duration", "attempt", "func", "group")
    fieldsets = (
        (None, {"fields": ("cause", "message", "traceback")}),
        (_("Task"), {"fields": _ABOUT}),
        (_("Run"), {"fields": _TIMES}),
        (_("Call"), {"fields": ("shown_args", "shown_kwargs")}),
    )
    shown_in_list = ("result",)

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
        return format_html('{}<div class="quiet">{}</div>', self.cause(task), short)

    @admin.display(description=_("traceback"))
    def traceback(self, task: Any) -> Any:
        failure = self._failure(task)
        return block(failure.traceback, _("Traceback")) if failure.traceback else "-"

    def _failure(self, task: Any) -> Failure:
        stored = task_rows.read(task, "result")
        if stored.error:
            return Failure("", stored.error, "")
        return read_failure(as_text(stored.value) if stored.value is not None else "")
