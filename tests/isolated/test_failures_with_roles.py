"""The index of failures where tenants have roles: the owner writes it, and rows of a tenant's session follow it."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_q.exceptions import TaskFailed
from tenant_q.models import Failure
from tenant_q.operations import failures
from tenant_q.operations.failures import FailureFilter
from tenant_q.provisioning import provision_tenant
from tenant_q.utils import QUtilities
from tests.conftest import wait_until

BOTH = pytest.mark.parametrize("isolated_site", ["role", "login"], indirect=True)
A = "acme_corp"


def fail(*args: Any, func: str = "tests.tasks.fail", **options: Any) -> str:
    """Run a task that fails. Returns its id."""
    id = QUtilities.add_async_task(func, *args, schema_name=A, **options)
    with pytest.raises(TaskFailed):
        QUtilities.get_result(id, wait=60_000, schema_name=A, raise_failure=True)
    return str(id)


def entry(id: str) -> Failure:
    return wait_until(lambda: Failure.rows().filter(task_id=id, is_pending=False).first(), what="the cause")


@BOTH
def test_failures_are_indexed_and_follow_their_rows(isolated_site: Any) -> None:
    provision_tenant(A, adopt=True, actor="test", probe=False)
    isolated_site.mscluster(workers=1)
    plain, transactional = fail("no"), fail("no", q_options={"transactional": True})
    assert [(entry(id).cause, entry(id).schema_name) for id in (plain, transactional)] == [("ValueError", A)] * 2

    # A row that a task writes in its tenant's session, and of which the scheduler finds the cause.
    inner = fail(func="tests.tasks_isolated.fail_here")
    assert entry(inner).cause == "ValueError"
    ((own,),) = isolated_site.sql(
        f"SELECT id FROM {A}.django_q_task WHERE NOT success AND id <> ALL (%s)", [plain, transactional, inner]
    )
    assert Failure.rows().filter(task_id=own).exists()

    deletion = QUtilities.add_async_task("tests.tasks_isolated.delete_failures", schema_name=A)
    QUtilities.get_result(deletion, wait=60_000, schema_name=A, raise_failure=True)
    assert failures.count(FailureFilter()) == 0
