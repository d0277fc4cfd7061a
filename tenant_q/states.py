"""The state of a task, the progress that it reports, and what it may know of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# The text of a progress is cut to this number of bytes.
LONGEST_TEXT = 400


class State(StrEnum):
    """The state of a task. Each state is a `str`, equal to its name in lower case.

    `RUNNING` includes tasks that a worker has fetched and not started yet. `UNKNOWN` stands for a task without a trace:
    it was never enqueued, is not enqueued yet (`on_commit`), was deleted or pruned, belongs to another tenant, or
    succeeded with `save=False`.
    """

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_finished(self) -> bool:
        """Whether the task has reached its last state."""
        return self in (State.SUCCESS, State.FAILURE, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress that a running task reports.

    Attributes:
        fraction: The part of the work that is done, from 0 to 1.
        text: A text for people.
    """

    fraction: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """The task that runs where `QUtilities.current_task()` is called.

    Attributes:
        id: The id of the task.
        name: Its name.
        schema: The schema of its tenant.
        attempt: The number of this start, counted from 1. Starts that ended with the death of their worker count.
        is_last_attempt: Whether an error now is final: no attempt is left.
        group: Its group, or None.
        schedule: The name of the schedule that enqueued it, or the schedule's id if it has no name; None for other
            tasks.
        deadline: The moment of its timeout, with a time zone; None without a timeout.
        idempotency_key: The same text at each start of this task, and at no start of another one. Pass it to a service
            that does the same request only once.
    """

    id: str
    name: str
    schema: str
    attempt: int
    is_last_attempt: bool
    group: str | None
    schedule: str | None
    deadline: datetime | None
    idempotency_key: str
