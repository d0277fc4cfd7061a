"""One run of one contender: enqueue, start its workers, wait until every result is saved, stop them, look."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.contenders import Contender, Saved
from benchmarks.gauges import Cost, Gauges, memory_mb
from benchmarks.harness import BenchmarkError, percentile

if TYPE_CHECKING:
    from servers import Servers

PATIENCE = 900.0
POLL = 0.05
# So long after its last task a cluster counts as idle; with a thousand tenants it looks at their schedules meanwhile.
SETTLE, SETTLE_COUNTED = 2.0, 6.0
# So often each tenant has tasks before latency is measured: then nearly every worker has met nearly every tenant.
MEETINGS = 10


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured; `cost` is that of everything between the start of the workers and their end."""

    tasks: int
    tasks_per_s: float
    first_s: float
    memory_mb: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the moment a task was enqueued, or was to be, until it was started.

    `sender_p99` is how much of that had passed when the broker had it.
    """

    tasks: int
    per_s: float
    p50: float
    p99: float
    most: float
    sender_p99: float


class Workers:
    """The running workers of a contender, and a session of the benchmark's in its database."""

    def __init__(
        self, contender: Contender, process: subprocess.Popen[bytes], session: psycopg.Connection[Any]
    ) -> None:
        self.contender = contender
        self.process = process
        self.session = session
        self.begun = time.time()

    def wait(self, count: int) -> None:
        """Until so many rows are saved. Raises `BenchmarkError`."""
        deadline = time.monotonic() + PATIENCE
        # One transaction, so that looking adds no commits to those that are counted.
        with self.session.transaction():
            while self._number() < count:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(f"{self.contender.title}: {self._number()} of {count} tasks were saved.")
                time.sleep(POLL)

    def _number(self) -> int:
        [(last, is_called)] = self.session.execute("SELECT last_value, is_called FROM public.saved").fetchall()
        return int(last) if is_called else 0

    def memory_mb(self) -> float:
        return memory_mb(self.process.pid)

    def stop(self) -> float:
        """Returns the processor time in milliseconds that its processes took."""
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                return 1000 * (usage.ru_utime + usage.ru_stime)
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.contender.title} does not stop.")
            time.sleep(POLL)

    def kill(self) -> None:
        """What is left of its processes, which are the only ones of their session."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def started(contender: Contender, servers: Servers, **environment: str) -> Iterator[Workers]:
    """Its workers, until the end of the block. When it fails, the error has the end of their log."""
    with tempfile.TemporaryFile() as log, closing(contender.connect()) as session:
        session.execute("SELECT 1")
        workers = Workers(contender, contender.start(log, **environment), session)
        servers.adopt(workers.process, "workers")
        try:
            yield workers
        except (BenchmarkError, psycopg.Error) as error:
            log.seek(0)
            said = log.read()[-3000:].decode(errors="replace")
            raise BenchmarkError(f"{error} Its log ends: {said}") from error
        finally:
            workers.kill()


def run(
    contender: Contender, servers: Servers, job: str, count: int, *args: int, counted: bool = False, **environment: str
) -> Run:
    """Have `count` tasks run that were enqueued before. With `counted` everything is counted, and slower."""
    contender.clear()
    contender.act("queue", job, count, *args)
    with closing(Gauges(contender.key)) as gauges, gauges.counting() if counted else nullcontext():
        before = gauges.read()
        with started(contender, servers, **environment) as workers:
            workers.wait(count)
            # As long in the run with a single task, so that what a cluster does beside its tasks falls out of the cost.
            time.sleep(SETTLE_COUNTED if counted else SETTLE)
            memory = workers.memory_mb()
            cpu_ms = workers.stop()
        cost = gauges.read() - before
        with closing(contender.connect()) as session:
            saved = contender.saved(session)
    check(contender, saved, count)
    speed = (count - 1) / (saved.last - saved.first) if count > 1 else 0.0
    cost = Cost(cost.cpu_ms + cpu_ms, cost.commits, cost.statements, cost.redis_commands)
    return Run(count, speed, saved.first - workers.begun, memory, cost)


def check(contender: Contender, saved: Saved, count: int) -> None:
    if saved.count != count:
        raise BenchmarkError(f"{contender.title} has saved {saved.count} of {count} tasks.")


def latency(contender: Contender, servers: Servers, what: str, rate: float, seconds: float) -> Latency:
    """Enqueue `start` at this rate, by "trickle" or "stream", to workers that wait and have met nearly every tenant.

    The first second does not count.
    """
    contender.clear()
    warm_up = max(200, contender.tenants)
    with started(contender, servers) as workers:
        for number in range(MEETINGS):
            contender.act("queue", "nothing", warm_up)
            workers.wait((number + 1) * warm_up)
        time.sleep(SETTLE)
        sent_late = contender.act(what, rate, seconds)
        count = len(sent_late)
        workers.wait(MEETINGS * warm_up + count)
        workers.stop()
        results = [result for result in contender.results(workers.session) if result]
    if len(results) != count:
        raise BenchmarkError(f"{contender.title} has saved {len(results)} of {count} tasks.")
    begun = min(at for at, _ in results)
    late = [1000 * (since - at) for at, since in results if at > begun + min(1, seconds / 4)]
    span = max(at for at, _ in results) - begun
    sender = 1000 * percentile(sent_late, 0.99)
    return Latency(count, count / span, percentile(late, 0.5), percentile(late, 0.99), max(late), sender)
