"""PgBouncer before PostgreSQL: session pooling works, transaction pooling is refused at the start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")


@pytest.fixture(params=["session", "transaction"])
def pooler(request, servers):
    """A PgBouncer in front of the tests' database, on a unix socket beside PostgreSQL's."""
    info = psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])
    folder = Path(str(info["host"]))
    port = 6500 + os.getpid() % 1000
    (folder / "pgbouncer.users").write_text(f'"{info["user"]}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[pgbouncer]\nlisten_port = {port}\nunix_socket_dir = {folder}\nauth_type = any\n"
        f"pool_mode = {request.param}\nlogfile = {folder}/pgbouncer.log\n"
        f"[databases]\n* = host={folder} port={info.get('port', 5432)} user={info['user']}\n"
    )
    command = ["pgbouncer", str(folder / "pgbouncer.ini")]
    owner = folder.stat().st_uid
    process = subprocess.Popen(command, user=owner or None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (folder / f".s.PGSQL.{port}").exists() or process.poll() is not None, 10)
        assert process.poll() is None, (folder / "pgbouncer.log").read_text()
        yield request.param, f"postgresql://{info['user']}@/{info['dbname']}?host={folder}&port={port}"
    finally:
        process.terminate()
        process.wait(10)


def test_a_pooler_that_shares_sessions_is_refused(tenants, mscluster, pooler):
    mode, url = pooler
    cluster = mscluster("--workers", "1", DATABASE_URL=url, wait=False)
    if mode == "transaction":
        assert cluster.process.wait(30) != 0
        assert "shares sessions between transactions" in cluster.log
        assert "Traceback" not in cluster.log
        return
    cluster.wait_for_workers(1)
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.tasks.where")
    assert QUtilities.get_result(id, wait=30_000, schema_name="acme_corp")["schema"] == "acme_corp"
