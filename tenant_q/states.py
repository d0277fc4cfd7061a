"""The state of a task, and the progress that a task reports."""

from __future__ import annotations

from dataclasses import dataclass
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
