"""The parent: forks the sentinel, passes signals on, and tells the truth by its exit code.

It is the last resort. A sentinel that hangs, or does not end when it is to, is killed, and whatever it has left is
ended here.
"""

from __future__ import annotations

import gc
import os
import time

from setproctitle import getproctitle, setproctitle

from tenant_q import brokers, heartbeat, orphans, tenancy
from tenant_q.conf import conf
from tenant_q.forked import Forked
from tenant_q.heartbeat import Heartbeat, Watchdog
from tenant_q.labels import get_logger
from tenant_q.role import StopFlag
from tenant_q.sentinel import KILL, STOP, Plan, Sentinel

logger = get_logger("tenant_q.cluster")

# A sentinel has this long after its grace to kill what still runs and to give back its leases.
LAST_RESORT_SECONDS = 4.0
# Killed processes are waited for as long as this.
KILL_SECONDS = 1.0
LOOK_SECONDS = 1.0


def run(plan: Plan) -> int:
    """Run a cluster until it is to stop, or ends by itself. Returns the exit code: 0 only for an orderly end."""
    tenancy.close_connections()
    title = getproctitle()
    setproctitle(f"mscluster {conf().cluster} parent")
    flag = StopFlag()
    orders, order = os.pipe()
    os.set_blocking(order, False)
    # Those that it has before are none of the cluster's.
    before = orphans.children()
    orphans.adopt()
    # What is there now is shared by all processes of the cluster, as long as none of them collects it.
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
    """Wait until the sentinel has ended, pass signals on to it, and kill it if it hangs or does not end in time."""
    passed_on = 0
    watchdog, limit = Watchdog(pulse, longest=2 * LOOK_SECONDS), heartbeat.limit()
    deadline = float("inf")
    files = [] if process.sentinel is None else [process.sentinel]
    while process.is_alive():
        flag.wait(min(LOOK_SECONDS, deadline - time.monotonic()), *files)
        for _ in range(flag.count - passed_on):
            _say(order, STOP if passed_on == 0 else KILL)
            grace = conf().grace if passed_on == 0 else 0.0
            deadline = min(deadline, time.monotonic() + grace + LAST_RESORT_SECONDS)
            passed_on += 1
        orphans.reap(known)  # as the first process of a container it is given everybody's
        if time.monotonic() > deadline and process.is_alive():
            logger.critical("The sentinel of cluster %s does not end; it is killed with its processes", conf().cluster)
            process.kill()
            process.join(KILL_SECONDS)
            return
        if watchdog.look() > limit and process.is_alive():
            logger.critical(
                "The sentinel of cluster %s has done nothing for %.0f seconds; it is killed with its processes",
                conf().cluster,
                watchdog.silent,
            )
            process.kill()
            process.join(KILL_SECONDS)
            return


def _end_all(process: Forked | None, before: set[int]) -> None:
    """End whatever the sentinel has left: its children die with it, what tasks had started does not."""
    if process is not None:
        process.kill()
        process.join(KILL_SECONDS)
    _, left = orphans.end(before, KILL_SECONDS)
    if left:
        logger.error("Processes that a task started cannot be killed: %s", ", ".join(map(str, sorted(left))))
    orphans.adopt(False)


def _say(order: int, what: bytes) -> None:
    try:
        os.write(order, what)
    except OSError:  # the sentinel is gone already, and its exit code tells; or it reads nothing, and is killed in time
        return


def _sentinel(plan: Plan, orders: int, order: int, pulse: Heartbeat) -> None:
    os.close(order)
    tenancy.drop_inherited_connections()
    brokers.forget_brokers()
    raise SystemExit(Sentinel(plan, orders, pulse).run())
