"""The parent: forks the sentinel, passes signals on, and ends with the cluster's exit code.

It is the last resort: it kills a sentinel that hangs or does not end in time, and ends all processes that the
sentinel left.
"""

from __future__ import annotations

import gc
import os
import time

from setproctitle import getproctitle, setproctitle

from tenant_q import tenancy
from tenant_q.cluster import heartbeat
from tenant_q.cluster.forked import Forked
from tenant_q.cluster.heartbeat import Heartbeat, Watchdog
from tenant_q.cluster.reset import reset_in_child
from tenant_q.cluster.sentinel import KILL, STOP, Plan, Sentinel
from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.conf import conf
from tenant_q.support import orphans
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.cluster")

# After its grace, a sentinel has this long to kill processes that still run and to give back their leases.
LAST_RESORT_SECONDS = 4.0
# The longest wait for killed processes.
KILL_SECONDS = 1.0
LOOK_SECONDS = 1.0


def run(plan: Plan) -> int:
    """Run a cluster, as its parent, until it ends. Return the exit code: 0 only for an orderly end."""
    tenancy.close_connections()
    title = getproctitle()
    setproctitle(f"mscluster {conf().cluster} parent")
    flag = StopFlag()
    orders, order = os.pipe()
    os.set_blocking(order, False)
    # Children that this process already has do not belong to the cluster.
    before = orphans.children()
    orphans.adopt()
    # All processes of the cluster share the objects that exist now, as long as none collects garbage among them.
    gc.collect()
    gc.freeze()
    pulse = Heartbeat()
    process: Forked | None = None
    try:
        process = Forked.start("sentinel", lambda: _sentinel(plan, orders, order, pulse))
        os.close(orders)
        _guard(process, flag, order, pulse, known=before | {process.pid})
        return 0 if process.exitcode == 0 else 1
    finally:
        _end_all(process, before)
        gc.unfreeze()
        os.close(order)
        flag.restore()
        setproctitle(title)


def _guard(process: Forked, flag: StopFlag, order: int, pulse: Heartbeat, known: set[int]) -> None:
    """Pass the parent's signals on to the sentinel until it ends, and kill it if it hangs or does not end in time."""
    passed_on = 0
    watchdog, limit = Watchdog(pulse, longest=2 * LOOK_SECONDS), heartbeat.longest_silence()
    deadline = float("inf")
    files = [] if process.sentinel is None else [process.sentinel]
    while process.is_alive():
        flag.wait(min(LOOK_SECONDS, deadline - time.monotonic()), *files)
        for _ in range(flag.count - passed_on):
            _say(order, STOP if passed_on == 0 else KILL)
            grace = conf().grace if passed_on == 0 else 0.0
            deadline = min(deadline, time.monotonic() + grace + LAST_RESORT_SECONDS)
            passed_on += 1
        orphans.reap(known)  # as the first process of a container it adopts all orphans
        if time.monotonic() > deadline and process.is_alive():
            logger.critical(
                "Killed the sentinel of cluster %s with its processes: it did not end in time",
                conf().cluster,
                event="sentinel.killed_at_end",
            )
            process.kill()
            process.join(KILL_SECONDS)
            return
        if watchdog.look() > limit and process.is_alive():
            logger.critical(
                "Killed the sentinel of cluster %s with its processes: it had done nothing for %.0f seconds",
                conf().cluster,
                watchdog.silent,
                event="sentinel.killed_as_hung",
            )
            process.kill()
            process.join(KILL_SECONDS)
            return


def _end_all(process: Forked | None, before: set[int]) -> None:
    """End, as the parent, all that the sentinel left: its children die with it, but not what tasks started."""
    if process is not None:
        process.kill()
        process.join(KILL_SECONDS)
    _, left = orphans.end(before, KILL_SECONDS)
    if left:
        logger.error(
            "Processes that a task started cannot be killed: %s",
            ", ".join(map(str, sorted(left))),
            event="orphans.kill_failed",
        )
    orphans.adopt(False)


def _say(order: int, what: bytes) -> None:
    try:
        os.write(order, what)
    except OSError:  # the sentinel has ended, or does not read and is killed in time
        return


def _sentinel(plan: Plan, orders: int, order: int, pulse: Heartbeat) -> None:
    os.close(order)
    reset_in_child()
    raise SystemExit(Sentinel(plan, orders, pulse).run())
