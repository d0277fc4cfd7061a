"""The outcome that a delivery has already, so that its task is not run.

The package carries an outcome that could not be saved; an earlier delivery succeeded; the task was cancelled or ignored
its timeout; or it has killed too many workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from tenant_q import tenancy
from tenant_q.exceptions import TaskCancelled, TaskExpired, WorkerDied
from tenant_q.lifecycle import results
from tenant_q.lifecycle.cancel import death_of
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.package.outcome import Outcome, carried_outcome, give_up
from tenant_q.package.package import Package
from tenant_q.support.durations import duration


def earlier_successes(deliveries: Sequence[Delivery]) -> dict[str, Outcome]:
    """Return the outcomes that are known from earlier deliveries of packages: the successes, by package id.

    They are read from the current schema, with one query, or none if no package was delivered before.

    Raises:
        TenantBusy: The tenant's table stays locked.
        TenantBroken: The table cannot be read.
    """
    redelivered = {one.lease.id: one.package for one in deliveries if one.lease.is_redelivered}
    if not redelivered:
        return {}
    with tenancy.as_owner(needs_rights=False):
        found = results.successes(redelivered)
    return {
        id: Outcome(
            package=redelivered[id],
            success=True,
            result=task.result,
            started=task.started,
            stopped=task.stopped,
            seconds=0.0,
            attempt=task.attempt_count,
        )
        for id, task in found.items()
    }


def known_outcome(delivery: Delivery, earlier: Mapping[str, Outcome]) -> Outcome | None:
    """Return the outcome of a delivery that is known without running its task; None if it is to be run.

    Args:
        delivery: The delivery.
        earlier: The result of `earlier_successes` for its batch.
    """
    outcome = carried_outcome(delivery.package) or earlier.get(delivery.lease.id)
    if outcome is None and delivery.lease.give_up_reason:
        return stopped_outcome(delivery, delivery.lease.give_up_reason)
    return outcome or _killed_too_many_workers(delivery)


def expired_outcome(delivery: Delivery, package: Package) -> Outcome | None:
    """Return the failure of a delivery that has expired; None if its task is to be run.

    A package whose worker died does not expire: its task may have been started. Neither does a retry, nor a
    transactional task that was taken back.

    Args:
        delivery: The delivery.
        package: Its package with the declared options.
    """
    expires = package.option("expires")
    if expires is None or delivery.lease.is_redelivered or package.failures or package.option("was_started"):
        return None
    late = datetime.now(UTC) - expires
    if late < timedelta():
        return None
    ago = duration(late.total_seconds())
    text = f"it was to start before {expires.isoformat(timespec='seconds')}, {ago} ago, so it is not started any more"
    return give_up(package, TaskExpired(text), attempt=delivery.attempt)


def stopped_outcome(delivery: Delivery, reason: str) -> Outcome:
    """Return the outcome of a task that was stopped: a failure, which is final after a cancel."""
    death = death_of(reason)
    is_final = isinstance(death, TaskCancelled)  # after a timeout, the task may have attempts left
    return give_up(delivery.package, death, attempt=delivery.attempt, is_final=is_final)


def _killed_too_many_workers(delivery: Delivery) -> Outcome | None:
    lease, package, starts = delivery.lease, delivery.package, delivery.lease.starts or 0
    if starts < package.max_deliveries:
        return None
    times = "once" if starts == 1 else f"{starts} times"
    last = "it" if starts == 1 else "the last one"
    how = f"; {last} {lease.death}" if lease.death else ""
    text = f"the worker process died {times} while it ran this task, so it is not started again{how}"
    return give_up(package, WorkerDied(text), attempt=package.failures + starts)
