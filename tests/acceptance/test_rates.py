"""Two real clusters keep a rate, and nothing is starved beside it. `CHAOS=long` measures for 60 seconds."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.lifecycle import push
from tenant_q.package.build import build
from tenant_q.tenancy import in_schema
from tests import tasks, tasks_declared
from tests.conftest import wait_until

A, B = "acme_corp", "globex_inc"
SECONDS = 60.0 if os.environ.get("CHAOS") == "long" else 5.0
PER_SECOND = 20
BESIDE = 200


def enqueue(schema: str, count: int, func: Any, *args: Any) -> None:
    push.push([build(func, args, {}, schema=schema) for _ in range(count)])


def moments(key: str) -> list[float]:
    return sorted(note["at"] for note in tasks.notes(key))


@pytest.mark.parametrize("func", [tasks_declared.limited, tasks_declared.limited_for_all])
def test_two_clusters_keep_a_rate(tenants, mscluster, func):
    first = mscluster("--workers", "2", wait=False)
    mscluster("--workers", "2")
    first.wait_for_workers(2)
    key = f"rate-{first.name}"
    schemas = [A] if func is tasks_declared.limited else [A, B]
    enough = round(PER_SECOND * (SECONDS + 10))
    for schema in schemas:
        enqueue(schema, enough // len(schemas), func, key)
    for schema in (A, B):
        enqueue(schema, BESIDE, "tests.tasks.add", 1)

    def has_run_beside() -> bool:
        counts = []
        for schema in (A, B):
            with in_schema(schema):
                counts.append(Task.objects.filter(func="tests.tasks.add").count())
        return counts == [BESIDE, BESIDE]

    wait_until(has_run_beside, 30, what="the tasks beside it to be done")
    assert get_broker().queue_size() > 0, "they did not wait for those with a rate"
    wait_until(lambda: (found := moments(key)) and found[-1] - found[0] > SECONDS, SECONDS + 60, what="the starts")
    begun = moments(key)
    counted = sum(at - begun[0] <= SECONDS for at in begun)
    print(f"\n{counted / SECONDS:.2f} starts a second in {SECONDS:g} s")
    # The first half second's worth may start at once, and on a busy machine a start comes some time after its lease.
    assert counted <= PER_SECOND * (SECONDS + 1.5) + 1
    if SECONDS >= 60:
        assert 19 * SECONDS <= counted <= 20.5 * SECONDS
