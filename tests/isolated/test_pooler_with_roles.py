"""The page about PgBouncer: its statements and its file let each tenant's role log in as itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tenant_q.provisioning import probe_tenants
from tests.acceptance.test_tutorials import free_port
from tests.conftest import wait_until
from tests.documents import DOCS, blocks
from tests.isolated.server import IsolatedServer
from tests.isolated.site import Site
from tests.isolated.test_worker_roles import run

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")
PAGE = DOCS / "how-to" / "pgbouncer.md"
FILE = DOCS / "how-to" / "deploy" / "pgbouncer-roles.ini"


@pytest.fixture
def pooled_site(isolated_site: Site, isolated_server: IsolatedServer) -> Iterator[Site]:
    """The site, whose connections go through a PgBouncer as the page has it."""
    (statements,) = (block.text for block in blocks(PAGE) if block.language == "sql")
    port = free_port()
    folder = Path(str(psycopg.conninfo.conninfo_to_dict(isolated_site.owner_url)["host"]))  # its user may read it
    (folder / "userlist.txt").write_text('"pooler" "pooler-secret"\n')
    text = FILE.read_text().replace("shop", isolated_site.database).replace("/etc/pgbouncer", str(folder))
    text = text.replace("host=127.0.0.1 port=5432", f"host={folder}").replace("6432", str(port))
    (folder / "pgbouncer.ini").write_text(f"{text}\nunix_socket_dir = {folder}\nlogfile = {folder}/pgbouncer.log\n")
    with isolated_server.connect(isolated_site.database) as raw:
        raw.execute(statements)
    command = ["pgbouncer", folder / "pgbouncer.ini"]
    process = subprocess.Popen(command, user=folder.stat().st_uid or None, stderr=subprocess.DEVNULL)
    try:
        wait_until((folder / f".s.PGSQL.{port}").exists, 60, "the pooler")
        for name in ("owner_url", "admin_url"):
            url = getattr(isolated_site, name).partition("?")[0]
            setattr(isolated_site, name, f"{url}?host={folder}&port={port}")
        isolated_site.tenant_q["admin_database"] = isolated_site.admin_url
        with isolated_site.here():
            yield isolated_site
    finally:
        isolated_site.end()
        process.terminate()
        process.wait(10)
        with isolated_server.connect(isolated_site.database) as raw:
            raw.execute("DROP SCHEMA pooler CASCADE; DROP ROLE pooler")


def test_each_tenant_logs_in_as_itself_through_the_pooler(pooled_site):
    roles = {name: one.role for name, one in pooled_site.provision("acme_corp", "globex_inc").items()}
    pooled_site.mscluster(workers=1)
    for schema, role in roles.items():
        assert run("tests.tasks_isolated.who", schema=schema)["session"] == role
    pooled_site.manage("mstenant", "rotate", "--all", "--now")
    for schema, role in roles.items():
        assert run("tests.tasks_isolated.who", schema=schema)["session"] == role
    assert probe_tenants(actor="tests").is_closed
