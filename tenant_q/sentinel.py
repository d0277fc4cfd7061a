"""The sentinel: forks the workers and the scheduler, watches and replaces them, judges who lives.

It alone renews leases, for every worker it sees alive, so a task may hold the interpreter for as long as it likes. It
opens no database connection and starts no thread: it forks.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from django.utils import timezone
from setproctitle import setproctitle

from tenant_q import process_state
from tenant_q.brokers import get_impatient_broker, uses_redis
from tenant_q.child import KILL_MARGIN, Child, start
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.exporter import Exporter
from tenant_q.labels import get_logger
from tenant_q.role import StopFlag
from tenant_q.scheduler import Scheduler
from tenant_q.status import DEATHS_TOLD, ClusterStat, Death, State, forget_old
from tenant_q.worker import Worker

logger = get_logger("tenant_q.sentinel")

# What the parent says through the pipe; the pipe's end says that the parent is gone.
STOP, KILL = b"s", b"k"
WATCH_SECONDS = 0.25
# What has waited in a batch for this long is given back.
RECALL_SECONDS = 0.25
# How often it is asked what was cancelled, and what tasks tell of their progress is passed on.
CANCEL_SECONDS = 1.0
PROGRESS_SECONDS = 0.25
LONGEST_RESPAWN = 2.0


@dataclass(frozen=True)
class Plan:
    """What a cluster is to do: its size, and whether it ends by itself."""

    workers: int
    once: bool = False
    burst: bool = False
    cluster_id: uuid.UUID = field(default_factory=uuid.uuid4)


class Sentinel:
    """Runs in its own process; `orders` is the reading end of the parent's pipe."""

    def __init__(self, plan: Plan, orders: int) -> None:
        self.plan = plan
        self.orders = orders
        self.parent = os.getppid()
        process_state.share()
        self.broker = get_impatient_broker()
        self.stopping = StopFlag()
        self.killing = False
        self.children: list[Child] = []
        self.started = timezone.now()
        self.reincarnations = 0
        self._state = State.STARTING
        self._trouble = ""
        self._told_deaths: list[Death] = []
        self._serial = 0
        self._respawn_at: list[tuple[float, str]] = []
        self._deaths = 0
        self._done_before = 0
        self._to_reclaim: list[Child] = []
        self._due: dict[str, float] = {}
        self._broker_away = False
        self._quiet_looks = 0

    def run(self) -> int:
        """Guard the cluster until it is told to stop. Returns the exit code."""
        setproctitle(f"mscluster {conf().cluster} sentinel")
        self._start_all()
        while not self._is_finished():
            self._watch()
        return self._shut_down()

    # Watching

    def _watch(self) -> None:
        """One round: sleep until a child ends, an order or a signal comes, or something is due."""
        fds = [child.process.sentinel for child in self.children]
        readable = self.stopping.wait(self._pause(), self.orders, *fds)
        if self.orders in readable:
            self._take_order()
        self._bury_the_dead()
        self._replace_missing()
        self._kill_overdue()
        self._through_outage(self._tend_leases)

    def _tend_leases(self) -> None:
        """What the broker is asked in a round. The first call that fails ends it, so that nobody's death waits long."""
        self._recall()
        self._do_when_due("renew", conf().lease / 3, self._renew)
        self._do_when_due("expire", min(1.0, conf().lease / 4), self._expire)
        self._do_when_due("publish", 1.0, self._publish)
        self._do_when_due("cancelled", CANCEL_SECONDS, self._tell_cancelled)
        self._do_when_due("progress", PROGRESS_SECONDS, self._pass_on_progress)
        self._reclaim()

    def _pause(self) -> float:
        respawns = [at - time.monotonic() for at, _ in self._respawn_at]
        return min([0.1 if self.plan.burst else WATCH_SECONDS, *respawns])

    def _take_order(self) -> None:
        order = os.read(self.orders, 16)
        self.stopping.set()
        # No order at all: the parent is gone, and its pipe with it.
        self.killing = self.killing or KILL in order or not order
        if not order:
            self._trouble = "its parent process died"
            logger.error("The parent of cluster %s is gone; the cluster leaves", conf().cluster)

    def _is_finished(self) -> bool:
        if self.stopping:
            return True
        if self.plan.once:
            return not self.children and not self._respawn_at
        if self.plan.burst and self._is_drained():
            self._through_outage(self._tell_what_is_left)
            return True
        return False

    def _is_drained(self) -> bool:
        """Burst: nothing is queued, delayed or running, and the scheduler has looked at every schedule."""
        schedulers = [child for child in self.children if child.role == Scheduler.name]
        busy = any(child.slot.running for child in self.children)
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

    def _tell_what_is_left(self) -> None:
        counts = self.broker.counts()
        if counts.open:
            logger.warning(
                "The burst ends with %s tasks of paused tenants and %s of tenants that are not ready",
                counts.paused,
                counts.unready,
            )

    # Children

    def _start_all(self) -> None:
        if conf().scheduler:
            self._spawn(Scheduler.name)
        if conf().metrics_port and not (self.plan.once or self.plan.burst):
            self._spawn(Exporter.name)
        for _ in range(self.plan.workers):
            self._spawn(Worker.name)
        self._state = State.IDLE
        self._through_outage(self._publish_first)
        logger.info("Cluster %s runs with %s workers", conf().cluster, self.plan.workers)

    def _spawn(self, role: str) -> None:
        self._serial += 1
        key = f"{self.plan.cluster_id.hex[:12]}-{self._serial}"
        child = start(role, key, once=self.plan.once, orders=self.orders)
        self.children.append(child)
        if child.is_worker and conf().cpu_affinity:
            _pin(int(child.process.pid or 0), conf().cpu_affinity, self._serial)

    def _bury_the_dead(self) -> None:
        for child in [child for child in self.children if not child.process.is_alive()]:
            self.children.remove(child)
            code = child.process.exitcode
            if child.is_worker:
                self._to_reclaim.append(child)
            if code == 0 or self.stopping:
                self._after_orderly_end(child)
            else:
                self._after_death(child, code)

    def _after_orderly_end(self, child: Child) -> None:
        """A recycled or finished process: its place is filled at once, unless the cluster ends."""
        if not self.stopping and not self.plan.once:
            self._respawn_at.append((0.0, child.role))

    def _after_death(self, child: Child, code: int | None) -> None:
        running = child.slot.running
        labels = child.slot.labels
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        what = f" while it ran {running}" if running else ""
        logger.critical("The %s %s %s%s; it is replaced", child.role, child.process.pid, how, what, extra=labels)
        self.reincarnations += 1
        death = Death(time.time(), child.role, int(child.process.pid or 0), how, **labels)
        self._told_deaths = [*self._told_deaths, death][-DEATHS_TOLD:]
        # At once the first time, then with back-off, which a completed task ends.
        done = sum(one.slot.done for one in self.children) + child.slot.done
        self._deaths = 1 if done > self._done_before else self._deaths + 1
        self._done_before = sum(one.slot.done for one in self.children)
        pause = 0.0 if self._deaths == 1 else min(LONGEST_RESPAWN, 0.1 * 2 ** (self._deaths - 2))
        self._respawn_at.append((time.monotonic() + pause, child.role))

    def _replace_missing(self) -> None:
        if self.stopping:
            return
        due = [entry for entry in self._respawn_at if entry[0] <= time.monotonic()]
        for entry in due:
            self._respawn_at.remove(entry)
            self._spawn(entry[1])

    def _kill_overdue(self) -> None:
        for child in self.children:
            if not child.is_worker or child.verdict is not None:
                continue
            id = child.slot.running
            if child.slot.overdue(KILL_MARGIN):
                child.kill("the task ran over its timeout and did not react to it, so its worker was killed", id)
            elif ignored := child.ignored:
                child.kill(child.cancelled[ignored], ignored)

    # Leases and status

    def _recall(self) -> None:
        """Give back what waits in batches that turned out long. Other brokers than Redis have no leases to give."""
        if not uses_redis():
            return
        for child in self.children:
            if child.is_worker and child.recalled != child.slot.batch and child.slot.waiting_seconds > RECALL_SECONDS:
                batch, waiting = child.slot.batch, child.slot.recall()
                if waiting and (recalled := self.broker.give_back(child.key, waiting)):
                    logger.info(
                        "%s packages of a batch of worker %s that takes long are given back",
                        recalled,
                        child.process.pid,
                        extra=child.slot.labels,
                    )
                child.recalled = batch

    def _do_when_due(self, what: str, every: float, act: Callable[[], None]) -> None:
        if time.monotonic() >= self._due.get(what, 0.0):
            act()
            self._due[what] = time.monotonic() + every

    def _through_outage(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BrokerError as error:
            if not self._broker_away:
                logger.error("The sentinel goes on without the broker: %s", error)
            self._broker_away = True

    def _renew(self) -> None:
        self.broker.renew([child.key for child in self.children if child.is_worker], conf().lease)

    def _expire(self) -> None:
        expired = self.broker.expire()
        if self._broker_away:  # this asks the broker in each round; what else is done may have nothing to ask
            logger.warning("The sentinel has the broker again")
        self._broker_away = False
        if expired:
            logger.warning("%s leases ran out with nobody left to see their worker; given back", expired)

    def _reclaim(self) -> None:
        """Give back what dead workers held. During an outage they are remembered."""
        while self._to_reclaim:
            child = self._to_reclaim[0]
            has_left = child.process.exitcode == 0 and not child.slot.running  # in order, say during an outage
            innocent = child.was_killed_for_another or has_left
            given = self.broker.reclaim(
                child.key,
                running=child.slot.running,
                verdict=None if innocent else child.verdict,
                charged=not (child.is_stopped or innocent),
            )
            self._to_reclaim.pop(0)
            if given:
                logger.warning(
                    "%s packages of worker %s are given back", given, child.process.pid, extra=child.slot.labels
                )

    def _tell_cancelled(self) -> None:
        verdicts: dict[str, dict[str, str]] = {}
        for one in self.broker.cancelled():
            verdicts.setdefault(one.worker, {})[one.id] = one.verdict
        for child in self.children:
            if child.is_worker:
                child.tell(verdicts.get(child.key, {}))

    def _pass_on_progress(self) -> None:
        """Only what is new; other brokers than Redis keep none."""
        if not uses_redis():
            return
        found = [(child, told) for child in self.children if (told := child.slot.progress)]
        new = [(child, told) for child, told in found if told[0] != child.progress]
        self.broker.set_progress({child.key: (id, progress) for child, (_, id, progress) in new})
        for child, (times, _, _) in new:
            child.progress = times

    def _publish_first(self) -> None:
        self._publish()
        forget_old(self.broker)  # each cluster that was killed left one, and perhaps nobody ever looks

    def _publish(self) -> None:
        state = self._state
        processes = [child.as_process() for child in self.children]
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
            reincarnations=self.reincarnations,
            deaths=self._told_deaths,
            trouble=self._trouble,
        ).publish(self.broker)

    # The end

    def _shut_down(self) -> int:
        """The order of leaving.

        1. Every child is told (SIGTERM): workers give back what they have not started and finish what they run.
        2. Meanwhile leases are renewed and the state is shown; children that end are not replaced.
        3. After `grace` seconds, or at once on a second signal, what still runs is killed.
        4. Only then are its leases given back: nobody runs a package that another may already start.
        """
        self._state = State.STOPPING
        self.stopping.set()
        deadline = time.monotonic() + conf().grace
        while self.children and not self.killing and time.monotonic() < deadline:
            for child in self.children:
                child.process.terminate()  # again each round: one just forked may not have listened yet
            self._watch()
        for child in self.children:
            logger.warning("The %s %s still runs and is killed", child.role, child.process.pid, extra=child.slot.labels)
            child.is_stopped = True
            child.process.kill()
        for child in self.children:
            child.process.join()
        self._bury_the_dead()
        self._through_outage(self._reclaim)
        self._state = State.STOPPED
        self._through_outage(self._publish)
        logger.info("Cluster %s has stopped", conf().cluster)
        return 0


def _pin(pid: int, cpus: int, serial: int) -> None:
    """Let a worker run on `cpus` processors only, the workers spread over all."""
    count = os.cpu_count() or 1
    if cpus < count and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {(serial * cpus + place) % count for place in range(cpus)})
