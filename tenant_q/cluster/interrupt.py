"""Interrupt a task that was cancelled: the signal of the sentinel raises an exception in the task, and nowhere else."""

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
    """A context manager around a task, which raises an exception in it when the task is cancelled.

    It is entered for each task, so it does as little as possible.

    Args:
        slot: The memory in which the sentinel writes the cancelled packages.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._id = ""
        self._armed_for: str | None = None
        self.take_signal()

    def take_signal(self) -> None:
        """Handle the signal that interrupts a task, again if a task has changed its handler."""
        if get_handler(SIGNAL) != self._ring:
            set_handler(SIGNAL, self._ring)

    def armed(self, id: str) -> Interrupt:
        """Interrupt the block with `CancelException`, once, if the package `id` is cancelled."""
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
            self._armed_for = None  # the task is not interrupted again while it ends in order
            raise CancelException(str(death_of(reason)))
