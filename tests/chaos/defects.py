"""Defects in a sentinel, put into it from outside: an exception at each line of its round, and forks that fail.

It is steered by the environment: DEFECTS_DIR names a directory for what has happened, DEFECTS says what is to happen:
"lines" or "forks".
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path
from types import FrameType
from typing import Any

import redis

import tenant_q

_PACKAGE = str(Path(tenant_q.__file__).parent)
ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: RuntimeError("a defect"),
    lambda: OSError(errno.EAGAIN, "injected"),
    lambda: redis.ConnectionError("injected"),
    lambda: MemoryError(),
)
# Elsewhere in the sentinel's own module an exception ends the cluster, as it must. Each costs a start, so a short test
# tries only some.
STEPS = {"_wait", "_take_order", "_publish"}
ROUND_SECONDS = 0.01


def is_armed() -> bool:
    return "DEFECTS_DIR" in os.environ


def install() -> None:
    if os.environ["DEFECTS"] == "forks":
        fail_forks(every=3)
    else:
        Lines(Path(os.environ["DEFECTS_DIR"])).install()


def fail_forks(every: int) -> None:
    """Have one in `every` forks of the sentinel fail, until a file says that it is enough."""
    fork, calls, enough = os.fork, count(1), Path(os.environ["DEFECTS_DIR"]) / "enough"
    parent = os.getpid()

    def failing() -> int:
        if os.getppid() == parent and not enough.exists() and next(calls) % every == 0:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    os.fork = failing


class Lines:
    """Raises an exception at each line that a round comes to, one a round; then a round without must renew all leases.

    What happened is in files: `done` has the lines, `neither` those after which nothing was renewed and nobody ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = set(self._read("done"))
        self.errors = cycle(ERRORS)
        self.is_short = os.environ.get("CHAOS") != "long"
        self.injected: str | None = None
        self.renewed: set[str] = set()
        self.pid = 0
        self.rounds = 0

    def _read(self, name: str) -> list[str]:
        file = self.path / name
        return file.read_text().splitlines() if file.exists() else []

    def _note(self, name: str, text: str) -> None:
        with (self.path / name).open("a") as file:
            file.write(f"{text}\n")

    def install(self) -> None:
        from tenant_q.brokers.redis import RedisBroker
        from tenant_q.cluster import sentinel

        sentinel.PAUSE_SECONDS = ROUND_SECONDS
        run, renew = sentinel.Sentinel.run, RedisBroker.renew

        def renewing(broker: RedisBroker, workers: Any, seconds: float) -> Any:
            found = renew(broker, workers, seconds)
            self.renewed.update(workers)
            return found

        def running(one: Any) -> int:
            run_one = one.rounds.run_one
            one.rounds.run_one = lambda: self._round(one, run_one)
            return run(one)

        RedisBroker.renew = renewing  # type: ignore[assignment]
        self._fail_at_times(RedisBroker, "cancelled", tenant_q.exceptions.BrokerError)
        self._fail_at_times(RedisBroker, "set_progress", ValueError)
        fail_forks(every=7)
        sentinel.Sentinel.run = running  # type: ignore[assignment]

    def _fail_at_times(self, owner: Any, name: str, kind: type[Exception]) -> None:
        called, calls = getattr(owner, name), count(1)

        def failing(*args: Any, **kwargs: Any) -> Any:
            if next(calls) % 3 == 0:
                raise kind("at times")
            return called(*args, **kwargs)

        setattr(owner, name, failing)

    def _round(self, sentinel: Any, run_one: Callable[[], None]) -> None:
        self.pid, self.injected, self.rounds = os.getpid(), None, self.rounds + 1
        workers = sentinel.children.workers
        if workers and self.rounds % 8 == 0:
            os.kill(workers[0].process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, workers[0].process.pid, os.WEXITED | os.WNOWAIT)
        for step in sentinel.rounds.steps():
            step.due = 0.0
        sys.settrace(self._enter)
        try:
            run_one()
        finally:
            sys.settrace(None)
        if self.injected is None:
            return
        self.renewed.clear()
        sentinel.rounds.renew.due = 0.0
        run_one()
        if {child.key for child in sentinel.children.workers} - self.renewed:
            self._note("neither", self.injected)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if os.getpid() != self.pid:  # a forked child
            sys.settrace(None)
            return None
        return self._line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "line" or self.injected is not None or os.getpid() != self.pid:
            return self._line
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        is_spared = self.is_short and _ends(place) and sum(map(_ends, self.done)) >= 3
        if place in self.done or is_spared:
            return self._line
        self.done.add(place)
        self.injected = place
        error = next(self.errors)()
        self._note("done", place)
        raise error


def _ends(place: str) -> bool:
    return place.startswith("sentinel.py:") and place.split()[-1] not in STEPS
