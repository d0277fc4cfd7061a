"""Bad input and limits: each has an error that names the thing and the way out, and leaves no run behind."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection, connections, transaction

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.exceptions import ConfigurationError, NoTenant, QueueFull
from tenant_q.models import TenantConfiguration, TenantPolicy
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import KeyReused, Run, Workflow, WorkflowError
from tests import schemas
from tests.integration.conftest import errors, sql, states, work

A, B = "acme_corp", "globex_inc"


@pytest.fixture(autouse=True)
def in_tenant(tenants):
    with in_schema(A):
        yield
    connection.set_schema_to_public()
    TenantConfiguration.objects.all().delete()
    TenantPolicy.objects.all().delete()
    tenancy.forget_tenants()


@pytest.fixture
def flow(define) -> Workflow:
    """A workflow with one step."""
    found = define()

    @found.step
    def only(ctx):
        return ctx.input.get("value")

    return found


def count_rows(schema: str = A) -> tuple[int, int]:
    ((runs,),) = sql(f"SELECT count(*) FROM {schema}.tenant_q_workflows_run")
    ((steps,),) = sql(f"SELECT count(*) FROM {schema}.tenant_q_workflows_step")
    return runs, steps


# The graph


def a_circle(flow):
    flow.step(after="two")(_named("one"))
    flow.step(after="one")(_named("two"))


def an_unknown_step(flow):
    flow.step(_named("fetch"))
    flow.step(after="fetsh")(_named("book"))


def a_foreign_function(flow):
    flow.step(after=len)(_named("book"))


def no_step(flow):
    pass


def too_many_steps(flow):
    for place in range(1001):
        flow.step(_named(f"step_{place}"))


def items_of_no_dependency(flow):
    flow.step(_named("fetch"))
    flow.step(_named("other"))
    flow.step(each="fetch", after="other")(_named("book"))


def _named(name):
    def func(ctx):
        return None

    func.__name__ = name
    return func


GRAPHS = [
    (a_circle, "circle: (one -> two -> one|two -> one -> two)"),
    (an_unknown_step, r"Step 'book' .* depends on 'fetsh', .* 'fetch'"),
    (a_foreign_function, r"Step 'book' .* depends on 'len', which is no step of it"),
    (no_step, "has 0 steps; it must have 1 to 1000"),
    (too_many_steps, "has 1001 steps; it must have 1 to 1000"),
    (items_of_no_dependency, r"Step 'book' .* takes its items from 'fetch', which is not among .* 'after'"),
]


@pytest.mark.parametrize(("graph", "text"), GRAPHS, ids=[graph.__name__ for graph, _ in GRAPHS])
def test_a_wrong_graph_is_named_at_first_use_and_by_the_check(define, graph, text):
    flow = define()
    graph(flow)
    with pytest.raises(WorkflowError, match=text):
        flow.start()
    assert count_rows() == (0, 0)
    with pytest.raises(SystemCheckError, match=text):
        call_command("check")


def test_two_steps_of_one_name_are_refused_at_the_second(flow):
    with pytest.raises(WorkflowError, match="has two steps named 'only'; rename one"):
        flow.step(_named("only"))
    with pytest.raises(WorkflowError, match="has two steps named 'on_end'"):
        flow.step(_named("on_end"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tiemout": 3}, r"step 'new' .* unknown option 'tiemout': .* 'timeout'"),
        ({"cluster": "long"}, "option 'cluster'; all steps of a run go to the cluster of the run"),
        ({"when": "all_okay"}, r"'when' of step 'new' .*'all_ok'"),
        ({"if_": "yes"}, "'if_' of step 'new' .* must be a function"),
        ({"at_once": 3}, "'at_once' of step 'new' .* needs 'each'"),
        ({"each": "only", "at_once": 0}, "'at_once' of step 'new' .* from 1 to 10000"),
        ({"each": "only", "allow_failures": -1}, "'allow_failures' of step 'new' .* from 0 to 10000"),
        ({"max_attempts": "many"}, "'max_attempts' of step 'new'"),
        ({"retry_on": 17}, "'retry_on' of step 'new'"),
    ],
)
def test_a_wrong_option_of_a_step(flow, options, text):
    with pytest.raises(WorkflowError, match=text):
        flow.step(**options)(_named("new"))


# The call


def test_an_unknown_workflow_has_the_nearest_name(flow):
    with pytest.raises(WorkflowError, match=r"There is no workflow 'tests.integration.conftest.flwo': .*conftest.flow"):
        QUtilities.start_workflow("tests.integration.conftest.flwo", {})
    with pytest.raises(WorkflowError, match="has no workflow run 'nothing'"):
        QUtilities.get_workflow("nothing")


@pytest.mark.parametrize(
    ("input", "text"),
    [
        ([1], "must be a dict"),
        ({}, "lacks the key 'customer'"),
        ({"customer": "17"}, r"has 'customer': '17' .str.; it must be int"),
        ({"customer": True}, "has 'customer': True .bool.; it must be int"),
        ({"customer": 17, "note": 1}, "has 'note': 1 .int.; it must be str or NoneType"),
        ({"customer": 17, "custmer": 18}, r"unknown key 'custmer': .* 'customer'"),
        ({"customer": 17, "note": "a\0b"}, r"cannot be kept: the value at \$\.note .* zero character"),
        ({"customer": 17, "note": "x" * (1024 * 1024)}, r"takes \d+ bytes as JSON, and at most 1048576"),
    ],
)
def test_a_wrong_input(define, input, text):
    flow = define(input={"customer": int, "note": (str, type(None))})
    flow.step(_named("only"))
    with pytest.raises(WorkflowError, match=text):
        flow.start(input)
    assert count_rows() == (0, 0)


def test_without_declared_input_any_keys_are_taken(flow):
    assert flow.run_here({"value": [1.5, None, {"ü": "x"}]}).results["only"] == [1.5, None, {"ü": "x"}]
    with pytest.raises(WorkflowError, match=r"the value at \$ has the key 1, which is no text"):
        flow.start({1: 2})


@pytest.mark.parametrize("key", ["", "x" * 501, 17, "a\0b", "\ud800"])
def test_a_wrong_key(flow, key):
    with pytest.raises(WorkflowError, match="The key of a run of workflow"):
        flow.start(key=key)
    assert count_rows() == (0, 0)


def test_no_tenant(flow):
    with in_schema("public"), pytest.raises(NoTenant):
        flow.start()


def test_another_broker_than_redis(flow, settings):
    settings.Q_CLUSTER = {key: value for key, value in settings.Q_CLUSTER.items() if key != "redis"} | {
        "orm": "default"
    }
    with pytest.raises(ConfigurationError, match=r"Workflows need a broker on Redis; set Q_CLUSTER\['redis'\]"):
        flow.start()
    assert count_rows() == (0, 0)


@pytest.fixture
def bare(tenants):
    """A tenant without the tables of workflows."""
    schemas.clone_tenants(["bare"], tables=["django_q_task", "django_q_schedule"])
    tenancy.forget_tenants()
    yield "bare"
    schemas.drop_tenant("bare")
    tenancy.forget_tenants()


def test_a_tenant_without_the_tables(flow, bare):
    way_out = (
        "Tenant 'bare' has no tables of workflows: add 'tenant_q.workflows' to TENANT_APPS, and run `python manage.py"
    )
    for act in (flow.start, flow.runs, flow.run_here):
        with pytest.raises(ConfigurationError, match=way_out):
            act(schema_name=bare)
    with pytest.raises(ConfigurationError, match=way_out):
        Run.get("a" * 32, schema_name=bare)


def test_a_full_queue(flow, worker):
    policies.change(A, actor="t", act="limit", max_queued=2)
    for _ in range(2):
        QUtilities.add_async_task("tests.tasks.nothing")
    with pytest.raises(QueueFull, match=f"A workflow cannot be started for {A}: 2 tasks wait, and its max_queued is 2"):
        flow.start()
    assert count_rows() == (0, 0)
    with in_schema(B):
        flow.start()


def test_steps_do_not_count_against_the_limit_of_the_queue(define, worker):
    policies.change(A, actor="t", act="limit", max_queued=2)
    flow = define()
    for place in range(5):
        flow.step(_named(f"step_{place}"))
    run = flow.start()
    work(worker)
    assert run.refresh().state == "succeeded"


# Keys


def test_the_same_key_is_the_same_run_in_any_state(flow, worker):
    run = flow.start({"value": 1}, key="k")
    assert flow.start({"value": 1}, key="k").id == run.id
    work(worker)
    again = flow.start({"value": 1}, key="k", schema_name=A)
    assert (again.id, again.state) == (run.id, "succeeded")
    assert count_rows() == (1, 1)
    assert get_broker().queue_size(A) == 0


def test_the_same_key_with_another_input(flow):
    run = flow.start({"value": 1}, key="k")
    with pytest.raises(KeyReused, match=f"with key 'k' and another input before, as run {run.id}; use another key"):
        flow.start({"value": 2}, key="k")


def test_equal_inputs_are_compared_as_json(flow):
    run = flow.start({"value": (1, 2.0, 1e30, None)}, key="k")
    assert flow.start({"value": [1, 2, 1e30, None]}, key="k").id == run.id
    with pytest.raises(KeyReused):
        flow.start({"value": [1, 2, 1e30]}, key="k")
    assert flow.start({}, key="empty").id == flow.start(key="empty").id


def test_two_starts_with_a_key_at_once_are_one_run(flow):
    meet = Barrier(2)

    def start(_):
        try:
            with in_schema(A), transaction.atomic():
                meet.wait(10)
                return flow.start({"value": 1}, key="k").id
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(start, range(2)))) == 1
    assert count_rows() == (1, 1)


def test_a_key_belongs_to_one_workflow_of_one_tenant(define, flow):
    other = define("other")
    other.step(_named("only"))
    ids = {flow.start(key="k").id, other.start(key="k").id, flow.start(key="k", schema_name=B).id}
    assert len(ids) == 3


def test_nothing_is_left_of_a_start_whose_transaction_is_rolled_back(flow, worker):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        run = flow.start(key="k")
        assert Run.get(run.id).state == "running"
        raise ZeroDivisionError
    assert count_rows() == (0, 0)
    assert get_broker().queue_size(A) == 0
    assert sql("SELECT * FROM tenant_q_dueworkflow WHERE schema_name = %s", A) == []
    assert flow.start(key="k").id != run.id


# Items


@pytest.fixture
def mapped(define) -> Workflow:
    found = define()

    @found.step
    def fetch(ctx):
        return ctx.input["value"]

    @found.step(each=(fetch, "lines"))
    def book(ctx):
        return ctx.item

    return found


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"lines": {"a": 1}}, "ItemsRefused: fetch.lines is object; return a list there."),
        ({"lines": "text"}, "ItemsRefused: fetch.lines is string; return a list there."),
        ({"lines": None}, "ItemsRefused: fetch.lines is null; return a list there."),
        ({"others": []}, "ItemsRefused: fetch.lines is missing; return a list there."),
        (None, "ItemsRefused: fetch.lines is missing; return a list there."),
        ([1, 2], "ItemsRefused: fetch.lines is missing; return a list there."),
        (
            {"lines": [0] * 10_001},
            "ItemsRefused: fetch.lines has 10001 items, and at most 10000 are run; group them.",
        ),
    ],
)
def test_items_of_no_list_and_too_many_fail_the_step(mapped, value, error):
    run = mapped.run_here({"value": value})
    assert run.state == "failed"
    assert states(run) == {"fetch": "succeeded", "book": "failed"}
    assert errors(run) == {"book": error}
    assert error.rstrip(".") in run.error


def test_no_items(mapped):
    run = mapped.run_here({"value": {"lines": []}})
    assert run.state == "succeeded"
    assert run.results["book"] == []


def test_the_tenants_own_limit_of_items(mapped):
    policies.configure(A, actor="t", limits={"max_items": 2})
    assert mapped.run_here({"value": {"lines": [1, 2]}}).state == "succeeded"
    run = mapped.run_here({"value": {"lines": [1, 2, 3]}})
    assert errors(run) == {"book": "ItemsRefused: fetch.lines has 3 items, and at most 2 are run; group them."}
    assert mapped.run_here({"value": {"lines": [1, 2, 3]}}, schema_name=B).state == "succeeded"


def test_a_limit_that_code_wrote_with_a_fraction_of_zero_holds_too(mapped):
    """The database takes 2.0, which is a whole number in JSON."""
    TenantConfiguration.objects.create(schema_name=A, limits={"max_items": 2.0, "max_open_workflows": 1.0})
    mapped_run = mapped.run_here({"value": {"lines": [1, 2, 3]}})
    assert errors(mapped_run) == {"book": "ItemsRefused: fetch.lines has 3 items, and at most 2 are run; group them."}
    runs = [mapped.start({"value": {"lines": [1]}}) for _ in range(3)]
    assert [run.refresh().state for run in runs] == ["running", "pending", "pending"]


@pytest.mark.parametrize("frozen", ['"9"', '"many"', "[1]", "1.5", f'"{"9" * 5000}"', "-3"])
def test_a_frozen_limit_that_is_none_leaves_the_limit_of_all(mapped, worker, frozen):
    """A run's row is the tenant's own, which may write into it what it likes."""
    run = mapped.start({"value": {"lines": [1]}})
    sql(f"UPDATE {A}.tenant_q_workflows_run SET config = %s::jsonb", f'{{"limits": {{"max_items": {frozen}}}}}')
    work(worker)
    assert run.refresh().state == "succeeded"


def test_the_outputs_of_all_items_are_limited_together(define, monkeypatch):
    from tenant_q.workflows import items

    monkeypatch.setattr(items, "MOST_OUTPUT_BYTES", 3000)
    flow = define()

    @flow.step
    def source(ctx):
        return [1, 2, 3]

    @flow.step(each=source)
    def book(ctx):
        return "x" * 1000

    run = flow.run_here()
    assert run.state == "failed"
    assert "ItemsRefused: the outputs of its items take" in errors(run)["book"]


# The run


def test_what_cannot_be_done_with_a_run(flow, worker):
    run = flow.start({})
    with pytest.raises(WorkflowError, match=f"run {run.id} is running and has not ended; only a run that has failed"):
        run.resume()
    with pytest.raises(WorkflowError, match="only a run that has failed"):
        run.preview_resume()
    with pytest.raises(WorkflowError, match=r"Step 'only' of workflow run .* is ready and the run is running"):
        run.skip("only")
    with pytest.raises(WorkflowError, match=r"has no step 'onyl': .*'only'"):
        run.skip("onyl")
    work(worker)
    run.refresh()
    with pytest.raises(WorkflowError, match="is succeeded; only a run that has failed or was cancelled can be resumed"):
        run.resume()
    assert not run.cancel()
    with pytest.raises(WorkflowError, match="has no workflow run"):
        Run.get("nothing\0", schema_name=A)


def test_the_input_of_a_run_is_a_copy(flow):
    value = {"value": [1]}
    run = flow.start(value)
    value["value"].append(2)
    assert json.loads(json.dumps(run.input)) == {"value": [1]}
