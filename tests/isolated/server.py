"""A PostgreSQL that asks every connection for a password, and databases on it with the rights that real sites have.

With `trust`, or with an owner that is a superuser, each test of isolation would pass without showing anything.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from servers import Servers

OWNER, ADMIN = "site_owner", "site_admin"
# The directory of the programs of another PostgreSQL: `initdb` and `postgres`.
PROGRAMS = "ISOLATED_POSTGRES"


class IsolatedServer(Servers):
    """PostgreSQL with SCRAM for all, every statement in its log, an owner and an admin role, neither a superuser."""

    def __init__(self) -> None:
        super().__init__()
        self.password = secrets.token_urlsafe(24)
        # With characters that are not themselves in a URL.
        self.passwords = {name: f"{secrets.token_urlsafe(24)}@:/%" for name in (OWNER, ADMIN)}
        self.postgres_options = {
            "password_encryption": "scram-sha-256",
            "log_statement": "all",
            "log_connections": "on",
            "log_disconnections": "on",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "autovacuum": "off",  # its sessions and locks would be counted
        }

    def start(self) -> None:
        super().start()
        with self.connect() as raw:
            raw.execute(
                psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}; CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(
                    psycopg.sql.Identifier(OWNER),
                    psycopg.sql.Literal(self.passwords[OWNER]),
                    psycopg.sql.Identifier(ADMIN),
                    psycopg.sql.Literal(self.passwords[ADMIN]),
                )
            )

    def url(self, database: str, role: str = "postgres", password: str | None = None) -> str:
        """Return the URL for a role; without `password`, that of the superuser, the owner or the admin."""
        if password is None:
            password = self.password if role == "postgres" else self.passwords[role]
        login = f"{quote(role)}:{quote(password, safe='')}"
        return f"postgresql://{login}@/{quote(database)}?host={quote(str(self._sockets))}"

    @contextmanager
    def connect(
        self, database: str = "postgres", role: str = "postgres", password: str | None = None
    ) -> Iterator[psycopg.Connection[Any]]:
        """Open a session of the superuser, or of another role."""
        unset = "-c statement_timeout=0 -c default_transaction_read_only=off" if role == "postgres" else ""
        with psycopg.connect(self.url(database, role, password), autocommit=True, options=unset) as raw:
            yield raw

    @property
    def log_path(self) -> Path:
        return self.directory / "postgres.log"

    def log(self, since: int = 0) -> str:
        """Return what the server wrote since `log_size()` was `since`: all statements, of all sessions."""
        with self.log_path.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    def log_size(self) -> int:
        return self.log_path.stat().st_size

    def _foreign_database(self) -> str | None:
        return None

    def _find_postgres(self) -> Path:
        named = os.environ.get(PROGRAMS)
        return Path(named) if named else super()._find_postgres()


def drop_site(server: IsolatedServer, database: str) -> None:
    """Drop a database and the roles of its tenants."""
    with server.connect() as raw:
        raw.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        roles = raw.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s || '_') OR rolname = 'tq_' || %s",
            [database, database],
        ).fetchall()
        for (role,) in roles:
            raw.execute(f'DROP ROLE "{role}"')


def leaked(text: str, found: dict[str, str]) -> list[str]:
    """Return the names of the secrets that `text` contains, as they are or quoted for a URL."""
    return [name for name, secret in found.items() if secret in text or quote(secret, safe="") in text]
