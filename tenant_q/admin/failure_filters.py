"""The filter of the operators' page of failures: read from a request, written into URLs and forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenant_q.admin.count_links import LAST_HOUR
from tenant_q.lifecycle.failure_entries import Key
from tenant_q.operations.failures import UNKNOWN, FailureFilter, FailureGroup
from tenant_q.support import moments
from tenant_q.support.visible import visible

TEXTS: Mapping[str, Any] = {
    "schema": gettext_lazy("Tenant"),
    "func": gettext_lazy("Function"),
    "cause": gettext_lazy("Cause"),
    "schedule": gettext_lazy("Schedule"),
}
"""The filters that are typed, by the names of their parameters."""
SINCE: Mapping[str, Any] = {
    "": gettext_lazy("Any time"),
    LAST_HOUR: gettext_lazy("Last hour"),
    "24h": gettext_lazy("Last day"),
    "7d": gettext_lazy("Last week"),
    "30d": gettext_lazy("Last 30 days"),
}
"""The times that are offered, as the texts of the parameter."""
_AGO = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Filters:
    """What a request for failures names, as texts: `since` is a time ago, as "24h", or a moment, as is `until`."""

    since: str = ""
    until: str = ""
    func: str = ""
    cause: str = ""
    schema: str = ""
    schedule: str = ""
    ids: frozenset[Key] | None = None

    @property
    def wanted(self) -> FailureFilter:
        """The filter of failures for the operations."""
        since, until = moment_of(self.since), moment_of(self.until)
        return FailureFilter(since, until, self.func, self.cause, self.schema, self.schedule, self.ids)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The parameters that carry this filter of failures, without empty ones; each failure as one `id`."""
        names = ("since", "until", *TEXTS)
        found = [(name, getattr(self, name)) for name in names if getattr(self, name)]
        return found + [("id", as_id(key)) for key in sorted(self.ids or ())]

    @property
    def words(self) -> list[tuple[Any, str]]:
        """What this filter of failures says, for people: labels and values."""
        said = [(label, visible(getattr(self, name))) for name, label in TEXTS.items() if getattr(self, name)]
        said = [(label, _("unknown") if text == UNKNOWN else text) for label, text in said]
        for label, moment in ((_("Since"), moment_of(self.since)), (_("Until"), moment_of(self.until))):
            said += [(label, moments.text(moment))] if moment else []
        return said

    def url(self, **more: str) -> str:
        """Return the query of a URL with this filter of failures and further parameters, those that are not empty."""
        found = [*self.fields, *((name, value) for name, value in more.items() if value)]
        return f"?{urlencode(found)}"

    def of_group(self, group: FailureGroup) -> Filters:
        """Return this filter narrowed to one group of failures."""
        return replace(self, cause=group.cause or UNKNOWN, func=group.func)

    def frozen(self) -> Filters:
        """Return this filter with moments in place of times ago: failures of later do not come to it."""
        since, now = moment_of(self.since), moments.aware(timezone.now())
        return replace(self, since=moments.aware(since).isoformat() if since else "", until=now.isoformat())


def read_filters(data: QueryDict) -> Filters:
    """Return the filter of failures that the parameters of a request name. A time that cannot be read is left out."""
    texts = {name: data.get(name, "").strip().replace("\x00", "") for name in ("since", "until", *TEXTS)}
    for name in ("since", "until"):
        texts[name] = texts[name] if moment_of(texts[name]) else ""
    keys = frozenset(filter(None, map(key_of, data.getlist("id"))))
    return Filters(**texts, ids=keys if "id" in data else None)


def moment_of(text: str) -> datetime | None:
    """Return the moment that a parameter of failures names: so long ago, as "65m", "24h" or "7d", or in ISO 8601."""
    if ago := _AGO.fullmatch(text):
        return timezone.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = parse_datetime(text)
    except ValueError:  # as the 30th of February
        return None
    return moments.at(moments.aware(found).timestamp()) if found else None


def as_id(key: Key) -> str:
    """Return a failure as one parameter of a request."""
    return "/".join(quote(part, safe="") for part in key)


def key_of(text: str) -> Key | None:
    """Return the failure that a parameter of a request names, or None."""
    schema, slash, id = (unquote(part) for part in text.replace("\x00", "").partition("/"))
    return (schema, id) if slash else None
