"""As whom tasks and tenant_q itself act in a worker, under "role" and "login"."""

from __future__ import annotations

import pytest

from tenant_q.custom.chains import Chain
from tenant_q.custom.iters import Iter
from tenant_q.exceptions import TaskFailed
from tenant_q.models import TenantRole
from tenant_q.provisioning import provision_tenant
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import Run
from tests.conftest import wait_until
from tests.isolated.server import OWNER, leaked
from tests.tasks import notes

BOTH = pytest.mark.parametrize("isolated_site", ["role", "login"], indirect=True)
WAIT = 60_000
OTHER = "initech_llc"


@pytest.fixture
def roles(isolated_site) -> dict[str, str]:
    return {schema: adopt(schema) for schema in ("acme_corp", "globex_inc")}


def adopt(schema: str) -> str:
    return provision_tenant(schema, adopt=True, actor="test", probe=False).role


def run(func: str, *args, schema: str = "acme_corp", **options):
    id = QUtilities.add_async_task(func, *args, schema_name=schema, **options)
    return QUtilities.get_result(id, wait=WAIT, schema_name=schema, raise_failure=True)


@BOTH
def test_a_task_acts_as_its_tenants_role(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    is_login = isolated_site.tenant_q["isolation"] == "login"
    for schema in (*roles, *roles):
        for func in ("who", "who_in_a_thread", "call_for_itself"):
            found = run(f"tests.tasks_isolated.{func}", schema=schema)
            assert found["current"] == roles[schema], func
            assert found["session"] == (roles[schema] if is_login else OWNER), func
            assert found["schema"] == schema
        done = run("tests.tasks_isolated.who", schema=schema, q_options={"transactional": True})
        assert done["current"] == roles[schema]


@BOTH
def test_a_task_cannot_name_another_tenants_schema(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    for table in ("globex_inc.shop_order", "public.customers_customer", "public.tenant_q_tenantrole"):
        with pytest.raises(TaskFailed, match="permission denied"):
            run("tests.tasks_isolated.read", table)
    assert run("tests.tasks_isolated.read", "acme_corp.django_migrations")


@BOTH
def test_hooks_chains_iters_and_workflows_act_as_their_tenants_role(isolated_site, roles, monkeypatch):
    isolated_site.mscluster(workers=2)
    key = isolated_site.cluster
    run("tests.tasks_isolated.who", q_options={"hook": "tests.tasks_isolated.note_who", "group": key})
    found = wait_until(lambda: notes(key), what="the hook")
    assert [one["current"] for one in found] == [roles["acme_corp"]]
    with in_schema("globex_inc"):
        chain = Chain()
        for _ in range(2):
            chain.append("tests.tasks_isolated.who")
        chain.run()
        links = chain.result(wait=WAIT)
        assert [one["current"] for one in links] == [roles["globex_inc"]] * 2
        iter = Iter("tests.tasks_isolated.who_with")
        iter.append(1)
        iter.append(2)
        iter.run()
        parts = iter.result(wait=WAIT)
        assert [one["current"] for one in parts] == [roles["globex_inc"]] * 2


@pytest.mark.parametrize("isolated_site", ["login"], indirect=True)
def test_a_worker_keeps_the_sessions_of_the_last_tenants(isolated_site, roles):
    isolated_site.mscluster(workers=1, tenant_sessions=2)
    pids = {schema: run("tests.tasks_isolated.who", schema=schema)["pid"] for schema in roles}
    for schema in roles:
        assert run("tests.tasks_isolated.who", schema=schema)["pid"] == pids[schema]
    wait_until(lambda: set(isolated_site.sessions().values()) == {OWNER}, what="the end of idle sessions")


@pytest.mark.parametrize("isolated_site", ["login"], indirect=True)
def test_a_worker_shows_no_task_a_secret(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    assert leaked(run("tests.tasks_isolated.shown"), isolated_site.secrets()) == []


@BOTH
def test_a_task_calls_for_no_other_tenant(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    for func in ("enter_other", "enqueue_for_other"):
        for other in ("globex_inc", "public"):
            with pytest.raises(TaskFailed, match="TenantNotAuthorized"):
                run(f"tests.tasks_isolated.{func}", other)
    with pytest.raises(TaskFailed, match="TenantNotAuthorized"):
        run("tests.tasks_isolated.enter_public")


def test_a_tenant_without_a_role_waits_for_it(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    with in_schema(OTHER):
        id = QUtilities.add_async_task("tests.tasks_isolated.who")
    run("tests.tasks_isolated.who")
    assert QUtilities.get_result(id, schema_name=OTHER) is None
    role = adopt(OTHER)
    assert QUtilities.get_result(id, wait=WAIT, schema_name=OTHER)["session"] == role


def test_a_task_without_a_session_is_put_off(isolated_site, roles):
    isolated_site.sql(f"ALTER ROLE {roles['acme_corp']} CONNECTION LIMIT 1")
    isolated_site.mscluster(workers=3)
    ids = [QUtilities.add_async_task("tests.tasks_isolated.who_slowly", schema_name="acme_corp") for _ in range(12)]
    for id in ids:
        assert QUtilities.get_result(id, wait=WAIT, schema_name="acme_corp", raise_failure=True)["session"]


@pytest.mark.parametrize("act", ["PASSWORD 'another'", "SET work_mem TO '77MB'"])
def test_a_role_that_changes_itself_is_repaired(isolated_site, roles, act):
    isolated_site.mscluster(workers=1, tenant_sessions=1)
    run("tests.tasks_isolated.execute", f"ALTER ROLE CURRENT_USER {act}")
    run("tests.tasks_isolated.who", schema="globex_inc")
    for _ in range(2):
        assert run("tests.tasks_isolated.setting", "work_mem") == "4MB"
        run("tests.tasks_isolated.who", schema="globex_inc")
    wait_until(lambda: TenantRole.objects.get(schema_name="acme_corp").state == "active", what="the repair")


@BOTH
def test_the_steps_of_a_workflow_act_as_their_tenants_role(isolated_site, roles):
    isolated_site.mscluster(workers=2)
    id = run("tests.flows.workflows.start_from_a_task", 1)
    with in_schema("acme_corp"):
        found = Run.get(id)
        assert found.wait(WAIT)
        assert found.state == "succeeded", found.error
        outputs = [step.output for step in found.steps if isinstance(step.output, dict)]
    assert {one["current"] for one in outputs} == {roles["acme_corp"]}
