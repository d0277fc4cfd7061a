"""`provision_tenant()`: a new tenant with all it needs, and existing tenants that get a role."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection, transaction

from tenant_q import policies, tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, ProvisioningError, UnknownTenant
from tenant_q.models import AuditRecord, TenantOperation, TenantRole
from tenant_q.provisioning import grants, provision_tenant
from tenant_q.tenancy import in_schema
from tests.isolated.server import OWNER
from tests.schemas import TENANTS, domain_of

pytestmark = pytest.mark.seam
NEW = "newcomer"


def provision(schema=NEW, **values):
    """Provision a tenant of the test project."""
    if not values.get("adopt"):
        values.setdefault("fields", {"name": "Newcomer"})
        values.setdefault("domain", f"{schema}.localhost")
    values.setdefault("probe", False)
    return provision_tenant(schema, actor="test", **values)


def rows(schema=NEW):
    """Return the rows of the public schema about a tenant's role and operation."""
    with tenancy.in_public():
        return (
            list(TenantRole.objects.filter(schema_name=schema).values_list("role", "version", "state")),
            list(TenantOperation.objects.filter(schema_name=schema).values_list("kind", "step")),
            list(AuditRecord.objects.filter(schema_name=schema).order_by("id").values_list("actor", "act", "target")),
        )


def test_a_new_tenant_has_its_schema_and_its_own_role(isolated_site):
    credentials = provision()
    role = f"{isolated_site.database}_{NEW}"
    assert (credentials.schema, credentials.role) == (NEW, role)
    with psycopg.connect(credentials.url, autocommit=True) as raw:
        assert raw.execute("SELECT current_user, current_database()").fetchone() == (role, isolated_site.database)
        assert raw.execute(f"SELECT count(*) FROM {NEW}.shop_order").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            raw.execute("SELECT FROM acme_corp.shop_order")
    assert rows() == ([(role, 1, "active")], [], [("test", "provision", role)])
    assert tenancy.get_tenant(NEW).name == "Newcomer"
    with in_schema(NEW):
        assert connection.schema_name == NEW


def test_the_domain_belongs_to_the_new_tenant(isolated_site):
    provision()
    tenant = tenancy.get_tenant(NEW)
    if tenancy.domain_model() is None:
        assert tenant.domain_url == f"{NEW}.localhost"
    else:
        assert tenant.domains.get().domain == f"{NEW}.localhost"
        assert tenant.domains.get().is_primary


def test_credentials_are_not_shown(isolated_site):
    credentials = provision()
    assert credentials.password not in repr(credentials)
    assert credentials.password in credentials.url
    assert credentials.password not in str(isolated_site.sql("SELECT array_agg(t::text) FROM tenant_q_auditrecord t"))


def test_policy_and_configuration_are_set_and_the_limit_is_that_of_the_role(isolated_site):
    provision(
        policy={"weight": 2.0, "max_running": 3},
        config={"display_name": "New", "limits": {"max_connections": 2}, "features": {"beta": True}},
    )
    policy, config = policies.policy_of(NEW), tenancy.config(NEW)
    assert (policy.weight, policy.max_running) == (2.0, 3)
    assert (config.display_name, config.limits, config.features) == ("New", {"max_connections": 2}, {"beta": True})
    limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname LIKE %s"
    assert isolated_site.sql(limit, f"{isolated_site.database}%{NEW}") == [(2,)]
    assert [act for _, act, _ in rows()[2]] == ["limit", "configure", "provision"]


@pytest.mark.parametrize("isolated_site", ["role"], indirect=True)
def test_under_role_the_owner_may_switch_to_the_new_role(isolated_site):
    role = provision().role
    with isolated_site.session(OWNER) as raw:
        raw.execute(f'SET ROLE "{role}"')
        assert raw.execute("SELECT current_user").fetchone() == (role,)


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_under_path_a_tenant_needs_no_role(isolated_site):
    assert provision().role is None
    assert rows() == ([], [], [("test", "provision", "")])
    assert isolated_site.sql("SELECT FROM pg_roles WHERE rolname LIKE %s", f"{isolated_site.database}%") == []


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_under_path_roles_can_be_made_before_they_are_used(isolated_site):
    with isolated_site.here(role_key=isolated_site.role_key, admin_database=isolated_site.admin_url):
        credentials = provision("acme_corp", adopt=True)
        with psycopg.connect(credentials.url) as raw:
            raw.execute("SELECT FROM acme_corp.shop_order")


@pytest.mark.parametrize("schema", ["Ä", "pg_new", "public", "1st", "a-b", "x" * 64, ""])
def test_a_schema_name_that_is_not_possible_is_refused(isolated_site, schema):
    with pytest.raises(ConfigurationError):
        provision(schema)
    assert rows(schema) == ([], [], [])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fields": {"nane": "x"}}, "has no field 'nane': did you mean 'name'?"),
        ({"fields": {}}, "name: This field cannot be blank."),
        ({"fields": {"name": "x" * 101}}, "at most 100 characters"),
        ({"domain": "acme_corp.localhost"}, "already exists|belongs to another tenant"),
        ({"policy": {"weight": -1}}, "weight of newcomer cannot be -1"),
        ({"policy": {"wieght": 1}}, "has no 'wieght'"),
        ({"config": {"limits": {"max_items": 0}}}, "max_items must be a whole number"),
    ],
)
def test_a_value_that_is_not_possible_is_refused_before_anything_is_made(isolated_site, values, reason):
    if "domain" in values and tenancy.domain_model() is not None:
        with tenancy.in_public():
            tenancy.get_tenant("acme_corp").domains.create(domain=values["domain"])
    with pytest.raises(ConfigurationError, match=reason):
        provision(**values)
    assert rows() == ([], [], [])
    assert not tenancy.is_name_taken(NEW)


def test_an_existing_tenant_or_schema_is_not_taken_over(isolated_site):
    with pytest.raises(ConfigurationError, match=r"acme_corp' exists.*--adopt"):
        provision("acme_corp")
    isolated_site.sql(f"CREATE SCHEMA {NEW}")
    with pytest.raises(ConfigurationError, match="that is no tenant's"):
        provision()


def test_a_tenant_is_not_provisioned_inside_of_a_transaction(isolated_site):
    with transaction.atomic(), pytest.raises(ProvisioningError, match="on_commit"):
        provision()


def test_without_a_role_key_nothing_is_made(isolated_site):
    with isolated_site.here(role_key=None), pytest.raises(ConfigurationError, match="role_key"):
        provision()
    assert not tenancy.is_name_taken(NEW)


def test_a_long_name_gives_a_role_of_63_bytes(isolated_site):
    schema = "n" * 63
    credentials = provision(schema, domain="long.localhost")
    assert len(credentials.role) == 63
    with psycopg.connect(credentials.url) as raw:
        raw.execute(f'SELECT FROM "{schema}".shop_order')


# Adopting


def test_existing_tenants_are_adopted(isolated_site):
    for schema in TENANTS:
        with psycopg.connect(provision(schema, adopt=True).url) as raw:
            raw.execute(f"SELECT FROM {schema}.shop_order")
    assert [act for _, act, _ in rows("acme_corp")[2]] == ["adopt"]


def test_an_unknown_tenant_cannot_be_adopted(isolated_site):
    with pytest.raises(UnknownTenant):
        provision("nobody", adopt=True)
    with pytest.raises(ConfigurationError, match="takes no fields"):
        provision("acme_corp", adopt=True, fields={"name": "x"})


def test_adopting_again_corrects_the_role_while_it_stays_active(isolated_site):
    credentials = provision("acme_corp", adopt=True)
    isolated_site.sql(f'ALTER ROLE "{credentials.role}" NOLOGIN')
    isolated_site.sql(f'REVOKE ALL ON acme_corp.shop_order FROM "{credentials.role}"')
    policies.configure("acme_corp", actor="test", limits={"max_connections": 1})
    states = []
    again = provision("acme_corp", adopt=True, progress=lambda step: states.append(rows("acme_corp")[0][0][2]))
    assert again == credentials
    assert set(states) == {"active"}
    with psycopg.connect(again.url) as raw:
        raw.execute("SELECT FROM acme_corp.shop_order")
    assert isolated_site.sql("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", again.role) == [(1,)]


@pytest.mark.parametrize("isolated_site", ["login", "role"], indirect=True)
def test_a_role_is_not_used_before_it_has_its_grants(isolated_site, monkeypatch):
    """Also that of a tenant whose role was dropped by hand: a worker may have it in its cache as an active one."""
    provision_tenant("acme_corp", adopt=True, actor="olga", probe=False)
    role = TenantRole.objects.get(schema_name="acme_corp").role
    isolated_site.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")
    usable = "SELECT rolcanlogin, pg_has_role('site_owner', oid, 'SET') FROM pg_roles WHERE rolname = %s"
    seen, apply = [], grants.apply_grants

    def apply_and_look(*arguments):
        seen.extend(isolated_site.sql(usable, role))
        apply(*arguments)

    monkeypatch.setattr(grants, "apply_grants", apply_and_look)
    provision_tenant("acme_corp", adopt=True, actor="olga", probe=False)
    is_lent = conf().isolation == "role"
    assert (seen, isolated_site.sql(usable, role)) == ([(False, False)], [(True, is_lent)])


def test_a_tenant_with_a_name_that_needs_quotes_is_adopted(isolated_site):
    if tenancy.domain_model() is None:
        pytest.skip("django-tenant-schemas quotes no names")
    with tenancy.in_public():
        model = tenancy.tenant_model()
        model(schema_name='we-are "us"'.replace('"', ""), name="x", **domain_of(model, "x")).save(verbosity=0)
    with psycopg.connect(provision("we-are us", adopt=True).url) as raw:
        raw.execute('SELECT FROM "we-are us".shop_order')


def test_a_successor_does_not_have_the_password_of_a_former_tenant(isolated_site):
    first = provision()
    with tenancy.in_public():
        TenantRole.objects.filter(schema_name=NEW).delete()
        tenancy.tenant_model().objects.get(schema_name=NEW).delete()
    isolated_site.sql(f'DROP SCHEMA "{NEW}" CASCADE')
    isolated_site.sql(f'DROP OWNED BY "{first.role}"')
    isolated_site.sql(f'DROP ROLE "{first.role}"')
    second = provision()
    assert (second.role, rows()[0][0][1]) == (first.role, 2)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(first.url)


# The project's own function


def make_tenant(schema, fields, domain):
    from tests.schemas import make_tenant

    if found := tenancy.tenant_model().objects.filter(schema_name=schema).first():
        return found
    return make_tenant(schema)


def make_nothing(schema, fields, domain):
    return None


def test_the_projects_function_makes_the_rows(isolated_site):
    with (
        isolated_site.here(make_tenant="tests.isolated.test_provision.make_tenant"),
        psycopg.connect(provision().url) as raw,
    ):
        raw.execute(f"SELECT FROM {NEW}.shop_order")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("tests.isolated.test_provision.make_nothing", "does not return the tenant 'newcomer'"),
        ("tests.isolated.test_provision.nowhere", "cannot be imported"),
    ],
)
def test_a_wrong_function_of_the_project_is_named(isolated_site, path, reason):
    with isolated_site.here(make_tenant=path), pytest.raises(ConfigurationError, match=reason):
        provision()
