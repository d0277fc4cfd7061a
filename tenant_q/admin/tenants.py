"""The operators' table of all tenants: load, last hour, next run and policy, which can be edited in its row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from tenant_q import policies, tenancy
from tenant_q.admin.count_links import CountCell, TenantCountLinks
from tenant_q.admin.tenant_lists import TenantListsAdmin
from tenant_q.admin.tenant_page import TenantPagesAdmin, policy_words, role_notes
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, TenantQError
from tenant_q.models import TenantPolicy
from tenant_q.operations.site import Tenant, read_site
from tenant_q.schedules import due_index
from tenant_q.support import workflows_app
from tenant_q.support.durations import duration

TENANTS_A_PAGE = 1000
HELD = {
    due_index.PAUSED: gettext_lazy("paused"),
    due_index.EXCLUDED: gettext_lazy("not served by the scheduler"),
    due_index.UNREADY: gettext_lazy("not ready"),
    due_index.FAILED: gettext_lazy("the last attempt failed"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table. `key` sorts it; tenants whose key is None come last in both directions."""

    name: str
    label: Any
    key: Callable[[Tenant], Any]
    title: Any = ""


COLUMNS = (
    Column("schema", gettext_lazy("Tenant"), lambda one: one.schema),
    Column("queued", gettext_lazy("Queued"), lambda one: one.load.queued),
    Column("running", gettext_lazy("Running"), lambda one: one.load.leased),
    Column("delayed", gettext_lazy("Delayed"), lambda one: one.load.delayed),
    Column("dead", gettext_lazy("Dead"), lambda one: one.load.dead),
    Column("done", gettext_lazy("Done"), lambda one: one.load.done, gettext_lazy("Done in the last hour")),
    Column("failed", gettext_lazy("Failed"), lambda one: one.load.failed, gettext_lazy("Failed in the last hour")),
    Column(
        "wait",
        gettext_lazy("Wait p95"),
        lambda one: one.load.wait_p95,
        gettext_lazy("95% of the tasks of the last hour waited no longer"),
    ),
    Column(
        "run",
        gettext_lazy("Run p95"),
        lambda one: one.load.run_p95,
        gettext_lazy("95% of the tasks of the last hour ran no longer"),
    ),
    Column("next", gettext_lazy("Next run"), lambda one: one.next_fire),
    Column("weight", gettext_lazy("Policy"), lambda one: (one.policy.paused, one.policy.weight)),
)
WORKFLOW_COLUMNS = (
    Column("runs_open", gettext_lazy("Open runs"), lambda one: one.runs.open, gettext_lazy("Open workflow runs")),
    Column(
        "runs_failed",
        gettext_lazy("Failed runs"),
        lambda one: one.runs.of("failed"),
        gettext_lazy("Failed workflow runs that are kept"),
    ),
    Column(
        "runs_overdue",
        gettext_lazy("Overdue"),
        lambda one: one.runs.overdue,
        gettext_lazy("Open workflow runs that the scheduler should have looked at"),
    ),
)
"""The columns of a project with the app of workflows, before the last two."""
LABELS = {column.name: column.label for column in (*COLUMNS, *WORKFLOW_COLUMNS)}


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A tenant's policy in its row of the table, except for the pause, which has buttons.

    The values that were shown are sent along, so that `changed_data` holds what was changed on the page and not what
    somebody else has changed meanwhile.
    """

    class Meta:
        model = TenantPolicy
        fields = [name for name in policies.FIELDS if name != "paused"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.show_hidden_initial = True


class TenantPolicyAdmin(TenantListsAdmin, TenantPagesAdmin):
    """All tenants in one table, with their policies, and a page of each."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        table: dict[str, tuple[str, Callable[..., Any]]] = {
            "changelist": ("", self.changelist_view),
            "policy": ("<str:schema>/policy/", require_POST(self.policy_view)),
            "pause": ("<str:schema>/pause/", require_POST(self.pause_view)),
        }
        return {**table, **TenantListsAdmin.get_views(self), **TenantPagesAdmin.get_views(self)}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self._table(request, **(extra_context or {}))

    def _table(
        self, request: HttpRequest, form: PolicyForm | None = None, edited: str = "", **more: Any
    ) -> HttpResponse:
        try:
            site, notes = read_site(), role_notes(conf().isolation)
        except TenantQError as error:
            return self.page(request, "tenants", title=_("Tenants and their policies"), error=str(error))
        wanted = request.GET.get("q", "").strip().lower()
        columns, filtered = _table_columns(), request.GET.get("with", "")
        found = [one for one in site.tenants if wanted in one.schema.lower()]
        if filtered in columns:  # from the sum of a column, to the tenants that have a part in it
            found = [one for one in found if columns[filtered].key(one)]
        order, reverse = _table_order(request, columns)
        shown = Paginator(_sorted(found, columns[order], reverse), TENANTS_A_PAGE).get_page(request.GET.get("p"))
        kept, links = _query_string(request, "edit"), TenantCountLinks(request, self.admin_site, self.list_url())
        can_change = self.has_change_permission(request)
        edited = edited or (request.GET.get("edit", "") if can_change else "")
        if edited and form is None:
            policy = next((one for one in site.tenants if one.schema == edited), None)
            form = PolicyForm(initial=_values(policy), auto_id="policy_%s") if policy else None
        return self.page(
            request,
            "tenants",
            title=_("Tenants and their policies"),
            site=site,
            page=shown,
            rows=[_as_row(one, _note(one, notes), links) for one in shown],
            totals=[_cells(cells) for cells in links.of_all(site)],
            filtered=columns[filtered].label if filtered in columns else "",
            heads=[_table_head(request, column, order, reverse) for column in columns.values()],
            labels=LABELS,
            width=len(columns) + 1,
            has_runs=workflows_app.is_installed(),
            query=request.GET.get("q", ""),
            kept=kept,
            kept_and=kept + ("&" if kept else "?"),
            list_url=self.list_url(),
            edited=edited,
            form=form,
            can_change=can_change,
            **more,
        )

    def policy_view(self, request: HttpRequest, schema: str) -> HttpResponse:
        """Save the changes to a tenant's policy in its row of the table, or show the errors of the form."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        form = PolicyForm(request.POST, auto_id="policy_%s")
        if not form.is_valid():
            return self._table(request, form=form, edited=schema)
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        if values:
            self._change(request, schema, "limit", values, _("The policy of %(schema)s was saved and is in force."))
        else:
            self.message_user(request, _("Nothing was changed."), messages.INFO)
        return HttpResponseRedirect(_list_url(request))

    def pause_view(self, request: HttpRequest, schema: str) -> HttpResponse:
        """Pause a tenant from the table or, if the request has `resume`, resume it."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        if "resume" in request.POST:
            self._change(request, schema, "resume", {"paused": False}, _("%(schema)s was resumed."))
        else:
            text = _("%(schema)s was paused. Its running tasks continue, and no other task starts.")
            self._change(request, schema, "pause", {"paused": True}, text)
        return HttpResponseRedirect(_list_url(request))

    def _change(self, request: HttpRequest, schema: str, act: str, values: dict[str, Any], text: str) -> None:
        try:
            policies.change(schema, actor=request.user.get_username(), act=act, **values)
        except BrokerError as error:
            self.message_user(request, str(error), messages.WARNING)
        except TenantQError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, text % {"schema": schema}, messages.SUCCESS)


def _table_columns() -> Mapping[str, Column]:
    """Return the columns of the table of tenants by name. Those of workflows are only there with their app."""
    more = WORKFLOW_COLUMNS if workflows_app.is_installed() else ()
    return {column.name: column for column in (*COLUMNS[:-2], *more, *COLUMNS[-2:])}


def _table_order(request: HttpRequest, columns: Mapping[str, Column]) -> tuple[str, bool]:
    """Return the column by which the table of tenants is sorted, and whether in descending order."""
    wanted = request.GET.get("o", "schema")
    name = wanted.removeprefix("-")
    return (name, wanted.startswith("-")) if name in columns else ("schema", False)


def _sorted(tenants: Sequence[Tenant], column: Column, reverse: bool) -> list[Tenant]:
    known = [one for one in tenants if column.key(one) is not None]
    return sorted(known, key=column.key, reverse=reverse) + [one for one in tenants if column.key(one) is None]


def _table_head(request: HttpRequest, column: Column, order: str, reverse: bool) -> dict[str, Any]:
    """Return a head of the table of tenants. A click sorts by it, a second one reverses; numbers start descending."""
    is_chosen = column.name == order
    is_number = column.name not in ("schema", "next")
    turned = not reverse if is_chosen else is_number
    sort = ("descending" if reverse else "ascending") if is_chosen else ""
    url = _query_string(request, "o", "p", "edit", o=("-" if turned else "") + column.name)
    return {"label": column.label, "title": column.title, "url": url, "sort": sort, "name": column.name}


def _query_string(request: HttpRequest, *left_out: str, **more: str) -> str:
    """Return the query string of the table of tenants without some of its parameters, and with others."""
    query: dict[str, Any] = {name: value for name, value in request.GET.items() if name not in left_out} | more
    return f"?{urlencode(query)}" if query else ""


def _list_url(request: HttpRequest) -> str:
    return "../../" + _query_string(request, "edit")


def _values(tenant: Tenant | None) -> dict[str, Any]:
    if tenant is None:
        return {}
    policy = tenant.policy
    limits = {"max_running": policy.max_running, "max_queued": policy.max_queued} | asdict(tenant.kept)
    return {"weight": policy.weight, **limits}


def _note(tenant: Tenant, notes: Mapping[str, tuple[Any, str]]) -> tuple[Any, str]:
    """Return what is unusual about a tenant's role in the table of tenants, and its CSS class."""
    if conf().isolation == "path" or not tenant.is_known or tenant.schema == tenancy.public_schema():
        return "", ""
    return notes.get(tenant.schema, (_("no role"), "tenant-q-bad"))


def _as_row(tenant: Tenant, note: tuple[Any, str], links: TenantCountLinks) -> dict[str, Any]:
    """Return a tenant as the table of tenants shows it, in values that a template renders fast."""
    policy, load = tenant.policy, tenant.load
    counts, runs = links.of_tenant(tenant)
    return {
        "schema": tenant.schema,
        "quoted": quote(tenant.schema, safe=""),
        "is_known": tenant.is_known,
        "counts": _cells(counts),
        "runs": _cells(runs),
        "wait": duration(load.wait_p95),
        "run": duration(load.run_p95),
        "next": tenant.next_fire,
        "held": HELD.get(tenant.held, tenant.held) if tenant.held != due_index.PAUSED else "",
        "paused": policy.paused,
        "policy": policy_words(policy.weight, policy.max_running, policy.max_queued, tenant.kept),
        "note": note,
    }


def _cells(cells: Iterable[CountCell]) -> SafeString:
    """Return the cells of counts in a row of the table of tenants. A template takes a second for 1,000 rows."""
    counts = ((name, localize(count) if count else "0", *rest) for name, count, *rest in cells)
    return format_html_join("", "{}", ((_cell(str(LABELS[name]), *rest),) for name, *rest in counts))


@functools.lru_cache(maxsize=1000)
def _cell(label: str, count: str, style: str, url: str) -> SafeString:
    """Return a cell of the table of tenants, with a link to what it counts. Most of them are the same zeros."""
    shown = format_html('<a href="{}">{}</a>', url, count) if url else count
    return format_html('<td class="num {}" data-label="{}">{}</td>', style, label, shown)
