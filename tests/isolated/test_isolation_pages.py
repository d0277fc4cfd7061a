"""The statements of the pages about isolation, on a server where they make what the pages say."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from tenant_q.provisioning import probe_tenants
from tests.documents import DOCS, blocks
from tests.isolated.server import IsolatedServer, drop_site
from tests.isolated.site import Site
from tests.isolated.test_worker_roles import run
from tests.schemas import make_base_tenants

ROLES = {"shop_owner": "owner-secret", "shop_admin": "admin-secret"}
FIRST_USER = "first_user"
FOREIGN = """
SELECT nspname || '.' || relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relowner <> 'shop_owner'::regrole
UNION ALL
SELECT pg_proc.oid::regprocedure::text FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND proowner <> 'shop_owner'::regrole
"""


def statements(page: str, title: str, database: str) -> list[str]:
    """Return the statements of a block of a page, for a database of another name; those of a DO are one."""
    (text,) = (one.text for one in blocks(DOCS / "how-to" / f"{page}.md") if one.title == title)
    text = re.sub(r"\bshop\b", f'"{database}"', text)
    head, do, rest = text.partition("DO $$")
    return [f"{one};" for one in head.split(";") if one.strip()] + ([do + rest] if do else [])


@pytest.fixture
def database(isolated_server: IsolatedServer) -> Iterator[str]:
    name = f"pages_{uuid.uuid4().hex[:8]}"
    yield name
    drop_site(isolated_server, name)
    with isolated_server.connect() as raw:
        for role in (*ROLES, FIRST_USER):
            raw.execute(f"DROP ROLE IF EXISTS {role}")


def site_of(server: IsolatedServer, database: str, folder) -> Site:
    """Return a site of the roles of the pages, with "login"."""
    site = Site(server, database, folder, "login")
    site.owner_url, site.admin_url = (server.url(database, role, key) for role, key in ROLES.items())
    site.tenant_q["admin_database"] = site.admin_url
    return site


def require_isolated(site: Site) -> None:
    """Require that a cluster serves tenants as their roles, and that nothing is open."""
    roles = site.provision("acme_corp", "globex_inc")
    site.mscluster(workers=1)
    assert run("tests.tasks_isolated.who", schema="acme_corp")["session"] == roles["acme_corp"].role
    assert probe_tenants(actor="tests").is_closed


@pytest.mark.usefixtures("isolated_template")  # it allows this process to use the database
def test_a_fresh_server(isolated_server, database, tmp_path):
    with isolated_server.connect() as raw:
        for one in statements("isolate-tenants", "A fresh server", database):
            raw.execute(one)
    site = site_of(isolated_server, database, tmp_path)
    with site.here():
        make_base_tenants()
        try:
            require_isolated(site)
        finally:
            site.end()


def test_a_hosted_server_without_a_superuser(isolated_server, database):
    with isolated_server.connect() as raw:
        raw.execute(f"CREATE ROLE {FIRST_USER} LOGIN CREATEROLE CREATEDB PASSWORD 'first-secret'")
    with isolated_server.connect("postgres", FIRST_USER, "first-secret") as raw:
        for one in statements("hosted-postgresql", "A hosted server", database):
            raw.execute(one)
    with isolated_server.connect(database, "shop_owner", ROLES["shop_owner"]) as raw:
        raw.execute("CREATE SCHEMA acme_corp; CREATE TABLE public.here (id int)")
    with isolated_server.connect(database, "shop_admin", ROLES["shop_admin"]) as raw:
        raw.execute(f'CREATE ROLE "{database}_acme" LOGIN')


def test_an_existing_database_of_a_superuser(
    isolated_server: IsolatedServer, isolated_template: str, database: str, tmp_path
):
    with isolated_server.connect() as raw:
        raw.execute(f'CREATE DATABASE "{database}" TEMPLATE "{isolated_template}"')
        for one in statements("isolate-tenants", "A fresh server", database)[:2]:
            raw.execute(one)
    with isolated_server.connect(database) as raw:
        for owner in ("postgres", "shop_owner"):
            for one in statements("isolate-tenants", "An existing database", database):
                raw.execute(one.replace("shop_owner", owner))
        for one in statements("isolate-tenants", "An old database", database):
            raw.execute(one)
        assert raw.execute(FOREIGN).fetchall() == []
    site = site_of(isolated_server, database, tmp_path)
    with site.here():
        try:
            require_isolated(site)
        finally:
            site.end()
