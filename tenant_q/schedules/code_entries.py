"""What is known of the tenants' schedules from code, in the public schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

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
        with tenancy.in_public():
            rows = CodeSchedule.objects.using(tenancy.database_alias()).filter(tenant=key)
            rows = rows if ids is None else rows.filter(schedule_id__in=list(ids))
            found = {entry.schedule_id: entry for entry in rows}
    return found


def forget(key: str) -> None:
    """Forget what a deleted tenant had from code."""
    alias = tenancy.database_alias()
    CodeSchedule.objects.using(alias).filter(tenant=key).delete()
    SyncedTenant.objects.using(alias).filter(tenant=key).delete()
