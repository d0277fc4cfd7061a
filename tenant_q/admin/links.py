"""Links between the pages of an admin: from a task to its schedule or run, and from a schema to its tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.utils import quote
from django.db.models import Q
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from tenant_q.lifecycle.step_engine import STEP_FUNCTIONS
from tenant_q.schedules import schedule_rows
from tenant_q.schedules.row_names import group_of
from tenant_q.support.visible import visible

_LONGEST_ID = 18
"""The most digits of the id of a schedule, which is a bigint."""


def url_of(model_admin: Any, page: str, *args: Any, **query: Any) -> str:
    """Return the URL of a page of the same admin site; empty if the site has no such page.

    Args:
        model_admin: The admin that has the link.
        page: The name of the page, such as "django_q_schedule_change".
        args: The arguments of its URL.
        query: Its query, without those that are empty.
    """
    try:
        url = reverse(f"admin:{page}", args=[quote(one) for one in args], current_app=model_admin.admin_site.name)
    except NoReverseMatch:
        return ""
    chosen = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{url}?{urlencode(chosen)}" if chosen else url


def linked(url: str, text: Any, style: str = "") -> SafeString:
    """Return a text as a link in the admin, or as it is without a URL."""
    if url:
        return format_html('<a href="{}" class="{}">{}</a>', url, style, text)
    return format_html('<span class="{}">{}</span>', style, text)


def two_lines(first: Any, second: Any) -> SafeString:
    """Return a cell of a list with a second, quiet line below the first."""
    return format_html('{}<span class="tenant-q-under">{}</span>', first, second)


def is_id(text: str) -> bool:
    """Return whether a text may be the id of a schedule."""
    return text.isdecimal() and text.isascii() and len(text) <= _LONGEST_ID


def schedules_by_group(groups: Iterable[str | None]) -> Mapping[str, int]:
    """Return the ids of the current tenant's schedules whose tasks have one of these groups, by group.

    A task of a schedule has the schedule's name as its group, or the id of a schedule without a name.
    """
    wanted = {group for group in groups if group}
    ids = [int(group) for group in wanted if is_id(group)]
    if not wanted:
        return {}
    unnamed = Q(pk__in=ids) & (Q(name__isnull=True) | Q(name=""))
    rows = schedule_rows.rows().filter(Q(name__in=wanted) | unnamed).order_by("-pk")
    return {group_of(row): row.pk for row in rows.only("name")}


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a task: a schedule or a workflow run.

    Attributes:
        label: What it is, in a word.
        name: Its name for people.
        url: The URL of its page; empty if there is none for this user.
    """

    label: Any
    name: str
    url: str


def origin_of(
    model_admin: Any, request: HttpRequest, func: str, group: str | None, schedules: Mapping[str, int]
) -> Origin | None:
    """Return the schedule or the workflow run that made a task, if the user of the admin may see its page.

    Args:
        model_admin: The admin of the task.
        request: The request.
        func: The path of the task's function.
        group: The group of the task.
        schedules: The ids of schedules, of `schedules_by_group`.
    """
    user: Any = request.user
    if group and str(func).startswith(f"{STEP_FUNCTIONS}."):
        can_see = user.has_perm("tenant_q_workflows.view_workflowrun")
        url = url_of(model_admin, "tenant_q_workflows_workflowrun_change", group) if can_see else ""
        return Origin(_("run"), visible(group), url)
    if group and group in schedules and user.has_perm("django_q.view_schedule"):
        url = url_of(model_admin, "django_q_schedule_change", schedules[group])
        return Origin(_("schedule"), visible(group), url)
    return None
