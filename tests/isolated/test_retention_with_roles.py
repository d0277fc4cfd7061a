"""Old outcomes are deleted where tenants have roles: by the owner, whose rights pruning needs."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_q import policies
from tenant_q.provisioning import provision_tenant
from tenant_q.utils import QUtilities
from tests.conftest import wait_until

A = "acme_corp"


@pytest.mark.parametrize("isolated_site", ["role", "login"], indirect=True)
def test_the_scheduler_prunes_a_tenant_with_a_role(isolated_site: Any) -> None:
    provision_tenant(A, adopt=True, actor="test", probe=False)
    cluster = isolated_site.mscluster(workers=1)
    old, new = (QUtilities.add_async_task("tests.tasks.nothing", schema_name=A) for _ in range(2))
    wait_until(lambda: ids(isolated_site) == {old, new}, what="both rows")
    assert cluster.stop() == 0
    isolated_site.sql(f"UPDATE {A}.django_q_task SET stopped = now() - interval '2 days' WHERE id = %s", old)
    policies.change(A, actor="test", act="limit", success_days=1)
    isolated_site.mscluster(workers=1)
    wait_until(lambda: ids(isolated_site) == {new}, what="the old row to be deleted")


def ids(site: Any) -> set[str]:
    return {id for (id,) in site.sql(f"SELECT id FROM {A}.django_q_task")}
