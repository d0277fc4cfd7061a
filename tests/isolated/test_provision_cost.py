"""What a provisioning costs beside the migrations of the tenancy package, in statements: they decide its time."""

from __future__ import annotations

import pytest

from tenant_q.provisioning import provision_tenant, sessions_for_many
from tests.isolated.kills import count_statements
from tests.isolated.test_provision_killed import clone, new_name

pytestmark = pytest.mark.seam
# Of all sessions, with BEGIN, COMMIT and the tenancy package's search path.
MOST = 49


def provision(schema, mark, **values):
    return provision_tenant(schema, actor="test", probe=False, progress=mark, **values)


def beside_tenant(marks):
    """Return the statements of all steps but that of the tenancy package."""
    return marks["tenant"] + marks["end"] - marks["role"]


def test_a_tenant_costs_few_statements_and_no_more_with_many_tenants(isolated_site):
    with isolated_site.here(make_tenant="tests.isolated.test_provision_killed.make_by_clone"):
        first = beside_tenant(count_statements(lambda mark: provision(new_name(), mark)))
        for _ in range(10):
            provision(new_name(), None)
        later = beside_tenant(count_statements(lambda mark: provision(new_name(), mark)))
    assert later <= first <= MOST


def test_adopting_many_takes_one_admin_session(isolated_site):
    schemas = [new_name() for _ in range(10)]
    for schema in schemas:
        clone(schema)
    mark = isolated_site.server.log_size()
    with sessions_for_many():
        for schema in schemas:
            provision(schema, None, adopt=True)
    log = isolated_site.server.log(mark)
    assert log.count("connection authorized: user=site_admin") == 1
