"""The operators' pages in the public site about clusters, dead tasks and the audit trail."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any
from urllib.parse import quote

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Value
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from tenant_q.admin import links
from tenant_q.admin.count_links import list_link
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
"""The most dead tasks that are listed."""


class ClusterAdmin(PagesAdmin, PublicAdmin):
    """The clusters of the site, their processes, and the task that each one runs."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"changelist": ("", self.changelist_view)}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the clusters to operators; with `?part=table` only the table, for the script that refreshes it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        template = "clusters_table" if request.GET.get("part") == "table" else "clusters"
        context = {"tenants_url": _tenants_url(self, request), **(extra_context or {})}
        try:
            return self.page(request, template, title=_("Clusters"), site=read_site(), **context)
        except TenantQError as error:
            return self.page(request, template, title=_("Clusters"), error=str(error))


# Dead tasks


class DeadTaskAdmin(PagesAdmin, PublicAdmin):
    """Packages that were given up without a row, to be queued again or purged."""

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"changelist": ("", self.changelist_view), "act": ("act/", require_POST(self.act_view))}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        schema = request.GET.get("schema", "").strip()
        context: dict[str, Any] = {"title": _("Dead tasks"), "schema": schema, "limit": DEAD_SHOWN}
        context |= {"can_retry": self.has_change_permission(request), "can_purge": self.has_delete_permission(request)}
        try:
            found = _latest_dead(schema or None, DEAD_SHOWN + 1)
        except TenantQError as error:
            return self.page(request, "dead", error=str(error), **context)
        tenants_url = _tenants_url(self, request)
        rows = [_as_dead_row(dead, tenants_url) for broker, dead in found[:DEAD_SHOWN]]
        return self.page(request, "dead", rows=rows, has_more=len(found) > DEAD_SHOWN, **context)

    def act_view(self, request: HttpRequest) -> HttpResponse:
        """Retry the dead tasks that an operator selected, or ask for confirmation and then purge them."""
        action = request.POST.get("act", "")
        allowed = {"retry": self.has_change_permission, "purge": self.has_delete_permission}
        if action not in allowed:
            raise Http404(_("There is no such action."))
        if not allowed[action](request):
            raise PermissionDenied
        ids = set(request.POST.getlist("id"))
        try:
            chosen = _dead_of(ids)
            if action == "purge" and chosen and "confirmed" not in request.POST:
                rows = [dead for broker, dead in chosen]
                return self.page(request, "purge", step=_("Purge"), title=_("Are you sure?"), rows=rows)
            self._change(request, action, chosen)
        except TenantQError as error:
            self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect("../")

    def _change(self, request: HttpRequest, action: str, chosen: Sequence[tuple[Broker, Dead]]) -> None:
        by_broker: dict[str, tuple[Broker, list[Dead]]] = {}
        for broker, dead in chosen:
            by_broker.setdefault(broker.cluster, (broker, []))[1].append(dead)
        change = dead_letters.retry if action == "retry" else dead_letters.purge
        actor = request.user.get_username()
        done = sum(change(broker, own, actor=actor) for broker, own in by_broker.values())
        if action == "retry":
            text = ngettext("%(count)s task was queued again.", "%(count)s tasks were queued again.", done)
            url = list_link(request, self.admin_site, "tenantpolicy", **{"with": "queued"})
        else:
            text = ngettext("%(count)s task was purged.", "%(count)s tasks were purged.", done)
            url = list_link(request, self.admin_site, "auditrecord", act="purge")
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, links.linked(url if done else "", text % {"count": done}), level)


def _latest_dead(schema: str | None, limit: int) -> list[tuple[Broker, Dead]]:
    """Return for operators the latest dead packages of the site's clusters, at most `limit` of each, latest first."""
    found = [
        (broker, dead) for broker in site_brokers() for dead in broker.dead(schema, limit=limit, newest_first=True)
    ]
    return sorted(found, key=lambda one: one[1].died, reverse=True)


def _dead_of(ids: Set[str]) -> list[tuple[Broker, Dead]]:
    """Return the dead packages with these ids, which an operator selected, from all clusters of the site."""
    return [(broker, dead) for broker in site_brokers() for dead in broker.dead(ids=ids, limit=len(ids))]


def _tenants_url(model_admin: Any, request: HttpRequest) -> str:
    """Return the URL of the operators' table of tenants, before the name of one; empty if this user may not see it."""
    user: Any = request.user
    can_see = user.has_perm("tenant_q.view_tenantpolicy") or user.has_perm("tenant_q.change_tenantpolicy")
    return links.url_of(model_admin, "tenant_q_tenantpolicy_changelist") if can_see else ""


def _tenant_url(tenants_url: str, schema: str) -> str:
    """Return the URL of a tenant's page for operators; empty without that of the table."""
    return f"{tenants_url}{quote(schema, safe='')}/" if tenants_url else ""


def _as_dead_row(dead: Dead, tenants_url: str = "") -> dict[str, Any]:
    return {
        "id": dead.id,
        "schema": visible(dead.schema),
        "url": _tenant_url(tenants_url, dead.schema),
        "func": visible(dead.func),
        "cause": visible(dead.cause),
        "when": moments.at(dead.died),
    }


# The audit trail


class AuditRecordAdmin(PublicAdmin):
    """The audit trail: who did what to which tenant. It is read-only."""

    change_list_template = "tenant_q/admin/change_list.html"
    change_form_template = "tenant_q/admin/change_form.html"
    list_display = ("done", "tenant", "short_target", "change", "shown_at")
    list_filter = ("act", ("at", admin.DateFieldListFilter))
    search_fields = ("actor", "schema_name", "target", "act")
    search_help_text = gettext_lazy("Actor, act, tenant or target")
    show_full_result_count = False
    fields = (("act", "actor", "tenant", "shown_at"), "target", "shown_before", "shown_after")

    class Media:
        css = {"all": ["tenant_q/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(tenants_url=Value(_tenants_url(self, request)))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {"title": _("Audit trail"), **(extra_context or {})})

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        context = {"tenant_q_is_read_only": True, **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)

    @admin.display(description=gettext_lazy("act"), ordering="act")
    def done(self, record: Any) -> Any:
        return links.two_lines(visible(record.act), _("by %(actor)s") % {"actor": visible(record.actor)})

    @admin.display(description=gettext_lazy("tenant"), ordering="schema_name")
    def tenant(self, record: Any) -> Any:
        if not record.schema_name:
            return "-"
        return links.linked(_tenant_url(record.tenants_url, record.schema_name), visible(record.schema_name))

    @admin.display(description=gettext_lazy("at"), ordering="at")
    def shown_at(self, record: Any) -> Any:
        return moments.shown(record.at)

    @admin.display(description=gettext_lazy("target"))
    def short_target(self, record: Any) -> str:
        target = visible(record.target)
        return target if len(target) <= 40 else f"{target[:40]}…"

    @admin.display(description=gettext_lazy("change"))
    def change(self, record: Any) -> str:
        """Return what an audit record shows to operators as changed, in a few words."""
        before, after = record.before or {}, record.after or {}
        if not isinstance(before, dict) or not isinstance(after, dict):
            return "-"
        names = [name for name in after if before.get(name) != after[name]]
        changes = [
            f"{name} {_word(before.get(name))} → {_word(after[name])}" if before else f"{name} {_word(after[name])}"
            for name in names
        ]
        return ", ".join(changes) or "-"

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
