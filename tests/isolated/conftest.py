"""Fixtures: sites on a PostgreSQL of SCRAM passwords, whose owner is no superuser. Roles need PostgreSQL 16.

`ISOLATED_POSTGRES` names the programs of another PostgreSQL than the embedded one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.isolated.arming import arm
from tests.isolated.scene import Scene, names_of
from tests.isolated.server import OWNER, IsolatedServer, drop_site
from tests.isolated.site import Site
from tests.schemas import TENANTS, make_base_tenants

TEMPLATE = "isolated_template"


@pytest.fixture(scope="session")
def isolated_server() -> Iterator[IsolatedServer]:
    """A PostgreSQL of the tests' own."""
    with IsolatedServer() as server:
        yield server


@pytest.fixture(scope="session")
def isolated_template(isolated_server: IsolatedServer, django_db_blocker: Any, tmp_path_factory: Any) -> str:
    """The name of a database with the public schema and three tenants, made by the owner as users make them."""
    django_db_blocker.unblock()
    with isolated_server.connect() as raw:
        raw.execute(f'CREATE DATABASE "{TEMPLATE}" OWNER {OWNER}')
    with Site(isolated_server, TEMPLATE, tmp_path_factory.mktemp("template")).here():
        make_base_tenants()
    return TEMPLATE


@pytest.fixture(scope="session")
def make_site(
    isolated_server: IsolatedServer, isolated_template: str, tmp_path_factory: Any
) -> Iterator[Callable[..., Site]]:
    """Make a site with three tenants that have no roles: `make_site("login")`. It ends with the tests."""
    with ExitStack() as ends:

        def make(isolation: str = "path", folder: Path | None = None) -> Site:
            database = f"site_{uuid.uuid4().hex[:8]}"
            with isolated_server.connect() as raw:
                raw.execute(f'CREATE DATABASE "{database}" TEMPLATE "{isolated_template}" OWNER {OWNER}')
            ends.callback(drop_site, isolated_server, database)
            site = Site(isolated_server, database, folder or tmp_path_factory.mktemp(database), isolation)
            ends.callback(site.end)
            return site

        yield make


@pytest.fixture
def isolated_site(
    make_site: Callable[..., Site], isolated_server: IsolatedServer, tmp_path: Path, request: Any
) -> Iterator[Site]:
    """This test's own site, which this process is part of; isolation "login" unless the test is parametrised."""
    site = make_site(getattr(request, "param", "login"), tmp_path)
    try:
        with site.here():
            yield site
    finally:
        site.end()
        drop_site(isolated_server, site.database)


@pytest.fixture(scope="module")
def scene(make_site: Callable[..., Site], request: Any) -> Iterator[Scene]:
    """A site with a cluster of one worker, so that the next task is in the same process.

    Its isolation is "login", unless the module has another one as `ISOLATION`.
    """
    site = make_site(getattr(request.module, "ISOLATION", "login"))
    site.tenant_q["shared_read"] = ["rates"]
    number = arm(site)
    with site.here(), site.session(OWNER) as owners:
        site.provision(*TENANTS)
        yield Scene(site, names_of(site, number, owners), site.mscluster(workers=1))
        site.end()
