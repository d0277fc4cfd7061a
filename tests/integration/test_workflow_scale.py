"""Wide workflows: many items, many steps before one. What one `advance` reads does not grow with them.

The long form has 10,000 items, 50 at once, and a fan-in of 1,000; the short form has fewer. Counts decide.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection

from tenant_q.cluster.worker import Worker
from tenant_q.workflows.advancing import advance
from tests.integration.conftest import know_as_short, sql, work

IS_LONG = os.environ.get("CHAOS") == "long"
ITEMS, AT_ONCE, FAN_IN = (10_000, 50, 1000) if IS_LONG else (300, 50, 50)
A = "acme_corp"
STEP = f"{A}.tenant_q_workflows_step"


@pytest.fixture
def lasting(settings: Any, make_worker: Callable[..., Worker]) -> Worker:
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"recycle": 10 * ITEMS}
    return make_worker()


@pytest.fixture
def wide(define):
    flow = define()

    @flow.step
    def source(ctx):
        return list(range(ctx.input["count"]))

    @flow.step(each=source, at_once=AT_ONCE)
    def book(ctx):
        return ctx.item

    @flow.step(after=book)
    def total(ctx):
        return sum(ctx.results["book"])

    know_as_short(f"tenant_q.workflows.step.{flow.path}.book", A)
    return flow


def count_ready(run: str) -> int:
    return int(sql(f"SELECT count(*) FROM {STEP} WHERE run = %s AND index >= 0 AND state = 'ready'", run)[0][0])


def test_a_map_of_many_items(wide, lasting):
    run = wide.start({"count": ITEMS}, schema_name=A)
    most, begun, peaks = 0, time.monotonic(), []
    tracemalloc.start()
    while lasting.tick() or lasting.broker.counts().queued or lasting.has_unfinished():
        most = max(most, count_ready(run.id))
        peaks.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    seconds = time.monotonic() - begun
    print(f"\n{ITEMS} items, {AT_ONCE} at once: {seconds:.1f} s, {most} ready at most", end="")
    assert run.refresh().state == "succeeded"
    assert run.results["total"] == sum(range(ITEMS))
    assert most <= AT_ONCE
    assert peaks[-1] < peaks[len(peaks) // 3] + 4 * 1024 * 1024, "memory does not grow with the items"


def test_a_step_after_many_others(define, lasting):
    flow = define()
    names = [f"step_{number}" for number in range(FAN_IN - 1)]
    for name in names:

        def step(ctx):
            return 1

        step.__name__ = name
        flow.step(step)
        know_as_short(f"tenant_q.workflows.step.{flow.path}.{name}", A)

    @flow.step(after=names)
    def total(ctx):
        return sum(ctx.results[name] for name in names)

    run, begun = flow.start(schema_name=A), time.monotonic()
    work(lasting)
    print(f"\na fan-in of {FAN_IN}: {time.monotonic() - begun:.1f} s", end="")
    assert run.refresh().results["total"] == FAN_IN - 1


def read_by(act: Callable[[], Any]) -> int:
    """How many rows and index entries of the steps PostgreSQL reads meanwhile, as its own counters say."""

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
        return int(
            sql(
                "SELECT coalesce(sum(seq_tup_read), 0) + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes "
                f"WHERE relid = '{STEP}'::regclass) FROM pg_stat_user_tables WHERE relid = '{STEP}'::regclass"
            )[0][0]
        )

    before = count()
    act()
    return count() - before


def test_one_advance_reads_as_much_however_many_items_there_are(tenants, wide):
    found = {}
    for count in (500, 2000, 8000):
        run = wide.start({"count": count}, schema_name=A)
        items = json.dumps(list(range(count)))
        sql(f"UPDATE {STEP} SET state = 'succeeded', output = %s WHERE run = %s AND name = 'source'", items, run.id)
        advance({A: [run.id]})
        sql(f"UPDATE {STEP} SET state = 'succeeded', output = '1' WHERE run = %s AND index = 0", run.id)
        sql(f"ANALYZE {STEP}")
        found[count] = read_by(partial(advance, {A: [run.id]}))
        assert count_ready(run.id) == AT_ONCE
        sql(f"DELETE FROM {STEP}")
    print(f"\nrows read by items: {found}", end="")
    assert max(found.values()) <= 6 * AT_ONCE
