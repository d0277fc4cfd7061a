"""Adopt and end processes that outlive their parent.

On Linux each process of a cluster is a subreaper: it adopts the processes that its descendants leave when they end. A
process that a task started and detached stays below its worker, and the sentinel adopts it when the worker ends. So
each child that the sentinel did not start itself is an orphan of a worker that has ended. On other systems no process
is adopted, and the functions here do nothing.
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
# The list of children may lack one while others end, so an empty list is read again.
_LOOKS = 2


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends, so that it leaves no orphan.

    Args:
        parent: The process id of that thread. If it has already ended, this process exits at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if _IS_LINUX and os.getppid() != parent:  # it ended before the call
        os._exit(1)


def adopt(does: bool = True) -> None:
    """Adopt the orphans that descendants of this process leave when they end; with False, adopt none any more."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(does), 0, 0, 0)


def children() -> set[int]:
    """Return the ids of this process's children, including adopted orphans and zombies."""
    if not _IS_LINUX:
        return set()
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:  # one of its threads has just ended
        lists = []
    return {int(pid) for text in lists for pid in text.split()} if lists else _children_by_parent()


def _children_by_parent() -> set[int]:
    """Return the ids of this process's children on a kernel that does not list those of a thread."""
    found, own = set(), str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            # The name, in parentheses, may hold anything; the state and the parent's id follow it.
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                found.add(int(path.parent.name))
    return found


def reap(known: Collection[int]) -> None:
    """Reap the children and adopted orphans that have ended, except `known`."""
    for pid in children().difference(known):
        _reap(pid)


def end(known: Collection[int], seconds: float) -> tuple[set[int], set[int]]:
    """Kill and reap every child except `known`, and the orphans that they leave in turn.

    Args:
        known: The ids of the children to spare.
        seconds: How long to wait for the others to end, at most.

    Returns:
        The ids of the children found, and of those that still exist. Those belong to another user, or are in a call
        that the kernel does not interrupt, and do not return to their own code.
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
