"""Read the failures of all tenants, run them again, and delete them.

An entry of the index is open until its task is run again or its row is deleted. Everything here is about open entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from django.db.models import Count, Max, Min, Q, QuerySet
from django.utils import timezone

from tenant_q import tenancy
from tenant_q.lifecycle.failure_entries import Key
from tenant_q.lifecycle.failure_text import ENDED_BY_HAND
from tenant_q.models import Failure
from tenant_q.operations import failure_acts
from tenant_q.operations.failure_acts import Slice

SLICE = 100
"""The most failures that are run again, or deleted, in one transaction."""


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """The failures that are wanted: those to which all of these apply. An empty value applies to all.

    Attributes:
        since: The task ended at this moment or later.
        until: The task ended at this moment or earlier.
        func: Its function, as its row names it.
        cause: The name of the class of its cause; "?" for those of which no cause is known. Without a cause, tasks
            that somebody has cancelled or purged are left out, so that nobody runs them again among others.
        schema: The schema of its tenant.
        schedule: The name of its schedule, or the id of a schedule without a name.
        ids: These failures, each as the schema and the id of its task; None for all.
    """

    since: datetime | None = None
    until: datetime | None = None
    func: str = ""
    cause: str = ""
    schema: str = ""
    schedule: str = ""
    ids: frozenset[Key] | None = None


UNKNOWN = "?"
"""The cause in a filter of failures whose cause is not known."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The failures with one cause and one function.

    Attributes:
        cause: The name of the class of the cause; empty if it is not known.
        func: The function.
        count: The number of failures.
        tenants: The number of tenants that have such failures.
        schedules: The number of schedules that have led to them.
        first: When the first of them ended.
        last: When the last of them ended.
    """

    cause: str
    func: str
    count: int
    tenants: int
    schedules: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class FailurePart:
    """The failures of one tenant, or of the schedules with one name.

    Attributes:
        name: The schema of the tenant as PostgreSQL names it, or the name of the schedules.
        count: The number of failures.
        first: When the first of them ended.
        last: When the last of them ended.
    """

    name: str
    count: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class FailuresDone:
    """What came of running failures again, or of deleting them.

    Attributes:
        done: The number of failures that were run again or deleted.
        skipped: The number of those that another one had run again or deleted meanwhile.
        errors: Why the others could not be, by schema and id of the task.
        last: The last failure that was looked at, from which the next call goes on; None if none is left.
    """

    done: int = 0
    skipped: int = 0
    errors: dict[Key, str] = field(default_factory=dict)
    last: Key | None = None


# Read


def groups(wanted: FailureFilter, *, limit: int, offset: int = 0) -> list[FailureGroup]:
    """Return the open failures by cause and function, the largest groups first, with one statement.

    Args:
        wanted: Which failures.
        limit: The most groups to return.
        offset: The number of groups to leave out.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    rows = (
        _open(wanted)
        .values("cause", "func")
        .annotate(
            count=Count("*"),
            tenants=Count("schema_name", distinct=True),
            schedules=Count("schedule", distinct=True, filter=~Q(schedule="")),
            first=Min("stopped"),
            last=Max("stopped"),
        )
        .order_by("-count", "-last", "cause", "func")
    )
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return [FailureGroup(**row) for row in rows[offset : offset + limit]]


def failures(wanted: FailureFilter, *, limit: int, offset: int = 0) -> list[Failure]:
    """Return open failures, the latest first, with one statement.

    Args:
        wanted: Which failures.
        limit: The most to return.
        offset: The number to leave out.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    rows = _open(wanted).order_by("-stopped", "schema_name", "task_id")
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return list(rows[offset : offset + limit])


def parts(
    wanted: FailureFilter, by: Literal["schema_name", "schedule"], *, limit: int, offset: int = 0
) -> list[FailurePart]:
    """Return the open failures by tenant, or by the name of their schedule, the largest part first.

    It costs one statement. Failures of tasks without a schedule are no part by schedule.

    Args:
        wanted: Which failures.
        by: The column of the index.
        limit: The most parts to return.
        offset: The number of parts to leave out.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    rows = (
        _open(wanted)
        .exclude(**{by: ""})
        .values(by)
        .annotate(count=Count("*"), first=Min("stopped"), last=Max("stopped"))
    )
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = rows.order_by("-count", by).values_list(by, "count", "first", "last")
        return [FailurePart(*row) for row in found[offset : offset + limit]]


def count(wanted: FailureFilter) -> int:
    """Return the number of open failures, with one statement. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return _open(wanted).count()


def _open(wanted: FailureFilter) -> QuerySet[Failure]:
    """Return a queryset of the open failures that are wanted."""
    rows = Failure.rows().filter(again="")
    if wanted.since is not None:
        rows = rows.filter(stopped__gte=wanted.since)
    if wanted.until is not None:
        rows = rows.filter(stopped__lte=wanted.until)
    if wanted.func:
        rows = rows.filter(func=wanted.func)
    if wanted.cause:
        rows = rows.filter(cause="" if wanted.cause == UNKNOWN else wanted.cause)
    elif wanted.ids is None:
        rows = rows.exclude(cause__in=ENDED_BY_HAND)
    if wanted.schema:
        rows = rows.filter(schema_name=tenancy.physical_schema(wanted.schema))
    if wanted.schedule:
        rows = rows.filter(schedule=wanted.schedule)
    if wanted.ids is not None:
        rows = rows.filter(pk__in=sorted(wanted.ids))
    return rows


# Act


def retry(
    wanted: FailureFilter,
    *,
    actor: str,
    progress: Callable[[int], None] | None = None,
    limit: int | None = None,
    after: Key | None = None,
) -> FailuresDone:
    """Run failed tasks again, each as a new task, in slices of many tenants.

    A failure that was run again is no longer open, so repeating the call does not run it twice. The id of the new task
    depends on the failure: if a call ends between enqueueing and its commit, the next one enqueues the same id, which
    the broker knows for a day after it has run.

    Failures that end after the call has begun are left, because the new tasks may fail too.

    Args:
        wanted: Which failures.
        actor: Who runs them again. The audit trail gets one record for each tenant and slice, with the count.
        progress: Called after each slice with the number of failures that were looked at since the call before.
        limit: The most failures to look at; None for all. Who acts in several calls sets `until` of the filter, and
            passes `last` of each answer as `after` of the next call.
        after: Go on behind this failure, in the order of schema and id.

    Raises:
        BrokerError: The broker cannot be reached. What was done before stays.
        DatabaseAway: The database cannot be reached. What was done before stays.
    """
    return _each_slice(failure_acts.run_again, wanted, actor, progress, limit, after)


def delete(
    wanted: FailureFilter,
    *,
    actor: str,
    progress: Callable[[int], None] | None = None,
    limit: int | None = None,
    after: Key | None = None,
) -> FailuresDone:
    """Delete the rows of failed tasks in their tenants' tables, and with them their entries.

    Args:
        wanted: Which failures. Those that end after the call has begun are left.
        actor: Who deletes them. The audit trail gets one record for each tenant and slice, with the count.
        progress: Called after each slice with the number of failures that were looked at since the call before.
        limit: The most failures to look at, as for `retry`.
        after: Go on behind this failure, as for `retry`.

    Raises:
        DatabaseAway: The database cannot be reached. What was done before stays.
    """
    return _each_slice(failure_acts.delete, wanted, actor, progress, limit, after)


def _each_slice(
    act: Callable[[Sequence[Key], str], Slice],
    wanted: FailureFilter,
    actor: str,
    progress: Callable[[int], None] | None,
    limit: int | None,
    after: Key | None,
) -> FailuresDone:
    """Act on the failures that are wanted, in slices. Return what came of it."""
    if wanted.until is None:
        wanted = replace(wanted, until=timezone.now())
    done = skipped = seen = 0
    errors: dict[Key, str] = {}
    while limit is None or seen < limit:
        keys = _keys(wanted, after, most=SLICE if limit is None else min(SLICE, limit - seen))
        if not keys:
            return FailuresDone(done, skipped, errors)
        one = act(keys, actor)
        done, skipped = done + one.done, skipped + len(keys) - one.done - len(one.errors)
        errors |= one.errors
        after, seen = keys[-1], seen + len(keys)
        if progress is not None:
            progress(len(keys))
    return FailuresDone(done, skipped, errors, after)


def _keys(wanted: FailureFilter, after: Key | None, *, most: int) -> list[Key]:
    """Return the keys of the next failures that are wanted, in their order."""
    rows = _open(wanted) if after is None else _open(wanted).filter(pk__gt=after)
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return list(rows.order_by("schema_name", "task_id").values_list("schema_name", "task_id")[:most])
