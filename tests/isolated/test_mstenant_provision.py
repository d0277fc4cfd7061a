"""`mstenant provision`."""

from __future__ import annotations

import json
from io import StringIO

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tenant_q.models import AuditRecord, TenantRole
from tenant_q.tenancy import in_public
from tests.isolated.server import ADMIN, OWNER
from tests.isolated.test_provision import NEW, provision
from tests.schemas import TENANTS

pytestmark = pytest.mark.seam


def mstenant(*words):
    out = StringIO()
    call_command("mstenant", "provision", *words, stdout=out, stderr=StringIO())
    return out.getvalue()


def states():
    with in_public():
        return dict(TenantRole.objects.values_list("schema_name", "state"))


def test_a_tenant_is_made_with_its_fields_and_its_role(isolated_site):
    said = mstenant(NEW, "--field", "name=New Comer", "--domain", "new.localhost")
    assert said == f"Provisioned {NEW}. Its role is {isolated_site.database}_{NEW}.\n"
    assert states() == {NEW: "active"}
    assert isolated_site.sql("SELECT name FROM customers_customer WHERE schema_name = %s", NEW) == [("New Comer",)]
    assert isolated_site.sql("SELECT crossings FROM tenant_q_tenantrole") == [(0,)]  # the probe looked


def test_all_tenants_are_adopted_one_by_one(isolated_site):
    found = json.loads(mstenant("--all", "--adopt", "--json"))
    assert [one["schema"] for one in found["adopted"]] == sorted(TENANTS)
    assert found["failed"] == {}
    assert states() == dict.fromkeys(TENANTS, "active")
    assert mstenant("--all", "--adopt", "--no-probe") == "Adopted 3 tenants.\n"


def test_a_tenant_that_cannot_be_adopted_does_not_keep_others(isolated_site):
    isolated_site.sql("CREATE TABLE globex_inc.foreign ()")
    with pytest.raises(CommandError, match="Not adopted: globex_inc;"):
        mstenant("--all", "--adopt", "--no-probe")
    assert states() == {"acme_corp": "active", "globex_inc": "provisioning", "initech_llc": "active"}
    isolated_site.sql("DROP TABLE globex_inc.foreign")
    mstenant("globex_inc", "--no-probe")  # continues the adoption
    assert set(states().values()) == {"active"}


def test_a_role_that_reaches_another_tenant_is_not_used(isolated_site):
    isolated_site.sql("GRANT USAGE ON SCHEMA acme_corp TO PUBLIC")
    isolated_site.sql("GRANT SELECT ON acme_corp.shop_order TO PUBLIC")
    with pytest.raises(CommandError, match=r"globex_inc' is not used yet, because the probe failed.*REVOKE"):
        mstenant("globex_inc", "--adopt")
    assert states() == {"globex_inc": "provisioning"}
    isolated_site.sql("REVOKE ALL ON SCHEMA acme_corp FROM PUBLIC; REVOKE ALL ON acme_corp.shop_order FROM PUBLIC")
    mstenant("globex_inc", "--adopt")
    assert states() == {"globex_inc": "active"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((NEW, "--field", "name"), "is not NAME=VALUE"),
        (("--all",), "--all goes with --adopt"),
        ((), "Name the tenant"),
        ((NEW, "--sure"), "--sure belongs to --lock-database"),
        (("acme_corp",), "acme_corp' exists"),
        ((NEW, "--domain", "new.localhost"), "name: This field cannot be blank"),
    ],
)
def test_wrong_arguments_are_refused(isolated_site, words, reason):
    with pytest.raises(CommandError, match=reason):
        mstenant(*words)
    assert states() == {}


def can_connect(site, role, password=None):
    try:
        with site.session(role, password):
            return True
    except psycopg.OperationalError as error:
        assert "permission denied for database" in str(error)
        return False


def test_the_database_is_locked_after_the_other_roles_are_listed(isolated_site):
    stranger = f"{isolated_site.database}_metabase"
    isolated_site.sql(f"CREATE ROLE \"{stranger}\" LOGIN PASSWORD 'theirs'")
    with pytest.raises(CommandError, match=rf"could not connect any more: .*{stranger}[,;]"):
        mstenant("acme_corp", "--adopt", "--no-probe", "--lock-database")
    assert can_connect(isolated_site, stranger, "theirs")
    said = mstenant("acme_corp", "--adopt", "--no-probe", "--lock-database", "--sure")
    assert said.endswith("Locked the database: only roles that were granted CONNECT can connect.\n")
    assert not can_connect(isolated_site, stranger, "theirs")
    assert can_connect(isolated_site, OWNER) and can_connect(isolated_site, ADMIN)
    with psycopg.connect(provision("acme_corp", adopt=True).url), in_public():
        assert AuditRecord.objects.filter(act="lock database").count() == 1
    mstenant("globex_inc", "--adopt", "--no-probe", "--lock-database")  # nobody else can connect: nothing to list
    provision()


def test_who_may_not_lock_the_database_gets_the_statement(isolated_site):
    isolated_site.sql(f'ALTER DATABASE "{isolated_site.database}" OWNER TO postgres')
    with pytest.raises(CommandError, match=f'REVOKE CONNECT ON DATABASE "{isolated_site.database}" FROM PUBLIC;'):
        mstenant("acme_corp", "--adopt", "--no-probe", "--lock-database", "--sure")


def test_nothing_secret_is_written(isolated_site):
    mark = isolated_site.server.log_size()
    said = mstenant("acme_corp", "--adopt", "--json") + mstenant("globex_inc", "--adopt")
    secrets = isolated_site.secrets() | {"acme": provision("acme_corp", adopt=True).password}
    rows = str(isolated_site.sql("SELECT t::text FROM tenant_q_auditrecord t"))
    for text in (said, rows, isolated_site.server.log(mark)):
        assert not [name for name, secret in secrets.items() if secret in text]
