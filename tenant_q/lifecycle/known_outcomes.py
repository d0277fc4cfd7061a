"""The outcome that a delivery has already, so that its task is not run.

The package carries an outcome that could not be saved; an earlier delivery succeeded; the task was cancelled or ignored
its timeout; or it has killed too many workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenant_q.exceptions import TaskCancelled, WorkerDied
from tenant_q.lifecycle import results
from tenant_q.lifecycle.cancel import death_of
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.package.outcome import Outcome, carried_outcome, give_up


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
        for id, task in results.successes(redelivered).items()
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
