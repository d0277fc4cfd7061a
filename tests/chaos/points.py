"""Named points in the processes of a cluster, at which they obey orders: "kill yourself here".

An order is a file `orders/<point>/<act>-<number>` in the directory that CHAOS_DIR names. The process that renames it
has it, and no other. So the number of kills is exact, and nothing is sent to a process that may be somewhere else.

The points are wrapped around methods of tenant_q from outside; tenant_q knows nothing of them. What is done at them
stands in the file `log`, which survives every kill: seconds, what, details.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Points by the process that comes past them.
WORKER = (
    "after-claim",
    "mid-run",
    "after-effect",
    "after-effect-in-transaction",
    "before-save",
    "before-link",
    "before-ack",
    "after-ack",
)
SENTINEL = ("before-reclaim", "after-reclaim")
SCHEDULER = ("before-push", "after-push")
# Points of workflows: of those who start, cancel or resume a run, of the worker, of the scheduler.
STARTER = ("start-written", "start-committed", "start-pushed")
CANCELLER = ("cancel-written", "cancel-committed", "cancel-asked", "cancel-settled", "cancel-advanced")
RESUMER = ("resume-written", "resume-committed", "resume-advanced", "resume-pushed")
STEP_WORKER = (
    "step-loaded",
    "before-plain-effect",
    "after-plain-effect",
    "in-transactional-step",
    "in-transactional-item",
    "behind-fence",
    "step-committed",
    "steps-settled",
    "attempt-settled",
    "items-written",
    "advance-decided",
    "advance-committed",
    "steps-pushed",
)
ADMITTER = ("before-admission",)
LOOKER = ("look-begun", "look-advanced", "look-pushed", "dead-found", "dead-settled", "dead-purged", "loss-found")
WORKFLOW = (*STARTER, *CANCELLER, *RESUMER, *STEP_WORKER, *ADMITTER, *LOOKER)

# What a process does with itself at a point, or with the whole process tree of its cluster.
ACTS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill-tree": lambda: os.killpg(0, signal.SIGKILL),
    "freeze-tree": lambda: os.killpg(0, signal.SIGSTOP),
}


def is_armed() -> bool:
    return "CHAOS_DIR" in os.environ


def folder() -> Path:
    return Path(os.environ["CHAOS_DIR"])


def prepare(path: Path) -> None:
    """Make the directory of the orders."""
    for point in (*WORKER, *SENTINEL, *SCHEDULER, *WORKFLOW):
        (path / "orders" / point).mkdir(parents=True)
    (path / "obeyed").mkdir()
    (path / "log").touch()


def reached(point: str, ids: Iterable[str] = ()) -> None:
    """Obey the oldest order for this point, if there is one."""
    if not is_armed():
        return
    orders = folder() / "orders" / point
    for order in sorted(orders.iterdir()):
        try:
            order.rename(folder() / "obeyed" / f"{point}.{order.name}")
        except FileNotFoundError:
            continue
        act = order.name.rpartition("-")[0]
        note("obey", act, point, str(os.getpgid(0)), *ids)
        ACTS[act]()
        return


def sleeps(group: int) -> bool:
    """Whether every process of a group has stopped."""
    import psutil

    states = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group:
                states.append(process.info["status"])
        except ProcessLookupError:
            continue
    return set(states) <= {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}


def note(*words: str, path: Path | None = None) -> None:
    """Append a line to the log; whole, also when many write."""
    line = " ".join((f"{time.time():.6f}", *words)) + "\n"
    file = os.open((path or folder()) / "log", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


# What this worker has claimed last.
_claimed: list[str] = []


def install() -> None:
    """Wrap the points around the methods of tenant_q that this process and its children will call."""
    from tenant_q.brokers.redis import RedisBroker
    from tenant_q.cluster import scheduler
    from tenant_q.lifecycle import push, settle
    from tenant_q.schedules import fire

    def claimed(batch: Any) -> None:
        ids = [lease.id for lease in batch.leases]
        if ids:
            _claimed[:] = ids
            note("claim", *ids)
            reached("after-claim", ids)

    in_hand: list[str] = []

    def settling(outcomes: Any, *_: Any, **__: Any) -> None:
        in_hand[:] = [outcome.package.id for outcome in outcomes]
        reached("before-save", in_hand)

    def pushing(packages: Any, **_: Any) -> None:
        if any("chain" in package.task for package in packages):
            reached("before-link", in_hand)

    fired: list[str] = []

    def firing(packages: Any) -> None:
        """A pass that finds nothing to fire comes past no point."""
        fired[:] = [package.id for package in packages]
        if fired:
            reached("before-push", fired)

    def acknowledged(broker: Any, worker: str, settled: Any, **_: Any) -> list[str]:
        return [one.lease.id for one in settled]

    def held(broker: Any, worker: str, **_: Any) -> list[str]:
        with broker._errors:  # an outage here is one of the broker's, as in what is wrapped
            return [id.decode() for id in broker.client.zrange(f"{broker.tag}:held:{worker}", 0, -1)]

    _wrap(RedisBroker, "fetch", after=claimed)
    _wrap(settle, "settle", before=settling)
    _wrap(push, "push", before=pushing)
    _wrap(RedisBroker, "acknowledge", before=lambda *a, **k: reached("before-ack", acknowledged(*a, **k)))
    _wrap(RedisBroker, "acknowledge", after=lambda _: reached("after-ack"))
    _wrap(RedisBroker, "reclaim", before=lambda *a, **k: reached("before-reclaim", held(*a, **k)))
    _wrap(RedisBroker, "reclaim", after=lambda _: reached("after-reclaim"))
    _wrap(fire, "push_fires", before=firing, after=lambda _: fired and reached("after-push", fired))
    _wrap(scheduler.Scheduler, "run", before=lambda *_, **__: note("scheduler"))
    _install_workflow_points()


def _install_workflow_points() -> None:
    from tenant_q.brokers.redis import RedisBroker
    from tenant_q.cluster.step_completion import StepCompletion
    from tenant_q.workflows import (
        admission,
        advancing,
        control,
        engine,
        items,
        looks,
        resuming,
        run_index,
        starting,
        step_rows,
    )

    def at(point: str) -> Callable[..., None]:
        return lambda *_, **__: reached(point, _claimed)

    def settling(_: Any, outcomes: Any) -> None:
        if any(outcome.is_saved and outcome.success for outcome in outcomes):
            reached("step-committed", _claimed)

    _wrap(starting, "write", after=at("start-written"))
    _wrap(starting, "push_or_leave", before=at("start-committed"))
    _wrap(starting, "push_steps", after=at("start-pushed"))

    _wrap(step_rows, "load", after=lambda found: found and reached("step-loaded", _claimed))
    _wrap(step_rows, "end_in_task", after=at("behind-fence"))
    _wrap(engine.Engine, "settle", before=settling, after=at("steps-settled"))
    _wrap(StepCompletion, "_put_back", before=at("attempt-settled"))
    _wrap(items, "expand", after=at("items-written"))
    _wrap(advancing, "_write", before=at("advance-decided"), after=at("advance-committed"))
    _wrap(admission, "admit", before=lambda schemas: schemas and reached("before-admission", _claimed))
    _wrap(StepCompletion, "advance", after=at("steps-pushed"))

    _wrap(control, "begin_cancel", after=at("cancel-written"))
    _wrap(control, "_finish_or_leave", before=at("cancel-committed"))
    _wrap(RedisBroker, "cancel", after=at("cancel-asked"))
    _wrap(control, "_advance_and_push", before=at("cancel-settled"), after=at("cancel-advanced"))
    _wrap(resuming, "write", after=at("resume-written"))
    _wrap(control, "_begin_again", before=at("resume-committed"), after=at("resume-pushed"))
    _wrap(control, "push_steps", before=at("resume-advanced"))

    _wrap(looks, "_drive", before=at("look-begun"))
    _wrap(looks, "push_steps", before=at("look-advanced"), after=at("look-pushed"))
    _wrap(looks, "_fail", before=at("dead-found"), after=at("dead-settled"))
    _wrap(RedisBroker, "purge_dead", after=at("dead-purged"))
    _wrap(run_index, "make_all_due", after=at("loss-found"))


def _wrap(
    owner: Any,
    name: str,
    *,
    before: Callable[..., None] = lambda *_, **__: None,
    after: Callable[[Any], object] = lambda _: None,
) -> None:
    """Call `before` with the arguments and `after` with the result of each call of `owner.name`."""
    wrapped = getattr(owner, name)

    @functools.wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        before(*args, **kwargs)
        result = wrapped(*args, **kwargs)
        after(result)
        return result

    setattr(owner, name, call)
