"""Results that are kept in the cache instead of the tenant's table, and the parts of groups and iters.

A single result is in the Django cache that `Q_CLUSTER["cache"]` names. A group's results are the fields of one hash in
the broker, so that no two workers ever rewrite a shared list.
"""

from __future__ import annotations

from typing import Any

from django_q.models import Task
from django_q.signing import SignedPackage

from tenant_q.brokers.djangoq import tenant_cache
from tenant_q.brokers.protocol import Broker
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.functions import stored_name
from tenant_q.package import Outcome

# An iter that is never completed is forgotten after this long.
ITER_SECONDS = 7 * 24 * 3600


def _cache() -> Any:
    cache = tenant_cache()
    if cache is None:
        raise ConfigurationError("Q_CLUSTER['cache'] names a cache that CACHES does not have; add it to keep results.")
    return cache


def _key(task_id: str) -> str:
    """Whichever of the site's clusters has run the task."""
    return f"{conf().site}:{task_id}"


def save(outcome: Outcome, broker: Broker) -> None:
    """Keep a `cached` outcome for as long as its option says. The tenant's schema must be current."""
    package = outcome.package
    signed = SignedPackage.dumps(outcome.task_dict())
    seconds = None if package.cached is True else int(package.cached)
    if package.group:  # first: whoever sees the result finds it in its group too
        broker.add_part(package.schema, package.group, package.id, signed, seconds=seconds)
    _cache().set(_key(package.id), signed, seconds)


def find(task_id: str) -> Task | None:
    """A cached result of the current tenant by its id."""
    signed = _cache().get(_key(task_id))
    return as_task(SignedPackage.loads(signed)) if signed else None


def group(group_id: str, *, failures: bool, schema: str, broker: Broker) -> list[Task]:
    """The cached results of a group in the order in which they started."""
    tasks = [as_task(SignedPackage.loads(part)) for part in broker.parts(schema, group_id).values()]
    return sorted((task for task in tasks if failures or task.success), key=lambda task: task.started)


def count(group_id: str, *, failures: bool, schema: str, broker: Broker) -> int:
    """How many cached results a group has, or how many of them failed."""
    if not failures:
        return broker.count_parts(schema, group_id)
    return sum(not task.success for task in group(group_id, failures=True, schema=schema, broker=broker))


def delete_group(group_id: str, *, schema: str, broker: Broker) -> int:
    """Forget a group and its cached results. Returns how many there were."""
    _cache().delete_many([_key(task_id) for task_id in broker.parts(schema, group_id)])
    return broker.drop_group(schema, group_id)


def delete(task_id: str) -> bool:
    """Forget a cached result. Returns whether there was one."""
    return bool(_cache().delete(_key(task_id)))


def as_task(task: dict[str, Any]) -> Task:
    """A task dict with its outcome as Django-Q2's model instance, not saved."""
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
