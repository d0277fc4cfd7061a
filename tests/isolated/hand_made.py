"""Roles and grants as provisioning makes them. Replaced by it."""

from tenant_q.models import TenantRole
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import role_name
from tests.isolated.server import ADMIN, OWNER


def provision(site, schema, shared_read=("rates",)):
    r = role_name(site.database, schema)
    with site.session(ADMIN) as raw:
        g = f"tq_{site.database}"
        if not raw.execute("select 1 from pg_roles where rolname=%s", [g]).fetchone():
            raw.execute(f"CREATE ROLE {g} NOLOGIN")
        raw.execute(f"CREATE ROLE {r} LOGIN NOINHERIT")
        raw.execute(
            f"GRANT {g} TO {r} WITH INHERIT FALSE, SET FALSE; GRANT {r} TO {OWNER} WITH INHERIT FALSE, SET TRUE"
        )
    repair(site, schema)
    with site.here():
        TenantRole.objects.create(schema_name=schema, role=r, version=1, state="active")


def grants(site, schema, shared_read=("rates",)):
    r = role_name(site.database, schema)
    with site.session(OWNER) as raw:
        raw.execute(f"GRANT CONNECT ON DATABASE {site.database} TO {r}")
        raw.execute(f"GRANT USAGE ON SCHEMA {schema}, public TO {r}")
        raw.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {r}")
        raw.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {r}")
        for t in shared_read:
            raw.execute(f"GRANT SELECT ON public.{t} TO {r}")


def repair(site, schema):
    r = role_name(site.database, schema)
    with site.here():
        password = password_of(site.database, r, 1)
    with site.session(ADMIN) as raw:
        raw.execute(f"ALTER ROLE {r} PASSWORD '{password}'")
        raw.execute(f"ALTER ROLE {r} RESET ALL; ALTER ROLE {r} IN DATABASE {site.database} RESET ALL")
    grants(site, schema)
