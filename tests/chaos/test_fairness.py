"""How tenants share the workers. Figures are printed; what is asserted are counts and states.

`CHAOS=long` runs the full sizes.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import connection

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol.limits import BATCH_LIMIT
from tenant_q.lifecycle import push, submit
from tenant_q.operations import workflow_runs
from tenant_q.package.build import build
from tenant_q.workflows.run import Run
from tests import schemas
from tests.conftest import RunningCluster, wait_until
from tests.flows.workflows import diamond

IS_LONG = os.environ.get("CHAOS") == "long"
SLEEP = "time.sleep"
only_long = pytest.mark.skipif(not IS_LONG, reason="only with CHAOS=long")
KEEP_ALL = {"TEST_Q_CLUSTER": '{"save_limit": 0, "recycle": 1000000}'}


@pytest.fixture
def crowd(tenants) -> Iterator[Callable[[int], list[str]]]:
    """So many tenants, without rows and policies."""
    made: list[str] = []

    def make(count: int) -> list[str]:
        made.extend(f"crowd_{n:02}" for n in range(count))
        schemas.clone_tenants(made)
        return list(made)

    yield make
    get_broker().purge()
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE tenant_q_tenantpolicy, tenant_q_auditrecord")
    for name in made:
        schemas.drop_tenant(name)


def fill(schema: str, count: int, seconds: float) -> None:
    """Queue tasks of that length."""
    push.push([build(SLEEP, (seconds,), {}, schema=schema) for _ in range(count)])


def rows(names: Sequence[str]) -> list[tuple[str, str, float, float]]:
    """What has run: tenant, id, start and stop in seconds since the epoch."""
    columns = "id, extract(epoch FROM started)::float8, extract(epoch FROM stopped)::float8"
    query = " UNION ALL ".join(f"SELECT '{name}', {columns} FROM {name}.django_q_task WHERE success" for name in names)
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def in_words(waits: Sequence[float]) -> str:
    p50, p99 = statistics.median(waits), percentile(waits, 0.99)
    return f"p50 {p50 * 1000:6.0f} ms, p99 {p99 * 1000:6.0f} ms, of {len(waits)}"


# A noisy tenant


def waits_of(names: Sequence[str], count: int) -> list[float]:
    """Enqueue now and then for one of these tenants. Returns how long each task waited until it began."""
    sent = {}
    for _ in range(count):
        id = uuid.uuid4().hex
        sent[id] = time.time()
        submit.submit(SLEEP, (0.001,), {}, schema=random.choice(names), id=id)
        time.sleep(random.uniform(0, 0.04))  # the load, not a wait for something
    begun = {}

    def all_have_run() -> bool:
        begun.update({id: start for _, id, start, _ in rows(names)})
        return sent.keys() <= begun.keys()

    wait_until(all_have_run, 60, "every quiet task to be done")
    return [begun[id] - at for id, at in sent.items()]


def test_a_noisy_tenant_delays_no_quiet_one(crowd, mscluster):
    quiet_tenants, noisy_tasks, samples = (50, 20_000, 600) if IS_LONG else (10, 5_000, 40)
    noisy, *quiet = crowd(quiet_tenants + 1)
    mscluster("--workers", "2", **KEEP_ALL)
    waits_of(quiet, samples // 4)  # its run time is known then
    alone = waits_of(quiet, samples)
    fill(noisy, noisy_tasks, 0.005)
    wait_until(lambda: rows([noisy]), what="the noisy tenant to be served")
    beside = waits_of(quiet, samples)
    assert get_broker().queue_size(noisy) > 0, "the quiet tenants waited for the noisy one"
    limit = 2 * percentile(alone, 0.99) + 0.1
    print(f"\nwait of {quiet_tenants} quiet tenants: {in_words(alone)}")
    print(f"beside {noisy_tasks:,} noisy tasks: {in_words(beside)}; aim: p99 at most {limit * 1000:.0f} ms")


# Many due at one moment


def fill_for(due: float, schema: str, count: int, seconds: float) -> list[str]:
    """Queue tasks of that length for one moment, in seconds since the epoch. Returns their ids."""
    ids = []
    for first in range(0, count, 500):
        options = {"q_options": {"delay": max(0.0, due - time.time())}}
        packages = [build(SLEEP, (seconds,), options, schema=schema) for _ in range(min(500, count - first))]
        push.push(packages)
        ids += [package.id for package in packages]
    return ids


def waits_when_due(noisy: str, quiet: Sequence[str], count: int) -> list[float]:
    """Have a tenant's tasks and one of each of the others become due. Returns how long the others waited."""
    due = time.time() + 1.0 + count / 2_000  # all are enqueued by then
    fill_for(due, noisy, count, 0.001)
    sent = {name: fill_for(due + 0.01, name, 1, 0.001)[0] for name in quiet}
    begun: dict[str, float] = {}

    def all_have_run() -> bool:
        begun.update({id: start for _, id, start, _ in rows(quiet)})
        return begun.keys() >= {*sent.values()}

    wait_until(all_have_run, 120, "the quiet tenants' tasks to be done")
    return [begun[id] - due - 0.01 for id in sent.values()]


def test_many_due_at_one_moment_delay_no_other_tenants_one(crowd, mscluster):
    noisy, *quiet = crowd(11)
    mscluster("--workers", "2", **KEEP_ALL)
    waits_of([noisy, *quiet], 60)  # its run time is known then
    alone = waits_when_due(noisy, quiet, 0)
    count = 100_000 if IS_LONG else 10_000
    beside = waits_when_due(noisy, quiet, count)
    counts = get_broker().counts()
    assert counts.delayed + counts.queued > 0, "the quiet tenants' tasks ran before the last of the noisy one's"
    limit = 2 * max(alone) + 0.1
    print(f"\nwait of a due task of 10 quiet tenants: {in_words(alone)}")
    print(f"beside {count:,} due at one moment: {in_words(beside)}; aim: at most {limit * 1000:.0f} ms")


# Workflows

LEVELS = 3
# What the workers may start between two levels of a run of another tenant: what they have leased, and one batch more.
STARTED_BETWEEN = BATCH_LIMIT


def flow_seconds(run: Run) -> float:
    row = run.refresh().row
    return float((row.ended - row.created).total_seconds())


def ended_runs(schema: str, count: int) -> list[Run]:
    """Start diamonds one after another, each when the one before has ended."""
    runs = []
    for _ in range(count):
        runs.append(diamond.start({"seconds": 0.002}, schema_name=schema))
        assert runs[-1].wait(60_000) is not None
    return runs


def started_between(other: str, schema: str, runs: Sequence[Run]) -> list[int]:
    """The most steps of the other tenant that were started while a step of a run was ready: one number for each run."""
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT max((
                SELECT count(*) FROM {other}.tenant_q_workflows_step AS theirs
                WHERE theirs.started > step.ready_at AND theirs.started < step.started
            )) FROM {schema}.tenant_q_workflows_step AS step WHERE run = ANY (%s) GROUP BY run""",
            [[run.id for run in runs]],
        )
        return [count for (count,) in cursor.fetchall()]


def test_a_tenant_that_starts_many_runs_delays_no_other_ones_run(crowd, mscluster):
    count, samples = (5_000, 60) if IS_LONG else (600, 5)
    noisy, quiet = crowd(2)
    mscluster("--workers", "2", **KEEP_ALL)
    for name in (noisy, quiet):
        ended_runs(name, 10)  # its run time is known then
    calm = ended_runs(quiet, samples)
    policies.change(noisy, actor="test", act="pause", paused=True)  # all are started before the first of them runs
    for _ in range(count):
        diamond.start({"seconds": 0.002}, schema_name=noisy)
    policies.change(noisy, actor="test", act="resume", paused=False)
    beside = ended_runs(quiet, samples)
    assert workflow_runs.count_runs()[noisy].of("running") > count // 10, "the quiet run waited for the noisy ones"
    between = started_between(noisy, quiet, beside)
    before, now = ([flow_seconds(run) for run in runs] for runs in (calm, beside))
    limit = 2 * percentile(before, 0.99) + 0.12 * LEVELS
    print(f"\na run of {LEVELS} levels, calm: {in_words(before)}")
    print(f"beside {count:,} runs of another tenant: {in_words(now)}; aim: p99 at most {limit * 1000:.0f} ms")
    print(f"steps of the other tenant between two levels: {statistics.median(between):.0f}, at most {max(between)}")
    assert len(between) == samples
    assert max(between) <= STARTED_BETWEEN
    assert percentile(now, 0.99) <= limit or not IS_LONG


# Shares


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def shares_while_busy(
    names: Sequence[str], enough: Callable[[int, float], bool], act: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    """The worker-seconds of each tenant, from when all were served once until `enough(rows, seconds)`.

    `act` is called again and again meanwhile. All tenants must still have work at the end.
    """
    wait_until(lambda: {row[0] for row in rows(names)} == set(names), 60, "every tenant to be served")
    begun = time.time()

    def is_enough() -> bool:
        act()
        return enough(sum(start >= begun for _, _, start, _ in rows(names)), time.time() - begun)

    wait_until(is_enough, 120, "enough tasks to be done")
    assert all(get_broker().queue_size(name) for name in names), "all must be busy to be compared"
    used = dict.fromkeys(names, 0.0)
    for name, _, start, stop in rows(names):
        if start >= begun:
            used[name] += stop - start
    return used


def kill_now_and_then(cluster: RunningCluster, every: float, most: int) -> Callable[[], None]:
    """Returns what kills a worker when it is time to."""
    at, killed = time.monotonic(), 0

    def act() -> None:
        nonlocal at, killed
        if killed >= most or time.monotonic() < at:
            return
        pids = cluster.pids("worker")
        if pids:
            try:
                os.kill(random.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                return
            at, killed = time.monotonic() + every, killed + 1

    return act


@pytest.mark.parametrize(("workers", "kills"), [(1, False), pytest.param(4, False, marks=only_long), (4, True)])
def test_worker_seconds_are_shared_equally(crowd, mscluster, workers, kills):
    """Twenty busy tenants, half of them with tasks ten times as long."""
    names = crowd(20)
    size = 10 if IS_LONG else 1
    for number, name in enumerate(names):
        fill(name, 400 * size if number % 2 else 100 * size, 0.002 if number % 2 else 0.02)
    cluster = mscluster("--workers", str(workers), **KEEP_ALL)
    act = kill_now_and_then(cluster, 0.5, 20 if IS_LONG else 2) if kills else lambda: None

    def enough(done: int, seconds: float) -> bool:
        return seconds >= 20 if IS_LONG else done >= 400

    shares = shares_while_busy(names, enough, act)
    ways = "with SIGKILLs" if kills else "undisturbed"
    print(f"\nJain's index of 20 tenants, lengths 10 : 1, {workers} workers, {ways}: {jain(list(shares.values())):.4f}")
    print(f"worker-seconds: least {min(shares.values()):.2f}, most {max(shares.values()):.2f}; aim: index 0.99")
    # In the short form one run that a busy machine holds up may cost its tenant all the turns that are counted.
    assert all(shares.values()) or not IS_LONG, "each had its part"


def test_weights_share_worker_seconds(crowd, mscluster):
    names = crowd(3)
    weights = dict(zip(names, (1, 2, 4), strict=True))
    for name, weight in weights.items():
        policies.change(name, actor="test", act="limit", weight=weight)
        fill(name, 10_000 if IS_LONG else 1_500, 0.005)
    mscluster("--workers", "2", **KEEP_ALL)
    shares = shares_while_busy(names, lambda done, seconds: seconds >= 20 if IS_LONG else done >= 500)
    ratios = [shares[name] / shares[names[0]] for name in names]
    print(f"\nworker-seconds of weights 1 : 2 : 4 are as {' : '.join(f'{ratio:.2f}' for ratio in ratios)}")
    assert ratios == sorted(ratios)


def test_a_cap_of_one_is_never_exceeded(crowd, mscluster):
    capped, other = crowd(2)
    count = 2_000 if IS_LONG else 200
    policies.change(capped, actor="test", act="limit", max_running=1)
    for name in (capped, other):
        fill(name, count, 0.005)
    mscluster("--workers", "4", **KEEP_ALL)
    wait_until(lambda: get_broker().counts().open == 0, 60, "everything to be done")
    spans = sorted((start, stop) for name, _, start, stop in rows([capped]))
    assert len(spans) == count
    overlaps = [pair for pair in itertools.pairwise(spans) if pair[0][1] > pair[1][0]]
    assert not overlaps
