"""The operators' other pages, in the public site only: clusters, dead tasks, and the audit trail."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from tenant_q.admin.gate import PublicAdmin
from tenant_q.admin.pages import PagesAdmin
from tenant_q.admin.values import block
from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import Broker, Dead
from tenant_q.exceptions import TenantQError
from tenant_q.operations import dead_letters
from tenant_q.operations.site import read_site
from tenant_q.support import moments
from tenant_q.support.visible import visible, visible_lines

DEAD_SHOWN = 200


class ClusterAdmin(PagesAdmin, PublicAdmin):
    """The clusters of the site, their processes, and what each runs now."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"changelist": ("", self.changelist_view)}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The clusters; with `?part=table` only what changes, for the script that refreshes it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        template = "clusters_table" if request.GET.get("part") == "table" else "clusters"
        try:
            return self.page(request, template, title=_("Clusters"), site=read_site(), **(extra_context or {}))
        except TenantQError as error:
            return self.page(request, template, title=_("Clusters"), error=str(error))


# Dead tasks


class DeadTaskAdmin(PagesAdmin, PublicAdmin):
    """Packages that were given up without a row: queue them again, or forget them."""

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"changelist": ("", self.changelist_view), "act": ("act/", require_POST(self.act_view))}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        schema = request.GET.get("schema", "").strip()
        context: dict[str, Any] = {"title": _("Dead tasks"), "schema": schema, "limit": DEAD_SHOWN}
        context |= {"can_retry": self.has_change_permission(request), "can_purge": self.has_delete_permission(request)}
        try:
            found = _dead(schema or None, DEAD_SHOWN + 1)
        except TenantQError as error:
            return self.page(request, "dead", error=str(error), **context)
        rows = [_as_dead_row(dead) for broker, dead in found[:DEAD_SHOWN]]
        return self.page(request, "dead", rows=rows, has_more=len(found) > DEAD_SHOWN, **context)

    def act_view(self, request: HttpRequest) -> HttpResponse:
        """Retry what is chosen, or ask whether it is to be purged, and do it when that is confirmed."""
        act = request.POST.get("act", "")
        allowed = {"retry": self.has_change_permission, "purge": self.has_delete_permission}
        if act not in allowed:
            raise Http404(_("There is no such act."))
        if not allowed[act](request):
            raise PermissionDenied
        ids = set(request.POST.getlist("id"))
        try:
            chosen = _these_dead(ids)
            if act == "purge" and chosen and "confirmed" not in request.POST:
                rows = [dead for broker, dead in chosen]
                return self.page(request, "purge", act=_("Purge"), title=_("Are you sure?"), rows=rows)
            self._act(request, act, chosen)
        except TenantQError as error:
            self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect("../")

    def _act(self, request: HttpRequest, act: str, chosen: Sequence[tuple[Broker, Dead]]) -> None:
        by_broker: dict[str, tuple[Broker, list[Dead]]] = {}
        for broker, dead in chosen:
            by_broker.setdefault(broker.cluster, (broker, []))[1].append(dead)
        do = dead_letters.retry if act == "retry" else dead_letters.purge
        actor = request.user.get_username()
        done = sum(do(broker, own, actor=actor) for broker, own in by_broker.values())
        if act == "retry":
            told = ngettext("%(count)s task is queued again.", "%(count)s tasks are queued again.", done)
        else:
            told = ngettext("%(count)s task is purged.", "%(count)s tasks are purged.", done)
        self.message_user(request, told % {"count": done}, messages.SUCCESS if done else messages.WARNING)


def _dead(schema: str | None, limit: int) -> list[tuple[Broker, Dead]]:
    """The latest dead packages of the site's clusters, at most `limit` of each, the latest first."""
    found = [
        (broker, dead) for broker in site_brokers() for dead in broker.dead(schema, limit=limit, newest_first=True)
    ]
    return sorted(found, key=lambda one: one[1].died, reverse=True)


def _these_dead(ids: Set[str]) -> list[tuple[Broker, Dead]]:
    """Those of the packages that are dead, of whichever cluster."""
    return [(broker, dead) for broker in site_brokers() for dead in broker.dead(ids=ids, limit=len(ids))]


def _as_dead_row(dead: Dead) -> dict[str, Any]:
    return {
        "id": dead.id,
        "schema": dead.schema,
        "func": visible(dead.func),
        "cause": visible(dead.cause),
        "when": moments.at(dead.died),
    }


# The audit trail


class AuditRecordAdmin(PublicAdmin):
    """Who did what to which tenant: to be read, never changed."""

    list_display = ("at", "actor", "act", "schema_name", "short_target", "change")
    list_filter = ("act", ("at", admin.DateFieldListFilter))
    search_fields = ("actor", "schema_name", "target", "act")
    show_full_result_count = False
    fields = (("at", "actor"), ("act", "schema_name"), "target", "shown_before", "shown_after")

    class Media:
        css = {"all": ["tenant_q/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {"title": _("Audit trail"), **(extra_context or {})})

    @admin.display(description=gettext_lazy("target"))
    def short_target(self, record: Any) -> str:
        target = visible(record.target)
        return target if len(target) <= 40 else f"{target[:40]}…"

    @admin.display(description=gettext_lazy("change"))
    def change(self, record: Any) -> str:
        """What is different, in a few words."""
        before, after = record.before or {}, record.after or {}
        if not isinstance(before, dict) or not isinstance(after, dict):
            return "-"
        names = [name for name in after if before.get(name) != after[name]]
        told = [
            f"{name} {_word(before.get(name))} → {_word(after[name])}" if before else f"{name} {_word(after[name])}"
            for name in names
        ]
        return ", ".join(told) or "-"

    @admin.display(description=gettext_lazy("before"))
    def shown_before(self, record: Any) -> Any:
        return _json(record.before, gettext_lazy("Before"))

    @admin.display(description=gettext_lazy("after"))
    def shown_after(self, record: Any) -> Any:
        return _json(record.after, gettext_lazy("After"))


def _word(value: Any) -> str:
    if value is None:
        return _("none")
    return (_("yes") if value else _("no")) if isinstance(value, bool) else visible(str(value))


def _json(value: Any, label: Any) -> Any:
    return "-" if value is None else block(visible_lines(json.dumps(value, indent=2, ensure_ascii=False)), label)
