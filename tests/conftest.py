"""Fixtures: a project with tenants in a real database, and real clusters as subprocesses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import TENANTS, make_base_tenants, truncate
from tests.servers import OWN

# Seconds that the clean-up waits for a Redis that the test has paused.
PAUSE = 30.0
MANAGE = Path(__file__).parent.parent / "testproject" / "manage.py"


def pytest_configure() -> None:
    """Let Ctrl-C end the processes that tests start, also where a shell started the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "the condition") -> Any:
    """Wait until `condition` returns something true, and return it. What takes long is asked for less often."""
    begun = time.monotonic()
    deadline = begun + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:g} s; last seen: {found!r}")
        time.sleep(min(0.01 + (time.monotonic() - begun) / 20, 0.1))


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> Iterator[None]:
    """The tests' database is made by the plugin; here are its tables and three tenants, made as users make them."""
    django_db_blocker.unblock()
    make_base_tenants()
    yield
    from django.db import connections

    connections.close_all()


@pytest.fixture
def tenants(django_db_setup: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """Three tenants without tasks, schedules or policies, and queues of this test's own."""
    from django.db import connection

    from tenant_q import brokers
    from tenant_q.cluster.reset import reset
    from tenant_q.models import TenantPolicy
    from tenant_q.schedules import index_upkeep

    name = f"t{uuid.uuid4().hex[:8]}"
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"name": name}
    name_in_django_q(name, monkeypatch)
    reset()
    connection.set_schema_to_public()
    truncate(TENANTS)
    TenantPolicy.objects.all().delete()
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())  # an earlier test may have renamed or dropped a schema
    yield TENANTS
    connection.set_schema_to_public()
    delete_keys(name, brokers.get_broker().cluster)


def name_in_django_q(name: str, patch: pytest.MonkeyPatch) -> None:
    """Name the cluster for Django-Q2, which reads its settings at import, and signs with the name."""
    from django_q.conf import Conf

    patch.setattr(Conf, "PREFIX", name)
    patch.setattr(Conf, "CLUSTER_NAME", name)
    patch.setattr(Conf, "Q_STAT", f"django_q:{name}:cluster")


def delete_keys(*clusters: str) -> None:
    """Delete the keys of clusters, unless the test has stopped Redis."""
    import redis

    with suppress(redis.RedisError), redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=PAUSE) as client:
        for name in clusters:
            for key in client.scan_iter(f"{{tq:{name}*", count=1000):
                client.delete(key)


@pytest.fixture
def other_cluster(tenants: tuple[str, ...]) -> Iterator[Callable[[str], str]]:
    """Name another cluster of the test's site; what it has in Redis is deleted at the end."""
    names: list[str] = []

    def name(cluster: str) -> str:
        names.append(cluster)
        return cluster

    yield name
    delete_keys(*names)


@pytest.fixture(autouse=True)
def _no_key_is_left(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail a test that leaves a key in Redis that never expires, unless another fixture deletes its queues."""
    import redis
    from django.conf import settings

    client = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=PAUSE)
    try:
        before = set(client.scan_iter(count=1000))
    except redis.RedisError:  # an earlier test killed it, and this one has a server of its own
        yield
        return
    yield
    own = f"{{tq:{settings.Q_CLUSTER['name']}}}".encode()
    try:
        new = set(client.scan_iter(count=1000)) - before
        left = {key for key in new if not key.startswith(own) and client.ttl(key) == -1}
    except redis.RedisError:  # the test killed or stopped it
        return
    is_ours: bool = pytestconfig.stash[OWN]
    if left and is_ours:
        client.delete(*left)
        shown = b", ".join(sorted(left)[:5]).decode(errors="replace")
        pytest.fail(f"The test left {len(left)} keys in Redis, among them {shown}; delete them at its end.")


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    """Each test begins in a process that has cached nothing."""
    yield
    from tenant_q.cluster.reset import reset

    reset()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _command_line(pid: int) -> str:
    import psutil

    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""


class RunningCluster:
    """A real `mscluster` process."""

    def __init__(self, *arguments: str, env: dict[str, str], log: Path) -> None:
        self.log_path = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(MANAGE), "mscluster", *arguments],
                env=os.environ | env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.name = env["Q_NAME"]

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def processes(self) -> dict[str, list[int]]:
        """The pids of the cluster's processes by role, as their titles tell."""
        import psutil

        found: dict[str, list[int]] = {}
        for pid in psutil.pids():
            if _session(pid) == self.process.pid:
                words = _command_line(pid).split()
                if words[:2] == ["mscluster", self.name] and len(words) > 2:
                    found.setdefault(words[2], []).append(pid)
        return found

    def pids(self, role: str) -> list[int]:
        return self.processes().get(role, [])

    def wait_for_workers(self, count: int = 2) -> list[int]:
        """Wait until every process has its own title: one just forked still has its sentinel's."""
        expected = {"parent": 1, "sentinel": 1, "scheduler": 1, "worker": count}

        def is_up() -> bool:
            return self.process.poll() is not None or {r: len(p) for r, p in self.processes().items()} == expected

        wait_until(is_up, what=f"a cluster with {count} workers")
        assert self.process.poll() is None, self.log
        return self.pids("worker")

    def end(self) -> None:
        """Whatever state it is in, leave nothing of it running."""
        if self.process.poll() is None:
            try:
                self.stop()
            except AssertionError:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40.0) -> int:
        """Send a signal and return the exit code; no process may be left."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the cluster does not stop: {self.processes()}, {self.log}") from error
        wait_until(lambda: not self.processes(), what="the cluster's processes to be gone")
        return code


@pytest.fixture
def mscluster(tenants: tuple[str, ...], settings: Any, tmp_path: Path) -> Iterator[Callable[..., RunningCluster]]:
    """Start a cluster on this test's queues: `mscluster("--workers", "2", TEST_TENANT_Q='{"lease": 2}')`."""
    from django.db import connections

    started: list[RunningCluster] = []

    def start(*arguments: str, wait: bool = True, **env: str) -> RunningCluster:
        name = settings.Q_CLUSTER["name"]
        log = tmp_path / f"mscluster-{len(started)}.log"
        arguments = arguments or ("--workers", "2")
        cluster = RunningCluster(*arguments, env={"Q_NAME": name, **env}, log=log)
        started.append(cluster)
        if wait:
            cluster.wait_for_workers(int(arguments[arguments.index("--workers") + 1]))
        return cluster

    yield start
    with ExitStack() as ends:
        ends.callback(connections.close_all)
        for cluster in started:
            ends.callback(cluster.end)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """A failed test shows its clusters' logs."""
    outcome: Any = yield
    report = outcome.get_result()
    folder = item.funcargs.get("tmp_path") if report.failed and hasattr(item, "funcargs") else None
    for log in sorted(folder.glob("mscluster-*.log")) if folder else ():
        report.sections.append((log.name, log.read_text()[-6000:]))
