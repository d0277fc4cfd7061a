"""Links from the counts of the overview to what they count: in a tenant's admin, and in the operators'."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest

from tenant_q.admin.count_links import list_link
from tenant_q.admin.state_words import PLACES
from tenant_q.schedules.planned_runs import PlannedRun
from tenant_q.support import moments


class TenantLinks:
    """The lists of a tenant's admin to which the counts of its overview lead. Each URL is empty if there is none."""

    def __init__(self, request: HttpRequest, site: Any) -> None:
        self._request, self._site = request, site

    def place(self, place: str) -> str:
        """Return the URL of the tasks in one place: "queued", "leased", "delayed" or "dead"."""
        return list_link(self._request, self._site, "livetask", place=place) if place in PLACES else ""

    def failures(self) -> str:
        """Return the URL of all failures."""
        return self._rows("failure")

    def failed(self, start: float, end: float | None = None, *, func: str = "") -> str:
        """Return the URL of the failures that ended in a time, in seconds since the epoch, perhaps of one function."""
        return self._rows("failure", **_between(start, end), func=func)

    def done(self, start: float, end: float | None = None, *, func: str = "") -> str:
        """Return the URL of the successes that are kept and ended in a time, perhaps of one function."""
        return self._rows("success", **_between(start, end), func=func)

    def all_done(self, start: float, *, of_hour: bool) -> str:
        """Return the URL of the successes that are kept and ended in the last hour or day."""
        return self.done(start)

    def next_run(self, run: PlannedRun) -> str:
        """Return the URL of the schedule that runs next."""
        table = list_link(self._request, self._site, "schedule", app="django_q")
        return f"{table}{run.id}/change/" if table else ""

    def _rows(self, model: str, **query: Any) -> str:
        return list_link(self._request, self._site, model, app="django_q", **query)


class SiteLinks:
    """The operators' lists to which the counts of the overview of all tenants lead. Each URL is empty if there is none.

    What has succeeded is in the tenants' own tables, so that no list has it of all tenants.
    """

    def __init__(self, request: HttpRequest, site: Any) -> None:
        self._request, self._site = request, site
        self._tenants = list_link(request, site, "tenantpolicy")

    def place(self, place: str) -> str:
        """Return the URL of the dead tasks, or of the tenants with "queued", "leased" or "delayed" tasks."""
        if place == "dead":
            return list_link(self._request, self._site, "deadtask")
        column = "running" if place == "leased" else place
        return f"{self._tenants}?with={column}&o=-{column}" if self._tenants else ""

    def failures(self) -> str:
        """Return the URL of all failures."""
        return list_link(self._request, self._site, "failedtask")

    def failed(self, start: float, end: float | None = None, *, func: str = "", schema: str = "") -> str:
        """Return the URL of the failures that ended in a time, perhaps of one function or tenant."""
        times = {"since": _moment(start), "until": _moment(end) if end is not None else ""}
        return list_link(self._request, self._site, "failedtask", **times, func=func, schema=schema)

    def done(self, start: float, end: float | None = None, *, func: str = "") -> str:
        """Return an empty text: there is no list of the successes of all tenants."""
        return ""

    def all_done(self, start: float, *, of_hour: bool) -> str:
        """Return the URL of the tenants with successes in the last hour; of a day there is no list."""
        return f"{self._tenants}?with=done&o=-done" if of_hour and self._tenants else ""

    def next_run(self, run: PlannedRun) -> str:
        """Return the URL of the tenants, those whose schedules run next first."""
        return f"{self._tenants}?o=next" if self._tenants else ""

    def tenant(self, schema: str) -> str:
        """Return the URL of the page of a tenant."""
        return f"{self._tenants}{quote(schema, safe='')}/" if self._tenants else ""

    def done_by(self, schema: str) -> str:
        """Return the URL of the tasks that a tenant has done in the last hour."""
        return f"{self.tenant(schema)}tasks/?place=done" if self._tenants else ""

    def clusters(self) -> str:
        """Return the URL of the clusters."""
        return list_link(self._request, self._site, "cluster")


def _between(start: float, end: float | None) -> dict[str, str]:
    return {"stopped__gte": _moment(start), "stopped__lt": _moment(end) if end is not None else ""}


def _moment(epoch: float) -> str:
    moment: datetime = moments.at(epoch)
    return moment.isoformat()
