"""What a tenant's staff may do to a workflow run: cancel and resume it, skip a step, and delete it when it has ended.

Each asks for confirmation, is done in the name of the user, and leaves an audit record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenant_q import tenancy
from tenant_q.admin import links, run_page
from tenant_q.admin.count_links import list_link
from tenant_q.admin.errors import error_text
from tenant_q.admin.gate import TenantAdmin
from tenant_q.admin.pages import PagesAdmin
from tenant_q.exceptions import TenantQError
from tenant_q.support.visible import visible


class RunActsAdmin(PagesAdmin, TenantAdmin):
    """An admin of runs whose actions ask for confirmation on pages of their own."""

    actions = ("delete_ended",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or obj.ended is not None)

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        found.pop("delete_selected", None)
        return found

    def run_of(self, request: HttpRequest, object_id: str) -> Any:
        """Return the run of a URL. Raises `Http404` or `PermissionDenied`."""
        run = self.get_object(request, unquote(object_id))
        if run is None:
            raise Http404(_("There is no such run here."))
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        return run

    def run_url(self, view: str, run: Any) -> str:
        """Return the URL of one of the pages of a run."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return reverse(name, args=[quote(run.pk)], current_app=self.admin_site.name)

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, then cancel a run."""
        run = self._changeable(request, object_id)
        if not run_page.can_be_cancelled(run):
            return self._too_late(request, run)
        if request.method != "POST":
            return self._confirm(request, run, "cancel", _("Cancel"))
        return self._do(request, run, lambda one, by: one.cancel(by=by), _("The run was cancelled."))

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show which steps would run again and, if that is confirmed, resume a run. What was shown is what runs."""
        run = self._changeable(request, object_id)
        if not run_page.can_be_resumed(run):
            return self._too_late(request, run)
        try:
            steps = self._handle(run).preview_resume()
        except TenantQError as error:
            self.message_user(request, error_text(error), messages.ERROR)
            return HttpResponseRedirect(self.run_url("change", run))
        if request.method == "POST" and request.POST.getlist("step") == list(steps):
            return self._do(request, run, lambda one, by: one.resume(by=by), _("The run was resumed."))
        if request.method == "POST":
            self.message_user(request, _("The steps have changed meanwhile. Look again."), messages.WARNING)
        return self._confirm(request, run, "resume", _("Resume"), steps=steps)

    def skip_view(self, request: HttpRequest, object_id: str, step: str) -> HttpResponse:
        """Ask for a reason, then skip a step."""
        run, step = self._changeable(request, object_id), unquote(step)
        row = run_page.step_of(run.pk, step, -1)
        if row is None:
            raise Http404(_("There is no such step."))
        if not run_page.can_be_skipped(run, row):
            return self._too_late(request, run)
        if request.method != "POST":
            return self._confirm(request, run, "skip", _("Skip"), skipped=visible(step), is_open=run.ended is None)
        why = request.POST.get("why", "")[:500]
        return self._do(request, run, lambda one, by: one.skip(step, by=by, why=why), _("The step was skipped."))

    def _changeable(self, request: HttpRequest, object_id: str) -> Any:
        run = self.run_of(request, object_id)
        if not self.has_change_permission(request, run):
            raise PermissionDenied
        return run

    def _confirm(self, request: HttpRequest, run: Any, act: str, label: str, **context: Any) -> HttpResponse:
        page = {"run": run, "act": act, "page_url": self.run_url("change", run), "name": visible(run.workflow)}
        return self.page(request, "run_confirm", step=label, title=_("Are you sure?"), **page, **context)

    def _do(self, request: HttpRequest, run: Any, do: Callable[[Any, str], Any], said: str) -> HttpResponse:
        """Do something to a run in the name of the request's user, report it or its error, and return to the page."""
        try:
            done = do(self._handle(run), request.user.get_username())
        except TenantQError as error:
            self.message_user(request, error_text(error), messages.ERROR)
        else:
            if done is False:
                return self._too_late(request, run)
            self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(self.run_url("change", run))

    def _too_late(self, request: HttpRequest, run: Any) -> HttpResponse:
        self.message_user(request, _("Nothing was done, because this is no longer possible."), messages.WARNING)
        return HttpResponseRedirect(self.run_url("change", run))

    def _handle(self, run: Any) -> Any:
        from tenant_q.workflows.run import Run

        return Run(run, tenancy.current_schema())

    @admin.action(description=gettext_lazy("Delete selected runs that have ended"), permissions=["delete"])
    def delete_ended(self, request: HttpRequest, queryset: Any) -> Any:
        left = queryset.filter(ended__isnull=True).count()
        if left:
            text = ngettext("%(count)s run has not ended, and stays.", "%(count)s runs have not ended, and stay.", left)
            url = list_link(request, self.admin_site, "workflowrun", app="tenant_q_workflows", state="open")
            self.message_user(request, links.linked(url, text % {"count": left}), messages.WARNING)
        ended = queryset.filter(ended__isnull=False)
        return delete_selected(self, request, ended) if ended.exists() else None

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self._delete(request, [obj.pk])

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        self._delete(request, list(queryset.values_list("pk", flat=True)))

    def _delete(self, request: HttpRequest, ids: Sequence[str]) -> None:
        from tenant_q.workflows import control

        control.delete(tenancy.current_schema(), ids, by=request.user.get_username())
