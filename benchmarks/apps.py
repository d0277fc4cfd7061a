"""In a cluster of a benchmark the scheduler notes when the broker has what it fired."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from django.apps import AppConfig


class BenchmarksConfig(AppConfig):
    name = "benchmarks"

    def ready(self) -> None:
        from tenant_q.schedules import fire

        fire.push = noting(fire.push)


def noting(push: Callable[[Sequence[Any]], None]) -> Callable[[Sequence[Any]], None]:
    from benchmarks import work

    def push_and_note(packages: Sequence[Any]) -> None:
        push(packages)
        now = time.time()
        notes = [(one.schema, one.kwargs["name"], one.kwargs["planned"], now) for one in packages]
        work.leave(work.ENQUEUED, *notes)

    return push_and_note
