"""A process that the cluster forks: how it is started, whether it lives, how it ended and what memory it had.

`multiprocessing` is not used for it: at exit it waits for children, of a process that is to end and of tasks that left
some; a fork that fails leaks the pipes made for it; and it throws away what the kernel says of a process that ended.
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

from tenant_q import forks

# The exit code of a process that something else has reaped, so that nobody knows it.
UNKNOWN = 255


class Forked:
    """A child of this process. `sentinel` is a file that can be read once it has ended, if the kernel has such files.

    `exitcode` is negative where a signal killed it, and None while it lives. `peak_memory` is the most it ever had
    resident, in bytes, once it has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exitcode: int | None = None
        self.peak_memory: int | None = None
        self.sentinel = _open_pidfd(pid)

    @classmethod
    def start(cls, name: str, run: Callable[[], None]) -> Forked:
        """Fork a process that calls `run` and ends where that does.

        Parameters: `name`, which log records show as the name of the process. Raises `OSError` where the kernel
        refuses another process.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # else what is buffered would be written twice
                stream.flush()
        pid = os.fork()
        if pid == 0:
            _run(name, run)
        return cls(pid)

    def is_alive(self) -> bool:
        """Whether it has not ended; if it has, take note of how, and release it."""
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
        """Wait until it has ended, for at most `seconds`. Returns whether it has."""
        deadline = time.monotonic() + seconds
        while self.is_alive():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            files = [] if self.sentinel is None else [self.sentinel]
            select.select(files, [], [], min(left, 0.1 if files else 0.01))
        return True

    def terminate(self) -> None:
        """Have it end in order."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended: then its number may be another's."""
        if self.is_alive():
            os.kill(self.pid, number)

    def _end(self, code: int) -> None:
        self.exitcode = code
        if self.sentinel is not None:
            os.close(self.sentinel)
            self.sentinel = None


def _run(name: str, run: Callable[[], None]) -> NoReturn:
    """In the forked process: what its parent would do when it ends is not done here."""
    try:
        multiprocessing.current_process().name = name
        _close_standard_input()
        run()
    except BaseException as error:
        forks.leave(error)
    forks.leave()


def _close_standard_input() -> None:
    """It is the parent's: what reads it here finds nothing."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # another system, or an older kernel: whoever waits looks again soon
        return None
