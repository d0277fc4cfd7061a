"""Push the packages of ready steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tenant_q.exceptions import BrokerError, DatabaseAway
from tenant_q.lifecycle import push as packages
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows.step_packages import ReadyStep, packages_of

logger = get_logger("tenant_q.workflows")


def push_or_leave(schema: str, id: str, push: Callable[[], None]) -> None:
    """Push steps of a run after a commit, or leave it to the scheduler, which looks at the run.

    The run is accepted already, so an error is logged and not raised.

    Args:
        schema: The schema of the tenant.
        id: The id of the run.
        push: The function that pushes them.
    """
    try:
        push()
    except Exception as error:
        logger.warning(
            "Could not push steps of workflow run %s, which the scheduler will do: %s",
            id,
            one_line(error),
            event="workflow.push_failed",
            exc_info=not isinstance(error, BrokerError | DatabaseAway),
            extra={"schema": schema, "task_id": id},
        )


def push_steps(ready: Sequence[ReadyStep]) -> None:
    """Push the packages of ready steps. Those that are queued, delayed or leased already are ignored."""
    if ready:
        found = packages_of(ready)
        packages.announce(found)
        packages.push(found)
