"""As whom tasks and tenant_q itself act in a worker, under "role" and "login"."""

from __future__ import annotations

import pytest

from tenant_q.exceptions import TaskFailed
from tenant_q.utils import QUtilities
from tests.isolated.by_hand import make_role
from tests.isolated.server import OWNER

BOTH = pytest.mark.parametrize("isolated_site", ["role", "login"], indirect=True)
WAIT = 30_000


@pytest.fixture
def roles(isolated_site) -> dict[str, str]:
    return {schema: make_role(isolated_site, schema) for schema in ("acme_corp", "globex_inc")}


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
        assert run("tests.tasks_isolated.who", schema=schema, transactional=True)["current"] == roles[schema]


@BOTH
def test_a_task_cannot_name_another_tenants_schema(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    for table in ("globex_inc.shop_order", "public.customers_customer", "public.tenant_q_tenantrole"):
        with pytest.raises(TaskFailed, match="permission denied"):
            run("tests.tasks_isolated.read", table)
    assert run("tests.tasks_isolated.read", "acme_corp.django_migrations")
