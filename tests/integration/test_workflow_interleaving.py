"""Two sessions advance the same runs at once, interleaved at every statement in all orders.

Each step becomes ready once, at most `at_once` items are ready, and a run ends once. Two guards see to that: the lock
on the run's row, and `was`, the state that a step must still have. The last tests take one away and see what breaks.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tenant_q.sql import statement
from tenant_q.tenancy import in_schema
from tenant_q.workflows import advancing, transactions
from tenant_q.workflows.advancing import advance
from tests.integration.conftest import sql
from tests.integration.interleaving import one_by_one, orders

A = "acme_corp"
RUN, STEP = f"{A}.tenant_q_workflows_run", f"{A}.tenant_q_workflows_step"
AT_ONCE = 2


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    one_by_one(monkeypatch)
    monkeypatch.setattr(advancing, "LOCK_MS", 60_000)


@pytest.fixture
def runs(tenants, define):
    """Two runs and what makes their rows anew. One has a step and items that are to be ready; the other is to end."""
    flow = define()
    flow.step(func("source"))
    flow.step(each="source", at_once=AT_ONCE)(func("book"))
    flow.step(after="source")(func("beside"))
    flow.step(after=["book", "beside"])(func("last"))
    with in_schema(A):
        going, ending = flow.start().id, flow.start().id
    sql(f"UPDATE {STEP} SET state = 'succeeded', output = '[1, 2, 3, 4, 5]' WHERE name = 'source' OR run = %s", ending)
    advance({A: [going]})
    sql(f"UPDATE {STEP} SET state = 'succeeded' WHERE run = %s AND name = 'book' AND index = 0", going)
    sql(f"UPDATE {STEP} SET state = 'waiting' WHERE run = %s AND name = 'beside'", going)
    for table in (RUN, STEP):
        sql(f"CREATE TABLE {table}_kept AS TABLE {table}")

    def prepare():
        for table in (RUN, STEP):
            sql(f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {table}_kept")

    yield going, ending, prepare
    for table in (RUN, STEP):
        sql(f"DROP TABLE {table}_kept")


def func(name):
    def step(ctx):
        return None

    step.__name__ = name
    return step


def without(monkeypatch, *guards):
    """Take guards out of the statements: the lock on the run's row, or the state that a step must have."""
    texts = {}
    if "lock" in guards:
        texts["workflow_lock_runs"] = statement("workflow_lock_runs").replace("FOR UPDATE", "")
    if "was" in guards:
        bare = statement("workflow_set_steps").replace("WHERE step.state = wanted.was", "")
        texts["workflow_set_steps"] = bare.replace("AND step.state = wanted.was", "")
    monkeypatch.setattr(transactions, "statement", lambda name: texts.get(name) or statement(name))
    # Not those that are composed already.
    monkeypatch.setattr(transactions, "_text", transactions._text.__wrapped__)


def outcomes(runs, *which, most=0):
    """Advance runs in two sessions. Yields for each order: how often a step became ready at most, how many items are
    ready, and how often a run ended."""
    going, _, prepare = runs
    acts = {name: lambda: advance({A: which}) for name in "AB"}
    for _, results in orders(prepare, acts, most):
        ready = Counter((step.run, step.name, step.index) for one in results.values() for step in one.ready)
        ((items,),) = sql(f"SELECT count(*) FROM {STEP} WHERE run = %s AND state = 'ready' AND index >= 0", going)
        assert not any(one.locked for one in results.values())
        yield max(ready.values(), default=0), items, sum(len(one.ended) for one in results.values())


def test_two_sessions_advance_the_same_runs(runs):
    found = Counter(outcomes(runs, *runs[:2]))
    assert found == {(1, AT_ONCE, 1): found.total()}
    assert found.total() > 50


# The guards


def test_the_state_of_a_step_is_a_guard_without_the_lock_too(runs, monkeypatch):
    without(monkeypatch, "lock")
    found = Counter(outcomes(runs, runs[0], most=50))
    assert found == {(1, AT_ONCE, 0): 50}


def test_without_the_state_a_step_becomes_ready_twice(runs, monkeypatch):
    without(monkeypatch, "lock", "was")
    assert any(times > 1 for times, _, _ in outcomes(runs, runs[0]))


def test_without_the_lock_a_run_ends_twice(runs, monkeypatch):
    without(monkeypatch, "lock")
    assert any(ends > 1 for _, _, ends in outcomes(runs, runs[1]))
