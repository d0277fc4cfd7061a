"""Lock the row of a tenant's role while the role is altered, so that workers wait for its new version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import OperationalError

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantRole

# The command `rotate --now` holds the lock while it waits for the end of sessions.
LOCK_MS = 15_000


@contextmanager
def locked_row(schema: str) -> Iterator[TenantRole | None]:
    """Lock the row of a tenant's role in a transaction of the owner, and yield it; None if the tenant has no role.

    A worker whose login was refused reads the row with a lock for sharing, so it waits for the new version.

    Raises:
        ProvisioningError: Another process keeps the row locked.
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.in_public(), tenancy.in_patient_transaction(LOCK_MS):
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
    with tenancy.in_public(), tenancy.in_patient_transaction():
        yield schemas_to_repair().select_for_update(skip_locked=True).filter(schema_name=schema).first()


def role_rows() -> Any:
    """Return a queryset of the rows of tenants' roles, on the tenants' connection."""
    return TenantRole.objects.using(tenancy.database_alias())


def schemas_to_repair() -> Any:
    """Return a queryset of the rows of tenants' roles that are to be repaired."""
    return role_rows().filter(state=TenantRole.State.REPAIR)
