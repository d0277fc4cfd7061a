"""What a run costs: processor time, memory, what PostgreSQL and Redis were asked for.

PostgreSQL and Redis are the benchmark's own and serve nobody else, so what their counters gain meanwhile is the run's.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from benchmarks.contenders import maintenance_url, redis_client, redis_socket
from benchmarks.harness import BenchmarkError

if TYPE_CHECKING:
    from servers import Servers

MARK = b"what came before is counted"


@dataclass(frozen=True, slots=True)
class Cost:
    """What was used. `redis_commands` and `statements` are 0 where they were not counted.

    `redis_commands` are those that clients send, each of them a round trip or a part of one; what a script calls is
    within its command. `statements` are those of PostgreSQL; several may travel together.
    """

    cpu_ms: float = 0.0
    commits: float = 0.0
    statements: float = 0.0
    redis_commands: float = 0.0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(one - two for one, two in zip(astuple(self), astuple(other), strict=True)))

    def __truediv__(self, count: int) -> Cost:
        return Cost(*(one / count for one in astuple(self)))


class Gauges:
    """The servers' counters for one database. Its own session is in another one."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.session = psycopg.connect(maintenance_url(), autocommit=True)
        postgres = psutil.Process(self.session.info.backend_pid).parent()
        assert postgres is not None, "PostgreSQL has ended"
        self.postgres = postgres
        self.redis = psutil.Process(redis_client().info("server")["process_id"])
        self._redis_commands = 0
        self._caught_up = threading.Event()
        self._counting: threading.Thread | None = None

    def read(self) -> Cost:
        (commits,) = self._ask("SELECT xact_commit FROM pg_stat_database WHERE datname = %s")
        statements = 0
        if self._counting:
            self._catch_up()
            where = "(SELECT oid FROM pg_database WHERE datname = %s) AND query NOT LIKE '%%public.saved%%'"
            (statements,) = self._ask(f"SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE dbid = {where}")
        return Cost(self._cpu_ms(), float(commits), float(statements), float(self._redis_commands))

    def _ask(self, query: str) -> Any:
        return self.session.execute(query.encode(), [self.database]).fetchone()

    def _cpu_ms(self) -> float:
        """Of both servers, with all backends that were."""
        # Of its live children the own session is left out; those that have ended are in the parent's figures.
        backends = [one for one in self.postgres.children() if one.pid != self.session.info.backend_pid]
        used = _seconds(self.redis, False) + _seconds(self.postgres, True)
        return 1000 * (used + sum(_seconds(one, False) for one in backends))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count statements and Redis commands in this block, which makes both servers slower."""
        # Rare statements are forgotten when there are too many, and their calls with them.
        self.session.execute("SELECT pg_stat_statements_reset()")
        self._track("top")
        monitor = socket.socket(socket.AF_UNIX)
        with closing(monitor):
            monitor.connect(redis_socket())
            monitor.sendall(b"MONITOR\r\n")
            self._counting = threading.Thread(target=self._count_commands, args=(monitor.dup(),))
            self._counting.start()
            try:
                yield
            finally:
                monitor.shutdown(socket.SHUT_RDWR)
                self._counting.join()
                self._counting = None
                self._track("none")

    def _track(self, what: str) -> None:
        self.session.execute(f"ALTER SYSTEM SET pg_stat_statements.track = '{what}'".encode())
        self.session.execute("SELECT pg_reload_conf()")

    def _catch_up(self) -> None:
        """Wait until all commands up to now are counted."""
        self._caught_up.clear()
        redis_client().echo(MARK)
        if not self._caught_up.wait(60):
            raise BenchmarkError("Redis does not tell its commands.")

    def _count_commands(self, monitor: socket.socket) -> None:
        # A line for each command; those that a script calls have "lua" in place of the client's address.
        with monitor.makefile("rb") as lines:
            for line in lines:
                words = line[:64].split(b" ", 3)
                self._redis_commands += len(words) == 4 and words[2] != b"lua]"
                if MARK in line:
                    self._caught_up.set()

    def close(self) -> None:
        self.session.close()


def _seconds(process: psutil.Process, with_children: bool) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    children = times.children_user + times.children_system if with_children else 0.0
    return float(times.user + times.system + children)


def enable_statements(servers: Servers) -> None:
    """Have PostgreSQL know how to count statements, which it does only when told to. It is started anew."""
    with closing(psycopg.connect(maintenance_url(), autocommit=True)) as session:
        session.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        session.execute("ALTER SYSTEM SET pg_stat_statements.track = 'none'")
        session.execute("ALTER SYSTEM SET pg_stat_statements.max = 20000")
    servers.restart_postgres()
    with closing(psycopg.connect(maintenance_url(), autocommit=True)) as session:
        session.execute("CREATE EXTENSION pg_stat_statements")


def memory_mb(pid: int) -> float:
    """The memory of a process and its descendants in MB; what they share, also with others, counts in shares (PSS)."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_pss_kb(one.pid) for one in family) / 1024


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
