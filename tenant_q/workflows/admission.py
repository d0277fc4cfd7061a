"""Admit pending runs of a tenant whose limit `max_open_workflows` leaves room for them."""

from __future__ import annotations

from collections.abc import Iterable

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway
from tenant_q.support.lock_keys import lock_key
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows.advancing import advance
from tenant_q.workflows.step_packages import ReadyStep
from tenant_q.workflows.transactions import on, transaction

logger = get_logger("tenant_q.workflows")


def limit_of(schema: str) -> int | None:
    """Return the most open runs of a tenant; None without a limit."""
    return tenancy.config(schema).limit("max_open_workflows")


def is_limited(schema: str) -> bool:
    """Return whether a tenant has a limit of open runs."""
    return limit_of(schema) is not None


def admit(schemas: Iterable[str]) -> list[ReadyStep]:
    """Let the oldest pending runs of tenants begin, as far as their limits allow.

    Args:
        schemas: The schema names of the tenants. Those without a limit have no pending runs.

    Returns:
        The steps to push.

    Raises:
        DatabaseAway: The database does not answer.
    """
    ready: list[ReadyStep] = []
    for schema in sorted(schemas):
        try:
            ready += _admit(schema)
        except DatabaseAway:
            raise
        except Exception as error:  # the scheduler looks at each pending run
            logger.warning(
                "Could not admit pending workflow runs of %s: %s",
                schema,
                one_line(error),
                event="workflow.admission_failed",
                extra={"schema": schema},
            )
    return ready


def _admit(schema: str, everything: bool = False) -> list[ReadyStep]:
    limit = limit_of(schema)
    if limit is None and not everything:
        return []
    most = limit if limit is not None else 1_000_000
    with transaction([schema]) as open_one:
        _, admitted = open_one.run(
            [
                on(schema, "workflow_admission_lock", lock_key(f"workflows;{schema}")),
                on(schema, "workflow_admit", most, most),
            ],
            last=True,
        )
    ids = [id for (id,) in admitted.rows]
    return advance({schema: ids}, again={schema: ids}).ready if ids else []


def admit_all(schema: str) -> list[ReadyStep]:
    """Let pending runs of a tenant begin, also if its limit was removed meanwhile. Returns and raises as `admit`."""
    return _admit(schema, everything=True)
