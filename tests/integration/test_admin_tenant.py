"""The operators' page of one tenant: state, role, last probe, configuration, and the form that changes it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tenant_q import policies, tenancy
from tenant_q.models import AuditRecord, TenantConfiguration, TenantOperation, TenantRole
from tenant_q.tenancy import TenantConfig, config
from tests.integration.test_admin_operators import AUDIT, TENANTS

A, B = "acme_corp", "globex_inc"
PAGE, FORM = f"{TENANTS}{A}/", f"{TENANTS}{A}/configuration/"
pytestmark = pytest.mark.seam


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()
    for model in (TenantRole, TenantOperation, TenantConfiguration):
        model.objects.all().delete()
    tenancy.forget_tenants()


@pytest.fixture
def site(public_site) -> Callable[..., Client]:
    return public_site


def add_role(schema: str = A, **values: Any) -> TenantRole:
    return TenantRole.objects.create(schema_name=schema, role=f"db_{schema}", **{"state": "active"} | values)


def text_of(page: Any) -> str:
    """What the content of a page says, without the tags."""
    body = page.content.decode().partition('<div id="content-main">')[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", body)).split())


def filled_in(client: Any) -> dict[str, str]:
    """What a browser sends of the form as it stands there."""
    form = client.get(FORM).context["form"]
    shown = {name: form[name].value() for name in form.fields}
    return shown | {form[name].html_initial_name: value for name, value in shown.items()}


# The page


def test_the_page_shows_state_role_probe_policy_and_configuration(site):
    add_role(version=3, connection_limit=4, probed=timezone.now(), crossings=0)
    policies.change(A, actor="olga", act="limit", weight=2, max_running=3)
    policies.configure(A, actor="olga", display_name="Acme", settings={"plan": "gold"}, limits={"max_connections": 4})
    page = site().get(PAGE)
    said = text_of(page)
    for text in (
        "Policy weight 2, run ≤ 3", "State active", "Role db_acme_corp version 3", "Connection limit 4",
        "Last probe no crossing", 'plan "gold"', "max_connections 4", "Features Nothing is configured.",
    ):  # fmt: skip
        assert text in said
    assert page.context["title"] == "Acme"
    assert f"{AUDIT}?q={A}" in page.content.decode() and 'href="configuration/"' in page.content.decode()
    assert "tenant-q-advice" not in page.content.decode()


def test_what_needs_an_operator_is_said(site):
    add_role(state="repair", problem="the tenant changed its password", probed=timezone.now(), crossings=2)
    TenantOperation.objects.create(schema_name=A, kind="rotate", step="verifier", arguments={"x": "hunter2"}, actor="o")
    said = text_of(site().get(PAGE))
    for text in (
        "State to be repaired", "the tenant changed its password", "Last probe 2 crossings",
        "Open operation rotate, after verifier", "mstenant rotate acme_corp has not ended; run it again",
    ):  # fmt: skip
        assert text in said
    assert "hunter2" not in said


def test_the_table_links_each_tenant_and_notes_what_is_unusual(site, settings):
    client = site()
    assert f'href="{PAGE}"' in client.get(TENANTS).content.decode()
    add_role(crossings=1, probed=timezone.now())
    add_role(B)
    with CaptureQueriesContext(connection) as found:
        notes = {row["schema"]: row["note"] for row in client.get(TENANTS).context["rows"]}
    assert not any("tenant_q_tenantrole" in query["sql"] for query in found), (
        "with isolation by the path nothing is read"
    )
    assert set(notes.values()) == {("", "")}
    settings.TENANT_Q = {"isolation": "login", "role_key": "k" * 40}
    notes = {row["schema"]: row["note"][0] for row in client.get(TENANTS).context["rows"]}
    assert notes == {A: "1 crossing", B: "", "initech_llc": "no role"}


def test_a_page_of_no_tenant(site):
    client = site()
    for url in (f"{TENANTS}nobody/", f"{TENANTS}nobody/configuration/"):
        assert client.get(url).status_code == 404
    assert client.get(f"{TENANTS}public/").status_code == 404


def test_control_characters_are_shown_and_not_sent(site):
    policies.configure(A, actor="o", display_name="\x1b[31mEvil", settings={"\x1bkey": "<script>\x1b"})
    body = site().get(PAGE).content.decode()
    assert "\x1b" not in body and "<script>\\" not in body


# The form


def test_the_form_changes_what_was_changed_on_it(site):
    policies.configure(A, actor="o", settings={"plan": "gold", "old": 1}, features={"audit": 1}, limits={"seats": 2})
    client = site()
    values = filled_in(client)
    policies.configure(A, actor="otto", settings={"meanwhile": True}, display_name="Acme")
    values |= {
        "settings": '{"plan": "silver"}', "features": '{"audit": true}', "limits": '{"seats": 2, "max_items": 5}',
    }  # fmt: skip
    answer = client.post(FORM, values, follow=True)
    assert "Running processes use it within 30 s." in str(*answer.context["messages"])
    expected = TenantConfig(
        "Acme", {"meanwhile": True, "plan": "silver"}, {"audit": True}, {"max_items": 5, "seats": 2}
    )
    assert config(A) == expected and config(A).features["audit"] is True
    record = AuditRecord.objects.first()
    assert (record.actor, record.act, record.schema_name) == ("olga0", "configure", A)
    assert record.after["limits"] == {"max_items": 5}, "what has changed, and nothing else"


def test_an_empty_field_removes_all_that_it_showed(site):
    policies.configure(A, actor="o", display_name="Acme", limits={"seats": 2})
    client = site()
    client.post(FORM, filled_in(client) | {"display_name": "", "limits": ""})
    assert config(A) == TenantConfig()


def test_an_unchanged_form_changes_nothing(site):
    policies.configure(A, actor="o", display_name="Acme", limits={"seats": 2})
    count = AuditRecord.objects.count()
    client = site()
    answer = client.post(FORM, filled_in(client), follow=True)
    assert str(*answer.context["messages"]) == "Nothing was changed."
    assert AuditRecord.objects.count() == count


@pytest.mark.parametrize(
    ("field", "text", "kept", "error"),
    [
        ("limits", '{"max_items": 0}', '"max_items": 0', "max_items must be a whole number of at least 1, or null."),
        ("limits", "[1]", "[1]", "Enter an object of JSON, such as {}."),
        ("settings", "{plan: gold}", "{plan: gold}", "Enter a valid JSON."),
        ("settings", '{"a": "\\u0000"}', '"a": "\\u0000"', "which has a zero character"),
        ("display_name", "x" * 201, "x" * 201, "at most 200 characters"),
    ],
)
def test_a_wrong_value_is_explained_and_kept_in_the_form(site, field, text, kept, error):
    client = site()
    answer = client.post(FORM, filled_in(client) | {field: text})
    assert answer.status_code == 200
    assert error in " ".join(answer.context["form"].errors[field])
    assert html.escape(kept) in answer.content.decode()
    assert not TenantConfiguration.objects.exists()


# Who may what


def test_a_configuration_has_permissions_of_its_own(site):
    policies.configure(A, actor="o", display_name="Acme", settings={"plan": "gold"})
    blind = site("view_tenantpolicy")
    page = blind.get(PAGE)
    assert page.status_code == 200 and "gold" not in text_of(page) and page.context["title"] == A
    assert AUDIT not in page.content.decode().partition('id="content-main"')[2]
    viewer = site("view_tenantpolicy", "view_tenantconfiguration")
    assert "gold" in text_of(viewer.get(PAGE)) and "configuration/" not in viewer.get(PAGE).content.decode()
    for client in (blind, viewer):
        assert client.get(FORM).status_code == client.post(FORM, {"display_name": "x"}).status_code == 403
    editor = site("view_tenantpolicy", "change_tenantconfiguration")
    assert editor.get(FORM).status_code == 200
    assert site("change_tenantconfiguration").get(FORM).status_code == 403
    assert config(A).display_name == "Acme"


def test_in_a_tenants_site_there_is_no_such_page(site):
    client = site(schema=A)
    for url in (PAGE, FORM, f"{TENANTS}{B}/", f"{TENANTS}{B}/configuration/"):
        assert client.get(url).status_code == client.post(url, {"display_name": "x"}).status_code == 404
    assert not TenantConfiguration.objects.exists()
