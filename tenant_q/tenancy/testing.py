"""Queues of tests are apart from the project's own, as their database is.

Django's test environment (its runner's and pytest-django's) replaces the databases with test databases. A tenant of a
test may have the name of a real one, so the queues, groups and cached results of a test carry the test database's name.
"""

from __future__ import annotations

import sys

from django.db import connections

from tenant_q.conf import conf
from tenant_q.tenancy.seam import database_alias

_configured: str | None = None


def note_configured_database() -> None:
    """Note the name of the tenants' database while it is the one that the settings name: when the app is ready."""
    global _configured
    if _configured is None:
        _configured = _database_name()


def database_of_tests() -> str | None:
    """Return the name of the database whose test queue is in use; None for the project's own queue.

    That is so where `TENANT_Q["test_queue"]` is set, and in Django's test environment while the database is another
    than the settings named.
    """
    if conf().test_queue:
        return _database_name()
    if not _is_test_environment():
        return None
    name = _database_name()
    return None if name == _configured else name


def queue_suffix() -> str:
    """Return what is added to a cluster's name in Redis and to the keys of cached results; empty outside of tests."""
    name = database_of_tests()
    return "" if name is None else f"--{name}"


def _is_test_environment() -> bool:
    """Whether `setup_test_environment()` is in force. Its module is not imported: production has no need of it."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def _database_name() -> str:
    # Not the guarded connection: a coroutine may ask for this, since it is the same in all of them.
    return str(connections[database_alias()].settings_dict["NAME"])
