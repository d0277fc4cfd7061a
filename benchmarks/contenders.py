"""Those that `make bench` compares: how each is started, what it keeps where, and what it guarantees."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg

from benchmarks import harness
from benchmarks.harness import MANAGE, ROOT, BenchmarkError

if TYPE_CHECKING:
    import redis

PEERS = ROOT / ".venvs" / "peers" / "bin" / "python"
WORKERS = 2
# Statements on more tables at once would be slow to plan.
TABLES_A_STATEMENT = 100

# What is said of each: see `report.QUESTIONS`.
OURS = (
    "no task lost",
    "saved before the acknowledgement",
    "fenced: cannot acknowledge",
    "fair, by worker time",
    "asked of the server for each slice",
)
GUARANTEES = {
    "tenant_q": OURS,
    "django_q2": (
        "what its processes hold is lost",
        "the task has left Redis before it runs",
        "no acknowledgement",
        "first come, first served",
        "one schema only",
    ),
    "celery": (
        "what runs is lost; what waits in the process is delivered after an hour",
        "acknowledged before it runs",
        "not fenced",
        "first come, first served",
        "set, not asked",
    ),
    "dramatiq": (
        "delivered again after a minute",
        "state saved before the acknowledgement",
        "not fenced",
        "first come, first served",
        "one schema only",
    ),
}


@dataclass(frozen=True)
class Saved:
    """The saved rows of a run: how many, and by the server's clock when the first and the last."""

    count: int
    first: float
    last: float


@dataclass(frozen=True)
class Contender:
    """One of those compared, on a database of its own.

    Parameters: `kind`, of the `SIDES` of its processes; `tenants`, how many it serves, 0 for one schema without
    tenants; `command`, its workers; `table`, that of its results, in the schema of each tenant.
    """

    kind: str
    title: str
    command: Sequence[str]
    table: str
    tenants: int = 0
    python: str = sys.executable
    # Whether its processes keep their connections whatever CONN_MAX_AGE says.
    keeps_connections: bool = False
    is_done: str = "true"
    environment: dict[str, str] = field(default_factory=lambda: {"CONN_MAX_AGE": "600"})

    @property
    def key(self) -> str:
        return f"{self.kind}_{self.tenants}" if self.tenants else self.kind

    @property
    def guarantees(self) -> tuple[str, ...]:
        return GUARANTEES[self.kind]

    @cached_property
    def url(self) -> str:
        return os.environ["DATABASE_URL"].replace("/testproject?", f"/{self.key}?")

    @cached_property
    def tables(self) -> list[str]:
        schemas = harness.tenant_names(self.tenants) if self.tenants else ["public"]
        return [f"{schema}.{self.table}" for schema in schemas]

    # Its processes

    def environ(self, **more: str) -> dict[str, str]:
        own = {"CONTENDER": self.kind, "TENANTS": str(self.tenants), "DATABASE_URL": self.url}
        own |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings_contest", "Q_WORKERS": str(WORKERS)}
        return os.environ | own | self.environment | more

    def act(self, *words: str | int | float, module: str = "benchmarks.sender") -> Any:
        """Have a process of its own prepare or enqueue. Returns what that measured."""
        command = [self.python, "-m", module, *map(str, words)]
        done = subprocess.run(command, env=self.environ(), cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise BenchmarkError(f"{self.title}, {' '.join(map(str, words))}: {done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def start(self, log: IO[bytes], **environment: str) -> subprocess.Popen[bytes]:
        command = [self.python, *self.command]
        return subprocess.Popen(
            command, env=self.environ(**environment), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )

    # Its tables

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def prepare(self) -> None:
        """Make its database: with tenants a copy of the test project's, else an empty one."""
        template = "testproject" if self.tenants else "template1"
        with closing(psycopg.connect(maintenance_url(), autocommit=True)) as session:
            session.execute(f'CREATE DATABASE "{self.key}" TEMPLATE {template}'.encode())
        self.act("prepare")

    def clear(self) -> None:
        """No rows, and nothing in Redis."""
        with closing(self.connect()) as session:
            for first in range(0, len(self.tables), TABLES_A_STATEMENT):
                session.execute(f"TRUNCATE {', '.join(self.tables[first : first + TABLES_A_STATEMENT])}".encode())
            session.execute("ALTER SEQUENCE public.saved RESTART")
        redis_client().flushall()

    def saved(self, session: psycopg.Connection[Any]) -> Saved:
        """What is in its tables."""
        found: list[tuple[int, float, float]] = []
        columns = "count(*), extract(epoch FROM min(saved_at)), extract(epoch FROM max(saved_at))"
        for first in range(0, len(self.tables), TABLES_A_STATEMENT):
            some = self.tables[first : first + TABLES_A_STATEMENT]
            rows = " UNION ALL ".join(f"SELECT saved_at FROM {table} WHERE {self.is_done}" for table in some)
            found += session.execute(f"SELECT {columns} FROM ({rows}) AS rows".encode()).fetchall()
        times = [time for row in found for time in row[1:] if time is not None]
        return Saved(sum(row[0] for row in found), float(min(times, default=0)), float(max(times, default=0)))

    def results(self, session: psycopg.Connection[Any]) -> list[Any]:
        """The results in its tables, of those that keep them as Django-Q2's model does."""
        from picklefield.fields import dbsafe_decode

        found = []
        for first in range(0, len(self.tables), TABLES_A_STATEMENT):
            some = self.tables[first : first + TABLES_A_STATEMENT]
            rows = " UNION ALL ".join(f"SELECT result FROM {table} WHERE result IS NOT NULL" for table in some)
            found += [dbsafe_decode(text) for (text,) in session.execute(rows.encode())]
        return found


def tenant_q(tenants: int) -> Contender:
    title = f"tenant_q, {tenants:,} tenant{'s'[: tenants - 1]}"
    command = (str(MANAGE), "mscluster")
    return Contender("tenant_q", title, command, "django_q_task", tenants, keeps_connections=True)


DJANGO_Q2 = Contender("django_q2", "Django-Q2", ("-m", "django", "qcluster"), "django_q_task")


def peers(tenants: int) -> list[Contender]:
    """Celery and dramatiq, where they are installed."""
    python = str(PEERS) if PEERS.exists() else sys.executable
    celery = ("-m", "celery", "-A", "benchmarks.celery_app", "worker", "-c", str(WORKERS), "--loglevel", "WARNING")
    dramatiq = ("-m", "dramatiq", "benchmarks.dramatiq_actors", "--processes", str(WORKERS), "--threads", "1")
    table, tenant = "django_celery_results_taskresult", f"Celery, {tenants} tenants"
    found = []
    if _has(python, "celery", "tenant_schemas_celery", "django_celery_results"):
        found.append(Contender("celery", tenant, celery, table, tenants, python))
    if _has(python, "dramatiq", "django_dramatiq"):
        done = "status = 'done'"
        found.append(Contender("dramatiq", "dramatiq", dramatiq, "django_dramatiq_task", 0, python, is_done=done))
    return found


def _has(python: str, *packages: str) -> bool:
    if python == sys.executable:
        return all(importlib.util.find_spec(package) for package in packages)
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {packages!r})))"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def peer_versions() -> dict[str, str]:
    """What `make bench-peers` has installed, or nothing."""
    python = PEERS if PEERS.exists() else Path(sys.executable)
    names = [
        line.partition("[")[0]
        for line in (ROOT / "benchmarks" / "peers.txt").read_text().split("\n")
        if line[:1].isalpha()
    ]
    code = (
        "import importlib.metadata as m, json; "
        f"print(json.dumps({{n: m.version(n) for n in {names!r} if list(m.distributions(name=n))}}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


# The servers


def maintenance_url() -> str:
    return os.environ["DATABASE_URL"].replace("/testproject?", "/postgres?")


def redis_client() -> redis.Redis:
    import redis

    return redis.Redis.from_url(os.environ["REDIS_URL"])


def redis_socket() -> str:
    """The path of the socket that REDIS_URL names."""
    parts = urlsplit(os.environ["REDIS_URL"])
    if parts.scheme != "unix" or "db" not in parse_qs(parts.query):
        raise BenchmarkError(f"The broker is not the embedded one: {os.environ['REDIS_URL']}")
    return unquote(parts.path)
