"""Read and set the handlers of Unix signals, several times for each task.

The functions of `signal` convert arguments and results to enums, by raising and catching errors. For a short task that
costs more than its call. So this module uses the functions below them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from typing import Any

# The signals that only the main thread of a worker receives: timeouts, stops and cancels.
SIGNALS = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# The handler of a signal that nobody handles.
DEFAULT: int = _signal.SIG_DFL

# For each thread: its mask before a fork, and whether it is a thread of the cluster that blocks signals.
_here = threading.local()

get_handler: Callable[[int], Any] = _signal.getsignal
set_handler: Callable[[int, Any], Any] = _signal.signal


def leave_signals_to_main_thread() -> None:
    """Block the Unix signals that interrupt a waiting task. Call it in threads of the cluster but the main one."""
    _here.blocks = True
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def hold_signals() -> None:
    """Hold Unix signals back until a child is ready. Call it before a fork: the parent's handler would lose them."""
    _here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Let held Unix signals through again. Call it after a fork, in the parent."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _here.mask)


def restore_default_handlers() -> None:
    """Restore the default handlers of the Unix signals that the cluster handles, and detach from the wake-up pipe.

    Call it in a forked child. Handlers and masks that the project set stay.
    """
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        if str(getattr(get_handler(number), "__module__", "")).partition(".")[0] == __name__.partition(".")[0]:
            set_handler(number, signal.default_int_handler if number == signal.SIGINT else DEFAULT)
    mask = set(_here.mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask - set(SIGNALS) if getattr(_here, "blocks", False) else mask)
