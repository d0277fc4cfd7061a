"""The state of a task, and the progress that it reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# A progress' text is cut to so many bytes.
LONGEST_TEXT = 400


class State(StrEnum):
    """What has become of a task so far. Each is a `str`, equal to its name in lower case.

    `RUNNING` is also what a worker has taken and not started yet. `UNKNOWN` is what has left no trace: never enqueued,
    not enqueued yet (`on_commit`), deleted or pruned, another tenant's, or a success that was not to be saved.
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
        """Whether nothing more will come of the task."""
        return self in (State.SUCCESS, State.FAILURE, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running task says it is: `fraction` from 0 to 1, and a `text` of its own."""

    fraction: float
    text: str = ""
