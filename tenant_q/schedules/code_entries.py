"""What is known of the tenants' schedules from code, in the public schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.exceptions import TenantUnavailable
from tenant_q.models import CodeSchedule, SyncedTenant


def entries_of(schema: str, ids: Iterable[int] | None = None) -> dict[int, CodeSchedule]:
    """Return the entries of a tenant's schedules from code, by the id of the schedule, with one statement at most.

    Args:
        schema: The tenant.
        ids: Only those of these schedules; None for all.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    if schema == tenancy.public_schema():
        return {}
    found: dict[int, CodeSchedule] = {}
    with contextlib.suppress(TenantUnavailable), tenancy.detect_outages():
        key = tenancy.current_key(schema)
        with tenancy.as_owner_in_public():
            rows = CodeSchedule.objects.using(tenancy.database_alias()).filter(tenant=key)
            rows = rows if ids is None else rows.filter(schedule_id__in=list(ids))
            found = {entry.schedule_id: entry for entry in rows}
    return found


def entry_of(row: Schedule, entries: Mapping[int, CodeSchedule] | None = None) -> CodeSchedule | None:
    """Return the entry of a row of the current tenant; None if it is not from code.

    The ids of a schema that was made anew, or restored, belong to other rows, so the stored name has to agree too.

    Args:
        row: The row. A form may have given it another name.
        entries: The entries of the tenant, by the id of the schedule; None to read that of the row.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    found = entries_of(tenancy.current_schema(), [row.pk]) if entries is None else entries
    entry = found.get(row.pk)
    if entry is None or entry.name == row.name:
        return entry
    stored = Schedule.objects.using(tenancy.database_alias()).filter(pk=row.pk, name=entry.name)
    return entry if stored.exists() else None


def forget(key: str) -> None:
    """Forget what a deleted tenant had from code."""
    alias = tenancy.database_alias()
    CodeSchedule.objects.using(alias).filter(tenant=key).delete()
    SyncedTenant.objects.using(alias).filter(tenant=key).delete()
