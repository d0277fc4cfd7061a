"""Remove a tenant's row and schema, as the tenancy package does, and what else is kept of it in the public schema."""

from __future__ import annotations

import time
from typing import Any

from django.db.models import ProtectedError, RestrictedError
from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError, TenantBusy
from tenant_q.operations import deleted_tenants

LOCK_MS = 10_000
"""The longest wait for a lock on the tenant's tables, in milliseconds."""
CLEAR_SECONDS = 10.0
"""The longest wait until nothing of the tenant is left in the broker."""
_RETRY_SECONDS = 0.1


def row_of(schema: str) -> Any:
    """Return the row of the tenant with this schema name, without the cache; None if there is none."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        tenants = tenancy.tenant_model()._default_manager.using(tenancy.database_alias())
        return tenants.filter(schema_name=schema).first()


def drop_tenant(schema: str, key: str | None, *, keep_schema: bool) -> None:
    """Delete a tenant's row and drop its schema, in one transaction with what the public schema has of it.

    Args:
        schema: The schema name of the tenant.
        key: The key of its row, which may be gone; None if it is not known.
        keep_schema: Whether the schema is kept.

    Raises:
        ProvisioningError: Rows of the project refer to the tenant's row and forbid to delete it.
        TenantBusy: The tables are locked.
        DatabaseAway: The database cannot be reached.
    """
    try:
        with tenancy.as_owner_in_public(), tenancy.in_patient_transaction(LOCK_MS):
            tenant = row_of(schema)
            if tenant is not None:
                tenant.auto_drop_schema = not keep_schema
                tenant.delete()  # its receivers do the rest
            else:
                _drop_left(schema, key, keep_schema=keep_schema)
    except (ProtectedError, RestrictedError) as error:
        raise ProvisioningError(
            f"The row of tenant {schema!r} cannot be deleted: {error.args[0]} Delete the rows that refer to it, then "
            "run the same command again."
        ) from error
    except tenancy.DATABASE_ERRORS as error:
        if not isinstance(error.__cause__ or error, errors.LockNotAvailable):
            raise
        raise TenantBusy(
            f"The tables of {schema} stayed locked for {LOCK_MS / 1000:g} s by another session's transaction; end it, "
            "then run the same command again."
        ) from error


def _drop_left(schema: str, key: str | None, *, keep_schema: bool) -> None:
    """Drop what a tenant without a row has: it was deleted in another way, or this step was carried out before."""
    if not keep_schema:
        name = sql.Identifier(tenancy.physical_schema(schema))
        with tenancy.raw_cursor() as cursor:
            cursor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
    if key is not None:
        deleted_tenants.note_deleted(schema, key)


def clear_broker(schema: str, key: str | None) -> None:
    """Remove what the broker, in each cluster, and the cache have of a tenant without a row.

    Args:
        schema: The schema name that the tenant had.
        key: The key of its row; None if it is not known.

    Raises:
        TenantBusy: Some of its tasks were cancelled and have not ended.
        BrokerError: The broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    if key is None:
        return
    deadline = time.monotonic() + CLEAR_SECONDS
    while not deleted_tenants.clear(schema, key):
        if time.monotonic() > deadline:
            raise TenantBusy(
                f"Tasks of {schema} were cancelled and have not ended within {CLEAR_SECONDS:g} s; run the same command "
                "again."
            )
        time.sleep(_RETRY_SECONDS)
