"""Find out which task runs here."""

from __future__ import annotations

from datetime import UTC, datetime

from tenant_q.lifecycle.retries import is_last_attempt
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.package.running import running_attempt
from tenant_q.states import CurrentTask


def current_task() -> CurrentTask | None:
    """Return the task that runs here; None outside of a task, and in hooks.

    It reads context variables only, so coroutines may call it too.
    """
    attempt = running_attempt.get()
    if attempt is None:
        return None
    package, timeout = attempt.package, timeout_of(attempt.package)
    schedule = package.option("schedule")
    return CurrentTask(
        id=package.id,
        name=package.name,
        schema=package.schema,
        attempt=attempt.number,
        is_last_attempt=bool(package.option("sync")) or is_last_attempt(package),
        group=package.group,
        schedule=None if schedule is None else str(schedule),
        deadline=None if timeout is None else datetime.fromtimestamp(attempt.started + timeout, UTC),
        idempotency_key=package.id,  # retries and redeliveries keep it; fires, links and parts have deterministic ids
    )
