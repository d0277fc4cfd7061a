"""The parent: forks the sentinel, passes signals on, and tells the truth by its exit code."""

from __future__ import annotations

import gc
import os
from multiprocessing import get_context

from setproctitle import getproctitle, setproctitle

from tenant_q import brokers, tenancy
from tenant_q.conf import conf
from tenant_q.role import StopFlag
from tenant_q.sentinel import KILL, STOP, Plan, Sentinel


def run(plan: Plan) -> int:
    """Run a cluster until it is told to stop, or ends by itself. Returns the exit code: 0 only for an orderly end."""
    tenancy.close_connections()
    title = getproctitle()
    setproctitle(f"mscluster {conf().cluster} parent")
    flag = StopFlag()
    orders, order = os.pipe()
    # What is there now is shared by all processes of the cluster, as long as none of them collects it.
    gc.collect()
    gc.freeze()
    try:
        process = get_context("fork").Process(target=_sentinel, args=(plan, orders, order), name="sentinel")
        process.start()
        os.close(orders)
        passed_on = 0
        while process.is_alive():
            flag.wait(1.0, process.sentinel)
            for _ in range(flag.count - passed_on):
                _say(order, STOP if passed_on == 0 else KILL)
                passed_on += 1
        process.join()
        return 0 if process.exitcode == 0 else 1
    finally:
        gc.unfreeze()
        os.close(order)
        flag.restore()
        setproctitle(title)


def _say(order: int, what: bytes) -> None:
    try:
        os.write(order, what)
    except BrokenPipeError:  # the sentinel is gone already; its exit code tells
        return


def _sentinel(plan: Plan, orders: int, order: int) -> None:
    os.close(order)
    tenancy.drop_inherited_connections()
    brokers.forget_brokers()
    raise SystemExit(Sentinel(plan, orders).run())
