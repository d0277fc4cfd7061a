"""Decide which release of the code determines the schedules: an older one never changes what a newer one wrote.

A release is known by the name that `TENANT_Q["release"]` gives it, or by a hash of its schedules. Of two releases with
names the one with the greater name is newer; otherwise the one that was first seen later. A release without a name may
come back: it takes over from one that no process has shown for `GONE_AFTER_SECONDS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db.models import ExpressionWrapper
from django.db.models.fields import DateTimeField
from django.db.models.functions import Now
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import TenantQError
from tenant_q.models import ScheduleRelease
from tenant_q.sql import statement

GONE_AFTER_SECONDS = 600
"""A release that was not seen for this time does not run any more."""
SEEN_EVERY_SECONDS = 60
"""That a release is seen is written down after this time."""
KEPT = 50
"""The number of releases of a site that are remembered."""


class Outranked(TenantQError):
    """A newer release determines the schedules; the text of the error is its label."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the schedules in code.

    Attributes:
        label: The name that the project gave it, or a hash of its schedules.
        is_given: Whether the project named it.
    """

    label: str
    is_given: bool


def is_hash(label: str) -> bool:
    """Return whether the name of a release looks like a hash of a commit, whose order says nothing about its age."""
    return bool(re.fullmatch(r"(?=.*[a-f])[0-9a-f]{7,40}", label, re.IGNORECASE))


def is_used() -> bool:
    """Return whether the site has had schedules from code. Raises `DatabaseAway`."""
    return bool(_read())


def enter(release: Release, *, write: bool = True) -> str | None:
    """Note that a process of a release runs, and return the label of a newer release, or None if it is the newest.

    It costs one statement, and one more for a new release and each `SEEN_EVERY_SECONDS`.

    Args:
        release: The release.
        write: False to only ask.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    found = _read()
    own = next((one for one in found if one.label == release.label), None)
    newer = _newer(found, release, own)
    if write and own is None:
        _note_new(found, release)
    elif write and newer is None:
        _note_seen(found, own)
    return newer


def require_newest(release: Release) -> None:
    """Require in a transaction that a release is the newest, and let no other process synchronize until its end.

    Raises:
        Outranked: A newer release was seen.
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = list(_with_clock(_rows().select_for_update()).order_by("pk"))
    own = next((one for one in found if one.label == release.label), None)
    if newer := _newer(found, release, own):
        raise Outranked(newer)


def _read() -> list[Any]:
    """Return the releases of the site, the latest first, each with the present of the database."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return list(_with_clock(_rows()).order_by("-last_seen"))


def _with_clock(rows: Any) -> Any:
    return rows.annotate(clock=ExpressionWrapper(Now(), output_field=DateTimeField()))


def _newer(found: list[Any], release: Release, own: Any) -> str | None:
    """Return the label of a release that is newer than another one, or None. `own` is the row of the latter."""
    for other in found:
        if other.label == release.label:
            continue
        if other.is_given and release.is_given:
            is_newer = _order(other.label) > _order(release.label)
        else:
            is_newer = own is not None and _is_after(other, own) and _unseen_seconds(other) < GONE_AFTER_SECONDS
        if is_newer:
            return str(other.label)
    return None


def _is_after(other: Any, own: Any) -> bool:
    return (other.first_seen, other.pk) > (own.first_seen, own.pk)


def _unseen_seconds(row: Any) -> float:
    return float((row.clock - row.last_seen).total_seconds())


def _order(label: str) -> list[tuple[bool, int, str]]:
    """Return a key that orders the names of releases: numbers in them as numbers."""
    parts = re.findall(r"\d+|\D+", label)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _note_new(found: list[Any], release: Release) -> None:
    """Write down a release that is seen for the first time, and forget the oldest ones, with one statement."""
    asked = sql.SQL(statement("note_release")).format(
        table=sql.Identifier(tenancy.public_schema(), ScheduleRelease._meta.db_table),
        site=sql.Literal(conf().site),
        label=sql.Literal(release.label),
        is_given=sql.Literal(release.is_given),
        oldest=sql.Literal([one.pk for one in found[KEPT:]]),
    )
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        cursor.execute(asked)


def _note_seen(found: list[Any], own: Any) -> None:
    """Write down that the newest release is seen. One that comes back becomes the one that was seen first last."""
    is_back = any(_is_after(other, own) for other in found if other is not own)
    if _unseen_seconds(own) >= SEEN_EVERY_SECONDS or is_back:
        values: dict[str, Any] = {"last_seen": Now()} | ({"first_seen": Now()} if is_back else {})
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            _rows().filter(pk=own.pk).update(**values)


def _rows() -> Any:
    return ScheduleRelease.objects.using(tenancy.database_alias()).filter(site=conf().site)
