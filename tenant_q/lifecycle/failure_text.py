"""Write and read the text of a failed task: the cause, the message and the traceback.

The text is the result of the task's row. Django-Q2 writes a message, " : " and a traceback. A cause of tenant_q's own,
such as `TaskTimeout`, stands in front of it, followed by a colon.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from django_q.exceptions import TimeoutException

from tenant_q.exceptions import (
    CancelException,
    CoroutineCancelled,
    Retry,
    TaskCancelled,
    TaskDeath,
    TaskExited,
    TaskFailed,
    TaskInterrupted,
    TaskOutOfMemory,
    TaskPurged,
    TaskTimeout,
)
from tenant_q.support.visible import shortened

# The longest text of a failure in its row, in characters.
LONGEST_TEXT = 1_000_000
# The causes of tasks that somebody has cancelled or purged.
ENDED_BY_HAND = (TaskCancelled.__name__, TaskPurged.__name__)

_TRACEBACK = "Traceback (most recent call last):"
_NAMED = re.compile(r"([A-Za-z_]\w*): ")
_DEATHS = {death.__name__ for death in TaskDeath.__subclasses__()}
_ERROR = re.compile(r"([A-Za-z_][\w.<>]*)(:|$)")
_CAUSES: dict[type[BaseException], type[TaskDeath]] = {
    KeyboardInterrupt: TaskInterrupted,
    asyncio.CancelledError: CoroutineCancelled,
    MemoryError: TaskOutOfMemory,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """The text of a failed task, taken apart. `cause` is the class name of the error; `traceback` may be empty."""

    cause: str
    message: str
    traceback: str


def read_failure(text: str) -> Failure:
    """Take the text of a failed task apart. A missing part is an empty string."""
    message, head, rest = text.partition(_TRACEBACK)
    message = message.removesuffix(" ").removesuffix(":").strip()
    traceback = f"{head}{rest}".rstrip()
    named = _NAMED.match(message)
    # A cause of tenant_q's own stands in front; otherwise the traceback ends with the cause.
    if named and (not traceback or named[1] in _DEATHS):
        return Failure(named[1], message[named.end() :], traceback)
    return Failure(_last_error(traceback), message, traceback)


def failure_of(task: Any) -> TaskFailed:
    """Return the error for a failed task that was read from the table or the cache, from the text of its failure.

    A failed iter has no such text: its result is the list of its parts' results.
    """
    failure = read_result(task.result)
    return TaskFailed(task.id, failure.cause, failure.message, failure.traceback)


def read_result(result: Any) -> Failure:
    """Take the result of a failed task apart: the text of its failure or, of an iter, the list of its results."""
    if isinstance(result, list):
        return Failure("IterPartFailed", f"not all of its {len(result)} parts succeeded", "")
    return read_failure("" if result is None else str(result))


def _last_error(traceback: str) -> str:
    """Return the class of the error that ends the last traceback in the text of a failure."""
    cause, is_in_frames = "", False  # the class is in the first line behind the frames
    for line in traceback.splitlines():
        if line.startswith(" "):
            is_in_frames = True
        elif is_in_frames and (found := _ERROR.match(line)):
            cause, is_in_frames = found[1], False
    return cause.rpartition(".")[2]


def write_failure(error: BaseException) -> tuple[str, BaseException]:
    """Return the text of a task that failed with this error.

    Args:
        error: Whatever the task raised. It may break any code that looks at it, its own `__str__` included.

    Returns:
        The text, at most about `LONGEST_TEXT` characters, and the cause: a `TaskDeath` that stands for the error and
        has its traceback, the cause of a `Retry`, or the error itself.
    """
    if isinstance(error, Retry) and error.cause is not None:
        error = error.cause
    try:
        cause = _cause(error)
        text = f"{error_message(cause)} : {''.join(traceback.format_exception(error))}"
    except BaseException:
        cause = error
        where = "".join(traceback.format_tb(traceback_of(error)))
        text = f"{error_message(error)} : {_TRACEBACK}\n{where}{type(error).__name__}"
    if type(cause) is not type(error):
        text = f"{type(cause).__name__}: {text}"
        cause.__traceback__ = traceback_of(error)
    return shortened(text, LONGEST_TEXT), cause


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of an error, whose class may hide it, for the text or the log record of a failure."""
    found: TracebackType | None = BaseException.__getattribute__(error, "__traceback__")
    return found


def error_message(error: BaseException) -> str:
    """Return the message of an error for the text of a failure, or a replacement if its `__str__` raises."""
    try:
        return str(error)
    except BaseException:
        return f"<{type(error).__name__} whose text cannot be shown>"


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, TaskDeath):
        return error
    if isinstance(error, TimeoutException):
        return TaskTimeout(str(error))
    if isinstance(error, CancelException):
        return TaskCancelled(str(error))
    if isinstance(error, SystemExit):
        return TaskExited(f"the task called sys.exit({error.code!r})")
    for raised, death in _CAUSES.items():
        if isinstance(error, raised):
            return death(f"the task raised {type(error).__name__}")
    return error
