"""What the index of failures has about the tenant of the request, for its admin.

The index is in the public schema. It is read there, before the tenant's own rows are: in the tenant's schema, a table
of the same name could take its place.
"""

from __future__ import annotations

from typing import Any

from tenant_q import tenancy
from tenant_q.models import Failure

MOST = 5000
"""The most failures of a tenant that are found by their cause, the latest ones."""


def causes(limit: int) -> list[str]:
    """Return the causes of the current tenant's failures, by name.

    Args:
        limit: The most causes to return.
    """
    schema = tenancy.physical_schema(tenancy.current_schema())
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        rows = _of(schema).exclude(cause="").order_by("cause")
        return list(rows.values_list("cause", flat=True).distinct()[:limit])


def with_cause(cause: str) -> list[str]:
    """Return the ids of the current tenant's latest failed tasks with exactly this cause."""
    return _ids(cause=cause)


def with_cause_like(text: str) -> list[str]:
    """Return the ids of the current tenant's latest failed tasks whose cause contains a text, in any case."""
    return _ids(cause__icontains=text)


def _ids(**wanted: str) -> list[str]:
    schema = tenancy.physical_schema(tenancy.current_schema())
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        rows = _of(schema).filter(**wanted).order_by("-stopped")
        return list(rows.values_list("task_id", flat=True)[:MOST])


def _of(schema: str) -> Any:
    return Failure.rows().filter(schema_name=schema)
