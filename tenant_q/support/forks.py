"""Keep processes that a task forks apart from the worker.

`os.fork()` returns twice. The second time it returns in a copy of the worker, with the worker's sessions, its leases
and the memory that it shares with the sentinel. `install()` makes each such copy let go of all that; `no_return()` ends
the copy where the project's code would return into the worker's code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NoReturn

from tenant_q.support import orphans
from tenant_q.support.unix_signals import hold_signals, release_signals, restore_default_handlers

# What each process forked from this one calls first.
_in_child: list[Callable[[], None]] = []
# The id of the forking process, and whether its main thread forks.
_forking = threading.local()


def install(*acts: Callable[[], None]) -> None:
    """Make each process forked from this one, and its own forks, call `acts` before anything else.

    Call it once, in a process of the cluster that runs code of the project.
    """
    _in_child[:] = acts
    os.register_at_fork(before=_before_fork, after_in_parent=release_signals, after_in_child=_after_fork)


def also(act: Callable[[], None]) -> None:
    """Add a function that each process forked from this one calls first."""
    _in_child.append(act)


def is_installed() -> bool:
    """Return whether processes forked from this one are kept apart from it."""
    return bool(_in_child)


def _before_fork() -> None:
    _forking.pid, _forking.in_main_thread = os.getpid(), threading.get_ident() == threading.main_thread().ident
    hold_signals()


def _after_fork() -> None:
    """Release in a forked process all that belongs to its parent. If that fails, it exits, to share no session.

    The child ends with its parent, even if the whole cluster is killed. For the kernel its parent is the thread that
    forked it. So a child of another thread than the main one is excluded: it must be able to outlive that thread.
    """
    try:
        restore_default_handlers()
        if _forking.in_main_thread:
            orphans.die_with(_forking.pid)
        for act in _in_child:
            act()
    except BaseException as error:
        leave(error)


class no_return(AbstractContextManager["no_return"]):
    """A block that runs code of the project, from which no forked process returns: it ends there.

    Such a process exits with 0, with the code of a `SystemExit`, or with 1 and a traceback on standard error. The block
    does nothing if `install()` was not called.
    """

    __slots__ = ("_pid",)

    def __enter__(self) -> no_return:
        self._pid = os.getpid()
        return self

    def returned(self) -> None:
        """End a forked process as soon as code of the project has returned within the block."""
        if self._pid != os.getpid() and _in_child:
            leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._pid != os.getpid() and _in_child:
            leave(error)


def leave(error: BaseException | None = None) -> NoReturn:
    """End a forked process at once, without anything that the worker would do at its end."""
    status = 1
    try:
        status = _status(error)
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or replaced by the project
                stream.flush()
        os._exit(status)


def _status(error: BaseException | None) -> int:
    """Return the exit code of a forked process that ends with this error, as Python would."""
    if error is None:
        return 0
    code = error.code if isinstance(error, SystemExit) else 1
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


class Abandoned:
    """A stand-in for an object of the worker. A forked process that uses it has gone on as the worker, and is ended."""

    def __getattr__(self, name: str) -> Any:
        leave(RuntimeError(f"A process that a task forked went on as the worker and used {name!r}; it is ended."))
