"""The package that runs here, for log records, for progress, and for the tasks that a task enqueues."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from tenant_q.package.package import Package

# A context variable, so coroutines and threads that a task starts through asgiref inherit it.
running: ContextVar[Package | None] = ContextVar("tenant_q_running", default=None)


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """The attempt at a package that runs here.

    Attributes:
        package: The package.
        number: The number of the attempt, counted from 1.
        started: When the function was called, in seconds since the epoch.
    """

    package: Package
    number: int
    started: float


# None also in hooks, which run when the attempts at their package are over.
running_attempt: ContextVar[RunningAttempt | None] = ContextVar("tenant_q_running_attempt", default=None)
