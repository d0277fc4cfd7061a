"""In a cluster of a benchmark the scheduler notes when the broker has what it fired."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from tenant_q.package.package import Package


class BenchmarksConfig(AppConfig):
    name = "benchmarks"

    def ready(self) -> None:
        from benchmarks import work
        from tenant_q.schedules import fire

        push = fire.push_fires

        def push_and_note(packages: Sequence[Package]) -> None:
            push(packages)
            now = time.time()
            notes = [(one.schema, one.kwargs["name"], one.kwargs["planned"], now) for one in packages]
            work.leave(work.ENQUEUED, *notes)

        fire.push_fires = push_and_note
