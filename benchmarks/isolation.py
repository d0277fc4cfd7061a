"""Compare the three modes of `TENANT_Q["isolation"]` in one run, in turns on one server of SCRAM passwords.

python -m benchmarks.isolation [--rounds 5] [--tasks 6000] [--tenants 1 100 1000]

In each turn a fresh process enqueues tasks without and with one query for all tenants, and a cluster with two workers
runs them. Prints tasks a second, medians, and their ratio to "path".
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import MANAGE, ROOT, median, table, tenant_names

TITLE = "Tasks a second with each mode of isolation; the ratios are medians of those of each round"
MODES = ("path", "role", "login")
KINDS = {"no-op": "benchmarks.jobs.nothing", "one query": "benchmarks.jobs.one_query"}
OWNER, ADMIN, DATABASE = "site_owner", "site_admin", "benchmark"
_RUN = """
import subprocess, sys, time
import django
django.setup()
import logging
logging.getLogger("tenant_q").setLevel(logging.ERROR)
from benchmarks.harness import wait_until
from tenant_q.brokers import get_broker
from tenant_q.lifecycle import push
from tenant_q.package.build import build

tasks, names, func = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
broker, of_each = get_broker(), max(tasks // len(names), 1)
for name in names:
    for first in range(0, of_each, 500):
        push.push([build(func, (), {}, schema=name) for _ in range(min(500, of_each - first))])
cluster = subprocess.Popen([sys.executable, sys.argv[4], "mscluster", "--workers", "2"], stdout=subprocess.DEVNULL)
try:
    whole = broker.counts().open
    wait_until(lambda: broker.counts().open < whole, 60, "the first task")
    first, begun = broker.counts().open, time.perf_counter()
    wait_until(lambda: broker.counts().open <= 300, 600, "the last 300 tasks")
    speed = (first - broker.counts().open) / (time.perf_counter() - begun)
    wait_until(lambda: not broker.counts().open, 60, "the end of all tasks")
finally:
    cluster.terminate()
    cluster.wait(60)
print(speed)
"""


@dataclass(frozen=True)
class Speed:
    """The tasks a second of one kind and one mode, with so many tenants: each round's."""

    kind: str
    mode: str
    tenants: int
    rounds: list[float]


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=6000, help="of each kind, in each turn")
    parser.add_argument("--tenants", type=int, nargs="+", default=[1, 100, 1000])
    options = parser.parse_args()
    print(told(measure(options.tenants, options.tasks, options.rounds)))
    return 0


def measure(tenants: Sequence[int], tasks: int, rounds: int) -> list[Speed]:
    """Measure all modes in turns, with each number of tenants and each kind of task."""
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    names = tenant_names(max(tenants))
    with site(names) as environment:
        for number in range(rounds):
            for count in tenants:
                for kind, func in KINDS.items():
                    for mode in MODES[:: 1 if number % 2 else -1]:
                        speed = _turn(environment[mode], tasks, names[:count], func)
                        found[kind, mode, count].append(speed)
                        print(f"{kind}, {count} tenants, {mode}: {speed:.0f}", file=sys.stderr, flush=True)
    return [Speed(*key, values) for key, values in found.items()]


def told(speeds: Sequence[Speed]) -> str:
    """Return the table of the modes."""
    by_key = {(one.kind, one.tenants, one.mode): one.rounds for one in speeds}
    rows = []
    for kind, tenants in dict.fromkeys((one.kind, one.tenants) for one in speeds):
        path = by_key[kind, tenants, "path"]
        row: list[Any] = [f"{kind}, {tenants:,} tenants", f"{median(path):,.0f}"]
        for mode in MODES[1:]:
            own = by_key[kind, tenants, mode]
            ratio = median([one / other for one, other in zip(own, path, strict=True)])
            row += [f"{median(own):,.0f}", f"{100 * ratio:.0f} %"]
        rows.append(row)
    return table(["tasks a second", "path", "role", "of path", "login", "of path"], rows)


@contextmanager
def site(names: Sequence[str]) -> Iterator[dict[str, dict[str, str]]]:
    """A server with tenants that all have roles. Yields the environment of each mode's processes."""
    from servers import Servers

    servers = Servers(own=True)
    servers.password = secrets.token_urlsafe(24)
    servers.postgres_options = {"password_encryption": "scram-sha-256"}
    with servers:
        passwords = {role: secrets.token_urlsafe(24) for role in (OWNER, ADMIN)}
        urls = _prepare_server(servers.database_url, passwords)
        given: dict[str, Any] = {"role_key": secrets.token_urlsafe(32), "admin_database": urls[ADMIN]}
        common = {
            "DATABASE_URL": urls[OWNER],
            "REDIS_URL": servers.redis_url,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DEBUG": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
        }
        environment = {
            mode: common | {"TEST_TENANT_Q": json.dumps(given | {"isolation": mode}), "Q_NAME": f"bench_{mode}"}
            for mode in MODES
        }
        _python(environment["role"], "-c", _PREPARE, *names)
        yield environment


_PREPARE = """
import sys
import django
django.setup()
from tests import schemas
from tenant_q.provisioning import provision_tenant
schemas.make_base_tenants()
schemas.clone_tenants(sys.argv[1:])
for name in sys.argv[1:]:
    provision_tenant(name, adopt=True, actor="benchmark", probe=False)
"""


def _prepare_server(url: str, passwords: dict[str, str]) -> dict[str, str]:
    """Make the owner, the admin and the database. Returns the URLs of both."""
    import psycopg
    from psycopg import conninfo, sql

    with psycopg.connect(url, autocommit=True) as raw:
        for role, rights in ((OWNER, sql.SQL("LOGIN")), (ADMIN, sql.SQL("LOGIN CREATEROLE"))):
            raw.execute(
                sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                    sql.Identifier(role), rights, sql.Literal(passwords[role])
                )
            )
        raw.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        host = str(conninfo.conninfo_to_dict(url)["host"])
    return {role: f"postgresql://{role}:{passwords[role]}@/{DATABASE}?host={host}" for role in passwords}


def _turn(environment: dict[str, str], tasks: int, names: Sequence[str], func: str) -> float:
    """Run one turn of a mode. Returns tasks a second."""
    done = _python(environment, "-c", _RUN, str(tasks), ",".join(names), func, str(MANAGE))
    return float(done.split()[-1])


def _python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
