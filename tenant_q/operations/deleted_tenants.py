"""Remove what a deleted tenant leaves behind.

When the row of a tenant is deleted through the ORM, a receiver records it in the same transaction. When it is deleted
without the ORM, the scheduler finds a record without a row. The tenant's data in the broker is removed after the
commit. The scheduler repeats this until nothing is left, since the broker may be away and tasks may still run.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from tenant_q import tenancy
from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import CANCELLED, Broker
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.lifecycle import cached_results
from tenant_q.models import GroupPart, TenantConfiguration, TenantPolicy, TenantRecord
from tenant_q.schedules import catalogue, code_entries, index_upkeep
from tenant_q.schedules.schema_indexes import all_indexes
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.departures")

STOP_SECONDS = 10.0
"""Deleting a tenant waits at most this time until its running tasks have stopped."""
RETRY_SECONDS = 0.1
"""The interval at which it checks them."""
REFUSE_SECONDS = 10.0
"""The broker refuses tasks of a deleted tenant while a process may still have it in its cache, and this time longer."""
RECORD_DAYS = 30
"""The record of a deleted tenant is kept for this time after nothing of it is left."""
_CANCEL_REASON = f"{CANCELLED}: its tenant was deleted"


# Receivers of the tenant model's signals


def tenant_made(*, instance: Any, created: bool, using: str, **_: Any) -> None:
    """Receive `post_save`: record a new tenant, in the same transaction, so that its deletion is noticed."""
    if created and _is_recorded(instance, using):
        with tenancy.as_owner_in_public():
            key = tenancy.key_of(instance)
            values = {"schema_name": instance.schema_name, "deleted": None, "cleared": None}
            made = {"since": timezone.now(), **values}
            _records().update_or_create(key=key, defaults=values, create_defaults=made)


def tenant_deleted(*, instance: Any, using: str, **_: Any) -> None:
    """Receive `post_delete`: record that the tenant is gone, and clear what it leaves when the transaction commits."""
    if _is_recorded(instance, using):
        schema, key = instance.schema_name, tenancy.key_of(instance)
        note_deleted(schema, key)

        def clear_now() -> None:  # a function, not a partial, because Django logs its name if it fails
            _clear_now(schema, key)

        transaction.on_commit(clear_now, using=using, robust=True)


def _is_recorded(instance: Any, using: str) -> bool:
    if using != tenancy.database_alias() or instance.schema_name == tenancy.public_schema():
        return False
    return _is_there(TenantRecord)


def _is_there(model: Any) -> bool:
    return catalogue.has_all(catalogue.Table(model._meta.db_table))


def note_deleted(schema: str, key: str) -> None:
    """Delete a deleted tenant's rows in the public schema, and record that it is gone."""
    alias = tenancy.database_alias()
    with tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        TenantPolicy.objects.using(alias).filter(schema_name=schema).delete()
        if _is_there(TenantConfiguration):  # not before its migration, beside an older version
            TenantConfiguration.objects.using(alias).filter(schema_name=schema).delete()
        GroupPart.objects.using(alias).filter(schema_name=schema, tenant__in=(key, "")).delete()
        code_entries.forget(key)
        values = {"schema_name": schema, "deleted": timezone.now(), "cleared": None}
        _records().update_or_create(key=key, defaults=values)
    for index in all_indexes():
        if catalogue.has_all(catalogue.Table(index.known)):  # not before its migration
            index_upkeep.forget(tenancy.physical_schema(schema), index)


# In the broker


def _clear_now(schema: str, key: str) -> None:
    """Clear what a deleted tenant leaves and stop its tasks, for up to `STOP_SECONDS`; the scheduler does the rest."""
    deadline = time.monotonic() + STOP_SECONDS
    try:
        while not clear(schema, key):
            if time.monotonic() > deadline:
                logger.warning(
                    "Stopped waiting for the running tasks of the deleted tenant %s",
                    schema,
                    event="tenant.wait_ended",
                    extra={"schema": schema},
                )
                return
            time.sleep(RETRY_SECONDS)
    except BrokerError as error:
        logger.warning(
            "Could not clear the deleted tenant %s in the broker, and left it to the scheduler: %s",
            schema,
            error,
            event="tenant.clearing_left",
            extra={"schema": schema},
        )


def clear(schema: str, key: str) -> bool:
    """Remove the packages and cached results of a deleted tenant, and cancel its running tasks.

    Args:
        schema: Its last schema name.
        key: The key of its row.

    Returns:
        Whether none of its tasks runs any more. Cached results may still be left if the cache is away; the scheduler
        removes them.

    Raises:
        BrokerError: The broker cannot be reached.
        DatabaseAway: The database cannot be reached.
    """
    brokers = site_brokers()
    is_cache_clear = _clear_cache(brokers[0], schema, key)  # the clusters of a site share the cached results
    seconds = conf().tenant_cache_seconds + REFUSE_SECONDS
    held = sum(broker.forget_tenant(schema, key, _CANCEL_REASON, seconds=seconds) for broker in brokers)
    if held:
        return False
    if is_cache_clear:
        with tenancy.as_owner_in_public():
            _records().filter(key=key).exclude(deleted=None).update(cleared=timezone.now())
    return True


def _clear_cache(broker: Broker, schema: str, key: str) -> bool:
    """Remove a deleted tenant's cached results. Return whether it succeeded."""
    ids = broker.cached_ids(schema, key)
    names = [schema, *_former_names(key)]
    try:
        cached_results.delete_of(names, ids)
    except Exception as error:  # each cache has error classes of its own
        logger.error(
            "Could not remove the cached results of the deleted tenant %s, and left them to the scheduler: %s: %s",
            schema,
            type(error).__name__,
            error,
            event="tenant.cache_clearing_left",
            extra={"schema": schema},
        )
        return False
    broker.forget_cached(schema, key, ids)
    return True


def forget_if_gone(schema: str, key: str | None) -> None:
    """Clear what a tenant leaves if its row is gone, however it was deleted. Raises the errors of `clear`."""
    if key and not tenancy.tenant_exists(key):
        clear(schema, key)


# In the scheduler


def find_and_clear() -> None:
    """Find deleted tenants, whose rows are gone, and clear what they leave; record new and restored ones.

    Raises the errors of `clear`.
    """
    returned = tenancy.restored_tenants()
    if returned:
        with tenancy.as_owner_in_public():
            _records().filter(key__in=returned).update(deleted=None, cleared=None)
    for schema, key in tenancy.deleted_tenants():
        logger.warning(
            "Found that tenant %s (key %s) is gone, and cleared it",
            schema,
            key,
            event="tenant.found_gone",
            extra={"schema": schema},
        )
        note_deleted(schema, key)
    tenancy.note_existing(TenantRecord)
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        left = list(_records().exclude(deleted=None).filter(cleared=None).values_list("schema_name", "key"))
        _records().filter(cleared__lt=timezone.now() - timedelta(days=RECORD_DAYS)).delete()
    for schema, key in left:
        clear(schema, key)


def _former_names(key: str) -> list[str]:
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return list(_records().filter(key=key).values_list("former_names", flat=True).first() or ())


def _records() -> Any:
    return TenantRecord.objects.using(tenancy.database_alias())
