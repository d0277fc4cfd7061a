"""Resume a run: what failed runs again, and what has succeeded stays as it is."""

from __future__ import annotations

import pytest

from tenant_q.exceptions import WorkflowError
from tenant_q.models import AuditRecord
from tenant_q.tenancy import in_schema
from tests.integration.conftest import errors, sql, states, work

A = "acme_corp"
RAN: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def in_tenant(tenants):
    RAN.clear()
    BROKEN.clear()
    yield
    sql("DELETE FROM tenant_q_auditrecord")


def line(flow, names, version="v1"):
    """Six steps in a line, which note that they ran."""
    before = []
    for name in names:

        def step(ctx, name=name):
            RAN.append(f"{name} {version}")
            if name in BROKEN:
                raise ValueError(name)
            return version

        step.__name__ = name
        flow.step(after=before)(step)
        before = [name]
    return flow


def start(flow, worker, input=None):
    run = flow.start(input, schema_name=A)
    work(worker)
    return run.refresh()


def resume(run, worker, *args, **options):
    run.resume(*args, **options)
    work(worker)
    return run.refresh()


def test_a_resumed_run_keeps_its_plan_and_gets_todays_functions(define, worker):
    names = [f"step_{number}" for number in range(1, 7)]
    BROKEN.add("step_3")
    run = start(line(define(), names), worker)
    assert run.state == "failed"
    assert RAN == ["step_1 v1", "step_2 v1", "step_3 v1"]
    version, generation = run.row.version, run.row.generation

    RAN.clear()
    BROKEN.clear()
    line(define(), ["step_6", "new", *names[:5]], version="v2")  # another order, and a step more
    preview = run.preview_resume()
    assert preview == names[2:]
    resume(run, worker)
    expected = [f"{name} v2" for name in preview]  # old plan, new functions
    assert expected == RAN
    assert run.state == "succeeded"
    assert run.error == ""
    assert dict(run.results) == dict.fromkeys(names[:2], "v1") | dict.fromkeys(names[2:], "v2")
    assert (run.row.version, run.row.generation) == (version, generation + 1)


def test_independent_branches_stay(define, worker):
    flow = line(define(), ["a", "b"])
    line(flow, ["x", "y"])
    BROKEN.add("b")
    run = start(flow, worker)
    assert states(run) == {"a": "succeeded", "b": "failed", "x": "succeeded", "y": "succeeded"}
    BROKEN.clear()
    RAN.clear()
    assert run.preview_resume() == ["b"]
    resume(run, worker)
    assert RAN == ["b v1"]


def test_some_steps_run_again_with_all_behind_them(define, worker):
    flow = line(define(), ["a", "b", "c"])
    BROKEN.add("c")
    run = start(flow, worker)
    BROKEN.clear()
    RAN.clear()
    assert run.preview_resume(["b"]) == ["b", "c"]
    resume(run, worker, ["b"], by="Ada")
    assert RAN == ["b v1", "c v1"]
    assert AuditRecord.objects.filter(actor="Ada", act="resume workflow", target=run.id).count() == 1
    with pytest.raises(WorkflowError, match="only a run that has failed"):
        run.resume(["b"])


def test_an_unknown_step(define, worker):
    BROKEN.add("a")
    run = start(line(define(), ["a"]), worker)
    with pytest.raises(WorkflowError, match=r"has no step 'aa': .*'a'"):
        run.resume(["aa"])


def test_of_a_map_only_the_failed_items_run_again(define, worker):
    flow = define()

    @flow.step
    def source(ctx):
        return [0, 1, 2, 3, 4]

    @flow.step(each=source, at_once=2)
    def book(ctx):
        RAN.append((ctx.item, ctx.generation))
        if ctx.item in BROKEN:
            raise ValueError(ctx.item)
        ctx.set(f"item {ctx.item}", ctx.generation)
        return ctx.generation

    @flow.step(after=book)
    def total(ctx):
        return ctx.results["book"]

    BROKEN.update({1, 4})
    run = start(flow, worker)
    assert errors(run)["book"] == "2 items failed: ValueError: 1"
    assert len(RAN) == 5
    BROKEN.clear()
    RAN.clear()
    assert run.preview_resume() == ["book", "total"]
    resume(run, worker)
    assert RAN == [(1, 2), (4, 2)]
    assert run.results["total"] == [1, 2, 1, 1, 2]
    assert run.context == {f"item {item}": 2 if item in (1, 4) else 1 for item in range(5)}


def test_a_map_whose_source_runs_again_gets_new_items(define, worker):
    flow = define()

    @flow.step
    def source(ctx):
        return [ctx.generation] * ctx.generation

    @flow.step(each=source)
    def book(ctx):
        if "book" in BROKEN:
            raise ValueError
        return ctx.item

    BROKEN.add("book")
    run = start(flow, worker)
    BROKEN.clear()
    resume(run, worker, ["source"])
    assert run.results["book"] == [2, 2]


def test_a_map_that_got_no_list_gets_one(define, worker):
    flow = define()

    @flow.step
    def source(ctx):
        return None if BROKEN else [1, 2]

    @flow.step(each=source)
    def book(ctx):
        return ctx.item

    BROKEN.add("source")
    run = start(flow, worker)
    assert states(run) == {"source": "succeeded", "book": "failed"}
    BROKEN.clear()
    assert run.preview_resume(["source"]) == ["source", "book"]
    resume(run, worker, ["source"])
    assert run.results["book"] == [1, 2]


def test_a_skipped_step_counts_as_skipped_when_the_run_is_resumed(define, worker):
    flow = line(define(), ["a", "b"])

    @flow.step(after="b", when="always")
    def last(ctx):
        RAN.append("last")

    BROKEN.update({"a"})
    run = start(flow, worker)
    assert states(run) == {"a": "failed", "b": "skipped", "last": "succeeded"}
    run.skip("a", by="Ada", why="done by hand")
    RAN.clear()
    assert run.preview_resume() == ["b", "last"]
    resume(run, worker)
    assert RAN == ["last"]
    assert run.state == "succeeded"
    assert states(run) == {"a": "skipped", "b": "skipped", "last": "succeeded"}
    assert errors(run)["a"] == "skipped by hand by Ada: done by hand"
    assert AuditRecord.objects.filter(actor="Ada", act="skip workflow step").count() == 1


def test_on_end_runs_again_after_each_end(define, worker):
    flow = line(define(), ["a"])

    @flow.on_end
    def note(ctx):
        RAN.append(f"{ctx.state} in {ctx.generation}")

    BROKEN.add("a")
    run = start(flow, worker)
    assert RAN == ["a v1", "failed in 1"]
    BROKEN.clear()
    resume(run, worker)
    assert RAN[2:] == ["a v1", "succeeded in 2"]


def test_packages_of_the_old_generation_are_dropped(define, worker):
    """A step that was `ready` when the run was cancelled is queued still; after the resume it runs once."""
    flow = line(define(), ["a"])
    with in_schema(A):
        run = flow.start()
    broker = worker.broker
    sealed = broker.fetch("w1").leases
    broker.give_back("w1", sealed)
    run.cancel()
    assert run.refresh().state == "cancelled"
    run.resume()
    broker.enqueue([_again(lease) for lease in sealed])
    work(worker)
    assert RAN == ["a v1"]
    assert run.refresh().state == "succeeded"


def _again(lease):
    from tenant_q.brokers.protocol import Message

    return Message(lease.id, lease.schema, "f", lease.payload)


def test_attempts_begin_anew(define, worker):
    flow = define()

    @flow.step(max_attempts=2, retry_delay=0)
    def only(ctx):
        RAN.append(ctx.attempt)
        if BROKEN:
            raise ValueError

    BROKEN.add("only")
    with in_schema(A):
        run = flow.run_here()
        assert RAN == [1, 2]
        BROKEN.clear()
        run.resume()
    work(worker)
    assert RAN == [1, 2, 1]
    assert run.refresh().state == "succeeded"
