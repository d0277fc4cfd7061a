"""What a deleted tenant leaves behind, and how it is removed.

When the row of a tenant is deleted through the ORM, a receiver records it in the same transaction. When it is deleted
past the ORM, the scheduler finds a record without a row. What is in the broker is removed after the commit. The
scheduler repeats that until nothing is left: the broker may be away, and tasks may still run.
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
from tenant_q.lifecycle import cached
from tenant_q.models import GroupPart, TenantPolicy, TenantRecord
from tenant_q.schedules import catalogue, index_upkeep
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.departures")

# Deleting a tenant waits at most this long, in seconds, until its running tasks have stopped.
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.1
# Nothing is enqueued for a deleted tenant as long as a process may still have it in its cache, and these seconds more.
REFUSE_SECONDS = 10.0
RECORD_DAYS = 30
_CANCEL_REASON = f"{CANCELLED}: its tenant was deleted"


# Receivers of the tenant model's signals


def tenant_made(*, instance: Any, created: bool, using: str, **_: Any) -> None:
    """Receiver of `post_save`: record a new tenant, in the same transaction."""
    if created and _is_recorded(instance, using):
        with tenancy.in_public():
            key = tenancy.key_of(instance)
            values = {"schema_name": instance.schema_name, "deleted": None, "cleared": None}
            made = {"since": timezone.now(), **values}
            _records().update_or_create(key=key, defaults=values, create_defaults=made)


def tenant_deleted(*, instance: Any, using: str, **_: Any) -> None:
    """Receiver of `post_delete`: remove what the tenant leaves, when the transaction commits."""
    if _is_recorded(instance, using):
        schema, key = instance.schema_name, tenancy.key_of(instance)
        _note_deleted(schema, key)

        def clear_now() -> None:  # no partial: where it fails, Django logs its name
            _clear_now(schema, key)

        transaction.on_commit(clear_now, using=using, robust=True)


def _is_recorded(instance: Any, using: str) -> bool:
    if using != tenancy.database_alias() or instance.schema_name == tenancy.public_schema():
        return False
    return catalogue.has_all(catalogue.Table(TenantRecord._meta.db_table))


def _note_deleted(schema: str, key: str) -> None:
    """Remove what a tenant has in the public schema, and record that it is gone."""
    alias = tenancy.database_alias()
    with tenancy.in_public(), transaction.atomic(using=alias):
        TenantPolicy.objects.using(alias).filter(schema_name=schema).delete()
        GroupPart.objects.using(alias).filter(schema_name=schema, tenant__in=(key, "")).delete()
        values = {"schema_name": schema, "deleted": timezone.now(), "cleared": None}
        _records().update_or_create(key=key, defaults=values)
    index_upkeep.forget(tenancy.physical_schema(schema))


# In the broker


def _clear_now(schema: str, key: str) -> None:
    """Remove what a tenant has in the broker, and stop its running tasks; what is left then, the scheduler removes."""
    deadline = time.monotonic() + STOP_SECONDS
    try:
        while not clear(schema, key):
            if time.monotonic() > deadline:
                logger.warning("Tasks of the deleted tenant %s still run", schema, extra={"schema": schema})
                return
            time.sleep(LOOK_SECONDS)
    except BrokerError as error:
        logger.warning(
            "What the deleted tenant %s has in the broker is removed later: %s", schema, error, extra={"schema": schema}
        )


def clear(schema: str, key: str) -> bool:
    """Remove what a deleted tenant has in the broker and in the cache. Cancel what it runs.

    Parameters: `schema` and `key`, its last name and the key of its row. Returns whether nothing of it runs any more.
    What is left then, in a cache that is away, the scheduler removes. Raises `BrokerError`, `DatabaseAway`.
    """
    brokers = site_brokers()
    is_cache_clear = _clear_cache(brokers[0], schema, key)  # cached results are of all clusters of the site
    seconds = conf().tenant_cache_seconds + REFUSE_SECONDS
    held = sum(broker.forget_tenant(schema, key, _CANCEL_REASON, seconds=seconds) for broker in brokers)
    if held:
        return False
    if is_cache_clear:
        with tenancy.in_public():
            _records().filter(key=key).exclude(deleted=None).update(cleared=timezone.now())
    return True


def _clear_cache(broker: Broker, schema: str, key: str) -> bool:
    """Remove a tenant's cached results. Return whether that succeeded: a cache raises errors of its own kind."""
    ids = broker.cached_ids(schema, key)
    names = [schema, *_former_names(key)]
    try:
        cached.delete_of(names, ids)
    except Exception as error:
        logger.error(
            "Cached results of the deleted tenant %s are removed later: %s: %s",
            schema,
            type(error).__name__,
            error,
            extra={"schema": schema},
        )
        return False
    broker.forget_cached(schema, key, ids)
    return True


def forget_if_gone(schema: str, key: str | None) -> None:
    """Remove what a tenant has in the broker, if its row is gone, however that came. Raises as `clear`."""
    if key and not tenancy.is_there(key):
        clear(schema, key)


# In the scheduler


def find_and_clear() -> None:
    """Record new tenants and restored ones, find those whose rows are gone, and remove what deleted ones have left.

    Raises as `clear`.
    """
    returned = tenancy.returned()
    if returned:
        with tenancy.in_public():
            _records().filter(key__in=returned).update(deleted=None, cleared=None)
    for schema, key in tenancy.gone():
        logger.warning("Tenant %s (key %s) is gone; what it left is removed", schema, key, extra={"schema": schema})
        _note_deleted(schema, key)
    tenancy.note_existing(TenantRecord)
    with tenancy.told_when_away(), tenancy.in_public():
        left = list(_records().exclude(deleted=None).filter(cleared=None).values_list("schema_name", "key"))
        _records().filter(cleared__lt=timezone.now() - timedelta(days=RECORD_DAYS)).delete()
    for schema, key in left:
        clear(schema, key)


def _former_names(key: str) -> list[str]:
    with tenancy.told_when_away(), tenancy.in_public():
        return list(_records().filter(key=key).values_list("former_names", flat=True).first() or ())


def _records() -> Any:
    return TenantRecord.objects.using(tenancy.database_alias())
