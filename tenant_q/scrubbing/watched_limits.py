"""Restore the resource limits of the process that a task changes.

Reading all of them after each task would cost more than most other checks together. So the two functions that set
limits count their calls. A change in another way is found when all limits are read, after the batch.
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Callable
from typing import Any

_NAMES = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
_set = resource.setrlimit


class Limits:
    """The noted resource limits of the process."""

    def __init__(self) -> None:
        self._calls = 0
        self._noted: dict[int, tuple[int, int]] = {}

    def count_calls(self) -> None:
        """Count the calls that set a resource limit from now on."""
        for name in ("setrlimit", "prlimit"):
            function = getattr(resource, name, None)
            if function is not None and not hasattr(function, "__wrapped__"):
                setattr(resource, name, self._counting(function))

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counting(*args: Any) -> Any:
            self._calls += 1
            return function(*args)

        return counting

    def mark(self) -> int:
        """Return the number of calls that set a resource limit, which changes if a task sets one."""
        return self._calls

    def look(self) -> list[tuple[int, int]]:
        """Return all resource limits of the process."""
        return [*map(resource.getrlimit, _NAMES)]

    def note(self) -> None:
        """Note the present resource limits of the process."""
        self.count_calls()
        self._noted = {number: resource.getrlimit(number) for number in _NAMES}

    def restore(self, _: Any) -> str | None:
        """Restore the changed resource limits, if that is allowed. Return their names; None if there are none."""
        changed = [number for number, was in self._noted.items() if resource.getrlimit(number) != was]
        for number in changed:
            _set(number, self._noted[number])
        return ", ".join(_NAMES[number] for number in changed) or None
