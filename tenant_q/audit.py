"""Record who did what: an audit record for each change by an operator or by a tenant's staff."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from typing import Any

from tenant_q import tenancy
from tenant_q.models import AuditRecord


def record(
    actor: str,
    act: str,
    *,
    schema: str | None = None,
    target: str = "",
    before: Any = None,
    after: Any = None,
) -> AuditRecord:
    """Add an audit record, in the caller's transaction if there is one.

    Args:
        actor: Who did it; up to 150 characters are kept.
        act: What was done, such as "pause".
        schema: The tenant, or None.
        target: The object, such as the ids of packages.
        before: The earlier state, in types of JSON.
        after: The new state, in types of JSON.

    Returns:
        The saved record.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        made: AuditRecord = AuditRecord.objects.using(tenancy.database_alias()).create(
            actor=actor[:150], act=act, schema_name=schema, target=target, before=before, after=after
        )
    return made


def record_each(actor: str, act: str, tenants: Mapping[str, tuple[str, Any]]) -> None:
    """Add an audit record for each of several tenants, with one statement, in the caller's transaction if there is one.

    Args:
        actor: Who did it; up to 150 characters are kept.
        act: What was done.
        tenants: The object and the new state, in types of JSON, by the schema name of the tenant.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    made = [
        AuditRecord(actor=actor[:150], act=act, schema_name=schema, target=target, after=after)
        for schema, (target, after) in tenants.items()
    ]
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        AuditRecord.objects.using(tenancy.database_alias()).bulk_create(made)


def complete(record: AuditRecord, after: Any) -> None:
    """Write the outcome of an act into its audit record, which was made before the act.

    Args:
        record: The record.
        after: The new state, in types of JSON.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        AuditRecord.objects.using(tenancy.database_alias()).filter(pk=record.pk).update(after=after)


def operator() -> str:
    """Return the operator for an audit record: the user who runs this process, and with `sudo` who called it."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # the user of a container often has no name
        user = f"uid {os.getuid()}"
    caller = os.environ.get("SUDO_USER")
    return f"{caller} as {user}" if caller and caller != user else user
