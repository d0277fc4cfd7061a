"""What `make bench` measures, and what it does when one of those that it compares fails."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from benchmarks import compare, isolation, report, steps, workflows
from benchmarks.compare import Contest
from benchmarks.contenders import DJANGO_Q2, Contender, tenant_q
from benchmarks.harness import BenchmarkError


def test_one_that_fails_is_left_out_and_the_others_keep_their_figures():
    ours, theirs = tenant_q(1), Contender("celery", "Celery", (), "t")
    compared = [ours, theirs, DJANGO_Q2]
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    contest = Contest(compared, found)
    seen: list[str] = []

    def measure(one: Contender) -> None:
        seen.append(one.key)
        found["no-op"][one.key].append(1)
        if one is theirs and len(seen) > 3:
            raise BenchmarkError("it does not stop")

    for _ in range(3):
        contest.each(measure)
    assert compared == [ours, DJANGO_Q2]
    assert contest.failed == {"Celery": "BenchmarkError: it does not stop"}
    assert dict(found["no-op"]) == {ours.key: [1, 1, 1], DJANGO_Q2.key: [1, 1, 1]}
    assert seen.count("celery") == 2, "it is not tried again"


def test_every_step_that_is_timed_is_there():
    """The names are those of the code, and move with it."""
    for owner, name, _ in steps.steps():
        assert callable(getattr(owner, name))


def test_the_report_has_a_row_for_workflows():
    rounds = [workflows.Round(100, 1000, per_s, 80, 20.0, 90.0) for per_s in (150.0, 100.0, 200.0)]
    told = report.tables([], defaultdict(dict), {}, rounds)
    (row,) = [line.split() for line in told.splitlines() if line.strip().startswith("100 ")]
    assert row == ["100", "1,000", "150", "100-200", "600", "20.00", "20.00-20.00", "90.00", "90.00-90.00"]


def test_workflows_that_fail_are_left_out_and_named():
    contest = Contest([], {})

    def fail() -> None:
        raise BenchmarkError("they do not end")

    assert contest.attempt("Workflows", fail) is None
    assert contest.failed == {"Workflows": "BenchmarkError: they do not end"}


def test_a_quick_benchmark_has_workflows_too(monkeypatch):
    monkeypatch.setattr("sys.argv", ["make bench", "--quick"])
    assert 0 < compare.parse().workflow_runs < 1000


def test_the_modes_of_isolation_are_compared_in_each_round():
    rounds = {"path": [100.0, 200.0], "role": [99.0, 196.0], "login": [80.0, 150.0]}
    speeds = [isolation.Speed("no-op", mode, 1000, values) for mode, values in rounds.items()]
    (row,) = [line for line in isolation.told(speeds).splitlines() if line.startswith("no-op")]
    assert row.split() == ["no-op,", "1,000", "tenants", "150", "148", "98", "%", "115", "78", "%"]
