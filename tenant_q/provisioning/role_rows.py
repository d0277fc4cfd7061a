"""The rows of tenants' roles. A row is locked while its role is altered, so that no worker uses the old version."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import OperationalError

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import AuditRecord, TenantRole
from tenant_q.tenancy.role_names import role_name

# The command `rotate --now` holds the lock while it waits for the end of sessions.
LOCK_MS = 15_000
# The acts in the audit trail that name the version of a password.
_ACTS = ("provision", "adopt", "rotate")


@contextmanager
def locked_row(schema: str) -> Iterator[TenantRole | None]:
    """Lock the row of a tenant's role in a transaction of the owner, and yield it; None if the tenant has no role.

    A worker whose login was refused reads the row with a lock for sharing, so it waits for the new version.

    Raises:
        ProvisioningError: Another process keeps the row locked.
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.as_owner_in_public(), tenancy.in_patient_transaction(LOCK_MS):
        try:
            row = role_rows().select_for_update().filter(schema_name=schema).first()
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            raise ProvisioningError(
                f"Another process has been changing the role of {schema} for {LOCK_MS / 1000:g} s; try again."
            ) from error
        yield row


@contextmanager
def locked_row_to_repair(schema: str) -> Iterator[TenantRole | None]:
    """Lock the row of a tenant's role that is to be repaired, and yield it; None if it is not, or is locked already.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.as_owner_in_public(), tenancy.in_patient_transaction():
        yield schemas_to_repair().select_for_update(skip_locked=True).filter(schema_name=schema).first()


def role_rows() -> Any:
    """Return a queryset of the rows of tenants' roles, on the tenants' connection."""
    return TenantRole.objects.using(tenancy.database_alias())


def make_row(schema: str, database: str) -> TenantRole:
    """Make the row of a tenant's role. The caller has the lock of the operation, and has found no row.

    Args:
        schema: The schema name of the tenant.
        database: The name of the database.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        values = {"role": _free_name(schema, database), "version": _first_version(schema)}
        made: TenantRole = role_rows().create(schema_name=schema, **values)
    return made


def _free_name(schema: str, database: str) -> str:
    """Return the name for a tenant's new role. The usual one may belong to a tenant that was renamed."""
    physical = tenancy.physical_schema(schema)
    names = (role_name(database, physical if n == 1 else f"{physical}_{n}") for n in itertools.count(1))
    return next(name for name in names if not role_rows().filter(role=name).exists())


def _first_version(schema: str) -> int:
    """Return the first version of the password of a tenant's new role: one that no former role of that name had.

    Otherwise who knows the last password of a tenant that was decommissioned could log in as its successor.
    """
    former = AuditRecord.objects.using(tenancy.database_alias()).filter(schema_name=schema, act__in=_ACTS)
    versions = [after.get("version") for after in former.values_list("after", flat=True) if isinstance(after, dict)]
    return 1 + max((one for one in versions if isinstance(one, int)), default=0)


def schemas_to_repair() -> Any:
    """Return a queryset of the rows of tenants' roles that are to be repaired."""
    return role_rows().filter(state=TenantRole.State.REPAIR)
