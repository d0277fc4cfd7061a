"""The sentinel: forks workers, scheduler and exporter, watches and replaces them, and keeps the workers' leases.

It alone renews leases, for every worker it sees alive, so a task may hold the interpreter for as long as it likes. It
opens no database connection and starts no thread, because it forks.

It composes three parts: `Children` are its processes, the `LeaseKeeper` talks to the broker for them, and `Rounds`
calls both in turns. The sentinel itself takes the orders of the parent, decides when the cluster ends, and ends it in
order.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass, field

from django.utils import timezone
from setproctitle import setproctitle

from tenant_q.brokers import get_impatient_broker
from tenant_q.brokers.days import SAMPLE_SECONDS
from tenant_q.cluster import sentinel_rounds
from tenant_q.cluster.burst import Burst
from tenant_q.cluster.children import Children
from tenant_q.cluster.exporter import Exporter
from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.cluster.lease_keeper import LeaseKeeper
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.sentinel_rounds import Rounds, Step
from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.cluster.worker import Worker
from tenant_q.conf import conf
from tenant_q.operations.published_status import ClusterStat
from tenant_q.operations.status import ClusterState, forget_old
from tenant_q.scrubbing import process_state
from tenant_q.support import orphans
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.sentinel")

# What the parent writes to the pipe. The end of the pipe means that the parent has died.
STOP, KILL = b"s", b"k"
# The longest pause between two rounds, in seconds; of a burst a shorter one.
PAUSE_SECONDS = 0.25
BURST_PAUSE_SECONDS = 0.1
PUBLISH_SECONDS = 1.0
# How often it looks for cancels, and passes on the progress of tasks.
CANCEL_SECONDS = 1.0
PROGRESS_SECONDS = 0.25


@dataclass(frozen=True)
class Plan:
    """What a cluster is to do: its size, and whether it ends by itself."""

    workers: int
    once: bool = False
    burst: bool = False
    cluster_id: uuid.UUID = field(default_factory=uuid.uuid4)


class Sentinel:
    """The sentinel of one cluster, in a process of its own.

    Args:
        plan: What the cluster is to do.
        orders: The reading end of the parent's pipe.
        heartbeat: The counter by which the parent sees that the sentinel goes on.
    """

    def __init__(self, plan: Plan, orders: int, heartbeat: Heartbeat) -> None:
        self.plan = plan
        self.orders = orders
        self.parent = os.getppid()
        process_state.share()
        self.broker = get_impatient_broker()
        self.stopping = StopFlag()
        self.killing = False
        self.children = Children(plan.cluster_id.hex[:12], once=plan.once, orders=orders)
        self.leases = LeaseKeeper(self.broker, self.children)
        self.burst = Burst(self.broker, self.children)
        self.started = timezone.now()
        self._state = ClusterState.STARTING
        self._trouble = ""
        self._sampled = time.monotonic()
        lease = conf().lease
        self._give_back = Step("give back packages of dead workers", self._reclaim)
        self._show = Step("publish its status", self._publish, PUBLISH_SECONDS, is_vital=False)
        self.rounds = Rounds(
            heartbeat,
            local=[
                Step("wait", self._wait, is_vital=False),
                Step("take an order of its parent", self._take_order),
                Step("notice the end of its processes", self.children.notice_ends),
                Step("end processes that dead ones had started", self.children.end_orphans),
                Step("start processes", self.children.start_missing),
                Step("kill workers", self.children.kill_overdue),
            ],
            renew=Step("renew leases", self.leases.renew, lease / 3),
            remote=[
                Step("recall packages", self._recall),
                self._give_back,
                Step("expire leases", self.leases.expire, min(1.0, lease / 4)),
                self._show,
                Step("pass on cancels", self.leases.pass_on_cancels, CANCEL_SECONDS, is_vital=False),
                Step("pass on progress", self.leases.pass_on_progress, PROGRESS_SECONDS, is_vital=False),
                Step("record figures of the day", self._record_figures, SAMPLE_SECONDS, is_vital=False),
            ],
            on_outage=self.leases.note_outage,
        )

    def run(self) -> int:
        """Run the sentinel: watch over the cluster until it stops. Return the exit code."""
        setproctitle(f"mscluster {conf().cluster} sentinel")
        orphans.adopt()
        os.set_blocking(self.orders, False)
        try:
            self._start_all()
            while not self._is_finished():
                self.rounds.run_one()
            return self._shut_down()
        except BaseException:
            logger.critical(
                "Cluster %s ends because its sentinel cannot go on",
                conf().cluster,
                event="cluster.failed",
                exc_info=True,
            )
            self.children.kill_all()
            with contextlib.suppress(Exception):  # otherwise the leases expire
                self.leases.reclaim()
            return 1
        finally:
            self.children.kill_all()

    # The beginning

    def _start_all(self) -> None:
        if conf().scheduler:
            self.children.want(Scheduler.name)
        if conf().metrics_port and not (self.plan.once or self.plan.burst):
            self.children.want(Exporter.name)
        self.children.want(Worker.name, self.plan.workers)
        self.children.start_missing()
        self._state = ClusterState.IDLE
        self.rounds.do(Step("publish its status", self._publish_first))
        workers = counted(self.plan.workers, "worker")
        logger.info("Started cluster %s with %s", conf().cluster, workers, event="cluster.started")

    def _publish_first(self) -> None:
        self._publish()
        forget_old(self.broker)  # each killed cluster has left a status, and nothing else may ever delete it

    # Steps of a round

    def _wait(self) -> None:
        """Let the sentinel sleep until a child ends, an order or a signal comes, or the longest pause is over."""
        files = [child.process.sentinel for child in self.children.alive if child.process.sentinel is not None]
        longest = BURST_PAUSE_SECONDS if self.plan.burst else PAUSE_SECONDS
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
        # An empty read is the end of the pipe: the parent has died.
        self.killing = self.killing or KILL in order or not order
        if self.killing:
            self.rounds.deadline = time.monotonic()
        if not order:
            self._trouble = "its parent process died"
            logger.error(
                "The parent of cluster %s died, so the cluster ends", conf().cluster, event="cluster.parent_died"
            )

    def _recall(self) -> None:
        self.leases.recall(sentinel_rounds.ROUND_SECONDS)

    def _reclaim(self) -> None:
        """Have the sentinel give back a few packages in each round, so that renewals do not wait; at the end, all."""
        self.leases.reclaim(float("inf") if self._state is ClusterState.STOPPED else sentinel_rounds.ROUND_SECONDS)

    def _publish(self) -> None:
        state = self._state
        processes = [child.as_process() for child in self.children.alive]
        if state is ClusterState.IDLE and any(process.is_busy for process in processes):
            state = ClusterState.WORKING
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

    def _record_figures(self) -> None:
        """Have the sentinel record what has been done, and what its workers run now as a sample for the time since."""
        self.broker.record_periods()
        before, self._sampled = self._sampled, time.monotonic()
        running = [child.slot.running for child in self.children.alive if child.is_worker]
        ids = [id for id in running if id]
        self.broker.note_busy(ids, min(self._sampled - before, 2 * SAMPLE_SECONDS))

    # The end

    def _is_finished(self) -> bool:
        if self.stopping:
            return True
        if self.plan.once:
            return self.children.are_done
        if self.plan.burst and self.burst.is_over():
            self.burst.log_rest()
            return True
        return False

    def _shut_down(self) -> int:
        """End the sentinel's cluster in order, and return the exit code.

        1. Every child gets SIGTERM: workers give back what they have not started and finish what they run.
        2. Meanwhile leases are renewed and the status is published. Children that end are not replaced.
        3. After `grace` seconds, or at once on a second signal, children that still run are killed, with all that they
           started.
        4. Only then are their leases given back: no task runs that another worker may already start.
        """
        self._state = ClusterState.STOPPING
        self.stopping.set()
        self.rounds.deadline = min(self.rounds.deadline, time.monotonic() + conf().grace)
        while self.children.alive and not self.killing and time.monotonic() < self.rounds.deadline:
            self.children.terminate()
            self.rounds.run_one()
        is_clean = self.children.kill_all()
        self._state = ClusterState.STOPPED
        for step in (self._give_back, self._show):
            if not self.rounds.has_no_time():
                self.rounds.do(step)
        logger.info("Stopped cluster %s", conf().cluster, event="cluster.stopped")
        return 0 if is_clean else 1
