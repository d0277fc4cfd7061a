"""Keep and read results in the cache instead of the tenant's table, and the parts of groups and iters.

A single result is in the Django cache that `Q_CLUSTER["cache"]` names. The results of a group are the fields of one
hash in the broker, so that no two workers rewrite a shared list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_q.models import Task
from django_q.signing import BadSignature, SignedPackage

from tenant_q.brokers.protocol import Broker
from tenant_q.brokers.redis.scripts import LARGE_BYTES
from tenant_q.conf import conf
from tenant_q.exceptions import (
    BadPackage,
    BrokerDefect,
    CacheAway,
    ConfigurationError,
    EntryRefused,
    ResultRefused,
    TenantQError,
)
from tenant_q.package.functions import stored_name
from tenant_q.package.outcome import Outcome
from tenant_q.support.error_kinds import Kind, kind_of_cache
from tenant_q.support.log_labels import get_logger
from tenant_q.tenancy import current_key, current_schema, predates, under_name
from tenant_q.tenancy.cache import tenant_cache

logger = get_logger("tenant_q.cached")

# An iter that is never completed is forgotten after this long.
ITER_SECONDS = 7 * 24 * 3600


def _cache() -> Any:
    cache = tenant_cache()
    if cache is None:
        raise ConfigurationError("Q_CLUSTER['cache'] names a cache that CACHES does not have; add it to keep results.")
    return cache


def _key(task_id: str) -> str:
    """Return the key of a cached result. It is the same whichever of the site's clusters has run the task."""
    return f"{conf().site}:{task_id}"


def save(outcome: Outcome, broker: Broker) -> None:
    """Keep a result in the cache for as long as its option `cached` says. The tenant's schema must be current.

    Args:
        outcome: The outcome that has the result.
        broker: The broker that keeps the groups.

    Raises:
        ResultRefused: The broker or the cache refuses the result.
        CacheAway: The cache does not answer.
        BrokerError: The broker does not answer.
    """
    package, tenant = outcome.package, outcome.package.tenant
    signed = SignedPackage.dumps(outcome.task_dict())
    seconds = None if package.cached is True else int(package.cached)
    try:
        if package.group:  # first, so that a visible result is in its group too
            broker.add_parts(package.schema, package.group, {package.id: signed}, seconds=seconds, tenant=tenant)
        broker.note_cached(package.schema, package.id, seconds=seconds, tenant=tenant)
    except (EntryRefused, BrokerDefect) as error:
        raise ResultRefused(str(error)) from error
    _set(_key(package.id), signed, seconds)


def _set(key: str, signed: str, seconds: int | None) -> None:
    error = _error_of_setting(key, signed, seconds)
    if error is None:
        return
    what = f"the cache {conf().cache!r} fails on {len(signed)} bytes: {type(error).__name__}: {error}"
    is_outage = kind_of_cache(error) is Kind.OUTAGE and len(signed) < LARGE_BYTES
    # A cache refuses a value if it keeps a small one and then fails on this one again. The errors differ from cache to
    # cache, and many caches close the connection.
    if is_outage or _error_of_setting(_key("probe"), "", 1):
        raise CacheAway(f"{what}.") from error
    if _error_of_setting(key, signed, seconds):
        raise ResultRefused(what) from error


def _error_of_setting(key: str, value: str, seconds: int | None) -> Exception | None:
    try:
        _cache().set(key, value, seconds)
    except TenantQError:
        raise
    except Exception as error:
        return error
    return None


def find(task_id: str) -> Task | None:
    """Return a cached result of the current tenant by its id, or None."""
    signed = _cache().get(_key(task_id))
    return _readable(signed, current_schema(), id=task_id) if signed else None


def group(group_id: str, *, failures: bool, schema: str, broker: Broker) -> list[Task]:
    """Return the cached results of a group in the order in which the tasks started.

    Args:
        group_id: The id of the group.
        failures: Whether to include failures.
        schema: The tenant's schema.
        broker: The broker that keeps the group.
    """
    found = (_readable(part, schema, group=group_id) for part in broker.parts(schema, group_id).values())
    tasks = [task for task in found if task is not None]
    return sorted((task for task in tasks if failures or task.success), key=lambda task: task.started)


def _readable(signed: str, schema: str, **found_as: str) -> Task | None:
    """Return a signed cached result as a task, or None if it is not of the tenant that has the schema now."""
    try:
        return as_task(read(signed, schema, current_key(schema), **found_as))
    except BadPackage as error:
        logger.warning(
            "Ignored a cached result of %s: %s", schema, error, event="cached_result.ignored", extra={"schema": schema}
        )
        return None


def read(
    signed: str, schema: str, tenant: str | None, *, id: str | None = None, group: str | None = None
) -> dict[str, Any]:
    """Check the signature of a cached result or of a part of an iter, and return its task dict.

    Args:
        signed: The signed task.
        schema: The schema of the tenant that it must belong to.
        tenant: The key of that tenant; None where no key is known.
        id: The id under which it was found, if any.
        group: The group in which it was found, if any.

    Raises:
        BadPackage: The signature does not fit, or the task belongs elsewhere.
    """
    try:
        task = SignedPackage.loads(signed)
    except BadSignature as error:
        raise BadPackage(f"its signature does not fit ({error})") from error
    if not isinstance(task, dict) or "success" not in task:
        raise BadPackage("it holds no result")
    if id not in (None, task["id"]) or group not in (None, str(task.get("group"))):
        raise BadPackage("it was kept for another id or another group; find out who moved it")
    if not _is_of(task, schema, tenant):
        raise BadPackage(
            f"it belongs to another tenant, {task.get('schema_name')!r}, or to an earlier one of that name"
        )
    return task


def _is_of(task: dict[str, Any], schema: str, tenant: str | None) -> bool:
    if task.get("tenant") is not None and tenant is not None:
        return bool(task["tenant"] == tenant)
    if task.get("schema_name") != schema:
        return False
    return not tenant or not predates(task["started"], schema, tenant)


def count(group_id: str, *, failures: bool, schema: str, broker: Broker) -> int:
    """Return the number of cached results of a group, or with `failures` of failed ones."""
    if not failures:
        return broker.count_parts(schema, group_id)
    return sum(not task.success for task in group(group_id, failures=True, schema=schema, broker=broker))


def delete_group(group_id: str, *, schema: str, broker: Broker) -> int:
    """Delete a group and its cached results. Return the number of results."""
    _cache().delete_many([_key(task_id) for task_id in broker.parts(schema, group_id)])
    return broker.drop_group(schema, group_id)


def delete(task_id: str) -> bool:
    """Delete a cached result. Return whether there was one."""
    return bool(_cache().delete(_key(task_id)))


def delete_of(schemas: Sequence[str], task_ids: Sequence[str]) -> None:
    """Delete cached results of a tenant under each name that its schema has had."""
    if task_ids and (cache := tenant_cache()):
        for schema in schemas:
            with under_name(schema):
                cache.delete_many([_key(task_id) for task_id in task_ids])


def rename(old: str, new: str, task_ids: Sequence[str]) -> None:
    """Move cached results of a tenant to the new name of its schema. A result that cannot be read is dropped."""
    for task_id in task_ids:
        with under_name(old):
            signed = _cache().get(_key(task_id))
            _cache().delete(_key(task_id))
        if signed is None:
            continue
        try:
            seconds = SignedPackage.loads(signed).get("cached")
        except Exception as error:  # whatever unpickling a class raises
            logger.warning(
                "Dropped a cached result of %s: %s",
                old,
                error,
                event="cached_result.dropped",
                extra={"schema": old, "task_id": task_id},
            )
            continue
        with under_name(new):
            _cache().set(_key(task_id), signed, None if seconds is True else seconds)


def as_task(task: dict[str, Any]) -> Task:
    """Return a cached result, given as a task dict, as an unsaved instance of Django-Q2's model."""
    return Task(
        id=task["id"],
        name=task["name"],
        func=stored_name(task["func"]),
        hook=task.get("hook"),
        args=task["args"],
        kwargs=task["kwargs"],
        group=task.get("group"),
        cluster=task.get("cluster"),
        started=task["started"],
        stopped=task["stopped"],
        result=task["result"],
        success=task["success"],
    )
