"""Links from the counts of the admin to what they count, for those who may see it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from tenant_q.operations.site import Site, Tenant
from tenant_q.operations.tenant_tasks import HOUR_SECONDS

LAST_HOUR = f"{HOUR_SECONDS // 60}m"
"""The time that the counts of the last hour reach back, as a filter of failures."""

CountCell = tuple[int, str, str]
"""A count in a table, its CSS class, and the URL of what it counts; the URL is empty where there is nothing to see."""


def list_link(request: HttpRequest, site: Any, model: str, app: str = "tenant_q", **query: Any) -> str:
    """Return the URL of a list of the admin with filters; empty if the user may not see it, or it does not exist.

    Args:
        request: The request of the page that links to it.
        site: The `AdminSite` of that page.
        model: The name of the list's model, in lower case.
        app: The label of the model's app.
        query: The filters; those that are empty are left out.
    """
    user: Any = request.user
    if not any(user.has_perm(f"{app}.{act}_{model}") for act in ("view", "change")):
        return ""
    try:
        url = reverse(f"admin:{app}_{model}_changelist", current_app=site.name)
    except NoReverseMatch:  # a site of the project without this page
        return ""
    kept = {name: value for name, value in query.items() if value}
    return f"{url}?{urlencode(kept)}" if kept else url


def linked(text: Any, url: str) -> SafeString:
    """Return a text of the admin in HTML, as a link where there is a URL."""
    return format_html('<a href="{}">{}</a>', url, text) if url else format_html("{}", text)


class TenantCountLinks:
    """The cells of the operators' table of tenants that count something, with links to what they count."""

    def __init__(self, request: HttpRequest, site: Any, table_url: str) -> None:
        self._table = table_url
        self._dead = list_link(request, site, "deadtask")
        self._failures = list_link(request, site, "failedtask", since=LAST_HOUR)

    def of_tenant(self, tenant: Tenant) -> tuple[list[CountCell], list[CountCell]]:
        """Return the cells that count a tenant's tasks, and those that count its workflow runs."""
        load, runs, name = tenant.load, tenant.runs, quote(tenant.schema, safe="")
        tasks, own_runs = f"{self._table}{name}/tasks/?place=", f"{self._table}{name}/runs/?state="
        return (
            [
                _cell(load.queued, f"{tasks}queued"),
                _cell(load.leased, f"{tasks}leased"),
                _cell(load.delayed, f"{tasks}delayed"),
                _cell(load.dead, self._dead and f"{self._dead}?schema={name}", is_bad=True),
                _cell(load.done, f"{tasks}done" if tenant.is_known else ""),
                _cell(load.failed, self._failures and f"{self._failures}&schema={name}", is_bad=True),
            ],
            [
                _cell(runs.open, f"{own_runs}open"),
                _cell(runs.of("failed"), f"{own_runs}failed", is_bad=True),
                _cell(runs.overdue, f"{own_runs}overdue", is_bad=True),
            ],
        )

    def of_all(self, site: Site) -> tuple[list[CountCell], list[CountCell]]:
        """Return the same cells for the sum of all tenants: most lead to the tenants that have a part in it."""
        total, runs = site.total, site.runs
        return (
            [
                _cell(total.queued, self._with("queued")),
                _cell(total.leased, self._with("running")),
                _cell(total.delayed, self._with("delayed")),
                _cell(total.dead, self._dead),
                _cell(total.done, self._with("done")),
                _cell(total.failed, self._failures),
            ],
            [
                _cell(runs.open, self._with("runs_open")),
                _cell(runs.of("failed"), self._with("runs_failed")),
                _cell(runs.overdue, self._with("runs_overdue")),
            ],
        )

    def _with(self, column: str) -> str:
        return f"{self._table}?with={column}&o=-{column}"


def _cell(value: int, url: str, *, is_bad: bool = False) -> CountCell:
    if not value:
        return value, "tenant-q-zero", ""
    return value, "tenant-q-alert" if is_bad else "", url
