"""Check the options of a step that are those of its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tenant_q.exceptions import EnqueueError, WorkflowError
from tenant_q.package.options import name_errors, refuse_wrong_values
from tenant_q.support.hints import did_you_mean

TASK_OPTIONS = (
    "max_attempts",
    "retry_on",
    "no_retry_on",
    "retry_delay",
    "retry_backoff",
    "retry_jitter",
    "timeout",
    "transactional",
    "max_deliveries",
    "databases",
    "tenant_cache_seconds",
    "priority",
    "rate",
    "rate_scope",
)

CODE_OPTIONS = ("rate", "rate_scope", "databases", "retry_on", "no_retry_on")
"""The options that come from the code and never from a run's plan: they affect other tenants, or are paths to import."""


def checked(options: Mapping[str, Any], where: str, known: Iterable[str] = TASK_OPTIONS) -> dict[str, Any]:
    """Return the options of a step's tasks as JSON holds them.

    Args:
        options: The options.
        where: The step, for the message.
        known: The names that a hint may name.

    Raises:
        WorkflowError: An option is unknown or has a wrong value.
    """
    for option in options:
        if option == "cluster":
            raise WorkflowError(f"{where} has the option 'cluster'; all steps of a run go to the cluster of the run.")
        if option not in TASK_OPTIONS:
            raise WorkflowError(f"{where} has an unknown option '{option}': {did_you_mean(option, known)}")
    carried = dict(options)
    try:
        refuse_wrong_values(carried, f"The option '{{}}' of {where}")
    except EnqueueError as error:
        raise WorkflowError(str(error)) from None
    name_errors(carried)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in carried.items()}
