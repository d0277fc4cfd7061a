"""Which handler a signal has, asked and set several times a task.

The functions of `signal` make enums of what they take and give, by raising and catching errors: for a short task that
is more than its call. These are the ones beneath.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from typing import Any

# Those that the main thread of a worker is to receive: timeouts, stops and cancels.
SIGNALS = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# What a signal does that nobody handles.
DEFAULT: int = _signal.SIG_DFL

# Of each thread: its mask before a fork, and whether it is one of the cluster's own that blocks signals.
_here = threading.local()

get_handler: Callable[[int], Any] = _signal.getsignal
set_handler: Callable[[int, Any], Any] = _signal.signal


def leave_signals_to_main_thread() -> None:
    """In a thread of the cluster's own: block the signals that are to interrupt what a task waits for."""
    _here.blocks = True
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def hold_signals() -> None:
    """Before a fork: let a signal wait until the child is ready. Its parent's handler would lose it."""
    _here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """After a fork, in the parent."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _here.mask)


def restore_default_handlers() -> None:
    """In a forked child: give each signal that the cluster handles its default again, and none to the parent's pipe.

    Handlers and masks that the project set stay.
    """
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        if str(getattr(get_handler(number), "__module__", "")).partition(".")[0] == __name__.partition(".")[0]:
            set_handler(number, signal.default_int_handler if number == signal.SIGINT else DEFAULT)
    mask = set(_here.mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask - set(SIGNALS) if getattr(_here, "blocks", False) else mask)
