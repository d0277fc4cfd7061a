"""A cluster whose processes are killed at points of the protocol of workflows, and what becomes of the runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection, connections

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.workflows import Workflow
from tenant_q.workflows.run import Run
from tests.chaos import flow_ledger, points
from tests.chaos import workflows as flows
from tests.chaos.ledger import read_log
from tests.conftest import RunningCluster, wait_until

LEASE = 2
# The longest time from a kill to the end of the run. Other tests take the processors from the short form, so it tells
# only whether a run waited for a look that was planned too late, which takes ten seconds or a minute.
IS_LONG = os.environ.get("CHAOS") == "long"
LIMIT = LEASE + 2.0 if IS_LONG else 9.0
# A run that was committed and not pushed waits for its first look.
UNPUSHED_LIMIT = 12.0 if IS_LONG else 20.0
SCHEMA = "acme_corp"


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

    def order(self, point: str, act: str = "kill") -> None:
        """Have the next process that comes to a point kill itself, or do another one of the acts of `points`."""
        self._orders += 1
        (self.path / "orders" / point / f"{act}-{self._orders:05}").touch()

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


def has_beaten_twice() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(written) FROM public.tenant_q_brokerepoch WHERE cluster = %s", [get_broker().cluster]
        )
        return (cursor.fetchone()[0] or 0) > 1
