"""`mstenant configure SCHEMA limits.max_connections=N` also limits the tenant's role."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from tenant_q import policies
from tenant_q.models import TenantRole
from tenant_q.provisioning import apply_connection_limit
from tests.isolated.kills import killed_at_each
from tests.isolated.role_rows import give_roles, row

A = "acme_corp"
pytestmark = pytest.mark.seam


@pytest.fixture
def site(isolated_site) -> Any:
    give_roles(isolated_site, A, "globex_inc")
    return isolated_site


def mstenant(*arguments: str) -> str:
    out = StringIO()
    call_command("mstenant", *arguments, stdout=out)
    return out.getvalue().rstrip("\n")


def limit_of_role(site: Any, schema: str = A) -> int:
    ((limit,),) = site.sql("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", row(schema).role)
    return int(limit)


def test_a_changed_limit_is_applied_to_the_role_and_to_no_other(site):
    assert mstenant("configure", A, "limits.max_connections=2").endswith("Its role may have 2 sessions at once.")
    assert (limit_of_role(site), row(A).connection_limit) == (2, 2)
    assert (limit_of_role(site, "globex_inc"), row("globex_inc").connection_limit) == (-1, None)
    assert mstenant("configure", A, "limits.max_connections=").endswith("may have any number of sessions at once.")
    assert (limit_of_role(site), row(A).connection_limit) == (-1, None)


def test_a_change_elsewhere_is_applied_by_the_command_that_show_names(site):
    policies.configure(A, actor="o", limits={"max_connections": 3})
    assert limit_of_role(site) == -1
    advice = json.loads(mstenant("show", A, "--json"))["advice"]
    words = advice.partition("`mstenant ")[2].partition("`")[0].split()
    mstenant(*words)
    assert limit_of_role(site) == 3
    assert json.loads(mstenant("show", A, "--json"))["advice"] == ""


def test_a_kill_anywhere_leaves_no_row_that_the_role_does_not_keep(site):
    policies.configure(A, actor="o", limits={"max_connections": 3})
    for place in killed_at_each(lambda: apply_connection_limit(A)):
        assert row(A).connection_limit in (None, limit_of_role(site)), place
        apply_connection_limit(A)
        assert (limit_of_role(site), row(A).connection_limit) == (3, 3), place
        site.sql(f"ALTER ROLE {row(A).role} CONNECTION LIMIT -1")
        TenantRole.objects.filter(schema_name=A).update(connection_limit=None)


def test_an_admin_that_cannot_be_reached_is_named_and_the_configuration_saved(site):
    broken = settings.TENANT_Q | {"admin_database": "postgresql://nobody@127.0.0.1:1/none"}
    said = r"The configuration is saved, and its max_connections is not applied: TENANT_Q\['admin_database'\] cannot be"
    with override_settings(TENANT_Q=broken), pytest.raises(CommandError, match=said):
        mstenant("configure", A, "limits.max_connections=2")
    assert json.loads(mstenant("show", A, "--json"))["configuration"]["limits"] == {"max_connections": 2}
    assert row(A).connection_limit is None
