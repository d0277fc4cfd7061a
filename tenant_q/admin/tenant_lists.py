"""The operators' lists of one tenant's tasks and workflow runs, to which the counts of the table of tenants lead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenant_q.admin.gate import PublicAdmin
from tenant_q.admin.pages import PagesAdmin
from tenant_q.admin.state_words import PLACES, RUN_STATES
from tenant_q.exceptions import TenantQError
from tenant_q.operations import tenant_tasks, workflow_runs
from tenant_q.operations.tenant_tasks import DoneTask, OpenTask
from tenant_q.support.durations import duration
from tenant_q.support.visible import visible

LISTED = 100
"""The most tasks, or runs, of a tenant that are listed."""
DONE = "done"
_TASK_CHOICES: Mapping[str, Any] = {
    "": gettext_lazy("Running and waiting"),
    **{place: label for place, (label, _style) in PLACES.items()},
    DONE: gettext_lazy("Done in the last hour"),
}
_RUN_CHOICES: Mapping[str, Any] = {
    "": gettext_lazy("All"),
    "open": gettext_lazy("Open"),
    "failed": gettext_lazy("Failed"),
    "overdue": gettext_lazy("Overdue"),
}


class TenantListsAdmin(PagesAdmin, PublicAdmin):
    """The lists of one tenant's tasks and workflow runs, without their arguments and results."""

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {
            "tasks": ("<str:schema>/tasks/", self.tasks_view),
            "runs": ("<str:schema>/runs/", self.runs_view),
        }

    def tasks_view(self, request: HttpRequest, schema: str) -> HttpResponse:
        """Show a tenant's tasks in one place of the broker, or those that were done in the last hour, to operators."""
        title = _("Tasks of %(schema)s") % {"schema": visible(schema)}
        place = _chosen(request, "place", _TASK_CHOICES)
        return self._list(request, "tenant_tasks", title, place, _TASK_CHOICES, lambda: _task_rows(schema, place))

    def runs_view(self, request: HttpRequest, schema: str) -> HttpResponse:
        """Show a tenant's workflow runs in one state to operators."""
        title = _("Workflow runs of %(schema)s") % {"schema": visible(schema)}
        state = _chosen(request, "state", _RUN_CHOICES)
        return self._list(request, "tenant_runs", title, state, _RUN_CHOICES, lambda: _run_rows(schema, state))

    def _list(
        self,
        request: HttpRequest,
        template: str,
        title: str,
        chosen: str,
        choices: Mapping[str, Any],
        read: Callable[[], list[dict[str, Any]]],
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context: dict[str, Any] = {"title": title, "chosen": chosen, "choices": choices.items()}
        try:
            rows = read()
        except TenantQError as error:
            return self.page(request, template, step=title, error=visible(str(error)), **context)
        context |= {"rows": rows[:LISTED], "count": _count_words(len(rows))}
        return self.page(request, template, step=title, **context)


def _chosen(request: HttpRequest, name: str, choices: Mapping[str, Any]) -> str:
    found = request.GET.get(name, "")
    return found if found in choices else ""


def _count_words(count: int) -> str:
    if count > LISTED:
        return _("The first %(limit)s are listed.") % {"limit": LISTED}
    return ngettext("%(count)s is listed.", "%(count)s are listed.", count) % {"count": count}


def _task_rows(schema: str, place: str) -> list[dict[str, Any]]:
    if place == DONE:
        return [_as_done_row(task) for task in tenant_tasks.done_tasks(schema, limit=LISTED + 1)]
    return [_as_open_row(task) for task in tenant_tasks.open_tasks(schema, place, limit=LISTED + 1)]


def _as_open_row(task: OpenTask) -> dict[str, Any]:
    state, style = (_("Being cancelled"), "tenant-q-warn") if task.is_cancelled else PLACES[task.place]
    return {"id": visible(task.id), "func": visible(task.func), "state": state, "style": style, "due": task.due}


def _as_done_row(task: DoneTask) -> dict[str, Any]:
    row = {"id": visible(task.id), "func": visible(task.func), "state": _("Done"), "style": "tenant-q-good"}
    return row | {"stopped": task.stopped, "took": duration(task.seconds)}


def _run_rows(schema: str, state: str) -> list[dict[str, Any]]:
    found = workflow_runs.indexed_runs(schema, state, limit=LISTED + 1)
    unknown = ("", "tenant-q-soft")
    return [
        {
            "id": visible(run.run),
            "state": RUN_STATES.get(run.state, unknown)[0] or visible(run.state),
            "style": RUN_STATES.get(run.state, unknown)[1],
            "due": run.due,
            "cluster": visible(run.cluster),
        }
        for run in found
    ]
