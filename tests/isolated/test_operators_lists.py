"""The operators' lists of one tenant, where each tenant has a role of its own."""

from __future__ import annotations

import pytest

from tenant_q.operations import tenant_tasks
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated.site import Site


@pytest.mark.parametrize("isolated_site", ["role", "login"], indirect=True)
def test_the_tasks_of_a_tenant_are_listed_for_the_owner(isolated_site: Site) -> None:
    isolated_site.provision("acme_corp", "globex_inc")
    with in_schema("acme_corp"):
        done = QUtilities.add_async_task("tests.tasks.add", 1, 2)
        QUtilities.add_async_task("tests.tasks.add", 1, 2, q_options={"delay": 600})
    isolated_site.mscluster(workers=1)
    (found,) = wait_until(lambda: tenant_tasks.done_tasks("acme_corp", limit=10), what="the task to be done")
    assert found.id == done
    assert [task.place for task in tenant_tasks.open_tasks("acme_corp", limit=10)] == ["delayed"]
    assert tenant_tasks.done_tasks("globex_inc", limit=10) == []
