"""The admin of a tenant's running, queued and delayed tasks, read from the broker, with cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenant_q import tenancy
from tenant_q.admin.errors import error_text
from tenant_q.admin.gate import TenantAdmin
from tenant_q.admin.pages import PagesAdmin
from tenant_q.admin.values import in_short
from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import CANCELLED, Live
from tenant_q.exceptions import BadPackage, TenantQError
from tenant_q.lifecycle import progress
from tenant_q.package.envelope import Found, open_package
from tenant_q.support import moments
from tenant_q.utils import QUtilities

SHOWN = 100
"""The most tasks that are listed; others follow when these have ended."""
SHOWN_ARGUMENTS = 10
"""The most arguments, and the most keyword arguments, of a task that are shown."""
_PLACES = {
    "leased": (gettext_lazy("Running"), "tenant-q-good"),
    "queued": (gettext_lazy("Queued"), "tenant-q-soft"),
    "delayed": (gettext_lazy("Delayed"), "tenant-q-warn"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A package as the page shows it. `problem` says why it cannot be read, or is empty."""

    id: str
    name: str
    func: str
    group: str
    arguments: str
    state: Any
    style: str
    due: datetime | None
    is_cancelled: bool
    problem: str
    fraction: float | None = None
    progress: str = ""


class LiveTaskAdmin(PagesAdmin, TenantAdmin):
    """The tasks that run or wait, read from the broker for each request."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {
            "changelist": ("", self.changelist_view),
            "cancel": ("<path:object_id>/cancel/", self.cancel_view),
        }

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the live tasks; with `?part=table` only the table, for the script that refreshes it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {"title": _("Running and queued tasks"), "limit": SHOWN, **(extra_context or {})}
        context["can_cancel"] = self.has_change_permission(request)
        try:
            found = find_live(SHOWN + 1)
            context["rows"] = [as_row(live) for live in found[:SHOWN]]
            context["has_more"] = len(found) > SHOWN
        except TenantQError as error:
            context["error"] = error_text(error)
        part = "live_table" if request.GET.get("part") == "table" else "live"
        return self.page(request, part, **context)

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


def find_live(limit: int) -> list[Live]:
    """Return the current tenant's first live tasks from the site's brokers. Raises the errors of `Broker.live`."""
    schema = tenancy.task_schema()
    found = [live for broker in site_brokers() for live in broker.live(schema, limit=limit)]
    order = list(_PLACES)
    return sorted(found, key=lambda live: order.index(live.place))[:limit]


def find_one(id: str) -> Live | None:
    """Return the current tenant's live task with this id if it waits or runs. Raises the errors of `Broker.find`."""
    schema = tenancy.task_schema()
    found = (broker.find(schema, id) for broker in site_brokers())
    return next((live for live in found if live), None)


def as_row(live: Live) -> Row:
    """Return a live task as the page shows it, even if its package cannot be read."""
    is_cancelled = (live.give_up_reason or "").startswith(CANCELLED)
    state, style = (_("Being cancelled"), "tenant-q-warn") if is_cancelled else _PLACES[live.place]
    due = moments.at(live.at) if live.at is not None else None
    common: dict[str, Any] = {
        "id": live.id,
        "state": state,
        "style": style,
        "due": due,
        "is_cancelled": is_cancelled,
    }
    schema = tenancy.current_schema()
    try:
        package = open_package(live.payload, Found(live.id, schema, tenancy.current_key(schema)))
    except BadPackage as error:
        return Row(name=live.id, func=live.func, group="", arguments="", problem=str(error), **common)
    fraction, text = _progress(live)
    return Row(
        name=package.name,
        func=package.stored_func,
        group=package.group or "",
        arguments=_arguments_of(package.args, package.kwargs),
        problem="",
        fraction=fraction,
        progress=text,
        **common,
    )


def _arguments_of(args: Any, kwargs: Any) -> str:
    """Return the arguments of a live task as text, shortened."""
    parts = [in_short(value) for value in args[:SHOWN_ARGUMENTS]]
    parts += [f"{name}={in_short(value)}" for name, value in islice(kwargs.items(), SHOWN_ARGUMENTS)]
    return ", ".join(parts + ["…"] * (max(len(args), len(kwargs)) > SHOWN_ARGUMENTS))


def _progress(live: Live) -> tuple[float | None, str]:
    """Return the progress that a live task has reported: its fraction and its text."""
    reported = progress.read(live.schema, live.id) if live.place == "leased" else None
    return (reported.fraction, reported.text) if reported else (None, "")
