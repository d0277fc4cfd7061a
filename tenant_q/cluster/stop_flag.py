"""The stop flag of a process of the cluster: SIGTERM and SIGINT set it. Signal handlers do nothing else."""

from __future__ import annotations

import os
import select
import signal
from typing import Any

from tenant_q.support.unix_signals import get_handler, set_handler


class StopFlag:
    """Set by SIGTERM and SIGINT; a wait on it ends at once when they come."""

    def __init__(self) -> None:
        self.count = 0
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(self._reader, False)
        self._before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._set) for number in (signal.SIGTERM, signal.SIGINT)}
        self._writer = writer

    def _set(self, signum: int, frame: Any) -> None:
        self.count += 1

    def take_signals(self) -> None:
        """Handle the signals that set the stop flag, again if a task has changed their handlers."""
        for number in self._handlers:
            if get_handler(number) != self._set:
                set_handler(number, self._set)

    def set(self) -> None:
        """Set the stop flag as a signal does."""
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0

    def wait(self, seconds: float, *files: Any) -> list[Any]:
        """Wait until a signal sets the stop flag or one of `files` can be read. Return the readable files.

        Args:
            seconds: The longest wait.
            files: Files whose input ends the wait.
        """
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)  # the loop of an async task may have taken it
        readable, _, _ = select.select([self._reader, *files], [], [], max(0.0, seconds))
        if self._reader in readable:
            os.read(self._reader, 4096)
        return [file for file in readable if file != self._reader]

    def restore(self) -> None:
        """Put back the signal handlers that were there before the stop flag."""
        signal.set_wakeup_fd(self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)
