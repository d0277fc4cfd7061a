"""Start the processes of a cluster, notice when they end, replace and kill them."""

from __future__ import annotations

import os
import time
from collections import Counter

from tenant_q.cluster.child import KILL_MARGIN, Child, start
from tenant_q.conf import conf
from tenant_q.operations.status import DEATHS_REPORTED, Death
from tenant_q.support import orphans, out_of_memory, processors
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.sentinel")  # they are children of the sentinel

LONGEST_RESPAWN = 2.0
# The longest wait for killed processes: one in a call that the kernel does not interrupt runs no more code of its own.
KILL_SECONDS = 1.0


class Children:
    """The children of the sentinel. `alive` are those that are not known to have ended.

    `ended` are the workers that have ended and may have left leases. The wanted number of each role is kept apart from
    the list of living children: whatever fails during a start, the next round finds that the process is missing.

    Args:
        name: The prefix of their names at the broker.
        once: Whether they look for work only once.
        orders: The sentinel's end of the parent's pipe.
    """

    def __init__(self, name: str, *, once: bool, orders: int) -> None:
        self.name = name
        self.once = once
        self.orders = orders
        self.alive: list[Child] = []
        self.ended: list[Child] = []
        self.deaths: list[Death] = []
        self.replaced = 0
        self.is_stopping = False
        # Why no process can be started at the moment; empty if one can.
        self.trouble = ""
        self._wanted: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._serial = 0
        self._failed_starts = 0
        self._deaths_in_a_row = 0
        self._done_before = 0
        self._unkillable: set[int] = set()
        self._kernels_kills = out_of_memory.kills()

    @property
    def workers(self) -> list[Child]:
        """The living workers among the children."""
        return [child for child in self.alive if child.is_worker]

    @property
    def are_done(self) -> bool:
        """Whether all children are done: none lives, and none is missing."""
        return not self.alive and not self._missing()

    def seconds_until_start(self) -> float:
        """Return the seconds until one of the missing children is to start; infinite if none is missing."""
        return min((max(0.0, at - time.monotonic()) for _, at in self._missing()), default=float("inf"))

    # Starting

    def want(self, role: str, count: int = 1) -> None:
        """Raise the wanted number of children of a role by `count`."""
        self._wanted[role] += count

    def start_missing(self) -> None:
        """Start the missing children that are due. A start that fails is tried again, with back-off."""
        if self.is_stopping:
            return
        for role, at in self._missing():
            if at <= time.monotonic() and not self._start(role):
                return

    def _missing(self) -> list[tuple[str, float]]:
        """Return the roles of the missing children, each with the earliest time of its start."""
        missing = self._wanted - Counter(child.role for child in self.alive)
        return [(role, self._not_before.get(role, 0.0)) for role in self._wanted for _ in range(missing[role])]

    def _start(self, role: str) -> bool:
        self._serial += 1
        try:
            child = start(role, f"{self.name}-{self._serial}", once=self.once, orders=self.orders)
        except Exception as error:
            self._put_off_start(role, error)
            return False
        self.alive.append(child)
        if self._failed_starts:
            logger.warning(
                "Processes can be started again, after %s failed attempts",
                self._failed_starts,
                event="process.start_recovered",
            )
        self._failed_starts, self.trouble = 0, ""
        if child.is_worker and conf().cpu_affinity:
            _bind_to_processors(child, conf().cpu_affinity, self._serial)
        return True

    def _put_off_start(self, role: str, error: Exception) -> None:
        if not self.trouble:
            foreseen = isinstance(error, OSError | MemoryError)
            logger.critical(
                "No %s can be started, and the sentinel tries again: %s",
                role,
                error,
                event="process.start_failed",
                exc_info=not foreseen,
            )
        self.trouble = f"no {role} can be started: {error}"
        self._failed_starts += 1
        self._not_before[role] = time.monotonic() + _backoff(self._failed_starts)

    # Ending

    def notice_ends(self) -> None:
        """Record the children that have ended, after ending everything that they started."""
        for child in [child for child in self.alive if not child.process.is_alive()]:
            self.end_orphans()
            if child.is_worker:
                self.ended.append(child)
            self.alive.remove(child)
            if child.has_left:
                self._wanted[child.role] -= self.once
            elif not child.is_stopped:
                child.is_out_of_memory = self._has_kernel_killed()
                self._note_death(child)

    def _has_kernel_killed(self) -> bool:
        """Return whether the kernel has killed a process for lack of memory since a child died or the first one began.

        Which process that was is not counted. It may have been one that a task had started.
        """
        before, self._kernels_kills = self._kernels_kills, out_of_memory.kills()
        return before is not None and self._kernels_kills is not None and self._kernels_kills > before

    def end_orphans(self) -> None:
        """End the orphans among the sentinel's children: those that it did not start itself."""
        found, left = orphans.end(known={child.process.pid for child in self.alive}, seconds=KILL_SECONDS)
        if found:
            logger.info(
                "Ended %s that dead processes of the cluster had started",
                counted(len(found), "process", "processes"),
                event="orphans.ended",
            )
        if new := left - self._unkillable:
            logger.error(
                "Processes that a task started cannot be killed: %s",
                ", ".join(map(str, sorted(new))),
                event="orphans.kill_failed",
            )
        self._unkillable = left

    def _note_death(self, child: Child) -> None:
        log_labels, how = child.slot.log_labels, child.how_it_died
        what = f" while it ran {child.slot.running}" if log_labels else ""
        follows = "" if self.is_stopping else "; it is replaced"
        logger.critical(
            "The %s %s %s%s%s",
            child.role,
            child.process.pid,
            how,
            what,
            follows,
            event="process.died",
            extra=log_labels,
        )
        self.deaths = [*self.deaths, Death(time.time(), child.role, child.process.pid, how, **log_labels)][
            -DEATHS_REPORTED:
        ]
        self.replaced += 1
        # Replace it at once the first time, then with back-off, until a task is completed.
        done = sum(one.slot.done for one in self.alive)
        self._deaths_in_a_row = 1 if done + child.slot.done > self._done_before else self._deaths_in_a_row + 1
        self._done_before = done
        self._not_before[child.role] = time.monotonic() + _backoff(self._deaths_in_a_row - 1)

    def kill_overdue(self) -> None:
        """Kill those children whose task ignores its timeout or its cancellation."""
        for child in self.workers:
            if child.kill_reason is not None:
                continue
            if child.slot.overdue(KILL_MARGIN):
                text = "the task ran over its timeout and did not react to it, so its worker was killed"
                child.kill(text, child.slot.running)
            elif ignored := child.ignored:
                child.kill(child.cancelled[ignored], ignored)

    def terminate(self) -> None:
        """Send SIGTERM to all children. Call it in each round: one just forked may not handle signals yet."""
        self.is_stopping = True
        for child in self.alive:
            child.process.terminate()

    def kill_all(self) -> bool:
        """Kill all children that still run, and all processes that they started.

        Returns:
            Whether no process is left.
        """
        self.is_stopping = True
        for child in self.alive:
            logger.warning(
                "Killed the %s %s, which still ran",
                child.role,
                child.process.pid,
                event="process.killed",
                extra=child.slot.log_labels,
            )
            child.is_stopped = True
            child.process.kill()
        deadline = time.monotonic() + KILL_SECONDS
        for child in self.alive:
            child.process.join(max(0.0, deadline - time.monotonic()))
        self.notice_ends()
        self.end_orphans()
        return not self.alive


def _backoff(times: int) -> float:
    """Return the seconds to wait before children are started again after `times` failures in a row."""
    return min(LONGEST_RESPAWN, 0.1 * 2 ** (min(times, 10) - 1)) if times > 0 else 0.0


def _bind_to_processors(child: Child, cpus: int, serial: int) -> None:
    """Bind a child to `cpus` of the usable processors, and spread the children over all of them."""
    if not hasattr(os, "sched_setaffinity"):
        return
    usable = processors.usable()
    if cpus < len(usable):
        chosen = {usable[(serial * cpus + place) % len(usable)] for place in range(cpus)}
        try:
            os.sched_setaffinity(child.process.pid, chosen)
        except OSError as error:  # it has just ended, or its processors have changed
            logger.warning(
                "Could not bind worker %s to processors: %s", child.process.pid, error, event="worker.bind_failed"
            )
