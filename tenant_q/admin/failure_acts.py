"""Run failures of all tenants again, or delete them, from the operators' page, in slices of about a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.utils.translation import gettext as _

from tenant_q.admin.count_links import list_link
from tenant_q.admin.failure_filters import Filters, as_id, key_of, read_filters
from tenant_q.admin.gate import PublicAdmin
from tenant_q.admin.pages import PagesAdmin
from tenant_q.exceptions import TenantQError
from tenant_q.lifecycle.failure_entries import Key
from tenant_q.operations import failures
from tenant_q.operations.failures import FailuresDone
from tenant_q.support.visible import visible

SLICE_SECONDS = 1.0
"""How long a request goes on with further failures."""
STEP = 100
"""The failures that are run again or deleted between two looks at the clock."""
SHOWN_ERRORS = 20
"""The most failures whose errors are shown."""
RETRY, DELETE = "retry", "delete"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far running failures again, or deleting them, has come. It travels from request to request.

    Attributes:
        total: The number of failures that there were to begin with.
        done: The number that were run again or deleted.
        skipped: The number that somebody else had run again or deleted meanwhile.
        failed: The number that could not be.
        errors: Why the first of them could not be, in one line for each.
        last: The failure behind which the next request goes on; None at the start and at the end.
        is_over: Whether none is left.
    """

    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    errors: tuple[str, ...] = ()
    last: Key | None = None
    is_over: bool = False

    @property
    def looked_at(self) -> int:
        """The number of failures that the act has come past."""
        return self.done + self.skipped + self.failed

    @property
    def already(self) -> int:
        """The number of failures that were not open any more when the act came to them.

        Somebody else had run them again or deleted them, or the same act had, just before an error ended its request.
        """
        return max(self.skipped, self.total - self.done - self.failed) if self.is_over else self.skipped

    @property
    def most(self) -> int:
        """The number of failures at the end of the progress bar, which is never 0."""
        return max(self.total, self.looked_at, 1)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The parameters that carry the progress of an act on failures to the next request."""
        found = [(name, str(getattr(self, name))) for name in ("total", "done", "skipped", "failed")]
        found += [("error", error) for error in self.errors]
        return [*found, ("last", as_id(self.last))] if self.last else found

    def after(self, result: FailuresDone) -> Progress:
        """Return the progress of an act on failures after one more step."""
        errors = [visible(f"{schema} {id}: {why}") for (schema, id), why in result.errors.items()]
        return replace(
            self,
            done=self.done + result.done,
            skipped=self.skipped + result.skipped,
            failed=self.failed + len(result.errors),
            errors=(*self.errors, *errors)[:SHOWN_ERRORS],
            last=result.last,
            is_over=result.last is None,
        )


class FailureActsAdmin(PagesAdmin, PublicAdmin):
    """The pages that ask for confirmation, and then run failures again, or delete them, slice by slice."""

    class Media:
        css = {"all": ["tenant_q/failures.css"]}
        js = ["tenant_q/failures.js"]

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {"act": ("act/", self.act_view)}

    def act_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for confirmation of an act on failures; if the request confirms it, do a slice of it."""
        data = request.POST if request.method == "POST" else request.GET
        act = data.get("act", "")
        allowed = {RETRY: self.has_change_permission, DELETE: self.has_delete_permission}
        if act not in allowed:
            raise Http404(_("There is no such action."))
        if not (self.has_view_permission(request) and allowed[act](request)):
            raise PermissionDenied
        filters = read_filters(data)
        if request.method == "POST" and "confirmed" in data:
            return self._do_slice(request, act, filters, _progress_of(data))
        return self._ask(request, act, filters)

    def _ask(self, request: HttpRequest, act: str, filters: Filters) -> HttpResponse:
        """Return the page that asks for confirmation, with the number of failures that there are now."""
        context: dict[str, Any] = {"act": act, "filters": filters, "back_url": self.list_url() + filters.url()}
        step = _("Run again") if act == RETRY else _("Delete")
        fixed = filters.frozen()
        try:
            context["count"] = failures.count(fixed.wanted)
        except TenantQError as error:
            context["error"] = visible(str(error))
        fields = [*fixed.fields, ("total", str(context.get("count", 0)))]
        return self.page(request, "failures_confirm", step=step, title=_("Are you sure?"), fields=fields, **context)

    def _do_slice(self, request: HttpRequest, act: str, filters: Filters, progress: Progress) -> HttpResponse:
        """Do what a second allows, and return the page that continues; only its part for a request of the script."""
        progress, error = _do_steps(act, filters, progress, request.user.get_username())
        title = _("Running failures again") if act == RETRY else _("Deleting failures")
        context: dict[str, Any] = {"title": title, "act": act, "progress": progress, "error": error}
        context |= {"fields": [*filters.fields, *progress.fields], "back_url": self.list_url()}
        context["left_url"] = self.list_url() + filters.url(show="all") if progress.failed else ""
        context["queued_url"] = list_link(request, self.admin_site, "tenantpolicy", **{"with": "queued"})
        is_part = request.headers.get("X-Requested-With") == "XMLHttpRequest"
        return self.page(request, "failures_progress" if is_part else "failures_acting", step=title, **context)


def _do_steps(act: str, filters: Filters, progress: Progress, actor: str) -> tuple[Progress, str]:
    """Act on failures until the time of a slice is over. Return the progress, and the error that has stopped it."""
    do = failures.retry if act == RETRY else failures.delete
    end = time.monotonic() + SLICE_SECONDS
    try:
        while not progress.is_over:
            progress = progress.after(do(filters.wanted, actor=actor, limit=STEP, after=progress.last))
            if time.monotonic() >= end:
                break
    except TenantQError as error:
        return progress, visible(str(error))
    return progress, ""


def _progress_of(data: QueryDict) -> Progress:
    """Return the progress of an act on failures that a request carries. It counts for the page only."""
    total, done, skipped, failed = (_number(data.get(name, "")) for name in ("total", "done", "skipped", "failed"))
    errors = tuple(map(visible, data.getlist("error")[:SHOWN_ERRORS]))
    return Progress(total, done, skipped, failed, errors, key_of(data.get("last", "")))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
