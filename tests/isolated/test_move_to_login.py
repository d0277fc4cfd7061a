"""The move of a live site from "path" to "login" and back, as the page describes it. No task fails."""

from __future__ import annotations

import pytest

from tenant_q.models import TenantRole
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated.server import OWNER
from tests.isolated.test_worker_roles import WAIT, run
from tests.schemas import TENANTS

NEEDED = ("role_key", "admin_database")


@pytest.mark.parametrize("isolated_site", ["login"], indirect=True)
def test_a_live_site_moves_and_comes_back(isolated_site):
    site, login = isolated_site, dict(isolated_site.tenant_q)
    site.tenant_q = {name: login[name] for name in NEEDED}  # still "path"
    path = site.mscluster(workers=1)
    ids = [(schema, add(schema)) for _ in range(8) for schema in TENANTS]

    site.manage("mstenant", "provision", "--all", "--adopt")
    site.manage("mstenant", "probe", "--all")
    ids += [(schema, add(schema)) for schema in TENANTS]
    wait_until(lambda: all(result(*one) for one in ids), WAIT / 1000, "the tasks under path")
    assert {result(*one)["session"] for one in ids} == {OWNER}

    site.tenant_q = login
    new = site.mscluster(workers=1)
    both = [(schema, add(schema)) for _ in range(8) for schema in TENANTS]
    wait_until(lambda: all(result(*one) for one in both), WAIT / 1000, "the tasks of both clusters")
    assert path.stop() == 0
    roles = dict(TenantRole.objects.values_list("schema_name", "role"))
    for schema in TENANTS:
        assert run("tests.tasks_isolated.who", schema=schema)["session"] == roles[schema]
    assert {result(*one)["session"] for one in both} <= {OWNER, *roles.values()}
    assert new.stop() == 0

    site.tenant_q = {name: login[name] for name in NEEDED}
    site.mscluster(workers=1)
    assert run("tests.tasks_isolated.who")["session"] == OWNER


def add(schema: str) -> str:
    with in_schema(schema):
        return QUtilities.add_async_task("tests.tasks_isolated.who_slowly")


def result(schema: str, id: str):
    return QUtilities.get_result(id, schema_name=schema, raise_failure=True)
