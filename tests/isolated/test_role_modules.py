"""The admin session, the roles, their passwords and their grants, each by itself."""

from __future__ import annotations

import psycopg
import pytest

from tenant_q.exceptions import ConfigurationError, ProvisioningError
from tenant_q.provisioning import admin_connection, grants, roles, scram
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import group_name, role_name
from tests.isolated.server import ADMIN, OWNER

pytestmark = pytest.mark.seam


def make_role(site, schema="acme_corp", owner=None, **values):
    role = role_name(site.database, schema)
    with admin_connection.admin_session() as admin:
        verifier = scram.role_verifier(site.database, role, 1)
        roles.create_or_correct(admin, role, database=site.database, verifier=verifier, **values)
        roles.allow_use(admin, role, owner)
    return role


# The admin session


def test_the_admin_session_is_one_within_a_block(isolated_site):
    with admin_connection.admin_session() as session, admin_connection.admin_session() as same:
        assert session is same
        assert session.execute("SELECT current_user, current_database()").fetchone() == (ADMIN, isolated_site.database)
    assert session.closed
    assert (admin_connection.owner_role(), admin_connection.database_name()) == (OWNER, isolated_site.database)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "TENANT_Q['admin_database'] is not set"),
        ("postgresql://nobody:wrong@/nowhere?host=/nowhere", "cannot be reached"),
        ("postgresql://a:sec ret@[", "is no valid URL"),
        ("{other}", "of another place than DATABASES"),
        ("{owner}", "may not create roles"),
        ("tests.isolated.test_role_modules.no_url", "returns no URL"),
        ("tests.isolated.test_role_modules.fails", "ValueError: broken; correct the function"),
    ],
)
def test_a_wrong_admin_database_is_refused_with_the_way_out(isolated_site, url, reason):
    server = isolated_site.server
    url = url and url.format(other=server.url("postgres", ADMIN), owner=isolated_site.owner_url)
    with (
        isolated_site.here(admin_database=url),
        pytest.raises(ProvisioningError) as raised,
        admin_connection.admin_session(),
    ):
        pass
    assert reason in str(raised.value)
    assert "sec ret" not in str(raised.value)


def no_url():
    return 1


def fails():
    raise ValueError("broken")


# Passwords


@pytest.mark.parametrize("iterations", [1, 4096])
def test_postgresql_accepts_the_password_of_the_verifier(isolated_site, iterations):
    role = make_role(isolated_site)
    with admin_connection.admin_session() as admin:
        roles.set_password(admin, role, scram.verifier("a pass' word", iterations))
    with isolated_site.session(role, "a pass' word") as raw:
        assert raw.execute("SELECT session_user").fetchone() == (role,)
    with pytest.raises(psycopg.OperationalError, match="password"), isolated_site.session(role, "another"):
        pass


def test_a_password_that_needs_a_normal_form_is_refused():
    for password in ("", "pässword", "a\nb"):
        with pytest.raises(ConfigurationError, match="printable ASCII"):
            scram.verifier(password)


def test_no_password_is_in_the_servers_log(isolated_site):
    mark = isolated_site.server.log_size()
    role = make_role(isolated_site)
    log = isolated_site.server.log(mark)
    assert role in log
    assert password_of(isolated_site.database, role, 1) not in log
    assert isolated_site.role_key not in log


# Roles


def attributes(site, role):
    return site.sql(
        "SELECT rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, "
        "rolconnlimit, rolconfig FROM pg_roles WHERE rolname = %s",
        role,
    )


def test_a_role_is_created_and_corrected(isolated_site):
    role = make_role(isolated_site, connection_limit=3)
    expected = [(True, False, False, False, False, False, False, 3, None)]
    assert attributes(isolated_site, role) == expected
    with isolated_site.session(role, password_of(isolated_site.database, role, 1)) as raw:
        raw.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'; ALTER ROLE CURRENT_USER SET search_path = globex_inc")
    isolated_site.sql(f'ALTER ROLE "{role}" INHERIT NOLOGIN CREATEROLE')
    make_role(isolated_site, connection_limit=3)
    assert attributes(isolated_site, role) == expected
    with isolated_site.session(role, password_of(isolated_site.database, role, 1)) as raw:
        assert raw.execute("SHOW search_path").fetchone() != ("globex_inc",)
    assert isolated_site.sql(
        "SELECT g.rolname, m.inherit_option, m.set_option, m.admin_option FROM pg_auth_members m "
        "JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s",
        role,
    ) == [(group_name(isolated_site.database), False, False, False)]


def test_the_owner_may_switch_to_a_role_but_does_not_inherit_it(isolated_site):
    role = make_role(isolated_site, owner=OWNER)
    assert isolated_site.sql(
        "SELECT pg_has_role(%s, %s, 'USAGE'), pg_has_role(%s, %s, 'SET')", OWNER, role, OWNER, role
    ) == [(False, True)]


def test_a_role_that_somebody_else_created_is_not_changed(isolated_site):
    role = role_name(isolated_site.database, "acme_corp")
    isolated_site.sql(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'theirs'")
    with pytest.raises(ProvisioningError, match=f"'{role}' exists and is not a tenant's role.*choose another schema"):
        make_role(isolated_site)
    with isolated_site.session(role, "theirs"):
        pass


def test_a_group_that_somebody_else_created_is_named_with_the_way_out(isolated_site):
    group = group_name(isolated_site.database)
    isolated_site.sql(f'CREATE ROLE "{group}"')
    with pytest.raises(ProvisioningError, match=f'GRANT "{group}" TO "{ADMIN}" WITH ADMIN OPTION'):
        make_role(isolated_site)
    isolated_site.sql(f'GRANT "{group}" TO "{ADMIN}" WITH ADMIN OPTION')
    make_role(isolated_site)


def test_a_role_with_rights_that_only_a_superuser_takes_away_is_refused(isolated_site):
    role = make_role(isolated_site)
    isolated_site.sql(f'ALTER ROLE "{role}" BYPASSRLS CREATEDB')
    with pytest.raises(ProvisioningError, match=f'ALTER ROLE "{role}" NOCREATEDB NOBYPASSRLS;'):
        make_role(isolated_site)


# Grants


def apply(role, schema="acme_corp"):
    with admin_connection.admin_session() as admin:
        grants.apply_grants(schema, role, admin)


def close_database(site, *roles):
    """Let only these roles connect."""
    site.sql(f'REVOKE ALL ON DATABASE "{site.database}" FROM PUBLIC')
    for role in roles:
        site.sql(f'GRANT CONNECT ON DATABASE "{site.database}" TO {role}')


@pytest.fixture
def tenant(isolated_site):
    """A session of the role of acme_corp, with its grants."""
    role = make_role(isolated_site)
    apply(role)
    with isolated_site.session(role, password_of(isolated_site.database, role, 1)) as raw:
        yield raw


def test_a_role_may_use_the_tables_of_its_schema_and_nothing_else(tenant, isolated_site):
    tenant.execute(
        "INSERT INTO acme_corp.shop_report (title, made_in, orders, revenue, created) VALUES ('', '', 1, 1, now())"
    )
    tenant.execute("UPDATE acme_corp.shop_report SET orders = 2; DELETE FROM acme_corp.shop_report")
    for statement in (
        "SELECT FROM globex_inc.shop_order",
        "SELECT FROM public.customers_customer",
        "SELECT FROM public.tenant_q_tenantrole",
        "CREATE TABLE acme_corp.mine ()",
        "CREATE TABLE public.mine ()",
        "TRUNCATE acme_corp.shop_report",
        "DROP TABLE acme_corp.shop_report",
        f"SET ROLE {OWNER}",
        f"SET SESSION AUTHORIZATION {OWNER}",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant.execute(statement)


def test_a_role_may_use_the_tables_of_later_migrations(tenant, isolated_site):
    with isolated_site.session(OWNER) as owner:
        owner.execute("CREATE TABLE acme_corp.later (id serial, value text); CREATE TABLE globex_inc.later (id int)")
    tenant.execute("INSERT INTO acme_corp.later (value) VALUES ('x'); SELECT currval('acme_corp.later_id_seq')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        tenant.execute("SELECT FROM globex_inc.later")


def test_the_settings_share_tables_of_the_public_schema(isolated_site):
    role = make_role(isolated_site)
    with isolated_site.session(OWNER) as owner:
        owner.execute("CREATE TABLE public.notes (id serial, value text); CREATE TABLE public.secrets (id int)")
    with isolated_site.here(shared_read=("customers.Customer",), shared_write=("notes",)):
        apply(role)
    with isolated_site.session(role, password_of(isolated_site.database, role, 1)) as raw:
        raw.execute("SELECT FROM public.customers_customer")
        raw.execute("INSERT INTO public.notes (value) VALUES ('x'); UPDATE public.notes SET value = 'y'")
        for statement in ("UPDATE public.customers_customer SET name = ''", "SELECT FROM public.secrets"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                raw.execute(statement)


def test_a_table_that_all_roles_may_read_needs_no_grant_for_each(isolated_site):
    role = make_role(isolated_site)
    isolated_site.sql("GRANT SELECT ON public.customers_customer TO PUBLIC")
    with isolated_site.here(shared_read=("customers.Customer",)):
        apply(role)
        assert not [one for one in grants.grants_of("acme_corp", role) if "customers_customer" in one.sql_grant]


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"shared_read": ("customers.Nobody",)}, ConfigurationError, "no installed model"),
        ({"shared_write": ("tenant_q.TenantRole",)}, ConfigurationError, "a table of tenant_q"),
        ({"shared_read": ("no_such_table",)}, ProvisioningError, 'no "public"."no_such_table"'),
    ],
)
def test_a_shared_table_that_cannot_be_shared_is_refused(isolated_site, settings, error, reason):
    role = make_role(isolated_site)
    with isolated_site.here(**settings), pytest.raises(error, match=reason):
        apply(role)


def test_a_schema_in_which_all_may_create_is_refused(isolated_site):
    role = make_role(isolated_site)
    isolated_site.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with pytest.raises(ProvisioningError, match='REVOKE CREATE ON SCHEMA "public" FROM PUBLIC'):
        apply(role)


def test_tables_of_a_role_for_which_the_owner_may_not_grant_are_named(isolated_site):
    role = make_role(isolated_site)
    isolated_site.sql("CREATE TABLE acme_corp.foreign ()")
    with pytest.raises(ProvisioningError, match=f'belong to the role \'postgres\'.*GRANT "postgres" TO "{OWNER}"'):
        apply(role)


def test_each_grant_is_needed_and_its_revoke_takes_it_back(isolated_site):
    role = make_role(isolated_site)
    close_database(isolated_site, OWNER, ADMIN)
    isolated_site.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    apply(role)
    with isolated_site.session(OWNER) as owner:
        for grant in grants.grants_of("acme_corp", role):
            if "DEFAULT" in grant.sql_grant:
                continue
            owner.execute(grant.sql_revoke)
            assert grants.missing_grants("acme_corp", role), grant.what
            owner.execute(grant.sql_grant)
            assert not grants.missing_grants("acme_corp", role), grant.what


def test_the_admin_role_grants_connect_on_a_database_of_its_own(isolated_site):
    role = make_role(isolated_site)
    isolated_site.sql(f'ALTER DATABASE "{isolated_site.database}" OWNER TO {ADMIN}')
    close_database(isolated_site, OWNER)
    apply(role)
    with isolated_site.session(role, password_of(isolated_site.database, role, 1)):
        pass


def test_a_right_that_nobody_may_grant_is_named_with_the_statement(isolated_site):
    role = make_role(isolated_site)
    isolated_site.sql(f'ALTER DATABASE "{isolated_site.database}" OWNER TO postgres')
    apply(role)  # everybody may connect
    close_database(isolated_site, OWNER, ADMIN)
    with pytest.raises(ProvisioningError, match=f"GRANT CONNECT ON DATABASE {isolated_site.database} TO"):
        apply(role)
