"""Real clusters of two releases side by side, as in a rolling deploy, change nothing back and forth.

`CHAOS=long` leaves them beside each other for 60 seconds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django_q.models import Schedule

from tenant_q.tenancy import in_schema
from tests import schemas, tasks
from tests.conftest import RunningCluster, wait_until
from tests.integration.conftest import sql

SECONDS, LOOKS = (60.0, 100) if os.environ.get("CHAOS") == "long" else (0.0, 5)
# None of them fires meanwhile.
REPORT = {"func": "tests.tasks_scheduled.report", "cron": "0 6 29 2 *"}
OLDER = {"same": REPORT, "changed": REPORT, "withdrawn": REPORT}
NEWER = {"same": REPORT, "changed": REPORT | {"cron": "30 7 29 2 *", "args": [1]}, "added": REPORT}
BOOKKEEPING = "tenant_q_codeschedule", "tenant_q_syncedtenant"


@pytest.fixture(autouse=True)
def _clean(tenants) -> Iterator[None]:
    yield
    schemas.forget_code()


@pytest.fixture
def deploy(mscluster) -> Callable[[str, Any, dict[str, Any]], RunningCluster]:
    """Start a cluster with a release of the schedules, whose looks at them are noted under a name."""

    def start(name: str, release: str | None, schedules: dict[str, Any]) -> RunningCluster:
        values = {"release": release, "schedules": schedules}
        env = {"LOOKS": name, "TEST_TENANT_Q": json.dumps(values), "DJANGO_SETTINGS_MODULE": "tests.chaos.settings"}
        return mscluster("--workers", "1", wait=False, **env)

    return start


def have(tenants: tuple[str, ...], expected: dict[str, tuple[str, str, bool]]) -> bool:
    """Whether each tenant has these schedules: cron, arguments, and whether it will run."""
    for schema in tenants:
        with in_schema(schema):
            found = {row.name: (row.cron, row.args, row.next_run is not None) for row in Schedule.objects.all()}
        if found != expected:
            return False
    return True


def versions(tenants: tuple[str, ...]) -> dict[str, Any]:
    """Place, transaction and values of each row: whatever is written changes them, even if the values stay the same.

    That a release was seen is written down once a minute.
    """
    tables = [*(f'"{schema}".django_q_schedule' for schema in tenants), *BOOKKEEPING]
    found = {name: sql(f"SELECT ctid::text, xmin::text, one::text FROM {name} AS one ORDER BY 3") for name in tables}
    return found | {"releases": sql("SELECT label, is_given, first_seen FROM tenant_q_schedulerelease ORDER BY id")}


@pytest.mark.parametrize("labels", [("2026.9.1", "2026.11.1"), (None, None)], ids=["names", "hashes"])
def test_two_releases_side_by_side_change_nothing(tenants, deploy, labels):
    names = [f"looks-{os.getpid()}-{time.monotonic_ns()}-{which}" for which in ("older", "newer", "again")]
    older, newer, again = names
    runs = REPORT["cron"], "", True
    deploy(older, labels[0], OLDER)
    wait_until(lambda: have(tenants, dict.fromkeys(OLDER, runs)), what="the older release to be in force")
    deploy(newer, labels[1], NEWER)
    expected = {
        "same": runs,
        "changed": ("30 7 29 2 *", "(1,)", True),
        "withdrawn": (REPORT["cron"], "", False),
        "added": runs,
    }
    wait_until(lambda: have(tenants, expected), what="the newer release to be in force")
    before, begun = versions(tenants), time.monotonic()
    first = {name: len(tasks.notes(name)) for name in names}
    deploy(again, labels[0], OLDER)  # as a machine that is added, or starts again, during the deploy

    def later(name: str) -> list[str]:
        return [note["newer"] for note in tasks.notes(name)[first[name] :]]

    def is_enough() -> bool:
        return time.monotonic() - begun >= SECONDS and all(len(later(name)) >= LOOKS for name in names)

    wait_until(is_enough, SECONDS + 60, "looks of each of them")
    print(f"\n{', '.join(str(len(later(name))) for name in names)} looks in {time.monotonic() - begun:.0f} s")
    assert versions(tenants) == before and have(tenants, expected)
    assert set(later(newer)) == {""}
    assert "" not in later(older)[1:] + later(again), "an older release has seen that it is one"
