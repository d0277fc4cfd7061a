"""The base of the processes of a cluster: a role has one method, `tick()`, which returns the seconds until the next.

The loop, the pauses, the outages and the process title are here, once.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from setproctitle import setproctitle

from tenant_q import tenancy
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerDefect, BrokerError, DatabaseAway, EntryRefused
from tenant_q.support import forks
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.role")

_LONGEST_BACKOFF = 2.0
# A process in a pause shows this often that it lives.
BEAT_SECONDS = 1.0


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
        """Do one tick of the role's work, and return the seconds until the next."""

    def files(self) -> list[Any]:
        """Return files that end a pause of the role when they can be read."""
        return []

    def has_unfinished(self) -> bool:
        """Return whether the role must finish something before its process ends."""
        return False

    def abandon(self) -> None:
        """Abandon the role in a process that a task forked: detach from the memory that the sentinel reads."""
        self.slot.detach()

    def close(self) -> None:  # noqa: B027 (most roles have nothing to release)
        """Release what the role holds, such as threads and connections, at an orderly end."""

    def run(self) -> None:
        """Run the role: tick until a signal comes, or only once, and through outages of the servers."""
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
        """Pause the role until its next tick, or until something ends the pause. Show meanwhile that it lives."""
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
