"""What the settings lack for isolation by roles, and what they show to tasks."""

from __future__ import annotations

import pytest
from django.core.checks import Error

from tenant_q.checks import check_all

KEY = "k" * 40
ADMIN = "postgresql://admin:secret@localhost/site"
LOGIN = {"isolation": "login", "role_key": KEY, "admin_database": ADMIN}


def found(settings, **values):
    """Return the ids of the checks about isolation."""
    settings.TENANT_Q = values
    numbers = [one.id.removeprefix("tenant_q.") for one in check_all()]
    return [one for one in numbers if one in ("E004", "E018", "E019", "E020", "W015", "W016")]


def make_tenant(schema, fields, domain):
    """Stand for a function of a project."""


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ({}, []),
        (LOGIN, []),
        ({"isolation": "path", "admin_database": ADMIN}, []),
        (LOGIN | {"role_key": None}, ["E018"]),
        (LOGIN | {"isolation": "role", "admin_database": None}, ["E019"]),
        (LOGIN | {"role_key": None, "credentials": f"{__name__}.make_tenant"}, []),
        (LOGIN | {"credentials": "nowhere.nothing"}, ["E020"]),
        (LOGIN | {"admin_database": f"{__name__}.KEY"}, ["E020"]),
        ({"make_tenant": f"{__name__}.nobody"}, ["E020"]),
        ({"make_tenant": f"{__name__}.make_tenant"}, []),
        (LOGIN | {"role_key": "short"}, ["E004"]),
    ],
)
def test_what_is_missing_is_named(settings, values, ids):
    assert found(settings, **values) == ids


def test_a_secret_that_tasks_can_read_elsewhere_is_named(settings):
    settings.THE_ROLE_KEY = KEY
    settings.SERVICES = {"postgres": [ADMIN]}
    assert found(settings, **LOGIN) == ["W015", "W016"]
    texts = [f"{one.msg} {one.hint}" for one in check_all()]
    assert any("The setting THE_ROLE_KEY also holds TENANT_Q['role_key']" in text for text in texts)
    assert not any(KEY in text or "secret@" in text for text in texts)


def test_an_alias_with_the_admin_role_is_named(settings):
    own = settings.DATABASES["default"]["USER"] or "postgres"
    assert found(settings, **LOGIN | {"admin_database": f"postgresql://{own}:x@localhost/site"}) == ["W016", "W016"]


def test_a_missing_key_keeps_a_cluster_from_starting(settings):
    settings.TENANT_Q = {"isolation": "login"}
    assert [one.id for one in check_all() if isinstance(one, Error)] == ["tenant_q.E018", "tenant_q.E019"]
