"""Many tasks of many tenants over few workers under "login": none in another's place, and few sessions.

`CHAOS=long` has ten thousand of a hundred tenants.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from django.db import connection, connections

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.provisioning import provision_tenant
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until
from tests.isolated.site import watch_sessions

IS_LONG = os.environ.get("CHAOS") == "long"
CROWD, TASKS = (100, 100) if IS_LONG else (20, 15)
WORKERS, KEPT = 4, 4


@pytest.fixture
def crowd(isolated_site) -> list[str]:
    """Tenants, each with a role and with a table that holds one row that only it has."""
    names = [f"crowd_{n:03}" for n in range(CROWD)]
    schemas.clone_tenants(names)
    for name in names:
        provision_tenant(name, adopt=True, probe=False, actor="tests")
    with tenancy.in_public(), connection.cursor() as cursor:  # after it: a later migration gives its tables too
        for name in names:
            cursor.execute(f"CREATE TABLE \"{name}\".only_here AS SELECT '{name}' AS name")
    return names


def enqueue(names: list[str], count: int) -> dict[str, str]:
    found = {}
    for name in names:
        with in_schema(name):
            found[name] = QUtilities.add_async_tasks_from_iter("tests.tasks.assert_own_place", [name] * count)
    return found


def require_done(iters: dict[str, str], count: int) -> None:
    for name, id in iters.items():
        task = QUtilities.fetch_task(id, schema_name=name, wait=60_000)
        assert task.success, task.result
        assert task.result == [name] * count
        assert schemas.count_tasks(name) == 1


def test_no_crossing_and_few_sessions(isolated_site, crowd):
    iters = enqueue(crowd, TASKS)
    connections.close_all()
    seen: set[str] = set()

    def limit(sessions: dict[int, str]) -> int:
        seen.update(sessions.values())
        return WORKERS * (2 + KEPT)

    with watch_sessions(isolated_site, limit) as over:
        cluster = isolated_site.mscluster(workers=WORKERS, tenant_sessions=KEPT)
        wait_until(lambda: get_broker().counts().open == 0, 600, "all tasks to be done")
    assert [Counter(sessions.values()) for sessions in over] == []
    assert len(seen) > CROWD / 5, "the tenants' sessions were looked at"
    require_done(iters, TASKS)
    assert cluster.stop() == 0
    assert "Traceback" not in cluster.log


def test_with_one_session_for_eight_workers_all_tasks_end(isolated_site):
    """A worker that gets no session puts the task off; nothing fails, and nothing is dead."""
    names = list(schemas.TENANTS)
    for name in names:
        provision_tenant(name, adopt=True, probe=False, config={"limits": {"max_connections": 1}}, actor="tests")
        isolated_site.sql(f"CREATE TABLE \"{name}\".only_here AS SELECT '{name}' AS name")
        isolated_site.sql(f'ALTER TABLE "{name}".only_here OWNER TO site_owner')
        isolated_site.sql(f'GRANT SELECT ON "{name}".only_here TO PUBLIC')
    assert isolated_site.sql("SELECT DISTINCT rolconnlimit FROM pg_roles WHERE starts_with(rolname, 'site_') AND "
                             "rolname NOT IN ('site_owner', 'site_admin') AND rolname ~ %s",
                             isolated_site.database) == [(1,)]  # fmt: skip
    count = 200 if IS_LONG else 50
    cluster = isolated_site.mscluster(workers=8)
    iters = enqueue(names, count)
    connections.close_all()
    roles = {role for (role,) in isolated_site.sql("SELECT role FROM public.tenant_q_tenantrole")}

    def limit(sessions: dict[int, str]) -> int:
        of_tenants = [role for role in sessions.values() if role in roles]
        return len(sessions) if len(of_tenants) == len(set(of_tenants)) else 0

    with watch_sessions(isolated_site, limit) as over:
        wait_until(lambda: get_broker().counts().open == 0, 300, "all tasks to end")
    assert over == []
    require_done(iters, count)
    assert get_broker().counts().dead == 0
    assert cluster.stop() == 0
