"""The storm: tasks of many tenants while everything is killed. `python -m tests.chaos.storm [--long]`

It has servers of its own, plays the operator who starts a dead cluster again, and at the end counts effects and rows.
Its exit code is 0 when nothing was lost and nothing was done more often than may be.

Each incident is prepared before the tasks that will meet it are enqueued. The next one follows as soon as it has come,
so tasks of the one are still queued, running or put off when the next one strikes.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import Servers
from tests.chaos import points
from tests.chaos.ledger import Accepted, Account, Line, kills, read_log, recoveries
from tests.conftest import RunningCluster, wait_until

TENANTS = [f"storm_{n:02}" for n in range(20)]
CLUSTERS, WORKERS = 2, 2
EFFECT, LONG_EFFECT = "tests.chaos.tasks.effect", "tests.chaos.tasks.long_effect"
# Whatever happens to a task, it is started again.
PERSISTENT = {"max_attempts": 0, "retry_delay": 0.2}
LIMIT = 120.0


@dataclass(frozen=True)
class Incident:
    """An act at a named point, or of something from outside, at no point in particular."""

    act: str
    point: str = "-"


# 20 SIGKILLs.
ROUND = [
    *(Incident("kill", point) for point in points.WORKER),
    *(Incident("kill", point) for point in points.SENTINEL),  # each of them with a worker, whom it finds dead
    *(Incident("kill", point) for point in points.SCHEDULER),
    Incident("kill-tree", "after-claim"),
    Incident("kill-tree", "after-effect-in-transaction"),
    Incident("kill-tree", "before-ack"),
    Incident("kill-worker"),
    Incident("kill-sentinel"),
    Incident("kill-scheduler"),
]
SERVERS = [Incident("kill-redis"), Incident("kill-postgres")]
FREEZES = [Incident("freeze-tree", "after-effect-in-transaction"), Incident("freeze-tree", "before-ack")]


class Storm:
    """One run, in the directory `path`. The order of the incidents depends on `seed` alone."""

    def __init__(self, servers: Servers, path: Path, *, tasks: int, rounds: int, server_kills: int, seed: int) -> None:
        self.servers = servers
        self.path = path
        self.tasks = tasks
        self.random = random.Random(seed)
        self.plan = self.incidents(rounds, server_kills)
        self.random.shuffle(self.plan)
        self.accepted = Accepted()
        self.refused = 0
        self.clusters: list[RunningCluster] = []
        self._started = 0
        self._orders = 0

    def incidents(self, rounds: int, server_kills: int) -> list[Incident]:
        return [*ROUND * rounds, *(SERVERS + FREEZES) * server_kills]

    def run(self) -> Any:
        self.clusters = [self._start_cluster() for _ in range(CLUSTERS)]
        for cluster in self.clusters:
            cluster.wait_for_workers(WORKERS)
        share, rest = divmod(self.tasks, len(self.plan))
        for number, incident in enumerate(self.plan):
            self._strike(incident, share + (number < rest))
        self._drain()
        for cluster in self.clusters:
            code = cluster.stop()
            assert code == 0, f"a cluster ended with exit code {code}: {cluster.log}"
        return self._account()

    def end(self) -> None:
        """Leave nothing running, however it came out."""
        for cluster in self.clusters:
            try:
                os.killpg(cluster.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            cluster.process.wait()

    # The operator

    def _start_cluster(self) -> RunningCluster:
        self._started += 1
        env = {"Q_NAME": os.environ["Q_NAME"], "CHAOS_DIR": str(self.path)}
        log = self.path / f"mscluster-{self._started:03}.log"
        cluster = RunningCluster("--workers", str(WORKERS), env=env, log=log)
        self.servers.adopt(cluster.process, f"mscluster-{self._started}", signal.SIGKILL)
        return cluster

    def _operate(self) -> None:
        """Start again what has ended, as a service manager does."""
        for place, cluster in enumerate(self.clusters):
            if cluster.process.poll() is not None:
                self.clusters[place] = self._start_cluster()

    def _wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        def look() -> Any:
            self._operate()
            return condition()

        return wait_until(look, LIMIT, what)

    def _insist(self, act: Callable[[], Any]) -> Any:
        """Do something until the servers take it; it must be the same thing each time."""
        import psycopg
        from django.db import Error, connections

        from tenant_q.exceptions import BrokerError, DatabaseAway

        deadline = time.monotonic() + LIMIT
        while True:
            try:
                return act()
            except (BrokerError, DatabaseAway, Error, psycopg.Error):
                self.refused += 1
                connections.close_all()
                self._operate()
                if time.monotonic() > deadline:
                    raise

    # Enqueueing

    def _enqueue(self, count: int) -> None:
        """Tasks of every kind, the last ones as a chain."""
        links = min(3, count)
        for _ in range(count - links):
            self._enqueue_task()
        self._enqueue_chain(links)

    def _enqueue_task(self) -> None:
        from tenant_q.lifecycle import submit

        key, schema = uuid.uuid4().hex, self.random.choice(TENANTS)
        transactional = self.random.random() < 0.5
        func = LONG_EFFECT if self.random.random() < 0.03 else EFFECT
        options = {"q_options": PERSISTENT | {"transactional": transactional}}
        self._insist(lambda: submit.submit(func, (key,), options, schema=schema, id=key))
        (self.accepted.transactional if transactional else self.accepted.plain)[key] = schema

    def _enqueue_chain(self, length: int) -> None:
        """A chain made again after an error would be another chain, so each link's effect might be there twice."""
        from tenant_q.brokers import get_broker
        from tenant_q.lifecycle import submit

        schema, keys = self.random.choice(TENANTS), [uuid.uuid4().hex for _ in range(length)]
        chain = [(EFFECT, (key,), {"q_options": PERSISTENT}) for key in keys]
        self._insist(get_broker().ping)
        group = submit.submit_chain(chain, schema=schema)
        self.accepted.chains[group] = schema, length
        self.accepted.links.update(dict.fromkeys(keys, schema))

    def _schedule(self) -> None:
        """A schedule that is due now, once."""
        from django.utils import timezone
        from django_q.models import Schedule

        from tenant_q.tenancy import in_schema

        key, schema = f"fire-{uuid.uuid4().hex}", self.random.choice(TENANTS)
        with in_schema(schema):
            Schedule.objects.create(
                name=key,
                func=EFFECT,
                args=f"('{key}',)",
                kwargs=f"{{'q_options': {PERSISTENT}}}",
                schedule_type=Schedule.ONCE,
                next_run=timezone.now(),
            )
        self.accepted.fires[key] = schema

    # Incidents

    def _strike(self, incident: Incident, tasks: int) -> None:
        if incident in SERVERS:
            self._strike_server(incident.act.removeprefix("kill-"), tasks)
        elif incident in FREEZES:
            self._freeze(incident, tasks)
        elif incident.point == "-":
            self._enqueue(tasks)
            self._kill_one(incident.act.removeprefix("kill-"))
        else:
            self._strike_at_point(incident, tasks)

    def _strike_at_point(self, incident: Incident, tasks: int) -> None:
        from tenant_q.brokers import get_broker

        order = self._order(incident.act, incident.point)
        self._lead_to(incident.point, tasks)

        def has_come() -> bool:
            # A worker that died with its sentinel, for one, leads no sentinel to the point: then another one.
            if order.exists() and self._insist(get_broker().counts).open == 0:
                self._lead_to(incident.point, 5)
            return not order.exists()

        self._wait_until(has_come, str(incident))

    def _lead_to(self, point: str, tasks: int) -> None:
        """Give the clusters work that brings a process past the point."""
        if point in points.SENTINEL:
            self._order("kill", "mid-run")
        if point in points.SCHEDULER:
            self._schedule()
        self._enqueue(tasks)

    def _order(self, act: str, point: str) -> Path:
        self._orders += 1
        path = self.path / "orders" / point / f"{act}-{self._orders:05}"
        path.touch()
        return path

    def _freeze(self, incident: Incident, tasks: int) -> None:
        """A whole cluster sleeps until another has taken over its packages, then goes on as if it still held them."""
        from tenant_q.brokers import get_broker

        before = len(self._obeyed(incident))
        self._strike_at_point(incident, tasks)
        (frozen,) = self._wait_until(lambda: self._obeyed(incident)[before:], "the freeze")
        _, _, group, *ids = frozen.words
        # The order is in the log before the signal is out, and one that goes on before it sleeps would sleep for good.
        self._wait_until(lambda: points.sleeps(int(group)), "the cluster to sleep")

        broker = get_broker()

        def is_leased(id: str) -> bool:
            return self._insist(lambda: broker.client.zscore(f"{broker.tag}:leases", id)) is not None

        def is_taken_over() -> bool:
            claims = read_log(self.path, "claim")
            # After an outage its leases may have run out before it froze, and another have finished with them.
            return any(line.at > frozen.at and set(ids) & set(line.words) for line in claims) or not any(
                is_leased(id) for id in ids
            )

        try:
            self._wait_until(is_taken_over, "the frozen packages to be taken over")
        finally:
            os.killpg(int(group), signal.SIGCONT)

    def _obeyed(self, incident: Incident) -> list[Line]:
        """Where such an incident came to pass. An order of another kind may be obeyed later than one given after it."""
        return [line for line in read_log(self.path, "obey") if line.words[:2] == (incident.act, incident.point)]

    def _strike_server(self, name: str, tasks: int) -> None:
        """Enqueue while it is away, too."""
        from django.db import connections

        down = self.random.uniform(0.1, 1.0)

        def restart() -> None:
            getattr(self.servers, f"kill_{name}")()
            time.sleep(down)
            getattr(self.servers, f"start_{name}")()
            points.note("started", name, path=self.path)

        self._enqueue(tasks // 2)
        thread = threading.Thread(target=restart)
        thread.start()
        while thread.is_alive() and tasks > tasks // 2 + 3:
            self._enqueue_task()
            tasks -= 1
        thread.join()
        assert len(read_log(self.path, "started")), f"{name} does not come back"
        connections.close_all()
        self._enqueue(tasks - tasks // 2)

    def _kill_one(self, role: str) -> None:
        """From outside, wherever it is just now."""
        pids = self._wait_until(lambda: [pid for one in self.clusters for pid in one.pids(role)], f"a {role}")
        try:
            os.kill(self.random.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            self._kill_one(role)
        else:
            points.note("obey", f"kill-{role}", "-", "-", path=self.path)

    # The end

    def _drain(self) -> None:
        from tenant_q.brokers import get_broker

        schedules = "SELECT 1 FROM {}.django_q_schedule"
        self._wait_until(lambda: not self._select(schedules), "every schedule to fire")
        # A fire is pushed before its schedule goes, and a chain's next link before the one before it is acknowledged.
        self._wait_until(lambda: get_broker().counts().open == 0, "everything to be done")

    def _account(self) -> Account:
        from tenant_q.brokers import get_broker

        broker = get_broker()
        counts = broker.counts()
        tag = f"{{tq:{broker.cluster}}}:"
        effects = self._select("SELECT task_key, count(*) FROM {}.chaos_effect GROUP BY 1")
        rows = self._select("SELECT id, success FROM {}.django_q_task")
        groups = self._select('SELECT "group", count(*) FROM {}.django_q_task WHERE success GROUP BY 1')
        return Account(
            accepted=self.accepted,
            kills=kills(self.path),
            recoveries=recoveries(self.path),
            starts=sum(len(line.words) for line in read_log(self.path, "claim")),
            effects=Counter({(key, schema): n for key, n, schema in effects}),
            rows={(id, schema): success for id, success, schema in rows},
            groups={(group, schema): n for group, n, schema in groups},
            statistics=broker.statistics(),
            keys={key_name(key.decode().removeprefix(tag)) for key in broker.client.scan_iter(f"{tag}*")},
            places={name: getattr(counts, name) for name in ("queued", "leased", "delayed", "dead")},
            refused=self.refused,
            clusters=self._started,
        )

    def _select(self, statement: str) -> list[Any]:
        """The rows of a statement in every tenant, each with the tenant's name at its end."""
        from django.db import connection

        query = " UNION ALL ".join(f"SELECT *, '{name}' FROM ({statement.format(name)}) t" for name in TENANTS)
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


def key_name(key: str) -> str:
    """The name of a broker's key; what is kept of the figures of each five minutes, part and tenant is one."""
    key = re.sub(r"^django_q:[^:]+:cluster:.+$", "status of a cluster", key)  # it expires after seconds
    return re.sub(r"^(figures|day|day_busy|day_functions|day_tenants):.+$", r"\1", key)


def _set_up_django(servers: Servers) -> None:
    os.environ |= {
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": servers.redis_url,
        "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
        "Q_NAME": "storm",
        "CONN_MAX_AGE": "3600",
        # Every row is counted at the end. Tasks are killed more often than is their fault.
        "TEST_Q_CLUSTER": '{"save_limit": 0}',
        "TEST_TENANT_Q": '{"lease": 2, "max_deliveries": 1000}',
    }
    import django

    django.setup()


def _make_tenants(tables: Sequence[str]) -> None:
    from django.core.management import call_command
    from django.db import connection

    from tests import schemas

    call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
    schemas.make_tenant("public")
    schemas.make_tenant("template")
    schemas.clone_tenants(TENANTS, "template")
    with connection.cursor() as cursor:
        for name in TENANTS:
            for table in tables:
                cursor.execute(table.format(name))


Sizes = tuple[int, int, int]


def main(kind: type[Storm], short: Sizes, long: Sizes, *, tables: Sequence[str]) -> int:
    """Let a storm pass.

    Parameters: `short` and `long`, the number of tasks, of rounds of kills and of kills of each server; `tables`, the
    statements that create tables of a tenant for the effects.
    """
    parser = argparse.ArgumentParser(prog="storm", description=kind.__doc__)
    parser.add_argument(
        "--long", action="store_true", help=f"{long[0]} tasks, {long[1]} rounds, {long[2]} of each server"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    tasks, rounds, server_kills = long if options.long else short
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what leaves nothing behind
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tq-storm-")))
        points.prepare(path)
        servers = stack.enter_context(Servers(durable=True, own=True))
        _set_up_django(servers)
        _make_tenants(tables)
        storm = kind(servers, path, tasks=tasks, rounds=rounds, server_kills=server_kills, seed=options.seed)
        stack.callback(storm.end)
        ready = time.monotonic()
        try:
            account = storm.run()
        except BaseException:
            _show_logs(path)
            print(f"The storm broke off; its seed is {options.seed}.", flush=True)
            raise
        account.show()
        problems = account.problems()
        if problems:
            _show_logs(path)
    print(f"seed {options.seed}; {ready - begun:.1f} s to get ready, {time.monotonic() - ready:.1f} s of storm")
    for problem in problems:
        print(f"PROBLEM: {problem[:4000]}")
    return 1 if problems else 0


def _show_logs(path: Path) -> None:
    for log in sorted(path.glob("mscluster-*.log")):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    effects = "CREATE TABLE {}.chaos_effect (task_key text, at timestamptz)"
    sys.exit(main(Storm, (600, 1, 1), (10_000, 10, 5), tables=[effects]))
