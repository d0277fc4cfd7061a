"""What a step returns and sets is read back equal, or fails the step with the path of the value. No run gets stuck."""

from __future__ import annotations

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tenant_q.tenancy import in_schema
from tests.integration.conftest import errors, states, work

A = "acme_corp"
MIB = 1024 * 1024
VALUE: list[Any] = [None]

numbers = st.integers() | st.floats() | st.integers(min_value=10**300, max_value=10**310)
texts = st.text(st.characters(exclude_categories=()), max_size=20)
leaves = (
    st.none() | st.booleans() | numbers | texts | st.sampled_from([date(2026, 1, 1), b"x", Decimal(1), {1}, object])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(texts | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=12,
)


def nested(levels: int, inner: Any = 1) -> Any:
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def as_read_back(value: Any) -> Any:
    """`jsonb` keeps numbers exactly and writes no exponents: 1e+30 is read as a whole number."""

    def number(text: str) -> Any:
        written = f"{Decimal(text):f}"
        return float(written) if "." in written else int(written)

    return json.loads(json.dumps(value), parse_float=number)


def is_json(value: Any) -> bool:
    """Whether JSON and `jsonb` hold a value, by another way than the code's."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(key) and is_json(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_json, value))
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
    return value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


@pytest.fixture
def flow(tenants, define):
    flow = define()

    @flow.step
    def returns(ctx):
        return VALUE[0]

    @flow.step
    def sets(ctx):
        ctx.set("value", VALUE[0])

    @flow.step(after=["returns", "sets"], when="always")
    def last(ctx):
        return [ctx.results.get("returns"), ctx.get("value")]

    with in_schema(A):
        yield flow


@given(values)
@example(-0.0)
@example(1e308)
@example(5e-324)
@example("\ud800")
@example({"\ud800": 1})
@example({"a\0": 1})
@example({"": {"": []}})
@example(2**64)
@example(True)
@example("\x1f\x7f\u2028\ufffe\U0010ffff")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value(flow, value):
    VALUE[0] = value
    run = flow.run_here()
    assert run.has_ended
    if is_json(value):
        assert run.state == "succeeded", errors(run)
        assert run.results["returns"] == run.context["value"] == as_read_back(value)
        assert run.results["last"] == [as_read_back(value)] * 2
    else:
        assert states(run)["returns"] == states(run)["sets"] == "failed"
        assert errors(run)["returns"].startswith("ValueRefused: the value at $")
        assert errors(run)["sets"].startswith("ValueRefused: the value at $")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (
            {"lines": [1, 2, {}, {"price": math.nan}]},
            "the value at $.lines[3].price is nan, which is no number in JSON.",
        ),
        ([0, (1, math.inf)], "the value at $[1][1] is inf"),
        ({"a": "x\0y"}, "the value at $.a is 'x\\x00y', which has a zero character."),
        ({"a": ["\udc80"]}, "the value at $.a[0] is '\\udc80', which has half of a surrogate pair."),
        ({"a": {1: 2}}, "the value at $.a has the key 1, which is no text."),
        ({"a": date(2026, 1, 1)}, "the value at $.a is datetime.date(2026, 1, 1)"),
        ({"a": {3, 4}}, "whose type set is not one of JSON; convert it."),
        ("x" * 2 * MIB, f"the value at $ takes {2 * MIB + 2} bytes as JSON, and at most {MIB} are kept"),
        ("é" * (MIB // 2), f"takes {MIB + 2} bytes"),
        (nested(5000), "is nested more than 100 levels deep."),
        (10**1000, "which has more than 1000 digits."),
    ],
    ids=["nan", "inf", "NUL", "surrogate", "key", "date", "set", "2 MiB", "bytes", "deep", "digits"],
)
def test_the_error_has_the_path_of_the_value(flow, value, error):
    VALUE[0] = value
    run = flow.run_here()
    assert error in errors(run)["returns"]
    assert errors(run)["returns"].startswith("ValueRefused: ")
    assert error.replace("$", "$.value", 1)[:20] in errors(run)["sets"] or "takes" in error


@pytest.mark.parametrize(
    "value",
    [
        "x" * (MIB - 2),
        nested(100),
        10**999,
        [0.1] * 10_000,
        {str(number): number for number in range(10_000)},
        -(10**999),
    ],
    ids=["1 MiB", "100 levels", "1000 digits", "10,000 floats", "10,000 keys", "negative"],
)
def test_the_largest_values_that_are_kept(flow, value):
    VALUE[0] = value
    run = flow.run_here()
    assert states(run)["returns"] == "succeeded", errors(run)
    assert run.results["returns"] == value


@pytest.mark.parametrize("is_transactional", [False, True])
@pytest.mark.parametrize("value", ["NUL \0", {"deep": nested(20_000)}, "\ud800", {"n": "9" * 200_000}])
def test_what_postgresql_refuses_although_the_check_lets_it_pass(
    tenants, define, worker, monkeypatch, value, is_transactional
):
    """A later version of PostgreSQL, or a limit of a server, may refuse more than we know."""
    monkeypatch.setattr("tenant_q.workflows.values.json_problem", lambda value: "")
    flow = define()

    @flow.step(transactional=is_transactional)
    def only(ctx):
        return value

    @flow.step
    def other(ctx):
        return 1

    with in_schema(A):
        run = flow.start()
    work(worker)
    run.refresh()
    assert run.has_ended
    assert states(run)["other"] == "succeeded"
    if states(run)["only"] == "failed":
        assert run.state == "failed"
    else:
        assert run.results["only"] == value


def test_a_batch_with_a_refused_value_saves_the_others(tenants, define, worker, monkeypatch):
    monkeypatch.setattr("tenant_q.workflows.values.json_problem", lambda value: "")
    flow = define()

    @flow.step
    def source(ctx):
        return list(range(10))

    @flow.step(each=source, allow_failures=3)
    def book(ctx):
        return "\0" if ctx.item % 4 == 0 else ctx.item

    with in_schema(A):
        run = flow.start()
    work(worker)
    assert run.refresh().results["book"] == [None, 1, 2, 3, None, 5, 6, 7, None, 9]
