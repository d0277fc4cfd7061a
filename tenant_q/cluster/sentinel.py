"""The sentinel: forks workers, scheduler and exporter, watches and replaces them, kills overdue workers.

It alone renews leases, for every worker it sees alive, so a task may hold the interpreter for as long as it likes. It
opens no database connection and starts no thread: it forks.

Nothing may keep it from renewing. So its round consists of steps, and an error of one step does not affect the others.
If a step that the cluster cannot do without keeps failing, the cluster ends with everything it started, and logs why.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.utils import timezone
from setproctitle import setproctitle

from tenant_q.brokers import get_impatient_broker
from tenant_q.cluster.children import Children
from tenant_q.cluster.exporter import Exporter
from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.cluster.leases import LeaseKeeper
from tenant_q.cluster.role import StopFlag
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.worker import Worker
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.operations.status import ClusterStat, State, forget_old
from tenant_q.scrubbing import process_state
from tenant_q.support import orphans
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.sentinel")

# What the parent says through the pipe; the pipe's end says that the parent is gone.
STOP, KILL = b"s", b"k"
WATCH_SECONDS = 0.25
PUBLISH_SECONDS = 1.0
# How often it looks for cancels, and passes on the progress of tasks.
CANCEL_SECONDS = 1.0
PROGRESS_SECONDS = 0.25
# If calls of the broker take longer than this in a round, the other steps come first in the next one.
ROUND_SECONDS = 0.5
# A call may take this long to fail, so a cluster that ends begins no call later than this before its deadline.
CALL_SECONDS = 2.5


class SentinelBroken(Exception):
    """A step that the cluster cannot do without has failed for too long."""


@dataclass(frozen=True)
class Plan:
    """What a cluster is to do: its size, and whether it ends by itself."""

    workers: int
    once: bool = False
    burst: bool = False
    cluster_id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass
class Step:
    """A step of the sentinel's round. `what` it does completes "The sentinel cannot ...".

    `every` is the number of seconds between two runs. `is_vital` says that the cluster cannot do without it: it may
    fail because the broker is away, but for any other reason only for as long as a lease lasts. `error` is its last
    error, empty after a success, and `broken_since` the time when it began to fail for another reason.
    """

    what: str
    act: Callable[[], None]
    every: float = 0.0
    is_vital: bool = True
    due: float = 0.0
    error: str = ""
    broken_since: float | None = None


class Sentinel:
    """Runs in its own process.

    Parameters: `orders`, the reading end of the parent's pipe; `heartbeat`, by which the parent sees that it goes on.
    """

    def __init__(self, plan: Plan, orders: int, heartbeat: Heartbeat) -> None:
        self.plan = plan
        self.orders = orders
        self.heartbeat = heartbeat
        self.parent = os.getppid()
        process_state.share()
        self.broker = get_impatient_broker()
        self.stopping = StopFlag()
        self.killing = False
        self.children = Children(plan.cluster_id.hex[:12], once=plan.once, orders=orders)
        self.leases = LeaseKeeper(self.broker, self.children)
        self.started = timezone.now()
        self._state = State.STARTING
        self._trouble = ""
        self._quiet_looks = 0
        # When a cluster that ends kills the processes that still run.
        self._deadline = float("inf")
        lease = conf().lease
        # In the order of a round.
        self._local = [
            Step("wait", self._wait, is_vital=False),
            Step("take an order of its parent", self._take_order),
            Step("notice the end of its processes", self.children.notice_ends),
            Step("end processes that dead ones had started", self.children.end_orphans),
            Step("start processes", self.children.start_missing),
            Step("kill workers", self.children.kill_overdue),
        ]
        # The renewal comes first; the other steps take turns.
        self._renew = Step("renew leases", self.leases.renew, lease / 3)
        self._give_back = Step("give back packages of dead workers", self._reclaim)
        self._show = Step("publish its status", self._publish, PUBLISH_SECONDS, is_vital=False)
        self._remote = [
            Step("recall packages", self._recall),
            self._give_back,
            Step("expire leases", self.leases.expire, min(1.0, lease / 4)),
            self._show,
            Step("pass on cancels", self.leases.pass_on_cancels, CANCEL_SECONDS, is_vital=False),
            Step("pass on progress", self.leases.pass_on_progress, PROGRESS_SECONDS, is_vital=False),
        ]

    def run(self) -> int:
        """Watch over the cluster until it stops. Returns the exit code."""
        setproctitle(f"mscluster {conf().cluster} sentinel")
        orphans.adopt()
        os.set_blocking(self.orders, False)
        try:
            self._start_all()
            while not self._is_finished():
                self._watch()
            return self._shut_down()
        except BaseException:
            logger.critical("Cluster %s ends because its sentinel cannot go on", conf().cluster, exc_info=True)
            self.children.kill_all()
            with contextlib.suppress(Exception):  # then the leases run out
                self.leases.reclaim()
            return 1
        finally:
            self.children.kill_all()

    # Watching

    def _watch(self) -> None:
        """One round: sleep until a child ends, an order or a signal comes, or something is due."""
        for step in self._local:
            self._do(step)
        if not self._has_no_time():
            self._tend_leases()

    def _tend_leases(self) -> None:
        begun = time.monotonic()
        if begun >= self._renew.due:
            self._do(self._renew)
        for step in list(self._remote):
            if time.monotonic() - begun > ROUND_SECONDS:
                return
            if time.monotonic() >= step.due:
                self._remote.remove(step)
                self._remote.append(step)
                self._do(step)

    def _recall(self) -> None:
        self.leases.recall(ROUND_SECONDS)

    def _reclaim(self) -> None:
        """Give back some in each round, so that renewals do not wait for many slow calls; at the end, all."""
        self.leases.reclaim(float("inf") if self._state is State.STOPPED else ROUND_SECONDS)

    def _do(self, step: Step) -> None:
        """Do one step of the round. Log its error once, and let the other steps go on."""
        self.heartbeat.beat()
        try:
            step.act()
        except BrokerError as error:
            self._note_outage(step, error)
        except Exception as error:
            self._note_defect(step, error)
        else:
            self._note_success(step)

    def _note_outage(self, step: Step, error: BrokerError) -> None:
        step.broken_since = None
        self.leases.note_outage()
        if not any(one.error for one in self._steps()):
            logger.error("The sentinel cannot %s and goes on without the broker: %s", step.what, error)
        elif not step.error and not any(str(error) == one.error for one in self._steps()):
            logger.error("The sentinel cannot %s either: %s", step.what, error)
        step.error = str(error)
        step.due = time.monotonic() + min(step.every, conf().lease / 10)

    def _note_defect(self, step: Step, error: Exception) -> None:
        now, place = time.monotonic(), _place(error)
        if place != step.error:
            logger.critical("The sentinel cannot %s, and tries again", step.what, exc_info=error)
        step.error = place
        step.due = now + min(step.every, conf().lease / 10)
        step.broken_since = now if step.broken_since is None else step.broken_since
        if step.is_vital and now - step.broken_since > conf().lease:
            raise SentinelBroken(f"for {conf().lease:g} seconds it could not {step.what}") from error

    def _note_success(self, step: Step) -> None:
        had_failed, was_broken = step.error, step.broken_since is not None
        step.error, step.broken_since = "", None
        step.due = time.monotonic() + step.every
        if was_broken:
            logger.warning("The sentinel can %s again", step.what)
        elif had_failed and not any(one.error for one in self._steps()):
            logger.warning("The sentinel has the broker again")

    def _has_no_time(self) -> bool:
        """Return whether a call to a broker that is away might outlast the grace of a cluster that ends."""
        is_away = any(one.error for one in (self._renew, *self._remote))
        return is_away and time.monotonic() > self._deadline - CALL_SECONDS

    def _steps(self) -> Iterator[Step]:
        yield from self._local
        yield self._renew
        yield from self._remote

    def _wait(self) -> None:
        files = [child.process.sentinel for child in self.children.alive if child.process.sentinel is not None]
        longest = 0.1 if self.plan.burst else WATCH_SECONDS
        try:
            self.stopping.wait(min(longest, self.children.seconds_until_start()), self.orders, *files)
        except BaseException:
            time.sleep(longest)  # so that rounds that cannot wait do not keep a processor busy
            raise

    def _take_order(self) -> None:
        try:
            order = os.read(self.orders, 16)
        except BlockingIOError:
            return
        self.stopping.set()
        # No order at all: the parent is gone, and its pipe with it.
        self.killing = self.killing or KILL in order or not order
        if self.killing:
            self._deadline = time.monotonic()
        if not order:
            self._trouble = "its parent process died"
            logger.error("The parent of cluster %s is gone; the cluster leaves", conf().cluster)

    def _is_finished(self) -> bool:
        if self.stopping:
            return True
        if self.plan.once:
            return self.children.are_done
        if self.plan.burst and self._is_drained():
            with contextlib.suppress(BrokerError):
                self._log_what_is_left()
            return True
        return False

    def _is_drained(self) -> bool:
        """Burst: nothing is queued, delayed or running, and the scheduler has looked at every schedule."""
        schedulers = [child for child in self.children.alive if child.role == Scheduler.name]
        busy = any(child.slot.running for child in self.children.alive)
        if busy or any(child.slot.done == 0 for child in schedulers):
            self._quiet_looks = 0
            return False
        try:
            quiet = self.broker.counts().runnable == 0
        except BrokerError:
            quiet = False
        # Brokers without leases do not count what is between a worker's hands; a second look sees it.
        self._quiet_looks = self._quiet_looks + 1 if quiet else 0
        return self._quiet_looks >= 2

    def _log_what_is_left(self) -> None:
        counts = self.broker.counts()
        if counts.open:
            logger.warning(
                "The burst ends with %s tasks of paused tenants and %s of tenants that are not ready",
                counts.paused,
                counts.unready,
            )

    # The beginning, the status and the end

    def _start_all(self) -> None:
        if conf().scheduler:
            self.children.want(Scheduler.name)
        if conf().metrics_port and not (self.plan.once or self.plan.burst):
            self.children.want(Exporter.name)
        self.children.want(Worker.name, self.plan.workers)
        self.children.start_missing()
        self._state = State.IDLE
        self._do(Step("publish its status", self._publish_first))
        logger.info("Cluster %s runs with %s workers", conf().cluster, self.plan.workers)

    def _publish_first(self) -> None:
        self._publish()
        forget_old(self.broker)  # each cluster that was killed left one, and perhaps nobody ever looks

    def _publish(self) -> None:
        state = self._state
        processes = [child.as_process() for child in self.children.alive]
        if state is State.IDLE and any(process.is_busy for process in processes):
            state = State.WORKING
        ClusterStat(
            cluster_id=self.plan.cluster_id,
            parent=self.parent,
            started=self.started,
            state=state,
            workers_wanted=self.plan.workers,
            has_scheduler=conf().scheduler,
            processes=processes,
            reincarnations=self.children.replaced,
            deaths=self.children.deaths,
            trouble=self._trouble or self.children.trouble,
        ).publish(self.broker)

    def _shut_down(self) -> int:
        """The order of leaving.

        1. Every child gets SIGTERM: workers give back what they have not started and finish what they run.
        2. Meanwhile leases are renewed and the state is shown; children that end are not replaced.
        3. After `grace` seconds, or at once on a second signal, what still runs is killed, with all it started.
        4. Only then are its leases given back: nobody runs a package that another may already start.
        """
        self._state = State.STOPPING
        self.stopping.set()
        self._deadline = min(self._deadline, time.monotonic() + conf().grace)
        while self.children.alive and not self.killing and time.monotonic() < self._deadline:
            self.children.terminate()
            self._watch()
        is_clean = self.children.kill_all()
        self._state = State.STOPPED
        for step in (self._give_back, self._show):
            if not self._has_no_time():
                self._do(step)
        logger.info("Cluster %s has stopped", conf().cluster)
        return 0 if is_clean else 1


def _place(error: Exception) -> str:
    """Return the type and the place of an error: the same for the same defect, whatever its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__} at {where}"
