"""A process is killed right after each statement of a workflow's protocol, and nobody helps: its run ends right.

The workflow is a diamond with a map and one step without a transaction of its own. `points` says where each point is.
What is measured lies between the kill and the moment that the run's row says it has ended.
"""

from __future__ import annotations

import time
from functools import partial

import pytest
from django.db import transaction

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.workflows import Workflow
from tenant_q.workflows.run import Run
from tests import tasks
from tests.chaos import flow_ledger, points
from tests.chaos import workflows as flows
from tests.chaos.field import (
    IS_LONG,
    LIMIT,
    SCHEMA,
    UNPUSHED_LIMIT,
    Field,
    has_beaten_twice,
    make_due,
    put_off,
    run_with,
    start,
)  # fmt: skip
from tests.conftest import wait_until

pytestmark = pytest.mark.seam


def counts(run: Run) -> dict[str, int]:
    """How often a step of a run took effect, and each item."""
    return {step: one.count for (step, _), one in flow_ledger.effects([SCHEMA])[SCHEMA, run.id].items()}


# Workers


def test_a_worker_is_killed_at_each_point(battle):
    cluster = battle.cluster()
    calm = start()
    battle.check("calm", calm, calm.row.created.timestamp())
    for point in points.STEP_WORKER:
        battle.order(point)
        run = start(failures=int(point == "attempt-settled"))
        killed = battle.killed_at(point)
        battle.check(point, run, killed, plain=2)
    battle.report()
    wait_until(lambda: get_broker().counts().open == 0, what="every package to be acknowledged")
    assert get_broker().dead() == []
    assert cluster.stop() == 0


def test_a_whole_cluster_is_killed_and_another_goes_on(battle):
    """As where a machine dies: nobody gives its packages back before their leases have run out."""
    clusters = [battle.cluster(), battle.cluster()]
    for point in points.STEP_WORKER if IS_LONG else ("in-transactional-step", "advance-committed"):
        battle.order(point, "kill-tree")
        run = start(failures=int(point == "attempt-settled"))
        battle.check(point, run, battle.killed_at(point), plain=2)
        clusters = [one for one in clusters if one.process.poll() is None] + [battle.cluster()]
        assert len(clusters) == 2
    battle.report()


@pytest.fixture
def one_open_run(battle):
    policies.configure(SCHEMA, actor="test", limits={"max_open_workflows": 1})
    yield
    policies.configure(SCHEMA, actor="test", limits={"max_open_workflows": None})


def test_a_worker_is_killed_before_the_next_run_is_admitted(battle, one_open_run):
    """The next one has a look of its own."""
    battle.cluster()
    battle.order("before-admission")
    runs = {name: start() for name in ("before-admission", "pending")}
    killed = battle.killed_at("before-admission")
    for name, run in runs.items():
        battle.check(name, run, killed, limit=UNPUSHED_LIMIT, plain=2)
    battle.report()


# Those who start


def test_who_starts_a_run_is_killed(battle):
    battle.cluster()

    def start_in_transaction() -> None:
        with in_schema(SCHEMA), transaction.atomic():
            flows.diamond.start({}, key=point)

    killed = {}
    for point in points.STARTER:
        killed[point] = battle.act(point, start_in_transaction)
    assert run_with("start-written") is None
    for point in ("start-pushed", "start-committed"):
        run = run_with(point)
        assert run is not None
        limit = UNPUSHED_LIMIT if point == "start-committed" else LIMIT
        battle.check(point, run, killed[point], limit=limit)
    again = start(key="start-written")
    battle.check("start-written", again, again.row.created.timestamp())
    battle.report()


# The scheduler


def unpushed(battle: Field, key: str, flow: Workflow = flows.diamond) -> Run:
    """A run that was committed and not pushed."""

    def start_in_transaction() -> None:
        with in_schema(SCHEMA), transaction.atomic():
            flow.start({}, key=key)

    battle.act("start-committed", start_in_transaction)
    run = run_with(key)
    assert run is not None
    return run


def test_the_scheduler_is_killed_at_a_look(battle):
    battle.cluster()
    for point in ("look-begun", "look-advanced", "look-pushed"):
        run = unpushed(battle, point)
        battle.order(point)
        make_due(run)
        battle.check(point, run, battle.killed_at(point))
    battle.report()


def test_the_scheduler_is_killed_while_it_ends_a_dead_step(battle):
    """The step fails with the cause that the dead package has, which goes; and the run can be resumed."""
    runs, ids = {}, {}
    for point in ("dead-found", "dead-settled", "dead-purged"):
        runs[point] = start(key=point)
        (lease,) = get_broker().fetch("w", limit=1).leases
        get_broker().dead_letter("w", lease, "TenantBroken: for the test")
        put_off(runs[point])
        ids[point] = lease.id
    battle.cluster()
    for point, run in runs.items():
        battle.order(point)
        make_due(run)
        battle.wait_for(point, run, battle.killed_at(point))
        battle.expect(point, run, "failed")
        assert "for the test" in run.error
        if point == "dead-settled":  # nobody asks for the package any more; tried again, it is dropped
            assert get_broker().retry_dead({ids[point]: ""}) == 1
        assert ids[point] not in [letter.id for letter in get_broker().dead(SCHEMA)]
        with in_schema(SCHEMA):
            run.resume()
        battle.wait_for(point, run, time.time())
        battle.expect(point, run, "succeeded")
        assert counts(run) == {"first": 1, "left": 1, "right": 1, "last": 1, "on_end": 2}, point
    battle.report()


def test_the_scheduler_is_killed_when_it_notices_that_redis_is_empty(battle):
    key = battle.cluster().name
    run = start(hold=key)
    wait_until(partial(tasks.notes, key), what="a step to be held")
    wait_until(has_beaten_twice, what="the broker to hold an epoch")
    battle.order("loss-found")
    tasks.client().flushall()
    killed = battle.killed_at("loss-found")
    tasks.let_go(key)
    battle.check("loss-found", run, killed, plain=2)
    battle.report()


# Those who cancel and resume


def test_who_cancels_a_run_is_killed(battle):
    cluster = battle.cluster()
    for point in points.CANCELLER:
        key = f"{cluster.name}:{point}"
        run = start(hold=key)
        wait_until(partial(tasks.notes, key), what="a step to be held")
        killed = battle.act(point, partial(cancel, run))
        if point == "cancel-written":  # not committed: it goes on
            tasks.let_go(key)
            battle.check(point, run, killed)
            continue
        battle.wait_for(point, run, killed)
        battle.expect(point, run, "cancelled")
        effects = flow_ledger.effects([SCHEMA])[SCHEMA, run.id]
        assert effects["on_end", -1].count == 1
        assert effects["on_end", -1].state == "cancelled"
        assert ("last", -1) not in effects
        tasks.let_go(key)
    battle.report()
    assert get_broker().counts().open == 0


def cancel(run: Run) -> None:
    with in_schema(SCHEMA):
        run.cancel()


def test_who_resumes_a_run_is_killed(battle):
    battle.cluster()
    for point in points.RESUMER:
        run = start(flows.brittle, failures=1)
        assert run.wait(30_000)
        assert run.state == "failed"
        killed = battle.act(point, partial(resume, run))
        if point == "resume-written":
            assert run.refresh().state == "failed"
            assert run.row.generation == 1
            resume(run)
        battle.wait_for(point, run, killed)
        battle.expect(point, run, "succeeded")
        assert counts(run) == {"first": 1, "left": 2, "right": 1, "last": 1, "on_end": 2}, point
    battle.report()


def resume(run: Run) -> None:
    with in_schema(SCHEMA):
        run.resume()
