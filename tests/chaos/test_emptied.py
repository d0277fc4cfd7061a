"""Redis is emptied while many runs are open: the scheduler notices it by the epoch, and drives all of them again.

No look at a run is due meanwhile, so nothing else does.
"""

from __future__ import annotations

import time

import pytest
from django.db import connection

from tenant_q.workflows.run import Run
from tenant_q.workflows.step_packages import package_id
from tests import tasks
from tests.chaos import flow_ledger
from tests.chaos.field import IS_LONG, SCHEMA, Field, has_beaten_twice, start
from tests.chaos.ledger import read_log
from tests.conftest import wait_until

RUNS = 500 if IS_LONG else 50
# The longest time until the first run is driven again, and from the start of a cluster until all are.
FIRST_LIMIT = 5.0 if IS_LONG else 15.0
START_LIMIT = 60.0

pytestmark = pytest.mark.seam


def no_look_is_due() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {SCHEMA}.tenant_q_workflows_run SET look_at = now() + interval '1 hour'")


def has_ended(runs: list[Run]) -> bool:
    with connection.cursor() as cursor:
        ids = [run.id for run in runs]
        cursor.execute(
            f"SELECT count(*) FROM {SCHEMA}.tenant_q_workflows_run WHERE id = ANY (%s) AND ended IS NOT NULL", [ids]
        )
        return bool(cursor.fetchone()[0] == len(runs))


def not_begun() -> set[str]:
    """The packages of the runs that no worker has begun to run."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT run FROM {SCHEMA}.tenant_q_workflows_step WHERE name = 'first' AND state = 'ready'")
        found = {package_id(SCHEMA, run, "first", -1, 1) for (run,) in cursor.fetchall()}
    assert found
    return found


def driven_again(battle: Field, waiting: set[str], since: float) -> tuple[float, float]:
    """Wait until these packages, which Redis lost, are driven again.

    Returns the seconds until the first and until the last of them was.
    """
    claimed: dict[str, float] = {}

    def are_claimed() -> bool:
        for line in read_log(battle.path, "claim"):
            if line.at > since:
                claimed.update((id, line.at) for id in line.words if id in waiting and id not in claimed)
        return claimed.keys() == waiting

    wait_until(are_claimed, 120, "all runs to be driven again")
    return min(claimed.values()) - since, max(claimed.values()) - since


def check(runs: list[Run]) -> None:
    wait_until(lambda: has_ended(runs), 240, "all runs to end")
    found = flow_ledger.effects([SCHEMA])
    problems = [text for run in runs for text in flow_ledger.problems_of(run.id, found.get((SCHEMA, run.id), {}))]
    assert not problems, problems[:20]


def test_redis_is_emptied_under_a_running_cluster(battle):
    key = battle.cluster().name
    runs = [start(hold=key) for _ in range(RUNS)]
    wait_until(lambda: len(tasks.notes(key)) == 2, what="both workers to be held")
    wait_until(has_beaten_twice, what="the broker to hold an epoch")
    no_look_is_due()
    waiting = not_begun()
    tasks.client().flushall()
    emptied = time.time()
    tasks.let_go(key)
    first, last = driven_again(battle, waiting, emptied)
    check(runs)
    print(f"\n{RUNS} open runs: the first was driven again after {first:.2f} s, the last after {last:.1f} s")
    assert first < FIRST_LIMIT


def test_redis_is_emptied_while_no_cluster_runs(battle):
    cluster = battle.cluster()
    held = start(hold=cluster.name)
    wait_until(has_beaten_twice, what="the broker to hold an epoch")
    tasks.let_go(cluster.name)
    assert held.wait(30_000)
    assert cluster.stop() == 0
    runs = [start() for _ in range(RUNS)]
    no_look_is_due()
    waiting = not_begun()
    tasks.client().flushall()
    begun = time.time()
    battle.cluster()
    first, last = driven_again(battle, waiting, begun)
    check(runs)
    print(f"\n{RUNS} open runs: the first was driven {first:.2f} s after the start, the last {last:.1f} s after it")
    assert last < START_LIMIT
