"""What steps get and pass on, and what becomes of a run when they fail, are skipped, or are tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Task

from tenant_q import policies
from tenant_q.exceptions import Retry
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import Context
from tests import tasks
from tests.integration.conftest import errors, make_due, make_runs_due, sql, states, work

A, B = "acme_corp", "globex_inc"
NOW = timezone.now()
CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def in_tenant(tenants):
    CALLS.clear()
    with in_schema(A):
        yield


def fail(ctx):
    raise ValueError("no")


def started(flow, input=None, **options):
    return flow.start(input, schema_name=A, **options)


# Which steps run


@pytest.mark.parametrize(
    ("when", "result"),
    [("all_ok", "skipped"), ("any_ok", "succeeded"), ("any_failed", "succeeded"), ("always", "succeeded")],
)
def test_when(define, when, result):
    flow = define()
    flow.step(fail)

    @flow.step
    def other(ctx):
        return 1

    @flow.step(after=["fail", other], when=when)
    def last(ctx):
        return dict(ctx.results)

    run = flow.run_here()
    assert run.state == "failed"
    assert run.error == "step fail failed: ValueError: no"
    assert states(run)["last"] == result
    assert run.progress == (3, 3)


def test_a_failure_skips_what_depends_on_it_and_nothing_else(define):
    flow = define()
    flow.step(fail)
    for name, after in {"behind": ["fail"], "far": ["behind"], "free": [], "beside": ["free"]}.items():
        flow.step(after=after)(named(name))
    run = flow.run_here()
    assert states(run) == {
        "fail": "failed", "behind": "skipped", "far": "skipped", "free": "succeeded", "beside": "succeeded",
    }  # fmt: skip
    assert errors(run)["behind"] == "fail failed"
    assert errors(run)["far"] == "all steps before it were skipped"


def named(name):
    def func(ctx):
        CALLS.append(name)
        return name

    func.__name__ = name
    return func


def test_a_condition_that_is_false_skips_the_step(define):
    flow = define()
    flow.step(if_=lambda ctx: ctx.input.get("audit"))(named("audit"))
    flow.step(after="audit")(named("behind"))
    flow.step(after="audit", when="always")(named("always"))
    run = flow.run_here({"audit": False})
    assert run.state == "succeeded"
    assert states(run) == {"audit": "skipped", "behind": "skipped", "always": "succeeded"}
    assert errors(run)["audit"] == "its condition is false"
    assert flow.run_here({"audit": True}).results["behind"] == "behind"


def test_a_condition_that_raises_fails_the_step(define):
    flow = define()
    flow.step(if_=lambda ctx: ctx.results["nothing"])(named("only"))
    run = flow.run_here()
    assert states(run) == {"only": "failed"}
    assert "KeyError" in errors(run)["only"]


def test_an_optional_step_may_fail(define):
    flow = define()
    flow.step(optional=True)(fail)
    flow.step(after="fail", when="always")(named("last"))
    run = flow.run_here()
    assert (run.state, run.error) == ("succeeded", "")
    assert states(run) == {"fail": "failed", "last": "succeeded"}


# Items


@pytest.mark.parametrize(("allowed", "state"), [(0, "failed"), (1, "failed"), (2, "succeeded")])
def test_some_items_may_fail(define, allowed, state):
    flow = define()
    flow.step(given)

    @flow.step(each="given", allow_failures=allowed)
    def book(ctx):
        if ctx.item < 2:
            raise ValueError(ctx.item)
        return ctx.item

    @flow.step(after=book)
    def total(ctx):
        return ctx.results["book"]

    run = flow.run_here({"value": [0, 1, 2, 3]})
    assert states(run)["book"] == state
    if state == "succeeded":
        assert run.results["total"] == [None, None, 2, 3]
    else:
        assert errors(run)["book"] == "2 items failed: ValueError: 0"


def given(ctx):
    return ctx.input["value"]


def test_items_of_a_step_that_had_items_itself(define):
    flow = define()
    flow.step(given)

    @flow.step(each="given", at_once=2)
    def double(ctx):
        return None if ctx.item == 2 else [ctx.item, ctx.item]

    @flow.step(each=double, at_once=1)
    def book(ctx):
        return [ctx.index, ctx.item]

    run = flow.run_here({"value": [1, 2, 3]})
    assert run.results["book"] == [[0, [1, 1]], [1, None], [2, [3, 3]]]
    assert flow.run_here({"value": []}).results["book"] == []


@pytest.mark.parametrize(
    "key", ["a.b", 'a"b', "a'b", "a\\b", "a,b", "{a}", "", " ", "NULL", "ä", "%s", "0", "a\nb", '"', "\\"]
)
def test_the_items_are_found_under_any_key(define, key):
    flow = define()

    @flow.step
    def fetch(ctx):
        return {"x": {key: [key, {"deep": [None]}]}}

    @flow.step(each=(fetch, "x", key))
    def book(ctx):
        return ctx.item

    assert flow.run_here().results["book"] == [key, {"deep": [None]}]


def test_keys_lead_into_the_outputs_of_items(define):
    flow = define()
    flow.step(given)
    flow.step(each="given")(double)
    flow.step(each=("double", 1))(named("book"))
    assert len(flow.run_here({"value": [1, 2]}).results["book"]) == 2
    assert errors(flow.run_here({"value": [1]}))["book"] == "ItemsRefused: double.1 is missing; return a list there."


def double(ctx):
    return [ctx.item, ctx.item]


def test_an_item_of_a_list_is_found_by_its_number(define):
    flow = define()
    flow.step(given)
    flow.step(each=("given", 1))(named("book"))
    assert len(flow.run_here({"value": [[1], [2, 3]]}).results["book"]) == 2


def test_no_more_items_than_allowed_are_ready_at_once(define, worker):
    flow = define()
    flow.step(given)
    seen = []

    @flow.step(each="given", at_once=3)
    def book(ctx):
        seen.append(count_ready(ctx.run_id))

    run = started(flow, {"value": list(range(10))})
    work(worker)
    assert run.refresh().state == "succeeded"
    assert len(seen) == 10
    assert max(seen) == 3


def count_ready(run):
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {A}.tenant_q_workflows_step WHERE run = %s AND state = 'ready' AND index >= 0", [run]
        )
        return cursor.fetchone()[0]


# Context


@pytest.mark.parametrize("order", ["one", "two"])
def test_the_context_does_not_depend_on_who_ends_first(define, worker, order):
    flow = define()
    for name in ("one", "two"):

        def writer(ctx, name=name):
            CALLS.append(name)
            ctx.set("last", name)
            ctx.set(name, True)

        writer.__name__ = name
        flow.step(priority=1 if name == order else 0)(writer)

    @flow.step(after=["two", "one"])
    def reader(ctx):
        return ctx.get("last"), ctx.get("input"), ctx.get("none", 3)

    run = started(flow, {"input": 1, "last": "input"})
    work(worker)
    assert run.refresh().context == {"input": 1, "last": "two", "one": True, "two": True}
    assert run.results["reader"] == ["two", 1, 3]


def test_a_step_has_the_context_of_those_it_depends_on_only(define):
    flow = define()

    @flow.step
    def one(ctx):
        ctx.set("seen", 1)
        return ctx.get("seen")

    @flow.step
    def stranger(ctx):
        return ctx.get("seen")

    @flow.step(after=one)
    def behind(ctx):
        return ctx.get("seen")

    assert dict(flow.run_here().results) == {"one": 1, "stranger": None, "behind": 1}


def test_what_items_set_is_in_their_order(define):
    flow = define()
    flow.step(given)

    @flow.step(each="given")
    def book(ctx):
        ctx.set("last", ctx.item)

    assert flow.run_here({"value": [3, 1, 2]}).context["last"] == 2


def test_nothing_is_set_by_an_attempt_that_failed(define):
    flow = define()

    @flow.step(max_attempts=2, retry_delay=0)
    def only(ctx):
        if ctx.attempt == 1:
            ctx.set("first", True)
            raise ValueError
        ctx.set("second", True)

    assert flow.run_here().context == {"second": True}


def test_what_a_context_has(define, worker):
    flow = define()

    @flow.step
    def only(ctx):
        CALLS.append(ctx.idempotency_key)
        return [
            ctx.tenant,
            ctx.step,
            ctx.attempt,
            ctx.generation,
            ctx.item,
            ctx.index,
            ctx.run_id,
            ctx.config.limits.get("x"),
        ]

    policies.configure(A, actor="t", limits={"x": 5})
    run = started(flow)
    policies.configure(A, actor="t", limits={"x": 6})
    work(worker)
    assert run.refresh().results["only"] == [A, "only", 1, 1, None, None, run.id, 5]
    policies.configure(A, actor="t", limits={"x": None})


def test_a_step_is_a_function_that_can_be_called():
    assert given(Context.of(input={"value": 3})) == 3


# Attempts


def test_a_step_is_tried_again_as_its_options_say(define, worker):
    flow = define()

    @flow.step(max_attempts=5, retry_delay=0, retry_on=ValueError)
    def only(ctx):
        CALLS.append(f"{ctx.attempt} {ctx.idempotency_key}")
        if ctx.attempt < 3:
            raise ValueError
        raise KeyError("k")

    run = started(flow)
    while work(worker) or run.refresh().state == "running":
        make_due()
    assert [call.split()[0] for call in CALLS] == ["1", "2", "3"]
    assert len({call.split()[1] for call in CALLS}) == 1
    assert errors(run) == {"only": "KeyError: 'k'"}
    with in_schema(A):
        (row,) = Task.objects.all()
    assert not row.success
    assert row.id == run.steps[0].task_id


def test_a_step_asks_for_another_attempt(define, worker):
    flow = define()

    @flow.step(max_attempts=2, retry_on=KeyError)
    def only(ctx):
        if ctx.attempt == 1:
            raise Retry("not yet", delay=3600)
        return ctx.attempt

    run = started(flow)
    work(worker)
    step = run.refresh().steps[0]
    assert (step.state, step.attempts, step.error) == ("ready", 1, "Retry: not yet")
    assert step.wake_at is not None
    make_due()
    work(worker)  # it comes too early, says the row
    assert states(run) == {"only": "ready"}
    wake(run)
    make_due()
    work(worker)
    assert run.refresh().results["only"] == 2


def wake(run):
    sql(f"UPDATE {A}.tenant_q_workflows_step SET wake_at = now() WHERE run = %s", run.id)


def test_attempts_and_the_delay_outlive_the_package(define, worker, scheduler):
    flow = define()

    @flow.step(max_attempts=2, retry_delay=3600)
    def only(ctx):
        CALLS.append(ctx.attempt)
        raise ValueError

    run = started(flow)
    work(worker)
    for key in tasks.client().scan_iter(f"{{tq:{worker.broker.cluster}}}:*"):
        tasks.client().delete(key)
    make_runs_due()
    scheduler.tick()
    work(worker)
    assert CALLS == [1]
    assert worker.broker.counts().delayed == 1
    wake(run)
    make_due()
    work(worker)
    assert CALLS == [1, 2]
    assert run.refresh().state == "failed"


def test_a_transactional_step_leaves_nothing_when_it_fails(define, worker):
    flow = define()

    @flow.step(transactional=True, max_attempts=2, retry_delay=0)
    def only(ctx):
        Task.objects.create(id=f"{ctx.attempt}" * 32, name="n", func="f", started=NOW, stopped=NOW)
        if ctx.attempt == 1:
            raise ValueError
        return ctx.attempt

    run = started(flow)
    while work(worker) or run.refresh().state == "running":
        make_due()
    assert run.state == "succeeded"
    with in_schema(A):
        assert [row.id for row in Task.objects.all()] == ["2" * 32]


def test_a_step_may_be_a_coroutine(define, worker):
    flow = define()

    @flow.step
    async def only(ctx):
        await asyncio.sleep(0)
        return ctx.tenant

    run = started(flow)
    work(worker)
    assert run.refresh().results["only"] == A


def test_a_step_knows_its_task(define, worker):
    flow = define()

    @flow.step(timeout=60, max_attempts=3)
    def only(ctx):
        task = QUtilities.current_task()
        return [
            task.schema,
            task.attempt,
            task.is_last_attempt,
            task.group == ctx.run_id,
            task.id == ctx.idempotency_key,
        ]

    run = started(flow)
    work(worker)
    assert run.refresh().results["only"] == [A, 1, False, True, True]


# The end


@pytest.mark.parametrize("is_bad", [False, True])
def test_on_end_runs_last_and_its_failure_changes_nothing(define, worker, is_bad):
    flow = define()
    flow.step(named("only")) if not is_bad else flow.step(fail)

    @flow.on_end
    def note(ctx):
        CALLS.append(f"{ctx.state}: {ctx.error}")
        raise KeyError("k")

    run = started(flow)
    work(worker)
    assert CALLS[-1:] == ["failed: step fail failed: ValueError: no" if is_bad else "succeeded: "]
    assert run.refresh().state == ("failed" if is_bad else "succeeded")
    assert "KeyError" not in run.error
    assert run.has_ended
    assert states(run)["on_end"] == "failed"
    with in_schema(A):
        assert Task.objects.filter(func__endswith="on_end").count() == 1


def test_wait_returns_after_on_end(define, worker):
    flow = define()
    flow.step(named("only"))

    @flow.on_end
    def note(ctx):
        run = flow.runs()[0]
        CALLS.append((run.state, run.has_ended, run.wait(0)))

    run = started(flow)
    assert not run.wait(0)
    work(worker)
    assert CALLS[-1] == ("succeeded", False, False)
    assert run.wait(0)


def test_a_step_of_code_that_is_gone_fails_and_can_be_resumed(define, worker):
    flow = define()
    flow.step(named("first"))
    flow.step(after="first")(named("second"))
    run = started(flow)
    lacking = define()
    lacking.step(named("first"))
    for _ in range(15):
        work(worker)
        make_due()
    assert states(run) == {"first": "succeeded", "second": "failed"}
    assert "UnknownFunction: The code of this worker has no step 'second' of workflow" in errors(run)["second"]
    lacking.step(after="first")(named("second"))
    run.resume()
    work(worker)
    assert run.refresh().state == "succeeded"


# Tenants


def test_tenants_with_the_same_key_at_the_same_time(define, worker):
    flow = define()

    @flow.step
    def one(ctx):
        return [ctx.tenant, connection.tenant.schema_name, connection.schema_name, ctx.input["value"]]

    @flow.step(after=one)
    def two(ctx):
        ctx.set("from", ctx.tenant)
        return ctx.results["one"]

    runs = {name: flow.start({"value": name}, key="k", schema_name=name) for name in (A, B)}
    work(worker)
    for name, run in runs.items():
        assert run.refresh().results["two"] == [name] * 4
        assert run.context == {"value": name, "from": name}
