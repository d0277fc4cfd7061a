"""The tutorial of tenants with roles, carried out on a PostgreSQL that asks everyone for a password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.test_tutorials import TUTORIALS, Reader, page_of, programs, reader_of
from tests.isolated.server import IsolatedServer, drop_site

__all__ = ["programs"]
ROLES = ("shop_owner", "shop_admin")


@pytest.fixture(params=TUTORIALS)
def reader(
    request: pytest.FixtureRequest,
    isolated_server: IsolatedServer,
    tmp_path: Path,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:
    monkeypatch.setenv("DATABASE_URL", isolated_server.url("postgres"))
    readers = reader_of(page_of(request.param), tmp_path, programs)
    found = next(readers)
    yield found
    next(readers, None)
    drop_site(isolated_server, found.database)
    with isolated_server.connect() as raw:
        for role in ROLES:
            raw.execute(psycopg.sql.SQL("DROP ROLE IF EXISTS {}").format(psycopg.sql.Identifier(role)))


def test_a_newcomer_gives_two_tenants_roles_that_postgresql_keeps_apart(reader: Reader) -> None:
    """The page says what most steps print, and the reader compares it."""
    reader.follow("## 5. Two tenants")
    reader.turn_to(page_of("tenants-with-roles"))
    reader.follow("## 3. Two tenants, each by one call")
    assert "no issues (0 silenced)" in reader.answers[-1]
    reader.follow("## 6. Probe")
    first, *_, again = (one for one in reader.answers if "permission denied for schema acme" in one)
    assert again.endswith(first), "after the rotation as before"
    reader.follow("## 7. Remove a tenant")
    closed, found, closed_again = reader.answers[-3:]
    assert "The probe found something." in found
    closing = rf'REVOKE SELECT ON (TABLE )?"?globex"?."?auth_user"? FROM "?{reader.database}_acme"?'
    assert re.search(closing, found), found
    assert "found something" not in closed + closed_again
    reader.follow()
    with psycopg.connect(os.environ["DATABASE_URL"]) as raw:
        left = raw.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"%{reader.database}%"]).fetchall()
    assert {name for (name,) in left} == {f"{reader.database}_acme", f"tq_{reader.database}"}
    assert reader.end() == [0], reader.log("mscluster")
