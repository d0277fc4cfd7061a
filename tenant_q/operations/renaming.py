"""Rename a tenant's schema and keep its tasks, schedules, results, policy and configuration.

The broker keeps a tenant under the key of its row, so a rename moves no package. No task may run meanwhile: a session
in the old schema would fall through to the public one.
"""

from __future__ import annotations

import time
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from psycopg import sql

from tenant_q import audit, policies, tenancy
from tenant_q.brokers import site_brokers
from tenant_q.exceptions import ConfigurationError, TenantBusy
from tenant_q.lifecycle import cached_results
from tenant_q.models import (
    AuditRecord,
    GroupPart,
    TenantConfiguration,
    TenantOperation,
    TenantPolicy,
    TenantRecord,
    TenantRole,
)
from tenant_q.schedules import catalogue, index_upkeep
from tenant_q.schedules.schema_indexes import all_indexes
from tenant_q.support.plurals import counted
from tenant_q.tenancy.names import validate_schema_name

RENAME = "rename"
RETRY_SECONDS = 0.1
"""The interval at which `rename` checks whether tasks still run."""


def rename(old: str, new: str, *, actor: str, wait: float) -> None:
    """Rename a tenant's schema, or complete a rename that was interrupted or done by hand.

    It pauses the tenant, waits for its running tasks, renames, and resumes it. After an error nothing is renamed.

    Args:
        old: The name of the schema.
        new: Its new name.
        actor: The name of the operator, for the audit trail.
        wait: The longest wait for running tasks, in seconds.

    Raises:
        UnknownTenant: No tenant has the name `old`.
        ConfigurationError: The tenant cannot have the name `new`, or an operation on it has not ended.
        TenantBusy: Tasks still run after `wait` seconds.
        BrokerError: The broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    key = _key_to_rename(old, new)
    _refuse_during_operations(old, new, key)
    names = tenancy.keys_of([old, new])
    if new not in names:
        _check_name(new)
        _refuse_left_role(new)
        _pause_for_rename(old, key, actor=actor, wait=wait)
        _rename_schema(old, new, key, actor=actor)
    elif new not in tenancy.names_of(key)[:1]:  # its schema has the name already
        _rename_in_public(old, new, key, actor=actor)
        tenancy.forget_tenants()
    _rename_in_brokers(old, new, key)
    if not _was_paused_before_rename(key):
        policies.change(new, actor=actor, act="resume", paused=False)


def _refuse_during_operations(old: str, new: str, key: str) -> None:
    """Raise `ConfigurationError` if an operation on a tenant, which names it by its schema, is to be continued."""
    if not catalogue.has_all(catalogue.Table(TenantOperation._meta.db_table)):  # not before its migration
        return
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        rows = list(TenantOperation.objects.using(tenancy.database_alias()).filter(schema_name__in=(old, new)))
    found = next((one for one in rows if not _is_of_another(one, old, key)), None)
    if found is not None:
        raise ConfigurationError(
            f"A {found.kind} of {found.schema_name} has not ended, so nothing is renamed; run `python manage.py "
            f"mstenant {found.kind} {found.schema_name}` again, which continues it."
        )


def _is_of_another(operation: TenantOperation, old: str, key: str) -> bool:
    """Return whether an operation removes a former tenant of the name, which this tenant's rename makes possible."""
    owner = operation.arguments.get("key") or key
    return operation.kind == "decommission" and operation.schema_name == old and owner != key


def _key_to_rename(old: str, new: str) -> str:
    """Return the key of the tenant with the old name, or of a tenant whose rename from it has begun or is done."""
    found = tenancy.keys_of([old, new])
    if old in found:
        if new in found:
            raise ConfigurationError(f"A tenant has the schema name {new!r} already; choose another name for {old!r}.")
        return found[old]
    if new in found and old in tenancy.names_of(found[new]):
        return found[new]
    tenancy.get_tenant(old)  # raises
    raise AssertionError(old)


def _check_name(new: str) -> None:
    try:
        validate_schema_name(new)
    except ValidationError as error:
        raise ConfigurationError(" ".join(error.messages)) from error
    if catalogue.has_schema(tenancy.physical_schema(new)):
        raise ConfigurationError(
            f"The database has a schema {tenancy.physical_schema(new)!r} already; choose another name."
        )
    if tenancy.is_name_taken(new):
        raise ConfigurationError(f"A tenant's schema name differs from {new!r} in capitals only; choose another name.")


def _refuse_left_role(new: str) -> None:
    """Raise `ConfigurationError` if the database role of a former tenant of the new name is left."""
    if not catalogue.has_all(catalogue.Table(TenantRole._meta.db_table)):  # not before its migration
        return
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        is_left = TenantRole.objects.using(tenancy.database_alias()).filter(schema_name=new).exists()
    if is_left:
        raise ConfigurationError(
            f"A former tenant {new!r} has left its database role; run `python manage.py mstenant decommission {new} "
            "--yes`, then rename."
        )


def _pause_for_rename(old: str, key: str, *, actor: str, wait: float) -> None:
    """Pause the tenant to be renamed, and wait until none of its tasks runs. After an error, resume it."""
    was_paused = _was_paused_before_rename(key) if _is_interrupted(key) else policies.is_paused(old)
    audit.record(actor, RENAME, schema=old, target=key, before={"paused": was_paused})
    try:
        policies.change(old, actor=actor, act="pause", paused=True)
        deadline = time.monotonic() + wait
        while running := _running_of(old):
            if time.monotonic() > deadline:
                count = counted(running, "task")
                raise TenantBusy(f"{count} of {old} did not end within {wait:g} s; try again, or cancel what runs.")
            time.sleep(RETRY_SECONDS)
    except BaseException:
        _give_up(old, key, actor=actor, was_paused=was_paused)
        raise


def _running_of(schema: str) -> int:
    loads = (broker.loads().get(schema) for broker in site_brokers())
    return sum(load.leased for load in loads if load)


def _give_up(old: str, key: str, *, actor: str, was_paused: bool) -> None:
    audit.record(actor, RENAME, schema=old, target=key, after={"schema": old})
    if not was_paused:
        policies.change(old, actor=actor, act="resume", paused=False)


def _rename_schema(old: str, new: str, key: str, *, actor: str) -> None:
    """Rename the schema and what names it in the public schema, in one transaction."""
    names = sql.Identifier(tenancy.physical_schema(old)), sql.Identifier(tenancy.physical_schema(new))
    with tenancy.as_owner_in_public(), tenancy.in_patient_transaction():
        with tenancy.raw_cursor() as cursor:
            cursor.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*names))
        # Not by `save()`, in which a tenancy package would create the schema of the new name.
        tenancy.tenant_model()._default_manager.using(tenancy.database_alias()).filter(pk=key).update(schema_name=new)
        _rename_in_public(old, new, key, actor=actor)
    tenancy.forget_tenants()


def _rename_in_public(old: str, new: str, key: str, *, actor: str) -> None:
    """Rename a tenant's schema in the rows of the public schema, and record the rename."""
    alias = tenancy.database_alias()
    with tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        record = TenantRecord.objects.using(alias).select_for_update().get(key=key)
        record.former_names = [
            name for name in dict.fromkeys([*record.former_names, record.schema_name]) if name != new
        ]
        record.schema_name = new
        record.save(update_fields=["schema_name", "former_names"])
        for model in (TenantPolicy, TenantConfiguration):
            if catalogue.has_all(catalogue.Table(model._meta.db_table)):  # not before its migration
                rows = model._default_manager.using(alias)
                rows.filter(schema_name=new).delete()
                rows.filter(schema_name=old).update(schema_name=new)
        _rename_role(old, new)
        GroupPart.objects.using(alias).filter(schema_name=old, tenant__in=(key, "")).update(schema_name=new, tenant=key)
        for index in all_indexes():
            if not catalogue.has_all(catalogue.Table(index.known)):  # not before its migration
                continue
            index_upkeep.install_now(tenancy.physical_schema(new), index)  # failures keep what is noted about them
            index_upkeep.forget(tenancy.physical_schema(old), index)
        audit.record(actor, RENAME, schema=new, target=key, after={"schema": new, "was": old})


def _rename_role(old: str, new: str) -> None:
    """Let the database role follow a renamed tenant, as its grants do. A later tenant of the old name must not have it.

    The role keeps its own name, on which its password depends. One that leaves is that of a former tenant. If a
    tenant that was renamed by hand has got another role since, the first one is never served again.
    """
    if not catalogue.has_all(catalogue.Table(TenantRole._meta.db_table)):  # not before its migration
        return
    rows = TenantRole.objects.using(tenancy.database_alias())
    own = rows.filter(schema_name=old).exclude(state=TenantRole.State.LEAVING)
    if rows.filter(schema_name=new).exists():
        own.update(state=TenantRole.State.LEAVING)
    else:
        own.update(schema_name=new)


def _rename_in_brokers(old: str, new: str, key: str) -> None:
    """Rename a renamed tenant's queues in each cluster, and its cached results."""
    for broker in site_brokers():
        broker.rename_tenant(key, old, new)
        cached_results.rename(old, new, broker.cached_ids(new, key))
    policies.put_in_force_everywhere()


def _was_paused_before_rename(key: str) -> bool:
    """Return whether the tenant was paused before its rename began."""
    return next((bool(one.before.get("paused")) for one in _rename_records(key) if one.before), False)


def _is_interrupted(key: str) -> bool:
    """Return whether a rename of the tenant has begun and was neither done nor given up, so that it is still paused."""
    return any(one.before is not None for one in _rename_records(key)[:1])


def _rename_records(key: str) -> list[Any]:
    """Return the audit records of a tenant's renames, the latest first."""
    with tenancy.as_owner_in_public():
        found = AuditRecord.objects.using(tenancy.database_alias()).filter(act=RENAME, target=key)
        return list(found.order_by("-id"))
