"""What a failed task's text says: the cause, the message and the traceback."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tenant_q.exceptions import TaskDeath

_TRACEBACK = "Traceback (most recent call last):"
_NAMED = re.compile(r"([A-Za-z_]\w*): ")
_DEATHS = {death.__name__ for death in TaskDeath.__subclasses__()}
_ERROR = re.compile(r"([A-Za-z_][\w.<>]*)(:|$)")


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed task's text, taken apart. `cause` is the class name of the error; `traceback` may be empty."""

    cause: str
    message: str
    traceback: str


def read_failure(text: str) -> Failure:
    """Take a failed task's text apart, as the executor writes it; what is missing is an empty string."""
    message, head, rest = text.partition(_TRACEBACK)
    message = message.removesuffix(" ").removesuffix(":").strip()
    traceback = f"{head}{rest}".rstrip()
    named = _NAMED.match(message)
    # A cause of tenant_q's own stands in front; else it is what the traceback ends with.
    if named and (not traceback or named[1] in _DEATHS):
        return Failure(named[1], message[named.end() :], traceback)
    return Failure(_last_error(traceback), message, traceback)


def _last_error(traceback: str) -> str:
    """The class that the last traceback in a text ends with: the first line behind its frames."""
    cause, is_in_frames = "", False
    for line in traceback.splitlines():
        if line.startswith(" "):
            is_in_frames = True
        elif is_in_frames and (found := _ERROR.match(line)):
            cause, is_in_frames = found[1], False
    return cause.rpartition(".")[2]
