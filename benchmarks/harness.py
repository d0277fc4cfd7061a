"""What every benchmark needs: servers of its own, tenants by the thousand, a running cluster, figures and tables."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MANAGE = ROOT / "testproject" / "manage.py"
sys.path[:0] = [str(ROOT), str(ROOT / "testproject")]

from servers import Servers, start_servers  # noqa: E402

TEMPLATE = "template"
# Each makes several locks, and the server has room for so many in one transaction.
SCHEMAS_A_TRANSACTION = 200


class BenchmarkError(Exception):
    """The measurement cannot be made, or its figures would mean nothing. The text says why."""


# The project


@contextmanager
def project(*, durable: bool) -> Iterator[Servers]:
    """Servers of this benchmark's own, and the test project on them, with its shared tables and one tenant.

    `durable` servers write everything through to the disk before they acknowledge it.
    """
    with start_servers(durable=durable, own=True) as servers:
        os.environ |= {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DEBUG": "0",
            "Q_NAME": "benchmark",
            "PYTHONPATH": os.pathsep.join(sys.path[:2]),
        }
        import django

        django.setup()
        logging.getLogger("tenant_q").setLevel(logging.WARNING)
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
        _make_template()
        try:
            yield servers
        finally:
            connections.close_all()


def _make_template() -> None:
    """One tenant as users make them; the others are copies of its tables."""
    from tests.schemas import make_tenant

    make_tenant(TEMPLATE)


def tenant_names(count: int) -> list[str]:
    return [f"tenant_{number:05}" for number in range(count)]


def clone_tenants(names: Sequence[str], fill: str = "") -> None:
    """Tenants with empty copies of Django-Q2's tables, which is all that a cluster asks for, in the due index.

    Parameters: `fill`, SQL that is run for each of them by `for_each()`, before it is put into the index.
    """
    from tenant_q import tenancy

    tables = ("django_q_schedule", "django_q_task", "django_q_ormq")
    copies = "".join(
        f"EXECUTE format('CREATE TABLE %I.{table} (LIKE {TEMPLATE}.{table} INCLUDING ALL)', name);" for table in tables
    )
    install = "PERFORM public.tenant_q_install_index(name);"
    for_each(names, f"EXECUTE format('CREATE SCHEMA %I', name); {copies} {fill} {install}")
    model = tenancy.tenant_model()
    model.objects.bulk_create(
        [model(schema_name=name, name=name, **_domain(model, name)) for name in names], batch_size=1000
    )


def _domain(model: Any, name: str) -> dict[str, str]:
    has_one = any(field.name == "domain_url" for field in model._meta.fields)
    return {"domain_url": f"{name}.localhost"} if has_one else {}


def for_each(names: Sequence[str], body: str) -> None:
    """Run PL/pgSQL once for each schema, whose name is in the variable `name`: some hundred in a transaction."""
    import psycopg

    # A session of its own: what a session remembers of thousands of tables would slow down what is measured.
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        for first in range(0, len(names), SCHEMAS_A_TRANSACTION):
            listed = ", ".join(f"'{name}'" for name in names[first : first + SCHEMAS_A_TRANSACTION])
            connection.execute(
                f"DO $$ DECLARE name text; BEGIN "
                f"FOREACH name IN ARRAY ARRAY[{listed}] LOOP {body} END LOOP; END $$".encode()
            )


def analyze() -> None:
    """What autovacuum would do in a while."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE tenant_q_dueschedule, tenant_q_indexedschema")


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A real `mscluster`."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


@contextmanager
def cluster(workers: int) -> Iterator[RunningCluster]:
    """A real `mscluster`, until the end of the block. Raises `BenchmarkError` when it fails."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        with path.open("wb") as log:
            command = [sys.executable, str(MANAGE), "mscluster", "--workers", str(workers)]
            environment = os.environ | {"DJANGO_SETTINGS_MODULE": "benchmarks.settings"}
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        running = RunningCluster(process, path)
        try:
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        if code:
            raise BenchmarkError(f"The cluster failed ({code}): {running.log[-4000:]}")


def waits(condition: Callable[[], Any], seconds: float) -> bool:
    """Ask until it is so, for `seconds` at most. Returns whether it is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(found)


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Ask until it is so. Raises `BenchmarkError` after `seconds`."""
    if not waits(condition, seconds):
        raise BenchmarkError(f"{what} did not come true within {seconds:g} s.")


# Figures


def timed(act: Callable[[], Any]) -> float:
    """The milliseconds that a call takes."""
    begun = time.perf_counter()
    act()
    return (time.perf_counter() - begun) * 1000


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` (0 to 1) of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def count_statements(act: Callable[[], Any], connection: Any) -> int:
    """What a call asks the server on a connection of Django's, as libpq sees it: BEGIN and COMMIT are counted too."""
    connection.ensure_connection()
    pgconn = connection.connection.pgconn
    with tempfile.TemporaryFile() as file:
        pgconn.trace(file.fileno())
        try:
            act()
        finally:
            pgconn.untrace()
        file.seek(0)
        lines = file.read().decode(errors="replace").splitlines()
    return sum("\tF\t" in line and ("\tQuery" in line or "\tExecute" in line) for line in lines)


def pages(query: Any) -> dict[str, Any]:
    """How many pages a statement touches, and which tables and indexes it reads: EXPLAIN (ANALYZE, BUFFERS)."""
    from psycopg import sql

    from tenant_q import tenancy

    with tenancy.raw_cursor() as cursor:
        cursor.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + query)
        ((found,),) = cursor.fetchall()
    plan = found[0]["Plan"]
    return {
        "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        "ms": found[0]["Execution Time"],
        "scans": sorted(set(_scans(plan))),
    }


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node or "Index Name" in node:
        yield f"{node['Node Type']} {node.get('Index Name') or node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _scans(child)


# Reports


def surroundings() -> dict[str, Any]:
    """The machine, its load now, and the versions of what is measured."""
    from tenant_q import brokers, tenancy

    connection = tenancy.tenant_connection()
    connection.ensure_connection()
    packages = ("Django", "django-q2", "django-tenant-schemas", "psycopg", "redis")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": f"{platform.system()} {platform.release().split('-')[0]}",
        },
        "load": load(),
        "versions": {
            "Python": platform.python_version(),
            "PostgreSQL": f"{connection.pg_version // 10000}.{connection.pg_version % 10000}",
            "broker": brokers.get_broker().info(),
            **{name: version(name) for name in packages},
        },
    }


def load() -> float:
    """How many processes wanted a processor in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of text; numbers stand to the right."""
    cells = [[_cell(value) for value in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row, values in zip(cells, (heads, *rows), strict=True):
        placed = (
            cell.ljust(width) if isinstance(value, str) and place == 0 else cell.rjust(width)
            for place, (cell, width, value) in enumerate(zip(row, widths, values, strict=True))
        )
        lines.append("  ".join(placed).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_json(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=2, default=str) + "\n")


def told(around: dict[str, Any]) -> str:
    """`surroundings()` in two lines."""
    machine, versions = around["machine"], around["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, load {around['load']} before\n"
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )
