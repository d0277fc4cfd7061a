"""The admin of a tenant's running, queued and delayed tasks, read from the broker, with cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from tenant_q import tenancy
from tenant_q.admin import links
from tenant_q.admin.errors import error_text
from tenant_q.admin.gate import TenantAdmin
from tenant_q.admin.live_rows import Row, as_row, find_live, find_one, read_running
from tenant_q.admin.pages import PagesAdmin
from tenant_q.admin.state_words import PLACES
from tenant_q.brokers.protocol import Live
from tenant_q.exceptions import TenantQError
from tenant_q.lifecycle import cancel_many
from tenant_q.utils import QUtilities

SHOWN = 100
"""The most tasks that are listed; others follow when these have ended."""
_CHOICES: Mapping[str, Any] = {
    "": gettext_lazy("All"),
    **{place: label for place, (label, _style) in PLACES.items()},
}


class LiveTaskAdmin(PagesAdmin, TenantAdmin):
    """The tasks that run or wait, read from the broker for each request."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {
            "changelist": ("", self.changelist_view),
            "cancel_selected": ("cancel/", require_POST(self.cancel_selected_view)),
            "cancel": ("<path:object_id>/cancel/", self.cancel_view),
        }

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the live tasks; with `?part=table` only the table, for the script that refreshes it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {"title": _("Running and queued tasks"), "limit": SHOWN, **(extra_context or {})}
        context["can_cancel"] = self.has_change_permission(request)
        place = request.GET.get("place", "")
        place = place if place in PLACES else ""
        context |= {"chosen": place, "choices": _CHOICES.items()}
        try:
            found = find_live(SHOWN + 1, place)
            context["rows"] = self._rows(request, found[:SHOWN])
            context["has_more"] = len(found) > SHOWN
        except TenantQError as error:
            context["error"] = error_text(error)
        part = "live_table" if request.GET.get("part") == "table" else "live"
        return self.page(request, part, **context)

    def _rows(self, request: HttpRequest, found: Sequence[Live]) -> list[Row]:
        """Return live tasks as the page shows them, with where they run and links to what made them."""
        rows = [as_row(live) for live in found]
        is_leased = any(live.place == "leased" for live in found)
        running = read_running(tenancy.task_schema()) if is_leased else {}
        schedules = links.schedules_by_group(row.source for row in rows)
        return [
            replace(
                row,
                running=running.get(row.id),
                origin=links.origin_of(self, request, row.func, row.source, schedules),
            )
            for row in rows
        ]

    def cancel_selected_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for confirmation, then cancel the live tasks that were selected."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        ids = list(dict.fromkeys(request.POST.getlist("id")))[:SHOWN]
        try:
            rows = [as_row(live) for id in ids if (live := find_one(id))]
            if rows and "confirmed" not in request.POST:
                return self.page(request, "cancel_selected", step=_("Cancel"), title=_("Are you sure?"), rows=rows)
            schema, actor = tenancy.task_schema(), request.user.get_username()
            done = cancel_many.cancel_each(schema, [row.id for row in rows], by=actor) if rows else 0
            text = ngettext("%(count)s task was cancelled.", "%(count)s tasks were cancelled.", done)
            text = text if done else _("No task was selected that has not ended.")
            self.message_user(request, text % {"count": done}, messages.SUCCESS if done else messages.WARNING)
        except TenantQError as error:
            self.message_user(request, error_text(error), messages.ERROR)
        return HttpResponseRedirect("../")

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, then cancel a live task."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        id = unquote(object_id)
        try:
            live = find_one(id)
            row = as_row(live) if live else None
            if request.method == "POST":
                self._cancel(request, id, row.name if row else id)
                return HttpResponseRedirect("../../")
        except TenantQError as error:
            self.message_user(request, f"{id}: {error_text(error)}", messages.ERROR)
            return HttpResponseRedirect("../../")
        if row is None:
            raise Http404(_("There is no such task here, or it has ended."))
        return self.page(request, "cancel", step=_("Cancel"), title=_("Are you sure?"), row=row)

    def _cancel(self, request: HttpRequest, id: str, name: str) -> None:
        if not QUtilities.cancel(id, by=request.user.get_username()):
            self.message_user(request, _("%(name)s has already ended.") % {"name": name}, messages.WARNING)
            return
        self.message_user(request, _("%(name)s was cancelled.") % {"name": name}, messages.SUCCESS)
