"""The base of the processes of a cluster: a role has one method, `tick()`, which returns the seconds until the next.

The loop, the pauses, the signals, the outages and the process title are here, once. Signal handlers only set a flag.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from django.conf import settings
from django.core.cache import caches
from setproctitle import setproctitle

from tenant_q import tenancy
from tenant_q.cluster.reset import reset_in_child
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerDefect, BrokerError, DatabaseAway, EntryRefused
from tenant_q.support import forks, orphans
from tenant_q.support.log_labels import get_logger
from tenant_q.support.unix_signals import get_handler, set_handler

logger = get_logger("tenant_q.role")

_LONGEST_BACKOFF = 2.0
# A process in a pause shows this often that it lives.
BEAT_SECONDS = 1.0

_inherited_caches: list[Any] = []


class StopFlag:
    """Set by SIGTERM and SIGINT; a wait on it ends at once when they come."""

    def __init__(self) -> None:
        self.count = 0
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(self._reader, False)
        self._before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._set) for number in (signal.SIGTERM, signal.SIGINT)}
        self._writer = writer

    def _set(self, signum: int, frame: Any) -> None:
        self.count += 1

    def take_signals(self) -> None:
        """Handle the signals again if a task has changed their handlers."""
        for number in self._handlers:
            if get_handler(number) != self._set:
                set_handler(number, self._set)

    def set(self) -> None:
        """Set the flag as a signal does."""
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0

    def wait(self, seconds: float, *files: Any) -> list[Any]:
        """Wait until a signal comes or one of `files` can be read, for at most `seconds`. Return the readable files."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)  # the loop of an async task may have taken it
        readable, _, _ = select.select([self._reader, *files], [], [], max(0.0, seconds))
        if self._reader in readable:
            os.read(self._reader, 4096)
        return [file for file in readable if file != self._reader]

    def restore(self) -> None:
        """Put back the handlers that were there before."""
        signal.set_wakeup_fd(self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)


class Role(ABC):
    """The base of worker, scheduler and exporter. `slot` is the memory that the sentinel reads."""

    name: ClassVar[str]

    def __init__(self, slot: Slot, *, once: bool = False) -> None:
        self.slot = slot
        self.once = once
        self.stopping = StopFlag()
        self._parent = os.getppid()
        self._away_since: float | None = None
        self._backoff = 0.0

    @abstractmethod
    def tick(self) -> float:
        """Do one round, and return the seconds until the next."""

    def files(self) -> list[Any]:
        """Return files that end a pause when they can be read."""
        return []

    def has_unfinished(self) -> bool:
        """Return whether this process must finish something before it ends."""
        return False

    def abandon(self) -> None:
        """Detach from the memory that the sentinel reads, in a process that a task forked."""
        self.slot.detach()

    def close(self) -> None:  # noqa: B027 (most roles have nothing to release)
        """Release threads and connections at an orderly end."""

    def run(self) -> None:
        """Tick until a signal comes, or only once, and through outages of the servers."""
        setproctitle(f"mscluster {conf().cluster} {self.name}")
        try:
            self._loop()
            self.close()
        except Exception:
            logger.exception("The %s ended with an error", self.name, event="process.failed")
            raise SystemExit(1) from None

    def _loop(self) -> None:
        while True:
            pause = self._tick_through_outage()
            done = self.stopping or (self.once and self._away_since is None)
            if done and not self.has_unfinished():
                break
            if os.getppid() != self._parent:  # some kernels do not end it with its parent
                logger.error("The %s ended, because its sentinel had died", self.name, event="process.orphaned")
                break
            self._rest(pause)

    def _rest(self, seconds: float) -> None:
        """Pause until the next tick, or until something ends the pause. Show meanwhile that this process lives."""
        end = time.monotonic() + seconds
        while True:
            self.slot.beat()
            left = end - time.monotonic()
            if self.stopping.wait(min(left, BEAT_SECONDS), *self.files()) or self.stopping or left <= BEAT_SECONDS:
                return

    def _tick_through_outage(self) -> float:
        try:
            with forks.no_return(), tenancy.detect_outages():
                pause = self.tick()
        except (BrokerError, DatabaseAway) as error:
            return self._outage(error)
        except (EntryRefused, BrokerDefect) as error:  # no single entry could be identified as the cause
            if self._away_since is None:
                logger.exception("The %s failed at the broker and tries again", self.name, event="process.broker_error")
            return self._outage(error)
        if self._away_since is not None:
            logger.warning(
                "The %s goes on after %.1f s",
                self.name,
                time.monotonic() - self._away_since,
                event="process.outage_ended",
            )
            self._away_since, self._backoff = None, 0.0
        return pause

    def _outage(self, error: Exception) -> float:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.error("The %s waits, nothing is lost: %s", self.name, error, event="process.outage_began")
        self._backoff = min(max(0.1, self._backoff * 2), _LONGEST_BACKOFF)
        return self._backoff


def settle_in_child(parent: int) -> None:
    """Prepare a forked child. Call it first in the child.

    The child ends with its parent, shares no connection with it, and keeps its own connections open. Processes that its
    tasks fork share no connection with the child, and processes that they start stay below it in the process tree.

    Args:
        parent: The process id of the parent.
    """
    orphans.die_with(parent)
    orphans.adopt()
    reset_in_child()
    tenancy.keep_connections_open()
    tenancy.limit_waits()
    tenancy.watch_role_settings()
    tenancy.note_connections()
    forks.install(reset_in_child, _drop_caches)


def _drop_caches() -> None:
    """Detach the caches of the parent. They are kept alive, so that none closes a connection of both processes."""
    _inherited_caches.extend(caches.all(initialized_only=True))
    for alias in settings.CACHES:
        with contextlib.suppress(AttributeError):  # none was made
            del caches[alias]
