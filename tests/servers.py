"""Pytest plugin: real servers for the tests, before Django reads its settings.

Embedded ones are started unless DATABASE_URL and REDIS_URL name others. The tests work in a database of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "testproject")]

from servers import Servers, start_servers  # noqa: E402

SERVERS = pytest.StashKey[Servers]()
# Whether this run started them: nobody else uses them.
OWN = pytest.StashKey[bool]()
_DATABASE = f"tenant_q_test_{os.getpid()}"


def _in_own_database(url: str) -> str:
    """Make the tests' own database on the server of `url`. Returns its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{_DATABASE}"')
    place, _, query = url.partition("?")
    head, _, _ = place.rpartition("/")
    return f"{head}/{_DATABASE}" + (f"?{query}" if query else "")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """A wrapper, so that it comes before pytest-django reads the settings."""
    if os.environ.pop("TESTS_START_SERVERS", None):  # one of several processes of a run: with servers of its own
        del os.environ["DATABASE_URL"], os.environ["REDIS_URL"]
    own = not {"DATABASE_URL", "REDIS_URL"} & os.environ.keys()
    servers = start_servers()
    admin_url = servers.database_url
    early_config.stash[SERVERS] = servers
    early_config.stash[OWN] = own
    early_config.add_cleanup(lambda: _end(servers, admin_url))
    os.environ["REDIS_URL"] = servers.redis_url
    os.environ["DATABASE_URL"] = _in_own_database(admin_url)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    if own and "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["TESTS_START_SERVERS"] = "yes"  # for the processes that this one starts
    yield


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """The servers of this run, to be killed and started again by a test that says so."""
    return pytestconfig.stash[SERVERS]


def _end(servers: Servers, admin_url: str) -> None:
    try:
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{_DATABASE}" WITH (FORCE)')
    finally:
        servers.stop()
