"""The admin of a tenant's schedules: checked when saved, with a preview, and with buttons to run, pause and resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from tenant_q import tenancy
from tenant_q.admin import links
from tenant_q.admin.buttons import Button, ButtonsAdmin
from tenant_q.admin.count_links import list_link
from tenant_q.admin.errors import error_text
from tenant_q.admin.forms import WHEN, ScheduleForm
from tenant_q.admin.from_code import FromCodeAdmin, entry_of, require_in_code, resume
from tenant_q.admin.gate import TenantAdmin
from tenant_q.admin.schedule_table import ScheduleTableAdmin
from tenant_q.exceptions import BadSchedule, TenantQError
from tenant_q.schedules import by_hand, catch_up, offered_schedules, row_runs

PREVIEWED = 5
_BEHIND = _(
    "This schedule has missed %(count)s runs, and makes up for each, one after another. To leave them out, set its "
    "next run to a time in the future."
)


class ScheduleAdmin(ScheduleTableAdmin, FromCodeAdmin, ButtonsAdmin, TenantAdmin):
    """The schedules of the current tenant."""

    form = ScheduleForm
    change_form_template = "tenant_q/admin/schedule_form.html"
    actions = ("run_now", "pause", "resume")
    readonly_fields = ("tasks", "upcoming")
    fieldsets = (
        (None, {"fields": (("name", "func"), ("args", "kwargs"), "tasks")}),
        (
            _("When"),
            {"fields": (("schedule_type", "minutes", "cron"), ("next_run", "repeats"), "upcoming")},
        ),
        (_("More"), {"fields": (("hook", "cluster", "intended_date_kwarg"),), "classes": ("collapse",)}),
    )

    class Media:
        js = ["tenant_q/schedule.js"]

    # What is shown

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields on the page of a schedule. A new one has started no tasks."""
        found = super().get_fieldsets(request, obj)
        if obj is not None:
            return found
        return [
            (title, {**options, "fields": tuple(one for one in options["fields"] if one != "tasks")})
            for title, options in found
        ]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name in ("args", "kwargs") and field is not None:
            field.widget.attrs |= {"rows": 2, "spellcheck": "false", "class": "vLargeTextField tenant-q-code"}
        return field

    @admin.display(description=_("next runs"))
    def upcoming(self, row: Any) -> Any:
        return format_html('<div id="tenant-q-upcoming" aria-live="polite">{}</div>', self._preview(row))

    def _preview(self, row: Any) -> Any:
        context: dict[str, Any] = {"is_paused": row.pk and by_hand.is_paused(row), "is_new": row.pk is None}
        context["at_once"] = catch_up.runs_at_once(row, timezone.now())
        context["zone"] = timezone.get_current_timezone_name()
        try:
            context["moments"] = row_runs.preview(row, timezone.now(), PREVIEWED)
        except BadSchedule as error:
            context["error"] = str(error)
        return render_to_string("tenant_q/admin/upcoming.html", context)

    # What is saved

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        changed = {*form.changed_data, *(["next_run"] if form.is_planned_anew else [])} if change else None
        if changed is None or changed:
            self.refuse_from_code(obj)
        with transaction.atomic(using=tenancy.database_alias()):
            self.require_offered(obj, changed)
            self._save(request, obj, changed)
        if (changed is None or changed & WHEN) and (count := catch_up.runs_of(obj, timezone.now())) > 1:
            self.message_user(request, _BEHIND % {"count": count}, messages.WARNING)

    def _save(self, request: HttpRequest, obj: Any, changed: set[str] | None) -> None:
        if changed is not None:
            fields = [field.name for field in obj._meta.concrete_fields if field.name in changed]
            obj.save(using=tenancy.database_alias(), update_fields=fields)
            by_hand.record(by_hand.EDIT, obj, actor=request.user.get_username(), changed=sorted(changed))
            return
        planned = obj.next_run
        obj.save(using=tenancy.database_alias())
        if obj.next_run != planned:  # Django-Q2 plans a new cron schedule by its own rules
            obj.next_run = planned
            obj.save(using=tenancy.database_alias(), update_fields=["next_run"])
        by_hand.record(by_hand.ADD, obj, actor=request.user.get_username())

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        by_hand.record(by_hand.DELETE, obj, actor=request.user.get_username())
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset:
            by_hand.record(by_hand.DELETE, row, actor=request.user.get_username())
        super().delete_queryset(request, queryset)

    def get_urls(self) -> list[Any]:
        preview = path(
            "preview/",
            self._guarded(self.admin_site.admin_view(require_POST(self.preview_view))),
            name="django_q_schedule_preview",
        )
        return [preview, *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Return the next runs of the schedule in the admin's form, or the form's errors. Nothing is saved."""
        obj = self.get_object(request, request.GET.get("id", "")) if "id" in request.GET else None
        if not (self.has_change_permission(request, obj) if obj else self.has_add_permission(request)):
            return HttpResponse(status=403)
        form = self.get_form(request, obj, change=obj is not None)(request.POST, instance=obj)
        form.asks_before_runs = False
        if form.is_valid():
            return HttpResponse(self._preview(form.instance))
        return TemplateResponse(request, "tenant_q/admin/upcoming.html", {"errors": form.errors})

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        return super().change_view(
            request, object_id, form_url, {"tenant_q_preview": self._preview_url(object_id), **(extra_context or {})}
        )

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> Any:
        return super().add_view(request, form_url, {"tenant_q_preview": self._preview_url(), **(extra_context or {})})

    def _preview_url(self, object_id: str = "") -> str:
        return self._url("preview") + (f"?id={object_id}" if object_id else "")

    # What is done

    def get_buttons(self, request: HttpRequest, obj: Any) -> Sequence[Button]:
        buttons = [] if self.is_locked(obj) else [Button("run_now", _("Run now"))]
        entry = entry_of(obj)
        if entry is not None and entry.withdrawn:
            return []
        if by_hand.is_paused(obj):
            buttons.append(Button("resume", _("Resume")))
        elif obj.repeats != 0:
            buttons.append(Button("pause", _("Pause")))
        return buttons

    @admin.action(description=_("Run selected schedules now"), permissions=["change"])
    def run_now(self, request: HttpRequest, queryset: Any) -> None:
        actor = request.user.get_username()
        done = self._do_each(request, queryset, lambda row: _run_now(row, actor))
        if done:
            text = ngettext("%(count)s task was queued.", "%(count)s tasks were queued.", done) % {"count": done}
            url = list_link(request, self.admin_site, "livetask")
            self.message_user(request, links.linked(url, text), messages.SUCCESS)

    @admin.action(description=_("Pause selected schedules"), permissions=["change"])
    def pause(self, request: HttpRequest, queryset: Any) -> None:
        actor = request.user.get_username()
        done = self._do_each(request, queryset, lambda row: by_hand.pause(row.pk, actor=actor))
        text = ngettext("%(count)s schedule was paused.", "%(count)s schedules were paused.", done)
        self._say(request, text, done, "paused")

    @admin.action(description=_("Resume selected schedules"), permissions=["change"])
    def resume(self, request: HttpRequest, queryset: Any) -> None:
        actor = request.user.get_username()
        done = self._do_each(request, queryset, lambda row: resume(row, actor))
        text = ngettext("%(count)s schedule was resumed.", "%(count)s schedules were resumed.", done)
        self._say(request, text, done, "active")

    def _say(self, request: HttpRequest, text: str, done: int, state: str) -> None:
        """Say of how many schedules the state was changed, with a link to those that have it now."""
        url = list_link(request, self.admin_site, "schedule", app="django_q", state=state) if done else ""
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, links.linked(url, text % {"count": done}), level)

    def _do_each(self, request: HttpRequest, queryset: Any, do: Callable[[Any], bool]) -> int:
        """Do something to each chosen schedule, report errors without stopping, and return for how many it worked."""
        done = 0
        for row in queryset:
            try:
                done += do(row)
            except TenantQError as error:
                self.message_user(request, f"{self.label(row)}: {error_text(error)}", messages.ERROR)
        return done


def _run_now(row: Any, actor: str) -> bool:
    require_in_code(row)
    offered_schedules.refuse_unlisted(row)
    return bool(by_hand.run_now(row, actor=actor))
