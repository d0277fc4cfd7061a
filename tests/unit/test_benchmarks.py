"""What `make bench` measures, and what it does when one of those that it compares fails."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from benchmarks import steps
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
