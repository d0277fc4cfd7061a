"""A cancel reaches the task that runs: the sentinel's signal becomes an exception in it, and in nothing else."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from typing import Any

from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import CancelException
from tenant_q.lifecycle.cancel import death_of
from tenant_q.support.unix_signals import get_handler, set_handler

SIGNAL = signal.SIGUSR1


class Interrupt(AbstractContextManager[None]):
    """Looks, when the signal comes, whether it means the task that runs now. `slot` is where the sentinel says so.

    It is entered for each task, and so does as little as can be.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._id = ""
        self._armed_for: str | None = None
        self.take_signal()

    def take_signal(self) -> None:
        """Take the signal, also again where a task has taken it."""
        if get_handler(SIGNAL) != self._ring:
            set_handler(SIGNAL, self._ring)

    def armed(self, id: str) -> Interrupt:
        """Raise `CancelException` in the block, once, when the package `id` is cancelled."""
        self._id = id
        return self

    def __enter__(self) -> None:
        self._armed_for = self._id

    def __exit__(self, *_: object) -> None:
        self._armed_for = None

    def _ring(self, signum: int, frame: Any) -> None:
        id = self._armed_for
        reason = self.slot.cancellation(id) if id is not None else None
        if reason is not None:
            self._armed_for = None  # what the task does to end in order is not interrupted again
            raise CancelException(str(death_of(reason)))
