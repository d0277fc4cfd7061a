"""Processes that outlive their parent: who adopts them and how they are ended.

On Linux each process of a cluster is a subreaper: it adopts what its children leave behind when they end. So a process
that a task started and detached stays below its worker, and belongs to the sentinel once that worker has ended. There
each child that the sentinel did not start itself is such an orphan, and of a worker that is gone. Elsewhere nobody is
adopted, and the functions here do nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_IS_LINUX = sys.platform.startswith("linux")
_prctl = ctypes.CDLL(None, use_errno=True).prctl if _IS_LINUX else lambda *_: 0

_LOOK_SECONDS = 0.002
# The list of children may pass one over while others end, so an empty one is read again.
_LOOKS = 2


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends.

    Parameters: `parent`, the id of the process of that thread. Where it has ended already this process exits at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if _IS_LINUX and os.getppid() != parent:  # it ended before the call
        os._exit(1)


def adopt(does: bool = True) -> None:
    """Adopt what descendants of this process leave behind when they end; or, with False, adopt no more."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(does), 0, 0, 0)


def children() -> set[int]:
    """Return the ids of this process's children, those that it adopted and those that ended unreaped included."""
    if not _IS_LINUX:
        return set()
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:  # one of its threads has just ended
        lists = []
    return {int(pid) for text in lists for pid in text.split()} if lists else _children_by_parent()


def _children_by_parent() -> set[int]:
    """For a kernel that does not list the children of a thread."""
    found, own = set(), str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            # The name, in parentheses, may hold anything; the state and the parent's id follow it.
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                found.add(int(path.parent.name))
    return found


def reap(known: Collection[int]) -> None:
    """Release the children that have ended, but `known`."""
    for pid in children().difference(known):
        _reap(pid)


def end(known: Collection[int], seconds: float) -> tuple[set[int], set[int]]:
    """Kill and release every child but `known`, and what those leave behind in turn.

    Parameters: `seconds`, for how long it waits for them at most.
    Returns the ids of those that were there, and of those that still are: owned by another user, or in a call that
    the kernel does not interrupt, from which they do not return to their own code.
    """
    found: set[int] = set()
    deadline, empty = time.monotonic() + seconds, 0
    while True:
        others = children().difference(known)
        found |= others
        empty = 0 if others else empty + 1
        if empty == _LOOKS:
            return found, set()
        for pid in others:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            _reap(pid)
        if others and time.monotonic() > deadline:
            return found, children().difference(known)
        if others:
            time.sleep(_LOOK_SECONDS)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
