"""The sentinel under its own defects: leases are renewed, or the cluster has ended. `make chaos` has the long forms."""

from __future__ import annotations

import os
import time
from functools import partial
from itertools import count

import pytest

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import RunningCluster, wait_until

IS_LONG = os.environ.get("CHAOS") == "long"
A = "acme_corp"
SETTINGS = "tests.chaos.settings"


@pytest.fixture
def defective(mscluster, tmp_path):
    """Start a cluster with defects; after that is over, it is sound."""

    def start(what: str, **env: str) -> RunningCluster:
        return mscluster(
            "--workers",
            "2",
            wait=False,
            DJANGO_SETTINGS_MODULE=SETTINGS,
            DEFECTS=what,
            DEFECTS_DIR=str(tmp_path),
            **env,
        )

    return start


def read(path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_enough(done: list[str]) -> bool:
    return len(done) > 140 and {"renew", "notice_ends", "end", "is_alive"} <= {one.split()[-1] for one in done}


def is_gone(cluster: RunningCluster) -> bool:
    return not cluster.processes()


def test_an_exception_at_each_line_of_a_round(tenants, defective, tmp_path):
    """A cluster that ends, ends loudly and completely; then another one goes on with the lines after that."""
    ends, last, deadline = 0, (0, 0.0), time.monotonic() + (900 if IS_LONG else 240)
    cluster = defective("lines", TEST_TENANT_Q='{"lease": 2, "grace": 1, "max_deliveries": 1000}')
    for n in count():
        if time.monotonic() > deadline or (not IS_LONG and ends and is_enough(read(tmp_path / "done"))):
            break
        if n % 10 == 0:
            with in_schema(A):
                id = QUtilities.add_async_task("tests.chaos.tasks.report_and_sleep", 1.0)
        elif n % 10 == 5:
            QUtilities.cancel(id, A)
        lines = len(read(tmp_path / "done"))
        last = last if last[0] == lines else (lines, time.monotonic())
        if lines and time.monotonic() - last[1] > 60:
            break  # no line is new
        if cluster.process.poll() is not None:
            ends += 1
            assert cluster.process.returncode == 1, cluster.log
            assert " CRITICAL " in cluster.log and "Traceback" in cluster.log
            wait_until(partial(is_gone, cluster), 10, "all of the cluster to be gone")
            cluster = defective("lines", TEST_TENANT_Q='{"lease": 2, "grace": 1, "max_deliveries": 1000}')
        time.sleep(0.1)
    done = read(tmp_path / "done")
    print(f"  an exception at {len(done)} lines, which ended {ends} clusters")
    assert read(tmp_path / "neither") == []
    assert is_enough(done) and ends


def test_forks_that_fail(tenants, defective, tmp_path):
    """One fork in three fails for a while. A long task keeps its lease, and what kills workers is done all the same."""
    cluster = defective("forks", TEST_TENANT_Q='{"lease": 2, "grace": 5, "max_deliveries": 1000}')
    with in_schema(A):
        held = QUtilities.add_async_task("tests.tasks.hold", cluster.name, 300, timeout=300)
    wait_until(lambda: tasks.notes(cluster.name), what="the long task to run")
    deadline = time.monotonic() + (60 if IS_LONG else 6)
    killers: list[str] = []
    while time.monotonic() < deadline:
        with in_schema(A):
            killers.append(QUtilities.add_async_task("tests.chaos.tasks.die_once", f"{cluster.name}-{len(killers)}"))
        time.sleep(0.5)
    assert get_broker().state(A, held).value == "running"
    tasks.let_go(cluster.name)
    (tmp_path / "enough").touch()
    for id in killers:
        assert QUtilities.get_result(id, wait=60_000, schema_name=A) >= 2, cluster.log
    assert QUtilities.get_result(held, wait=60_000, schema_name=A) == "run 1", "nobody else ran it"
    assert "ran out, since no sentinel" not in cluster.log
    assert "can be started" in cluster.log
    assert cluster.stop() == 0
