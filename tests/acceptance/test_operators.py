"""What operators see of a real cluster: each process that is killed, servers that hang, screens on a terminal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from tenant_q import figures, health
from tenant_q.status import STAT_SECONDS
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import MANAGE, RunningCluster, wait_until


def manage(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MANAGE), *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60)


def told(cluster: RunningCluster) -> Any:
    """The cluster as the figures tell it, or None."""
    return next((one for one in figures.site().clusters if one.parent == cluster.process.pid), None)


def examine() -> health.Health:
    return health.examine(seconds=30)


def is_up(cluster: RunningCluster, workers: int = 2) -> Any:
    def found() -> Any:
        one = told(cluster)
        return one and not one.is_gone and len(one.of_role("worker")) == workers and one.of_role("scheduler") and one

    return wait_until(found, what="the cluster's status")


@pytest.fixture
def clusters_page(tenants) -> Iterator[Callable[[], str]]:
    """What an operator's browser is given."""
    with schemas.served_at("public", "operators.localhost"):
        client = Client(HTTP_HOST="operators.localhost")
        user = get_user_model().objects.create_superuser("watcher")
        client.force_login(user)
        yield lambda: client.get("/admin/tenant_q/cluster/?part=table").content.decode()
        connection.set_schema_to_public()
        user.delete()


def killed(pid: int, shows: Callable[[], Any], what: str) -> None:
    """Kill a process and wait until that shows; how long it took is printed."""
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    wait_until(shows, what=what)
    print(f"{time.monotonic() - begun:.1f} s after a kill: {what}")


def test_killed_processes_show(tenants, mscluster, clusters_page):
    """A status that is not told again is gone after `STAT_SECONDS`, and it is told each second: 5 s are enough."""
    assert STAT_SECONDS < 5
    cluster = mscluster()
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.hold", cluster.name)
    wait_until(lambda: tasks.notes(cluster.name))

    def busy() -> Any:
        one = told(cluster)
        return one and next((process for process in one.processes if process.is_busy), None)

    worker = wait_until(busy, what="a worker that runs a task")
    assert (worker.role, worker.schema, worker.func) == ("worker", "acme_corp", "tests.tasks.hold")
    assert worker.pid == tasks.notes(cluster.name)[0]["pid"] and str(told(cluster).state) == "working"
    assert "acme_corp" in (out := manage("msinfo", Q_NAME=cluster.name).stdout) and "tests.tasks.hold" in out
    found = examine()
    assert found.is_well and not found.notes, found

    scheduler = cluster.pids("scheduler")[0]
    killed(worker.pid, lambda: f"worker {worker.pid}: was killed" in clusters_page(), "the worker on the page")
    killed(scheduler, lambda: f"scheduler {scheduler}: was killed" in clusters_page(), "the scheduler on the page")
    wait_until(lambda: len(told(cluster).deaths) == 2, what="two deaths to be told")
    deaths = {death.role: death for death in told(cluster).deaths}
    assert (deaths["worker"].pid, deaths["scheduler"].pid) == (worker.pid, scheduler)
    assert deaths["worker"].func == "tests.tasks.hold" and deaths["worker"].how.startswith(
        "was killed by SIGKILL, often"
    )
    is_up(cluster)
    found = examine()
    assert found.is_well and len(found.notes) == 2, "they are replaced"

    def health() -> Any:
        said = manage("mshealth", Q_NAME=cluster.name)
        return said if said.returncode == 0 else None

    said = wait_until(health, what="a healthy cluster")  # on a busy machine the new processes take a while
    assert f"the worker {worker.pid} was killed by SIGKILL" in said.stdout
    shown = manage("msinfo", Q_NAME=cluster.name).stdout
    assert f"scheduler {scheduler} of cluster {cluster.name}" in shown and "was killed by SIGKILL" in shown

    assert ">scheduler</th>" in clusters_page()
    killed(cluster.pids("sentinel")[0], lambda: ">gone</span>" in clusters_page(), "the sentinel on the page")
    assert ">scheduler</th>" not in clusters_page(), "what it ran is over"
    wait_until(lambda: (one := told(cluster)) and one.is_gone, what="the cluster to be gone")
    found = examine()
    assert len(found.problems) == 2 and "is gone, last seen" in found.problems[1], found
    said = manage("mshealth", "--json", Q_NAME=cluster.name)
    assert said.returncode == 1 and not json.loads(said.stdout)["healthy"]
    (shown_cluster,) = json.loads(manage("msinfo", "--json", Q_NAME=cluster.name).stdout)["clusters"]
    assert shown_cluster["is_gone"] and "gone" in manage("msinfo", Q_NAME=cluster.name).stdout
    tasks.let_go(cluster.name)

    again = mscluster("--workers", "1")
    is_up(again, 1)
    assert examine().is_well, "it took the place of the one that is gone"

    killed(again.process.pid, lambda: "its parent process died" in clusters_page(), "the parent on the page")
    wait_until(lambda: (one := told(again)) and one.is_gone, what="the cluster to be gone")
    assert told(again).trouble == "its parent process died"
    assert not examine().is_well
    assert manage("mshealth", Q_NAME=cluster.name).returncode == 1


def test_a_cluster_that_stops_in_order_is_no_news(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    is_up(cluster, 1)
    assert cluster.stop() == 0
    wait_until(lambda: told(cluster) is None, what="its last status to be over")
    found = examine()
    assert [problem.split(" runs")[0] for problem in found.problems] == [f"No cluster of site {cluster.name}"]


def test_a_scheduler_that_is_stuck_is_told(tenants, mscluster, monkeypatch):
    monkeypatch.setattr(health, "STUCK_SECONDS", 3.0)
    cluster = mscluster("--workers", "1")
    is_up(cluster, 1)
    (pid,) = cluster.pids("scheduler")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: any("no sign of life" in problem for problem in examine().problems))
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: examine().is_well)


@contextmanager
def frozen(servers: Any, name: str) -> Iterator[None]:
    """With its children, which serve PostgreSQL's sessions."""
    if name not in servers._owned:
        pytest.skip(f"the {name} of the environment is not ours to freeze")
    server = psutil.Process(servers._owned[name].pid)
    server.suspend()  # first: it starts no more children
    children = server.children(recursive=True)
    for child in children:
        _if_there(child.suspend)
    try:
        yield
    finally:
        for process in (*children, server):
            _if_there(process.resume)


def _if_there(act: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        act()


@pytest.mark.parametrize(("name", "server"), [("valkey", "broker"), ("postgres", "database")])
def test_a_server_that_hangs_does_not_hang_the_question(tenants, servers, settings, name, server):
    """The server is woken only after the answer."""
    with frozen(servers, name):
        begun = time.monotonic()
        said = manage("mshealth", "--json", Q_NAME=settings.Q_CLUSTER["name"])
        print(f"\n{name} hangs: answered after {time.monotonic() - begun:.2f} s", end="")
    assert said.returncode == 1, said.stderr
    (outage,) = json.loads(said.stdout)["outages"]
    assert outage.startswith(f"The {server} does not answer within")


def test_for_a_liveness_probe_an_outage_is_no_failure(tenants, mscluster, servers):
    cluster = mscluster("--workers", "1")
    is_up(cluster, 1)
    with frozen(servers, "postgres"):
        assert manage("mshealth", "--live", "--host", Q_NAME=cluster.name).returncode == 0
        assert manage("mshealth", "--host", Q_NAME=cluster.name).returncode == 1
    assert manage("mshealth", "--host", Q_NAME=cluster.name).returncode == 0
    said = manage("mshealth", "--host", "elsewhere", Q_NAME=cluster.name)
    assert said.returncode == 1 and f"No cluster of site {cluster.name} runs on elsewhere" in said.stdout


def test_who_waits_for_a_server_that_hangs_is_not_stuck(tenants, mscluster, servers, monkeypatch):
    """The worker cannot save what it ran, and shows no life meanwhile. A restart would lose the result."""
    monkeypatch.setattr(health, "STUCK_SECONDS", 3.0)
    cluster = mscluster("--workers", "1")
    with in_schema("acme_corp"):
        task = QUtilities.add_async_task("tests.tasks.hold", cluster.name)
    wait_until(lambda: tasks.notes(cluster.name))

    def found_silent() -> Any:
        found = health.examine(seconds=1)
        return any("no sign of life" in one for one in (*found.problems, *found.notes)) and found

    with frozen(servers, "postgres"):
        tasks.let_go(cluster.name)
        found = wait_until(found_silent)
    assert not found.problems and found.outages, "the mildest probe, `--live`, fails over problems only"
    with in_schema("acme_corp"):
        assert QUtilities.get_result(task, wait=30_000) == "run 1"
    wait_until(lambda: examine().is_well)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def test_a_cluster_answers_prometheus(tenants, mscluster):
    port = free_port()
    setting = json.dumps({"metrics_port": port})
    cluster = mscluster("--workers", "1", wait=False, TEST_TENANT_Q=setting)
    with in_schema("acme_corp"):
        task = QUtilities.add_async_task("tests.tasks.add", 1, 2)
        assert QUtilities.get_result(task, wait=30_000) == 3
    wait_until(lambda: 'tenant_q_tasks_total{outcome="done",schema="acme_corp"} 1.0' in scrape(port))
    wait_until(lambda: 'role="exporter"} 1.0' in scrape(port))
    with socket.create_connection(("127.0.0.1", port)):  # who says nothing holds nobody up for long
        assert scrape(port)
    second = mscluster("--workers", "1", wait=False, TEST_TENANT_Q=setting)
    wait_until(lambda: "Metrics are not told at" in second.log)
    (exporter,) = cluster.pids("exporter")
    os.kill(exporter, signal.SIGKILL)
    wait_until(lambda: any(death.role == "exporter" for death in told(cluster).deaths))
    wait_until(lambda: scrape(port), what="one of them to answer")
    assert cluster.stop() == 0
    wait_until(lambda: "Metrics are told at" in second.log and scrape(port), what="the other to answer")
    assert second.stop() == 0


REPORTER = """
import sys
from django.db import connection
from tests.tasks import note


class Reporter:
    def __init__(self, key):
        self.key = key

    def report(self):
        note(self.key, schema=connection.schema_name, error=repr(sys.exc_info()[1]))
"""


def test_an_error_reporter_of_django_q2_is_told(tenants, mscluster, tmp_path):
    """One that is installed as its packages are: it is found by its entry point."""
    (tmp_path / "the_reporter.py").write_text(REPORTER)
    installed = tmp_path / "the_reporter-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: the-reporter\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[djangoq.errorreporters]\nnotes = the_reporter:Reporter\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    key = f"{tmp_path}"
    setting = json.dumps({"error_reporter": {"notes": {"key": key}}})
    mscluster("--workers", "1", PYTHONPATH=path, TEST_Q_CLUSTER=setting)
    with in_schema("globex_inc"):
        QUtilities.add_async_task("tests.tasks.fail")
    (told_of,) = wait_until(lambda: tasks.notes(key))
    assert (told_of["schema"], told_of["error"]) == ("globex_inc", "ValueError('broken')")
    checked = manage("check", TEST_Q_CLUSTER=setting)
    assert "(tenant_q.W003) Q_CLUSTER['error_reporter'] names 'notes', which is not installed" in checked.stderr
    assert "W003" not in manage("check", TEST_Q_CLUSTER=setting, PYTHONPATH=path).stderr
