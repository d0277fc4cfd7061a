"""Fork a process of the cluster, watch it, and read its exit code and peak memory.

`multiprocessing` does not fit: at exit it waits for all children, those that a task left included; a fork that fails
leaks its pipes; and it discards the kernel's report about a process that ended.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from tenant_q.support import forks, sentry

# The exit code of a process that other code has reaped, so that its own is unknown.
UNKNOWN = 255


class Forked:
    """A child of this process.

    Attributes:
        sentinel: A file descriptor that can be read once the child ends; None if the system has none.
        exitcode: Its exit code, negative if a signal killed it; None while it lives.
        peak_memory: Its largest resident size, in bytes, once it has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exitcode: int | None = None
        self.peak_memory: int | None = None
        self.sentinel = _open_pidfd(pid)

    @classmethod
    def start(cls, name: str, run: Callable[[], None]) -> Forked:
        """Fork a process that calls `run` and then ends.

        Args:
            name: The name of the process in log records.
            run: The function.

        Returns:
            The child.

        Raises:
            OSError: The kernel refuses another process.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # otherwise both would write buffered text
                stream.flush()
        pid = os.fork()
        if pid == 0:
            _run(name, run)
        return cls(pid)

    def is_alive(self) -> bool:
        """Return whether the forked process lives. If not, reap it, and store its exit code and peak memory."""
        if self.exitcode is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._end(UNKNOWN)
            else:
                if pid == self.pid:
                    # In kB on Linux, in bytes on macOS.
                    self.peak_memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
                    self._end(os.waitstatus_to_exitcode(status))
        return self.exitcode is None

    def join(self, seconds: float) -> bool:
        """Wait until the forked process ends, for at most `seconds`. Return whether it has."""
        deadline = time.monotonic() + seconds
        while self.is_alive():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            files = [] if self.sentinel is None else [self.sentinel]
            select.select(files, [], [], min(left, 0.1 if files else 0.01))
        return True

    def terminate(self) -> None:
        """Send SIGTERM to the forked process, so that it ends in order."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the forked process: it ends at once."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the forked process, unless it has ended: another process may have its id then."""
        if self.is_alive():
            os.kill(self.pid, number)

    def _end(self, code: int) -> None:
        self.exitcode = code
        if self.sentinel is not None:
            os.close(self.sentinel)
            self.sentinel = None


def _run(name: str, run: Callable[[], None]) -> NoReturn:
    """Call `run` in the forked process, and exit without the parent's exit handlers."""
    try:
        multiprocessing.current_process().name = name
        _close_standard_input()
        run()
    except BaseException as error:
        sentry.flush()
        forks.leave(error)
    sentry.flush()
    forks.leave()


def _close_standard_input() -> None:
    """Replace the standard input of a forked process, which is the parent's, by an empty file."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # another system, or an older kernel: `join` polls instead
        return None
