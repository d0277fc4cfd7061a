"""Push the packages of ready steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tenant_q.exceptions import BrokerError, DatabaseAway, EnqueueError, TenantLeaving, TenantUnavailable
from tenant_q.lifecycle import push
from tenant_q.package.package import Package
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows.step_packages import ReadyStep, log_unpushed, packages_of

logger = get_logger("tenant_q.workflows")


def push_or_leave(schema: str, id: str, act: Callable[[], None]) -> None:
    """Push steps of a run after a commit, or leave it to the scheduler, which looks at the run.

    The run is accepted already, so an error is logged and not raised.

    Args:
        schema: The schema of the tenant.
        id: The id of the run.
        act: The function that pushes them.

    Raises:
        TenantLeaving: The tenant is being decommissioned, so no scheduler will push them.
    """
    try:
        act()
    except TenantLeaving:
        raise
    except Exception as error:
        logger.warning(
            "Could not push steps of workflow run %s, which the scheduler will do: %s",
            id,
            one_line(error),
            event="workflow.push_failed",
            exc_info=not isinstance(error, BrokerError | DatabaseAway),
            extra={"schema": schema, "task_id": id},
        )


def push_steps(ready: Sequence[ReadyStep], *, for_caller: bool = False) -> None:
    """Push the packages of ready steps. See `push_packages`."""
    push_packages(packages_of(ready), for_caller=for_caller)


def push_packages(packages: Sequence[Package], *, for_caller: bool = False) -> None:
    """Push the packages of steps. Those that are queued, delayed or leased already are ignored.

    If one cannot be pushed, because its tenant is gone, it is logged and the others are pushed.

    Args:
        packages: The packages.
        for_caller: Whether a caller has asked for it, which gets the error if the tenant is being decommissioned.

    Raises:
        TenantLeaving: The tenant is being decommissioned, and `for_caller` is set.
        BrokerError: The broker does not answer.
        DatabaseAway: The database does not answer.
    """
    if not packages:
        return
    push.announce(packages)
    try:
        push.push(packages)
    except (TenantUnavailable, EnqueueError) as error:
        if for_caller and isinstance(error, TenantLeaving):
            raise
        if len(packages) > 1:
            for package in packages:
                push_packages([package])
        else:
            log_unpushed(packages[0].name, error, packages[0].log_labels)
