"""Decommission a tenant: end its tasks, and remove its row, schema, role and all else that it has.

Each step looks what is left, so the same command continues after a kill anywhere. The audit trail stays. So does, for a
month, the record of the tenant, by which what comes late is refused in the next tenant of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from tenant_q import audit, tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import AuditRecord, TenantOperation, TenantRecord
from tenant_q.provisioning import admin_connection, draining, role_removal, roles, steps, tenant_removal
from tenant_q.provisioning.role_rows import role_rows
from tenant_q.support.log_labels import get_logger
from tenant_q.tenancy.role_names import role_name

logger = get_logger("tenant_q.provisioning")

KIND = "decommission"
"""The name of the operation, of its command, and of the act in the audit trail."""
Admin = psycopg.Connection[Any]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Decommissioned:
    """What `decommission_tenant` has done.

    Attributes:
        schema: The schema name that the tenant had.
        role: Its database role, which was dropped; None if it had none.
        kept_schema: Whether its schema was kept.
        cancelled: How many of its tasks waited and were cancelled by this call.
        is_new: Whether this call has removed something; False if an earlier one had removed all.
    """

    schema: str
    role: str | None
    kept_schema: bool
    cancelled: int = 0
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class _Target:
    """A tenant to be decommissioned. `key` is that of its row, which may be gone; None if it is not known."""

    schema: str
    key: str | None
    role: str | None
    keep_schema: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """What the row of the operation keeps."""
        return {"key": self.key, "keep_schema": self.keep_schema}


def decommission_tenant(
    schema: str,
    *,
    actor: str,
    keep_schema: bool = False,
    drain: float = 30.0,
    progress: Progress | None = None,
) -> Decommissioned:
    """Decommission a tenant: remove it with its schema, role, tasks and all else, or continue an interrupted call.

    New tasks are refused with `TenantLeaving` from the beginning, in all processes, those that wait are cancelled, and
    those that run are waited for.

    Args:
        schema: The schema name of the tenant.
        actor: Who does it, for the audit trail.
        keep_schema: Whether the schema is kept, with its data.
        drain: The longest wait for running tasks, in seconds.
        progress: Is called with the name of each step before it is carried out, and with a text while tasks run.

    Returns:
        What was removed.

    Raises:
        UnknownTenant: There is no such tenant, and nothing of it is left.
        TenantBusy: Tasks still run after `drain` seconds, or the tables are locked. The same call continues.
        ProvisioningError: Something has to be done first, or a right is missing; the message says what to do. The same
            call continues.
        BrokerError: The broker cannot be reached. The same call continues.
        DatabaseAway: The database cannot be reached. The same call continues.
    """
    _refuse(schema)
    report = progress or _report_nothing
    with steps.operation_lock(schema), _admin_session(schema) as admin:
        found = steps.open_operation(schema)
        target = _find(schema, admin, found, keep_schema=keep_schema)
        if target is None:
            return Decommissioned(schema, None, keep_schema, is_new=False)
        if target.role is not None:
            role_removal.require_nothing_elsewhere(target.role)
        operation = steps.begin(schema, KIND, found, actor=actor, arguments=target.arguments)
        cancelled = _drain(target, seconds=drain, progress=report)
        last = steps.Step("end", lambda: _end(target, operation.actor))
        steps.run_steps(operation, _steps_of(target, admin), last=last, progress=report)
        tenancy.forget_tenants()
        logger.info("Decommissioned %s", schema, event="provisioning.decommissioned", extra={"schema": schema})
        return Decommissioned(schema, target.role, keep_schema, cancelled)


def _report_nothing(text: str) -> None:
    pass


def _refuse(schema: str) -> None:
    if schema == tenancy.public_schema():
        raise ProvisioningError(f"{schema!r} is the schema that all tenants share, and no tenant; name a tenant.")
    if tenancy.tenant_connection().in_atomic_block:
        raise ProvisioningError(
            f"Tenant {schema!r} cannot be decommissioned inside a transaction, because each step is committed before "
            "the next one; call decommission_tenant() outside of it."
        )


# What there is


@contextmanager
def _admin_session(schema: str) -> Iterator[Admin | None]:
    """Open the admin role's session; None where tenants have no roles."""
    if not admin_connection.is_configured() and _role_of(schema) is None:
        yield None
        return
    with admin_connection.admin_session() as admin:
        yield admin


def _find(schema: str, admin: Admin | None, operation: TenantOperation | None, *, keep_schema: bool) -> _Target | None:
    """Return the tenant to be decommissioned; None if that has been done already.

    Raises:
        UnknownTenant: There is no such tenant, and nothing of it is left.
        ProvisioningError: Another tenant has the name by now, or the schema is not there to be kept.
    """
    tenant = tenant_removal.row_of(schema)
    begun = operation.arguments if operation is not None and operation.kind == KIND else {}
    role = _role_to_drop(schema, admin)
    if tenant is None and role is None and not begun:
        if _is_done(schema):
            return None
        tenancy.refresh_tenant(schema, 0)  # raises
    key = begun.get("key") or (tenancy.key_of(tenant) if tenant is not None else _last_key(schema))
    if tenant is not None and tenancy.key_of(tenant) != key:
        raise ProvisioningError(
            f"Another tenant got the schema name {schema!r} before the former one was removed; rename it with `python "
            f"manage.py mstenant rename {schema} NEW`, then run the same command again."
        )
    if tenant is None and begun and begun["keep_schema"] != keep_schema:
        done = "kept, so give --keep-schema" if begun["keep_schema"] else "dropped, so leave out --keep-schema"
        raise ProvisioningError(f"The schema of {schema!r} was {done}, and run the command again.")
    return _Target(schema, key, role, keep_schema)


def _role_to_drop(schema: str, admin: Admin | None) -> str | None:
    """Return the role of a tenant: the recorded one, or else one of its name that is there and ours."""
    if admin is None:
        return None
    database = admin_connection.database_name()
    recorded = _role_of(schema)
    if recorded is not None:
        roles.require_free(admin, recorded, database)
        return recorded
    expected = role_name(database, tenancy.physical_schema(schema))
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        is_anothers = role_rows().filter(role=expected).exists()  # of a tenant that was renamed
    return expected if not is_anothers and roles.is_ours(admin, expected, database) else None


def _role_of(schema: str) -> str | None:
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found: str | None = role_rows().filter(schema_name=schema).values_list("role", flat=True).first()
    return found


def _last_key(schema: str) -> str | None:
    """Return the key of the tenant that had a schema name last, and whose row is gone."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        gone = TenantRecord.objects.using(tenancy.database_alias()).filter(schema_name=schema).exclude(deleted=None)
        found: str | None = gone.order_by("-deleted").values_list("key", flat=True).first()
    return found


def _is_done(schema: str) -> bool:
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = AuditRecord.objects.using(tenancy.database_alias()).filter(act=KIND, schema_name=schema)
        return bool(found.exists())


# The steps


def _drain(target: _Target, *, seconds: float, progress: Progress) -> int:
    """End the tenant's tasks. It is no recorded step: a broker that has lost its data would take new ones again."""
    if target.key is None or not tenancy.tenant_exists(target.key):
        return 0
    progress("tasks")
    return draining.drain(target.schema, target.key, seconds=seconds, progress=progress)


def _steps_of(target: _Target, admin: Admin | None) -> list[steps.Step]:
    schema, key, role, keep_schema = target.schema, target.key, target.role, target.keep_schema
    drop = steps.Step("tenant", lambda: tenant_removal.drop_tenant(schema, key, keep_schema=keep_schema))
    clear = steps.Step("broker", lambda: tenant_removal.clear_broker(schema, key))
    if admin is None or role is None:
        return [drop, clear]
    return [
        steps.Step("sessions", lambda: role_removal.lock_out(admin, schema, role)),
        drop,
        steps.Step("rights", lambda: role_removal.take_back(admin, role, keep_objects=keep_schema)),
        steps.Step("role", lambda: role_removal.drop(admin, role)),
        clear,
    ]


def _end(target: _Target, actor: str) -> None:
    """Forget the tenant's role, and leave an audit record."""
    role_rows().filter(schema_name=target.schema).delete()
    before, after = {"role": target.role}, {"kept_schema": target.keep_schema}
    audit.record(actor, KIND, schema=target.schema, target=target.key or "", before=before, after=after)
