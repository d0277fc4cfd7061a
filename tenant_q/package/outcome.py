"""The outcome of running a package, and the outcome that a package carries because it could not be saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.utils import timezone

from tenant_q.exceptions import TaskDeath
from tenant_q.package.package import Package


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of running a package.

    Attributes:
        package: The package.
        success: Whether the task returned.
        result: The return value, or the text of the failure.
        started: The moment when the task started.
        stopped: The moment when the task ended.
        seconds: The worker time used.
        attempt: The number of this start, counted from 1.
        death: For a failure, the name of the class of its cause.
        error: For a failure, the exception itself. It does not travel.
        is_saved: Whether the row of the outcome already exists.
        is_final: Whether the task is never started again.
        is_logged: Whether the record of the failure was written. It does not travel: an outcome that is carried was
            logged before.
    """

    package: Package
    success: bool
    result: Any
    started: datetime
    stopped: datetime
    seconds: float
    attempt: int = 1
    death: str | None = None
    error: BaseException | None = None
    is_saved: bool = False
    is_final: bool = False
    is_logged: bool = False

    @property
    def waited(self) -> float | None:
        """The seconds that the outcome's package waited, enqueued or due, for its start; None for a later attempt."""
        enqueued = self.package.option("started")
        if self.attempt > 1 or not isinstance(enqueued, datetime):
            return None
        try:
            return max(0.0, (self.started - enqueued).total_seconds() - self.package.delay)
        except TypeError:  # enqueued with another USE_TZ
            return None

    def task_dict(self) -> dict[str, Any]:
        """Return the outcome as a task dict, as Django-Q2 passes it to `post_execute` and to the cache."""
        return self.package.task | {
            "result": self.result,
            "success": self.success,
            "started": self.started,
            "stopped": self.stopped,
        }


def give_up(package: Package, error: Exception, *, attempt: int = 1, is_final: bool = True) -> Outcome:
    """Return the outcome of a package that is given up: a failure without a run.

    Args:
        package: The package.
        error: Why it is not run. The failed row names its class and its message.
        attempt: The number of the start that does not take place, counted from 1.
        is_final: Whether the task ends with this outcome, even if it has attempts left.

    Returns:
        A failure that took no time.
    """
    now = timezone.now()
    return Outcome(
        package=package,
        success=False,
        result=f"{type(error).__name__}: {error}",
        started=now,
        stopped=now,
        seconds=0.0,
        attempt=attempt,
        death=type(error).__name__,
        is_final=is_final,
    )


def without_effect(package: Package) -> Outcome:
    """Return the outcome of a package that is dropped: nothing is saved, and it is acknowledged."""
    now = timezone.now()
    return Outcome(package, success=True, result=None, started=now, stopped=now, seconds=0.0, is_saved=True)


def with_outcome(outcome: Outcome, **counted: int) -> Package:
    """Return the package with its outcome in it, which is only saved when it is delivered again.

    Args:
        outcome: The outcome that could not be saved.
        counted: How often saving it was put off so far, or calling its hook, under the name of that counter.
    """
    kept = ("success", "result", "started", "stopped", "seconds", "attempt", "death", "is_final")
    carried = {name: getattr(outcome, name) for name in kept}
    return Package(outcome.package.task | {"outcome": carried} | counted)


def without_values(outcome: Outcome, death: TaskDeath) -> Outcome:
    """Return the outcome as a failure with this cause, without its result and arguments, which may be large."""
    package = Package(outcome.package.task | {"args": (), "kwargs": {}})
    name = type(death).__name__
    return replace(
        outcome, package=package, success=False, result=f"{name}: {death}", death=name, is_final=True, is_logged=False
    )


def carried_outcome(package: Package) -> Outcome | None:
    """Return the outcome that a package carries because it could not be saved; None for other packages."""
    carried = package.option("outcome")
    if carried is None:
        return None
    task = {name: value for name, value in package.task.items() if name != "outcome"}
    return Outcome(package=Package(task), is_logged=True, **carried)
