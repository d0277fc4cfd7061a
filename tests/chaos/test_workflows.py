"""A process is killed right after each statement of a workflow's protocol, and nobody helps: its run ends right.

The workflow is a diamond with a map and one step without a transaction of its own. `points` says where each point is.
What is measured lies between the kill and the moment that the run's row says it has ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections, transaction

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.workflows import Workflow
from tenant_q.workflows.run import Run
from tests import tasks
from tests.chaos import flow_ledger, points
from tests.chaos import workflows as flows
from tests.chaos.ledger import read_log
from tests.conftest import RunningCluster, wait_until

LEASE = 2
# The longest time from a kill to the end of the run. Other tests take the processors from the short form, so it only tells
# whether a run waited for a look that was planned too late, which takes ten seconds or a minute.
IS_LONG = os.environ.get("CHAOS") == "long"
LIMIT = LEASE + 2.0 if IS_LONG else 9.0
# A run that was committed and not pushed waits for its first look.
UNPUSHED_LIMIT = 12.0 if IS_LONG else 20.0
SCHEMA = "acme_corp"

pytestmark = pytest.mark.seam


@dataclass
class Field:
    """A running cluster whose processes obey orders, and what became of the runs."""

    path: Path
    start_cluster: Callable[..., RunningCluster]
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _orders: int = 0

    def cluster(self) -> RunningCluster:
        env = {"DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "CHAOS_DIR": str(self.path)}
        return self.start_cluster("--workers", "2", TEST_TENANT_Q=f'{{"lease": {LEASE}}}', **env)

    def order(self, point: str) -> None:
        """Have the next process that comes to a point kill itself."""
        self._orders += 1
        (self.path / "orders" / point / f"kill-{self._orders:05}").touch()

    def killed_at(self, point: str) -> float:
        """Wait until a process has killed itself at a point, and return when."""

        def kills() -> list[float]:
            return [line.at for line in read_log(self.path, "obey") if line.words[1] == point]

        return float(wait_until(kills, what=f"a process at {point}")[-1])

    def act(self, point: str, do: Callable[[], Any]) -> float:
        """Do something in a process of its own that is killed at a point. Returns when it was."""
        self.order(point)
        connections.close_all()
        pid = os.fork()
        if pid == 0:
            try:
                os.environ["CHAOS_DIR"] = str(self.path)
                points.install()
                do()
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{point} was not reached: {status}"
        return self.killed_at(point)

    def check(self, point: str, run: Run, killed: float, *, limit: float = LIMIT, plain: int = 1) -> None:
        """Wait until a run has ended, and note what is wrong with it."""
        self.wait_for(point, run, killed, limit)
        found = flow_ledger.effects([SCHEMA]).get((SCHEMA, run.id), {})
        self.problems += flow_ledger.problems_of(point, found, plain=plain)
        self.expect(point, run, "succeeded")

    def expect(self, point: str, run: Run, state: str) -> None:
        if run.state != state:
            self.problems.append(f"{point}: the run is {run.state}, because {run.error}")

    def wait_for(self, point: str, run: Run, killed: float, limit: float = LIMIT) -> None:
        if not run.wait(30_000):
            steps = [(step.name, step.state) for step in run.steps]
            self.problems.append(f"{point}: the run is still {run.state}, its steps are {steps}")
            return
        seconds = self.seconds[point] = run.row.ended.timestamp() - killed
        if seconds > limit:
            self.problems.append(f"{point}: the run ended after {seconds:.2f} s, and {limit:g} s are the limit")

    def report(self) -> None:
        print("\nkilled at                seconds until the run had ended")
        for point, seconds in self.seconds.items():
            print(f"{point:<24} {seconds:6.2f}")
        assert not self.problems, "\n".join(self.problems)


@pytest.fixture
def battle(tenants, mscluster, tmp_path) -> Iterator[Field]:
    points.prepare(tmp_path)
    with connection.cursor() as cursor:
        cursor.execute(flows.CREATE.format(SCHEMA))
    yield Field(tmp_path, mscluster)
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {SCHEMA}.{flows.EFFECTS}")


def start(flow: Workflow = flows.diamond, key: str | None = None, **input: Any) -> Run:
    with in_schema(SCHEMA):
        return flow.start(input, key=key)


def make_due(run: Run) -> None:
    look_in(run, 0)


def put_off(run: Run) -> None:
    look_in(run, 600)


def look_in(run: Run, seconds: float) -> None:
    statement = f"UPDATE {SCHEMA}.tenant_q_workflows_run SET look_at = now() + make_interval(secs => %s) WHERE id = %s"
    with connection.cursor() as cursor:
        cursor.execute(statement, [seconds, run.id])


def run_with(key: str) -> Run | None:
    with in_schema(SCHEMA):
        return next((run for run in flows.diamond.runs() if run.key == key), None)


# Workers


def test_a_worker_is_killed_at_each_point(battle):
    cluster = battle.cluster()
    calm = start()
    battle.check("calm", calm, calm.row.created.timestamp())
    for point in points.STEP_WORKER:
        battle.order(point)
        run = start(failures=1 if point == "attempt-settled" else 0)
        killed = battle.killed_at(point)
        battle.check(point, run, killed, plain=2)
    battle.report()
    wait_until(lambda: get_broker().counts().open == 0, what="every package to be acknowledged")
    assert get_broker().dead() == []
    assert cluster.stop() == 0


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
        battle.check(point, run, time.time())
    battle.report()


def test_the_scheduler_is_killed_when_it_notices_that_redis_is_empty(battle):
    battle.cluster()
    run = start(hold="held")
    wait_until(lambda: tasks.notes("held"), what="a step to be held")
    wait_until(has_beaten_twice, what="the broker to hold an epoch")
    battle.order("loss-found")
    tasks.client().flushall()
    killed = battle.killed_at("loss-found")
    tasks.let_go("held")
    battle.check("loss-found", run, killed, plain=2)
    battle.report()


def has_beaten_twice() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(written) FROM public.tenant_q_brokerepoch WHERE cluster = %s", [get_broker().cluster]
        )
        return (cursor.fetchone()[0] or 0) > 1


# Those who cancel and resume


def test_who_cancels_a_run_is_killed(battle):
    battle.cluster()
    for point in points.CANCELLER:
        run = start(hold=point)
        wait_until(partial(tasks.notes, point), what="a step to be held")
        killed = battle.act(point, partial(cancel, run))
        if point == "cancel-written":  # not committed: it goes on
            tasks.let_go(point)
            battle.check(point, run, killed)
            continue
        battle.wait_for(point, run, killed)
        battle.expect(point, run, "cancelled")
        effects = flow_ledger.effects([SCHEMA])[SCHEMA, run.id]
        assert effects["on_end", -1].count == 1
        assert effects["on_end", -1].state == "cancelled"
        assert ("last", -1) not in effects
        tasks.let_go(point)
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
        effects = flow_ledger.effects([SCHEMA])[SCHEMA, run.id]
        counts = {step: one.count for (step, _), one in effects.items()}
        assert counts == {"first": 1, "left": 2, "right": 1, "last": 1, "on_end": 2}, point
    battle.report()


def resume(run: Run) -> None:
    with in_schema(SCHEMA):
        run.resume()
