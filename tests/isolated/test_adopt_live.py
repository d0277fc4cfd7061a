"""Adopt tenants while a cluster runs their tasks: no task fails, and none is put off for long."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from tenant_q.provisioning import provision_tenant, sessions_for_many
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated.test_provision_killed import clone
from tests.schemas import TENANTS

pytestmark = pytest.mark.seam
LIVE = [*TENANTS, *(f"live_{number:02}" for number in range(9))]


def adopt_all():
    with sessions_for_many():
        for schema in LIVE:
            provision_tenant(schema, adopt=True, actor="test", probe=False)


def enqueue(schemas):
    for schema in schemas:
        with in_schema(schema):
            QUtilities.add_async_task("tests.tasks.where")


def outcomes(site):
    """Return the number of tasks that ended well and of those that did not, and the longest time of one in seconds."""
    good, bad, longest = 0, 0, 0.0
    for schema in LIVE:
        rows = site.sql(f"SELECT success, extract(epoch FROM stopped - started)::float FROM {schema}.django_q_task")
        good += sum(success for success, _ in rows)
        bad += sum(not success for success, _ in rows)
        longest = max([longest, *(seconds for _, seconds in rows)])
    return good, bad, longest


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_no_task_waits_for_an_adoption_before_the_mode_is_changed(isolated_site):
    for schema in LIVE[len(TENANTS) :]:
        clone(schema)
    roles = {"role_key": isolated_site.role_key, "admin_database": isolated_site.admin_url}
    cluster = isolated_site.mscluster(**roles)
    done, sent = threading.Event(), 0
    with isolated_site.here(**roles):

        def adopt():
            try:
                adopt_all()
            finally:
                connections.close_all()
                done.set()

        thread = threading.Thread(target=adopt)
        thread.start()
        while not done.is_set():
            enqueue(LIVE)
            sent += len(LIVE)
            wait_until(lambda: outcomes(isolated_site)[:2] == (sent, 0) or done.is_set(), 60)  # noqa: B023
        thread.join()
    wait_until(lambda: sum(outcomes(isolated_site)[:2]) == sent, 60)
    assert outcomes(isolated_site)[:2] == (sent, 0)
    assert isolated_site.sql("SELECT state, count(*) FROM tenant_q_tenantrole GROUP BY 1") == [("active", len(LIVE))]
    assert "not ready" not in cluster.log and "locked" not in cluster.log


@pytest.mark.parametrize("isolated_site", ["login", "role"], indirect=True)
def test_tasks_of_a_tenant_without_a_role_wait_until_it_is_adopted(isolated_site):
    for schema in LIVE[len(TENANTS) :]:
        clone(schema)
    cluster = isolated_site.mscluster()
    enqueue(LIVE)
    wait_until(lambda: "has no database role" in cluster.log)
    assert outcomes(isolated_site)[:2] == (0, 0)
    adopt_all()
    wait_until(lambda: outcomes(isolated_site)[0] == len(LIVE), 60, "all tasks")
    assert outcomes(isolated_site)[1] == 0
