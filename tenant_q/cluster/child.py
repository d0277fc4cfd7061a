"""A process of the cluster as the sentinel sees it: its fork, its cancelled packages and the cause of its death."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.db import connections

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster.exporter import Exporter
from tenant_q.cluster.forked import Forked
from tenant_q.cluster.interrupt import SIGNAL
from tenant_q.cluster.isolation import isolate_tenants
from tenant_q.cluster.reset import reset_in_child
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.conf import conf
from tenant_q.operations.status import Process
from tenant_q.support import clock, forks, orphans
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.sentinel")  # part of the sentinel

# The worker of a task that ignores its timeout, as in a C call that no signal interrupts, is killed this much later.
KILL_MARGIN = 3.0
# PostgreSQL keeps 63 bytes of the name of a session, which ends with the role.
NAMED_CHARACTERS = 40

_inherited_caches: list[Any] = []


@dataclass
class Child:
    """A process of the cluster.

    Attributes:
        role: The name of its role.
        key: Its name at the broker.
        slot: The memory that it shares with the sentinel.
        process: Its fork.
        kill_reason: Why it was killed, if it was.
        killed_for: The id of the package that it ran then.
        recalled: The number of the batch of which it starts no more packages.
        is_stopped: Whether it was killed because the cluster stops, which no task is to blame for.
        cancelled: The cancelled packages that it holds, by id, with their reasons.
        notified: The cancelled package that it was running when it was notified, and the time of the first notice.
        progress: The number of the last report of progress that was passed on.
        is_out_of_memory: Whether the kernel has killed a process for lack of memory since the last child died.
        is_doubtful: Whether its packages could not be given back, for a reason that concerns this child alone.
    """

    role: str
    key: str
    slot: Slot
    process: Forked
    kill_reason: str | None = None
    killed_for: str | None = None
    recalled: int = 0
    is_stopped: bool = False
    cancelled: dict[str, str] = field(default_factory=dict)
    notified: tuple[str, float] | None = None
    progress: int = 0
    is_out_of_memory: bool = False
    is_doubtful: bool = False

    @property
    def is_worker(self) -> bool:
        """Whether this child is a worker."""
        return self.role == Worker.name

    def notify(self, cancelled: dict[str, str]) -> None:
        """Notify this child, a worker, of cancelled packages, and interrupt it if it runs one.

        Call it again until the task ends.

        Args:
            cancelled: The ids of packages that the worker holds, with the reasons.
        """
        if cancelled != self.cancelled:
            self.slot.cancel(cancelled)
            self.cancelled = cancelled
        running = self.slot.task
        if running not in cancelled:
            self.notified = None
            return
        if self.notified is None or self.notified[0] != running:
            self.notified = (running, time.monotonic())
        self.process.signal(SIGNAL)

    @property
    def ignored(self) -> str | None:
        """The id of a cancelled package that this child still runs `KILL_MARGIN` seconds after its notice."""
        if self.notified is None or time.monotonic() - self.notified[1] <= KILL_MARGIN:
            return None
        return self.notified[0] if self.slot.task == self.notified[0] else None

    def kill(self, reason: str, id: str | None) -> None:
        """Kill this child, a worker, because of the package `id` that it runs."""
        self.kill_reason, self.killed_for = reason, id
        logger.critical(
            "Killed worker %s: %s", self.process.pid, reason, event="worker.killed", extra=self.slot.log_labels
        )
        self.process.kill()

    @property
    def has_left(self) -> bool:
        """Whether this child ended in order. An exit code of 0 is not enough: a task may call `os._exit(0)`."""
        return self.process.exitcode == 0 and self.slot.has_left

    @property
    def how_it_died(self) -> str:
        """How this child's process ended, in words."""
        code = self.process.exitcode or 0
        if self.kill_reason is not None:
            how = "was killed by its sentinel"
        elif code == -signal.SIGKILL:
            by = "very likely by" if self.is_out_of_memory else "often"
            how = f"was killed by SIGKILL, {by} the kernel's out-of-memory killer"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
        else:
            how = f"ended with exit code {code}"
        peak = self.process.peak_memory
        return how if peak is None else f"{how} (peak memory {peak / 2**20:.0f} MiB)"

    @property
    def was_killed_for_another(self) -> bool:
        """Whether the task that this child was killed for had just ended, so that no running task caused its death."""
        return self.kill_reason is not None and self.slot.running != self.killed_for

    def as_process(self) -> Process:
        """Return this child's entry in the status of the cluster."""
        # Before `silent`: a worker that ends a task in between is either still busy or has shown life.
        log_labels = self.slot.log_labels
        return Process(
            self.role,
            self.process.pid,
            self.key,
            done=self.slot.done,
            silent=self.slot.silent,
            seconds=self.slot.seconds,
            late=self.slot.late,
            **log_labels,
        )


def start(role: str, key: str, *, once: bool, orders: int) -> Child:
    """Fork a child of the sentinel: a worker, a scheduler or an exporter.

    Args:
        role: The name of its role.
        key: Its name at the broker.
        once: Whether it looks for work only once.
        orders: The end of the parent's pipe, which the child must close.

    Returns:
        The running child.

    Raises:
        OSError: The kernel refuses another process.
    """
    slot, parent = Slot(), os.getpid()
    slot.begin_renewing(clock.now(), conf().lease)

    def run() -> None:
        os.close(orders)
        settle_in_child(parent)
        _name_sessions(role)
        with forks.no_return():
            made = _ROLES[role](key, slot, once)
            forks.also(made.abandon)
            made.run()
        slot.leave_for_good()

    return Child(role, key, slot, Forked.start(f"{role} {key}", run))


def _isolated_worker(key: str, slot: Slot, once: bool) -> Worker:
    """Make a worker in this process, in which tenants are isolated as the settings say from then on."""
    worker = Worker(key, get_broker(), slot, once=once)
    isolate_tenants()
    return worker


def settle_in_child(parent: int) -> None:
    """Prepare a child of the sentinel. The child calls it first.

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


def _name_sessions(role: str) -> None:
    """Name this child's sessions in `pg_stat_activity`, unless the project names them.

    Its name may be in `OPTIONS`, a service file or the environment, and libpq prefers each of these to a fallback.
    """
    name = f"mscluster {conf().cluster[:NAMED_CHARACTERS]} {role}"
    for connection in connections.all():
        if connection.vendor == "postgresql":
            connection.settings_dict.setdefault("OPTIONS", {}).setdefault("fallback_application_name", name)


def _drop_caches() -> None:
    """Detach a child from its parent's caches. They are kept alive: none may close a connection of both."""
    _inherited_caches.extend(caches.all(initialized_only=True))
    for alias in settings.CACHES:
        with contextlib.suppress(AttributeError):  # none was made
            del caches[alias]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"


_ROLES: dict[str, Callable[[str, Slot, bool], Worker | Scheduler | Exporter]] = {
    Worker.name: lambda key, slot, once: _isolated_worker(key, slot, once),
    Scheduler.name: lambda _, slot, once: Scheduler(slot, once=once),
    Exporter.name: lambda _, slot, once: Exporter(slot, once=once),
}
