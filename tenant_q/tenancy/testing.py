"""Keep the queues of tests apart from the queues of the project, as their databases are.

Django's test environment (in its runner and in pytest-django) replaces the databases with test databases. A tenant of a
test may have the name of a real tenant, so the names of a test's queues, groups and cached results contain the name of
the test database.
"""

from __future__ import annotations

import sys

from django.db import connections

from tenant_q.conf import conf
from tenant_q.tenancy.tenancy_package import database_alias

_configured: str | None = None


def note_configured_database() -> None:
    """Note the name of the tenants' database before tests replace it. Call it when the app is ready."""
    global _configured
    if _configured is None:
        _configured = _database_name()


def database_of_tests() -> str | None:
    """Return the name of the database whose test queue is used, or None if the project's own queue is used.

    The test queue is used if `TENANT_Q["test_queue"]` is set, and in Django's test environment while the database is
    not the configured one.
    """
    if conf().test_queue:
        return _database_name()
    if not _is_test_environment():
        return None
    name = _database_name()
    return None if name == _configured else name


def queue_suffix() -> str:
    """Return the suffix that keeps a test's queues and cached results apart. It is empty outside of tests."""
    name = database_of_tests()
    return "" if name is None else f"--{name}"


def _is_test_environment() -> bool:
    """Return whether `setup_test_environment()` is in force, without importing its module into production."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def _database_name() -> str:
    # Not `tenant_connection()`: the name is the same for all coroutines, so a coroutine may read it.
    return str(connections[database_alias()].settings_dict["NAME"])
