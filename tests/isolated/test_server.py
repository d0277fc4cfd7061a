"""The server of these tests is such that they can fail."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection

from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.isolated.server import ADMIN, OWNER, leaked
from tests.tasks import where

pytestmark = pytest.mark.seam


@pytest.mark.parametrize("role", ["postgres", OWNER, ADMIN])
def test_nobody_logs_in_without_the_password(isolated_server, role):
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(isolated_server.url("postgres", role, password), connect_timeout=5)
    rules = isolated_server.connect()
    with rules as raw:
        methods = raw.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        kinds = raw.execute("SELECT DISTINCT substr(rolpassword, 1, 13) FROM pg_authid WHERE rolcanlogin").fetchall()
    assert methods == [("scram-sha-256",)]
    assert kinds == [("SCRAM-SHA-256",)]


def test_neither_owner_nor_admin_is_a_superuser(isolated_server):
    with isolated_server.connect() as raw:
        assert raw.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolbypassrls, rolcreatedb, rolreplication FROM pg_roles "
            "WHERE rolname = ANY (%s) ORDER BY 1",
            [[ADMIN, OWNER]],
        ).fetchall() == [(ADMIN, False, True, False, False, False), (OWNER, False, False, False, False, False)]


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_this_process_commands_and_clusters_use_the_site(isolated_site):
    mark = isolated_site.server.log_size()
    with in_schema("acme_corp"):
        assert where()["schema"] == "acme_corp"
        id = QUtilities.add_async_task("tests.tasks.where")
    assert connection.settings_dict["USER"] == OWNER
    isolated_site.mscluster(workers=1)
    assert QUtilities.get_result(id, wait=30_000, schema_name="acme_corp")["schema"] == "acme_corp"
    assert set(isolated_site.sessions().values()) == {OWNER}
    assert isolated_site.sql("SELECT count(*) FROM acme_corp.django_q_task") == [(1,)]
    assert "acme_corp" in isolated_site.manage("mstenant", "list", "--all").stdout
    log = isolated_site.server.log(mark)
    assert "acme_corp" in log
    assert leaked(log, isolated_site.secrets()) == []
