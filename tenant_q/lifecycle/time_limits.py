"""The timeout of a task: how long it may run, and the alarm that ends it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from django_q.exceptions import TimeoutException

from tenant_q.conf import conf
from tenant_q.package.package import Package
from tenant_q.support.unix_signals import DEFAULT, get_handler, set_handler


def timeout_of(package: Package) -> float | None:
    """Return the time limit of a package: the seconds that it may run, or None without a limit.

    A timeout of 0 or less means no limit, as -1 does in Django-Q2.
    """
    timeout = package.option("timeout", conf().timeout)
    return timeout if timeout is not None and timeout > 0 else None


@contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Limit the time of the block: raise Django-Q2's `TimeoutException` in it after `seconds`, if not None.

    A signal interrupts only the main thread, so the block runs without a limit in any other thread. A timer or a
    handler of SIGALRM that the block sets does not outlast it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TimeoutException(f"Task exceeded maximum timeout value ({seconds:g} seconds)")

    # In sync mode a task runs another one here. The outer alarm continues afterwards, and rings in time.
    outer, begun = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    before = get_handler(signal.SIGALRM)
    try:
        if seconds is not None:
            set_handler(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, min(seconds, outer or seconds))
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            if get_handler(signal.SIGALRM) is not before:
                set_handler(signal.SIGALRM, DEFAULT if before is None else before)
            if outer:
                signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - begun), 1e-6))
