"""What `mscluster` checks at its start about isolation by roles."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tenant_q.cluster import isolation_preflight
from tenant_q.cluster.preflight import survey
from tenant_q.exceptions import ConfigurationError
from tenant_q.provisioning.admin_connection import tenants_server
from tests.isolated.server import OWNER
from tests.isolated.test_provision import provision
from tests.schemas import TENANTS

pytestmark = pytest.mark.seam


def test_tenants_without_a_role_are_named(isolated_site):
    (warning,) = survey().warnings
    assert warning.startswith("3 tenants have no database role") and "--all --adopt" in warning
    for schema in TENANTS:
        provision(schema, adopt=True)
    assert survey().warnings == ()


@pytest.mark.parametrize("isolated_site", ["login", "role"], indirect=True)
def test_an_owner_that_is_a_superuser_is_refused(isolated_site):
    isolated_site.sql(f"ALTER ROLE {OWNER} SUPERUSER")
    try:
        with pytest.raises(ConfigurationError, match=f"'{OWNER}' of DATABASES is a superuser"):
            survey()
    finally:
        isolated_site.sql(f"ALTER ROLE {OWNER} NOSUPERUSER")


def test_an_owner_that_may_create_roles_is_named(isolated_site):
    isolated_site.sql(f"ALTER ROLE {OWNER} CREATEROLE")
    try:
        assert any(f'ALTER ROLE "{OWNER}" NOCREATEROLE;' in text for text in survey().warnings)
    finally:
        isolated_site.sql(f"ALTER ROLE {OWNER} NOCREATEROLE")


def test_an_owner_that_logs_in_without_a_password_is_refused(isolated_site):
    rules = Path(isolated_site.sql("SHOW hba_file")[0][0])
    before = rules.read_text()
    rules.write_text(f"local {isolated_site.database} {OWNER} trust\n{before}")
    isolated_site.sql("SELECT pg_reload_conf()")
    try:
        with pytest.raises(ConfigurationError, match="can log in without a password"):
            survey()
    finally:
        rules.write_text(before)
        isolated_site.sql("SELECT pg_reload_conf()")


def test_an_old_server_is_refused(isolated_site, monkeypatch):
    old = replace(tenants_server(), version=150004)
    monkeypatch.setattr(isolation_preflight, "tenants_server", lambda: old)
    with pytest.raises(ConfigurationError, match="needs PostgreSQL 16 or newer, and the server is PostgreSQL 15"):
        survey()


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_under_path_nothing_of_it_is_imported(isolated_site):
    code = (
        "import sys; from config import wsgi; from tenant_q.cluster.preflight import survey; survey(); "
        "print([one for one in sys.modules if one.startswith('tenant_q.provisioning')])"
    )
    env = os.environ | isolated_site.env() | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
