"""A role is a process of the cluster: one method, `tick() -> seconds until the next`.

The loop, the waiting, the signals, the outages and the process title live here, once. Signal handlers only set a flag.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from mmap import mmap
from typing import Any, ClassVar

from setproctitle import setproctitle

from tenant_q import brokers, tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, DatabaseAway
from tenant_q.labels import get_logger

logger = get_logger("tenant_q.role")

_PR_SET_PDEATHSIG = 1
_LONGEST_BACKOFF = 2.0


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

    def listen(self) -> None:
        """Take the signals again, whatever a task has done to them."""
        for number in self._handlers:
            if signal.getsignal(number) != self._set:
                signal.signal(number, self._set)

    def set(self) -> None:
        """Stop as if a signal had come."""
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0

    def wait(self, seconds: float, *files: Any) -> list[Any]:
        """Wait for a signal or until one of `files` can be read, at most `seconds`. Returns the readable files."""
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


class Slot:
    """What a child tells its sentinel, in shared memory without a lock: what it runs now, and how far it came.

    A `kill -9` leaves it readable.
    """

    # busy, started (monotonic), timeout (0: none), package id, schema, function
    _LAYOUT = struct.Struct("<?dd32s63s256s")
    _DONE = struct.Struct("<Q")  # how many ticks or tasks were completed

    def __init__(self) -> None:
        self._memory = mmap(-1, 512)

    def start(self, labels: Mapping[str, str], timeout: float | None) -> None:
        """The child starts to run the package with these labels, for at most `timeout` seconds."""
        id, schema, func = (labels[name].encode() for name in ("task_id", "schema", "func"))
        packed = self._LAYOUT.pack(False, time.monotonic(), timeout or 0.0, id, schema, func)
        self._memory[1 : self._LAYOUT.size] = packed[1:]
        self._memory[0] = 1

    def finish(self) -> None:
        """The child runs nothing now."""
        self._memory[0] = 0
        self.count()

    def count(self) -> None:
        """The child completed one more."""
        self._memory[-8:] = self._DONE.pack(self.done + 1)

    @property
    def done(self) -> int:
        return int(self._DONE.unpack(self._memory[-8:])[0])

    @property
    def running(self) -> str | None:
        """The id of the package that is being run."""
        return self.labels.get("task_id")

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the package that is being run; none when nothing is."""
        busy, _, _, *texts = self._read()
        values = (text.rstrip(b"\0").decode(errors="replace") for text in texts)
        return dict(zip(("task_id", "schema", "func"), values, strict=True)) if busy else {}

    def overdue(self, margin: float) -> bool:
        """Whether the running package is past its timeout by more than `margin` seconds."""
        busy, started, timeout, *_ = self._read()
        return bool(busy and timeout and time.monotonic() > started + timeout + margin)

    def _read(self) -> tuple[bool, float, float, bytes, bytes, bytes]:
        return self._LAYOUT.unpack(self._memory[: self._LAYOUT.size])


class Role(ABC):
    """The base of worker and scheduler. `slot` is what the sentinel reads."""

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
        """Do one round. Returns the seconds until the next."""

    def has_unfinished(self) -> bool:
        """Whether something in hand must be finished before this process may leave."""
        return False

    def close(self) -> None:  # noqa: B027 (most roles have nothing to leave in order)
        """Leave in order."""

    def run(self) -> None:
        """Tick until told to stop (or, with `once`, one time), through outages of the servers."""
        setproctitle(f"mscluster {conf().cluster} {self.name}")
        try:
            self._loop()
            self.close()
        except Exception:
            logger.exception("The %s ends on an error", self.name)
            raise SystemExit(1) from None

    def _loop(self) -> None:
        while True:
            pause = self._tick_through_outage()
            done = self.stopping or (self.once and self._away_since is None)
            if done and not self.has_unfinished():
                break
            if os.getppid() != self._parent:  # where the kernel does not see to it
                logger.error("The %s leaves, its sentinel is gone", self.name)
                break
            self.stopping.wait(pause)

    def _tick_through_outage(self) -> float:
        try:
            with tenancy.told_when_away():
                pause = self.tick()
        except (BrokerError, DatabaseAway) as error:
            return self._outage(error)
        if self._away_since is not None:
            logger.warning("The %s goes on after %.1f s", self.name, time.monotonic() - self._away_since)
            self._away_since, self._backoff = None, 0.0
        return pause

    def _outage(self, error: Exception) -> float:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.error("The %s waits, nothing is lost: %s", self.name, error)
        self._backoff = min(max(0.1, self._backoff * 2), _LONGEST_BACKOFF)
        return self._backoff


def settle_in_child(parent: int) -> None:
    """First thing in a forked child: leave with the parent, share no connection with it, keep its own open."""
    die_with(parent)
    tenancy.drop_inherited_connections()
    brokers.forget_brokers()
    tenancy.keep_connections_open()


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, also from within a user's task (Linux).

    Elsewhere it leaves between two tasks, and its late acknowledgement is refused.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
