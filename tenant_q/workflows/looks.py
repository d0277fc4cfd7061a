"""The scheduler's looks at runs: push again what may have been lost, end what is late or dead, delete what is old."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from tenant_q import tenancy
from tenant_q.brokers import Broker, get_broker
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, DatabaseAway, RunTimeout, UnknownTenant, WorkerDied
from tenant_q.lifecycle import step_engine
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.support.durations import duration
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows import admission, control, epoch, run_index
from tenant_q.workflows.advancing import LOCK_MS, Advanced, advance, plan_looks
from tenant_q.workflows.locked_runs import read
from tenant_q.workflows.pushing import push_steps
from tenant_q.workflows.run_index import DueRun
from tenant_q.workflows.states import RunState
from tenant_q.workflows.step_packages import ReadyStep, packages_of
from tenant_q.workflows.transactions import transaction

logger = get_logger("tenant_q.workflows")

# The longest pause between two looks: a run that was started meanwhile may not have been pushed.
POLL_SECONDS = 2.0
# The pause between two beats of the epoch, while runs are open.
BEAT_SECONDS = 1.0
# A call ends after about this long, so that due schedules do not wait.
BUSY_SECONDS = 0.5
# A run that is locked, or whose tenant cannot be served, is looked at again after this time.
AGAIN_SECONDS = 5.0
# This many runs are advanced in one transaction.
TOGETHER = 50


class Looks:
    """The looks of one scheduler at the runs of its cluster."""

    def __init__(self) -> None:
        self._next_beat = 0.0

    def look(self) -> float:
        """Look at the runs that are due, for about `BUSY_SECONDS`.

        Returns:
            The seconds until the next look.

        Raises:
            BrokerError: The broker does not answer.
            DatabaseAway: The database does not answer.
        """
        cluster, begun = conf().cluster, time.monotonic()
        if self._next_beat and begun >= self._next_beat:
            self._beat(cluster)
        found = run_index.look([cluster])
        if not found.is_any_open:
            self._next_beat = 0.0
        elif not self._next_beat:
            self._beat(cluster)
            found = run_index.look([cluster])
        left, begun = list(found.due), time.monotonic()  # a slow beat must not keep runs from being looked at
        while left and time.monotonic() - begun < BUSY_SECONDS:
            some, left = left[:TOGETHER], left[TOGETHER:]
            failed = _drive(some)
            for schema in failed:  # once is enough: each time may wait for a lock
                _hold(schema, [one for one in left if one.schema == schema])
            left = [one for one in left if one.schema not in failed]
        if left or len(found.due) >= run_index.LOOK:
            return 0.0
        pause = self._next_beat - time.monotonic() if self._next_beat else POLL_SECONDS
        return max(0.0, min(pause, POLL_SECONDS, found.next_seconds or POLL_SECONDS))

    def _beat(self, cluster: str) -> None:
        epoch.beat(cluster)
        self._next_beat = time.monotonic() + BEAT_SECONDS


def _drive(due: Sequence[DueRun]) -> set[str]:
    """Do what is due for some runs. An error in a tenant concerns its runs alone.

    Returns:
        The schemas of tenants that could not be served, as PostgreSQL names them.
    """
    by_schema: dict[str, list[DueRun]] = {}
    for one in due:
        by_schema.setdefault(one.schema, []).append(one)
    running: dict[str, list[str]] = {}
    failed: set[str] = set()
    for physical, own in by_schema.items():
        try:
            schema = tenancy.logical_schema(physical)
            running[schema] = _prepare(schema, own)
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            failed.add(physical)
            if not isinstance(error, UnknownTenant):
                _log_failed(physical, error)
            _hold(physical, own)
    _advance(running)
    return failed


def _log_failed(physical: str, error: Exception) -> None:
    logger.warning(
        "Could not look at the workflow runs of %s: %s",
        physical,
        one_line(error),
        event="workflow.look_failed",
        exc_info=not isinstance(error, tenancy.DATABASE_ERRORS),
        extra={"schema": physical},
    )


def _hold(physical: str, due: Sequence[DueRun]) -> None:
    """Hold due runs of a tenant that cannot be served back."""
    run_index.put_off(physical, [one.run for one in due], AGAIN_SECONDS)


def _prepare(schema: str, due: Sequence[DueRun]) -> list[str]:
    """Cancel the late ones among due runs of a tenant, admit pending ones, and delete old ones.

    Returns:
        The runs to advance.
    """
    ids = [one.run for one in due]
    late, cancelling, is_any_pending, ended = [], [], False, []
    with transaction([schema], lock_ms=LOCK_MS) as open_one:
        for one in read(open_one, {schema: ids}):
            facts = one.facts
            if one.is_late and facts.state in (RunState.PENDING, RunState.RUNNING):
                timeout = duration(facts.plan.timeout)
                error = f"{RunTimeout.__name__}: it did not end within {timeout}; give it more time, or resume it."
                control.begin_cancel(open_one, one, error)
                late.append(facts.id)
            elif facts.state == RunState.CANCELLING:
                cancelling.append(facts.id)
            elif facts.has_ended and one.look_at is not None and one.is_look_due:  # not if it ended meanwhile
                ended.append(facts.id)
            is_any_pending = is_any_pending or facts.state == RunState.PENDING
    for id in (*late, *cancelling):
        control.finish_cancel(schema, id)
    if is_any_pending:
        push_steps(admission.admit_all(schema))
    if ended:
        control.delete(schema, ended)
    done = {*late, *ended}
    return [id for id in ids if id not in done]


def _advance(runs: dict[str, list[str]]) -> None:
    """Advance runs, push all their ready steps again, and end those that the broker has given up."""
    advanced = advance(runs, again=runs, keeps_looks=True)
    ready = _without_dead(advanced)
    push_steps([*ready, *admission.admit(advanced.ended)])
    _plan_looks(advanced)
    for schema, gone in advanced.gone.items():
        for id in gone:
            run_index.remove(tenancy.physical_schema(schema), id)
    for schema, early in advanced.early.items():  # they were due because the broker lost data
        run_index.settle(tenancy.physical_schema(schema), early)
    for schema, locked in advanced.locked.items():
        run_index.put_off(tenancy.physical_schema(schema), sorted(locked), AGAIN_SECONDS)


def _plan_looks(advanced: Advanced) -> None:
    """Plan the next looks. Where that fails, as in a tenant that is broken, the runs are held back instead."""
    try:
        plan_looks(advanced)
    except DatabaseAway:
        raise
    except Exception:
        for schema, looks in advanced.looks.items():
            try:
                plan_looks(Advanced(looks={schema: looks}))
            except DatabaseAway:
                raise
            except Exception:
                run_index.put_off(tenancy.physical_schema(schema), [look["id"] for look in looks], AGAIN_SECONDS)


def _without_dead(advanced: Advanced) -> list[ReadyStep]:
    """End the ready steps that are dead letters as failed. Return the other ready ones, with those that follow."""
    by_tenant: dict[tuple[str, str], dict[str, ReadyStep]] = {}
    for step in advanced.ready:
        by_tenant.setdefault((step.cluster, step.schema), {})[step.id] = step
    left: list[ReadyStep] = []
    for (cluster, schema), own in by_tenant.items():
        broker = get_broker(cluster)
        dead = {letter.id: letter.cause for letter in broker.dead(schema, ids=list(own))}
        left += [step for id, step in own.items() if id not in dead]
        if dead:
            left += _fail_or_leave(broker, schema, [(own[id], cause) for id, cause in dead.items()], advanced)
    return left


def _fail_or_leave(
    broker: Broker, schema: str, dead: Sequence[tuple[ReadyStep, str]], looked: Advanced
) -> list[ReadyStep]:
    """End dead steps of a tenant, or leave that to the next look if the tenant cannot be saved to. As `_fail`."""
    try:
        ready = _fail(schema, dead, looked)
    except (BrokerError, DatabaseAway):
        raise
    except Exception as error:
        logger.warning(
            "Could not end dead steps of %s: %s",
            schema,
            one_line(error),
            event="workflow.dead_not_ended",
            extra={"schema": schema},
        )
        return []
    broker.purge_dead([step.id for step, _ in dead])
    return ready


def _fail(schema: str, dead: Sequence[tuple[ReadyStep, str]], looked: Advanced) -> list[ReadyStep]:
    """End steps whose packages are dead letters as failed.

    Args:
        schema: The schema of their tenant.
        dead: The steps, each with the cause.
        looked: What the look has found. Where a run stays locked, the tenant's looks stay due.

    Returns:
        The steps that are ready then.
    """
    outcomes = [_outcome_of(step, cause) for step, cause in dead]
    engine = step_engine.engine_for(outcomes[0].package)
    assert engine is not None
    settled = engine.settle(outcomes)
    for error in settled.unsaved.values():
        raise error
    advanced = advance(settled.runs, keeps_looks=True)
    if advanced.locked:
        looked.looks.pop(schema, None)
    return [*advanced.ready, *admission.admit(advanced.ended)]


def _outcome_of(step: ReadyStep, cause: str) -> Outcome:
    (package,) = packages_of([step])
    outcome = give_up(package, WorkerDied(cause))
    return replace(outcome, result=cause, death=cause.partition(":")[0][:100])
