"""Roles of tenants made by SQL, for the tests of what a worker does with them."""

from __future__ import annotations

from typing import Any

from tenant_q.models import TenantRole
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import role_name


def make_role(site: Any, schema: str) -> str:
    role = role_name(site.database, schema)
    password = password_of(site.database, role, 1)
    site.sql(f"CREATE ROLE {role} LOGIN NOINHERIT PASSWORD '{password}'")
    site.sql(f"GRANT {role} TO site_owner WITH INHERIT FALSE, SET TRUE")
    site.sql(f"GRANT CONNECT ON DATABASE {site.database} TO {role}; GRANT USAGE ON SCHEMA {schema}, public TO {role}")
    site.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
    site.sql(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
    TenantRole.objects.create(schema_name=schema, role=role, state="active")
    return role
