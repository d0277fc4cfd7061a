"""What a clean-up puts back belongs to whom the thread acts as: never a tenant's connection to the owner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connections

from tenant_q import tenancy
from tenant_q.scrubbing import serving, sessions
from tenant_q.tenancy import acting
from tests.isolated.role_rows import give_roles
from tests.isolated.server import OWNER

pytestmark = pytest.mark.seam


@pytest.fixture
def worker(isolated_site) -> Iterator[None]:
    """This process isolates tenants by "login", as a worker does."""
    give_roles(isolated_site, "acme_corp")
    acting.isolate("login", ["default"])
    try:
        yield
    finally:
        acting.forget()
        for connection in connections.all(initialized_only=True):
            connection.close()
            del connections[connection.alias]


def users() -> tuple[str, str]:
    """The users of the connection to the tenants' database, and of the connections that threads would make."""
    return connections["default"].settings_dict["USER"], connections.settings["default"]["USER"]


def test_a_clean_up_after_a_tenant_was_left_gives_the_owner_no_connection_of_it(worker):
    """As when a tenant cannot be served again, because its role is to be repaired, in the middle of a slice."""
    with serving.serving("acme_corp", None):
        sessions.watch()
        assert OWNER not in users()
    assert users() == (OWNER, acting.NOBODY)
    sessions.clean_up()
    assert users() == (OWNER, acting.NOBODY)


def test_a_clean_up_of_a_tenants_task_does_not_put_back_the_owners_connection(worker):
    sessions.watch()
    with serving.serving("acme_corp", None):
        before = users()
        sessions.clean_up()
        assert users() == before
    assert users() == (OWNER, acting.NOBODY)


def test_a_connection_that_a_task_replaces_is_put_back(worker):
    with serving.serving("acme_corp", None):
        sessions.watch()
        own = connections["default"]
        connections["default"] = connections.create_connection("default")
        sessions.clean_up()
        assert connections["default"] is own
    assert tenancy.tenant_connection().settings_dict["USER"] == OWNER
