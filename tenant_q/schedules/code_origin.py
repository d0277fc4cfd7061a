"""Find out which rows of tenants are exactly as the code declares them, to tell these from what staff has made."""

from __future__ import annotations

from collections.abc import Collection

from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.models import CodeSchedule
from tenant_q.schedules import declared

_COMPARED = ("func", "hook", "args", "kwargs", "cluster", "intended_date_kwarg")


def as_declared(rows: Collection[tuple[str, Schedule]]) -> set[tuple[str, int]]:
    """Return which rows come from code and run what it declares, with two statements at most.

    Args:
        rows: The schema of each row as PostgreSQL names it, and the row.

    Returns:
        The schemas and the ids of these rows.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    try:
        by_name = {one.name: one for one in declared.all_declared()}
    except ConfigurationError:  # the system checks report it; what is declared is not known
        return set()
    candidates = [(schema, row) for schema, row in rows if row.name in by_name]
    if not candidates:
        return set()
    keys = tenancy.keys_of_physical({schema for schema, _row in candidates})
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        entries = CodeSchedule.objects.using(tenancy.database_alias()).filter(
            site=conf().site, tenant__in=keys.values(), name__in=by_name
        )
        known = set(entries.values_list("tenant", "name", "schedule_id"))
    found = set()
    for schema, row in candidates:
        key = keys.get(schema, "")
        if (key, row.name, row.pk) in known:
            wanted = by_name[str(row.name)].row_values(key)
            if all((getattr(row, column) or "") == (wanted[column] or "") for column in _COMPARED):
                found.add((schema, row.pk))
    return found
