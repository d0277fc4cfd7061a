"""Tenants' roles for tests that need no grants: the row and the role, as a provisioning makes them."""

from __future__ import annotations

from typing import Any

import psycopg

from tenant_q import tenancy
from tenant_q.models import TenantRole
from tenant_q.provisioning import roles, scram
from tenant_q.provisioning.admin_connection import admin_session
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import role_name
from tests.isolated.site import Site


def give_roles(site: Site, *schemas: str, state: str = "active", **values: Any) -> None:
    """Give tenants their roles, with version 1 of their passwords."""
    with admin_session() as admin, tenancy.in_public():
        for schema in schemas:
            role = role_name(site.database, schema)
            verifier = scram.role_verifier(site.database, role, 1)
            roles.create_or_correct(admin, role, database=site.database, verifier=verifier)
            roles.allow_use(admin, role)
            TenantRole.objects.create(schema_name=schema, role=role, state=state, **values)


def row(schema: str) -> TenantRole:
    with tenancy.in_public():
        return TenantRole.objects.get(schema_name=schema)


def password(site: Site, schema: str, version: int | None = None) -> str:
    """The password of a version, or of that in the row."""
    found = row(schema)
    return password_of(site.database, found.role, version or found.version)


def is_let_in(site: Site, schema: str, version: int | None = None) -> bool:
    """Whether the tenant's role can log in with the password of a version, or of that in its row."""
    try:
        with site.session(row(schema).role, password(site, schema, version)):
            return True
    except psycopg.OperationalError as error:
        assert "password authentication failed" in str(error) or "could not access file" in str(error)
        return False
