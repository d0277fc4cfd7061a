"""A site on the isolated server: a database with three tenants, for code in this process, commands and clusters."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections
from django.test import override_settings

from tenant_q.provisioning import TenantCredentials, provision_tenant
from tests.conftest import MANAGE, RunningCluster, delete_keys, name_in_django_q
from tests.isolated.server import ADMIN, OWNER, IsolatedServer

ALIASES = ("default", "replica")


class Site:
    """A database of the isolated server, with the settings of a project that uses it.

    Attributes:
        database: its name.
        tenant_q: `TENANT_Q` of commands, clusters and `here()`.
        cluster: the name of its clusters, which is that of its queues.
    """

    def __init__(self, server: IsolatedServer, database: str, folder: Path, isolation: str = "path") -> None:
        self.server = server
        self.database = database
        self.folder = folder
        self.role_key = secrets.token_urlsafe(32)
        self.cluster = f"iso{uuid.uuid4().hex[:8]}"
        self.owner_url = server.url(database, OWNER)
        self.admin_url = server.url(database, ADMIN)
        self.tenant_q: dict[str, Any] = {}
        if isolation != "path":
            self.tenant_q |= {"isolation": isolation, "role_key": self.role_key, "admin_database": self.admin_url}
        self._clusters: list[RunningCluster] = []

    def secrets(self) -> dict[str, str]:
        """Return what no log, table, output or process title may contain, by its name."""
        return {"role_key": self.role_key} | {f"password of {name}": key for name, key in self.server.passwords.items()}

    # SQL

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Execute a statement as the superuser; return the rows, if there are any."""
        with self.server.connect(self.database) as raw:
            done = raw.execute(statement, values or None)
            return done.fetchall() if done.description else []

    @contextmanager
    def session(self, role: str, password: str | None = None) -> Iterator[psycopg.Connection[Any]]:
        """Open a session of a role: the owner, the admin, or a tenant's with its password."""
        with self.server.connect(self.database, role, password) as raw:
            yield raw

    def sessions(self) -> dict[int, str]:
        """Return the role of each client session in the database, by the pid of its backend, without the tests' own."""
        found = self.sql(
            "SELECT pid, usename FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND usename <> 'postgres'"
        )
        return dict(found)

    def provision(self, *schemas: str, **values: Any) -> dict[str, TenantCredentials]:
        """Give existing tenants roles, in this process, which must be one of the site's."""
        given: dict[str, Any] = {"adopt": True, "actor": "tests", "probe": False} | values
        return {schema: provision_tenant(schema, **given) for schema in schemas}

    # Processes

    def env(self, **tenant_q: Any) -> dict[str, str]:
        """Return the environment of the site's processes; keywords are further settings in `TENANT_Q`."""
        return {
            "DATABASE_URL": self.owner_url,
            "TEST_TENANT_Q": json.dumps(self.tenant_q | tenant_q),
            "Q_NAME": self.cluster,
        }

    def manage(self, *arguments: str, check: bool = True, **tenant_q: Any) -> subprocess.CompletedProcess[str]:
        """Run a management command in a process of its own, and wait for it."""
        done = subprocess.run(
            [sys.executable, str(MANAGE), *arguments],
            env=os.environ | self.env(**tenant_q),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def mscluster(self, *arguments: str, workers: int = 2, wait: bool = True, **tenant_q: Any) -> RunningCluster:
        """Start a cluster on the site's queues. It ends with the site."""
        log = self.folder / f"mscluster-{len(self._clusters)}.log"
        cluster = RunningCluster("--workers", str(workers), *arguments, env=self.env(**tenant_q), log=log)
        self._clusters.append(cluster)
        if wait:
            cluster.wait_for_workers(workers)
        return cluster

    def end(self) -> None:
        with ExitStack() as ends:
            ends.callback(delete_keys, self.cluster)
            for cluster in self._clusters:
                ends.callback(cluster.end)

    # This process

    @contextmanager
    def here(self, **tenant_q: Any) -> Iterator[Site]:
        """Meanwhile, this process is one of the site's: its aliases, its settings and its queues."""
        from django.conf import settings
        from django.contrib.contenttypes.models import ContentType

        from tenant_q.cluster.reset import reset
        from tenant_q.tenancy import testing

        values = settings.TENANT_Q | self.tenant_q | tenant_q
        info = psycopg.conninfo.conninfo_to_dict(self.owner_url)
        with pytest.MonkeyPatch.context() as patch, ExitStack() as after:
            connections.close_all()
            for alias in ALIASES:
                place = connections.settings[alias]
                for key, name in (("NAME", "dbname"), ("USER", "user"), ("PASSWORD", "password"), ("HOST", "host")):
                    patch.setitem(place, key, info[name])
            for name, value in self.env(**tenant_q).items():
                patch.setenv(name, value)
            patch.setattr(testing, "_configured", self.database)  # the site's own queues, not a test queue
            name_in_django_q(self.cluster, patch)
            for act in (ContentType.objects.clear_cache, reset, connections.close_all):
                after.callback(act)
            with override_settings(TENANT_Q=values, Q_CLUSTER=settings.Q_CLUSTER | {"name": self.cluster}):
                ContentType.objects.clear_cache()
                reset()
                yield self


@contextmanager
def watch_sessions(site: Site, limit: Callable[[dict[int, str]], int]) -> Iterator[list[dict[int, str]]]:
    """Look at the sessions all the time; yield those looks at which more sessions lived than `limit` allows.

    A backend ends a moment after its client has left. So it counts only if it is still there at the next look.
    """
    over: list[dict[int, str]] = []
    done = threading.Event()

    def look() -> None:
        before: dict[int, str] = {}
        while not done.wait(0.02):
            now = site.sessions()
            lasting = {pid: role for pid, role in now.items() if before.get(pid) == role}
            if len(lasting) > limit(lasting):
                over.append(lasting)
            before = now

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield over
    finally:
        done.set()
        thread.join()
