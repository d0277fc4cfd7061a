"""Links from the counts of the admin to what they count, for those who may see it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from tenant_q.operations.site import Site, Tenant
from tenant_q.operations.tenant_tasks import HOUR_SECONDS

LAST_HOUR = f"{HOUR_SECONDS // 60}m"
"""The time that the counts of the last hour reach back, as a filter of failures."""

CountCell = tuple[str, int, str, str]
"""The name of a column, a count in it, its CSS class, and the URL of what it counts; empty where nothing is to see."""
ALARMING = frozenset({"dead", "failed", "runs_failed", "runs_overdue"})
"""The counts that should be 0."""


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
                _cell("queued", load.queued, f"{tasks}queued"),
                _cell("running", load.leased, f"{tasks}leased"),
                _cell("delayed", load.delayed, f"{tasks}delayed"),
                _cell("dead", load.dead, self._dead and f"{self._dead}?schema={name}"),
                _cell("done", load.done, f"{tasks}done" if tenant.is_known else ""),
                _cell("failed", load.failed, self._failures and f"{self._failures}&schema={name}"),
            ],
            [
                _cell("runs_open", runs.open, f"{own_runs}open"),
                _cell("runs_failed", runs.of("failed"), f"{own_runs}failed"),
                _cell("runs_overdue", runs.overdue, f"{own_runs}overdue"),
            ],
        )

    def of_all(self, site: Site) -> tuple[list[CountCell], list[CountCell]]:
        """Return the same cells for the sum of all tenants: most lead to the tenants that have a part in it."""
        total, runs = site.total, site.runs
        return (
            [
                self._sum("queued", total.queued),
                self._sum("running", total.leased),
                self._sum("delayed", total.delayed),
                _cell("dead", total.dead, self._dead),
                self._sum("done", total.done),
                _cell("failed", total.failed, self._failures),
            ],
            [
                self._sum("runs_open", runs.open),
                self._sum("runs_failed", runs.of("failed")),
                self._sum("runs_overdue", runs.overdue),
            ],
        )

    def _sum(self, column: str, value: int) -> CountCell:
        return _cell(column, value, f"{self._table}?with={column}&o=-{column}")


def _cell(column: str, value: int, url: str) -> CountCell:
    if not value:
        return column, value, "tenant-q-zero", ""
    return column, value, "tenant-q-alert" if column in ALARMING else "", url
