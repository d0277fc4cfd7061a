"""`mstenant configure` changes a tenant's configuration, `mstenant show` shows what is kept about a tenant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tenant_q import policies, tenancy
from tenant_q.models import AuditRecord, TenantConfiguration, TenantOperation, TenantRole
from tenant_q.tenancy import TenantConfig, config
from tests.integration.conftest import as_olga, sql

A, B = "acme_corp", "globex_inc"
pytestmark = pytest.mark.seam


@pytest.fixture(autouse=True)
def clean(tenants, monkeypatch) -> Iterator[None]:
    yield from as_olga(monkeypatch, forget)


def forget() -> None:
    tables = ("tenantpolicy", "auditrecord", "tenantconfig", "tenantrole", "tenantoperation")
    sql(f"TRUNCATE {', '.join(f'tenant_q_{table}' for table in tables)}")
    tenancy.forget_tenants()


def mstenant(*arguments: str) -> str:
    out = StringIO()
    call_command("mstenant", *arguments, stdout=out)
    return out.getvalue().rstrip("\n")


def shown(schema: str = A) -> dict[str, Any]:
    return json.loads(mstenant("show", schema, "--json"))


def add_role(**values: Any) -> TenantRole:
    return TenantRole.objects.create(schema_name=A, role="db_acme_corp", **{"state": "active"} | values)


# configure


def test_values_are_json_or_text_and_are_recorded():
    said = mstenant(
        "configure", A, "display_name=Acme = Co.", "features.audit=true", "limits.max_items=500", "settings.plan=gold",
        'settings.report={"to": ["ops@acme.example.com"]}', "settings.code=007",
    )  # fmt: skip
    assert said.splitlines() == [
        'acme_corp has display_name "Acme = Co.", features.audit true, limits.max_items 500, settings.plan "gold", '
        'settings.report {"to": ["ops@acme.example.com"]}, settings.code "007".',
        "Running processes use it within 30 s.",
    ]
    settings = {"plan": "gold", "report": {"to": ["ops@acme.example.com"]}, "code": "007"}
    assert config(A) == TenantConfig("Acme = Co.", settings, {"audit": True}, {"max_items": 500})
    record = AuditRecord.objects.get()
    assert (record.actor, record.act, record.schema_name) == ("olga", "configure", A)
    assert record.after["settings"] == settings


def test_a_key_without_a_value_is_removed_and_the_others_stay():
    mstenant("configure", A, "display_name=Acme", "limits.max_items=5", "limits.seats=3", "features.audit=false")
    said = mstenant("configure", A, "limits.max_items=", "display_name=", "features.audit=null")
    assert said.startswith("acme_corp has no limits.max_items, no display_name, no features.audit.")
    assert config(A) == TenantConfig(limits={"seats": 3})
    assert AuditRecord.objects.first().before["limits"] == {"max_items": 5}


def test_the_order_of_words_and_options_is_free():
    expected = {"schema": A, "display_name": "", "settings": {}, "features": {"a": 1, "b": "x"}, "limits": {}}
    assert json.loads(mstenant("configure", A, "features.a=1", "--json", "features.b=x")) == expected
    assert json.loads(mstenant("configure", "--json", A, "features.a=1")) == expected
    assert json.loads(mstenant("--json", "configure", "features.a=1", "--schema", A)) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Nothing to change for acme_corp: give KEY=VALUE, such as limits.max_items=500."),
        (("limits.seats",), "'limits.seats' has no value; give limits.seats=VALUE, or limits.seats= to remove it."),
        (("fetures.x=1",), "A tenant's configuration has no 'fetures': did you mean 'features'?"),
        (("settings=1",), "settings holds several keys; name one, as settings.KEY=VALUE."),
        (("display_name.x=1",), "display_name is a text and has no 'x'; give display_name=TEXT."),
        (
            ("settings.report.to=x",),
            "settings.report.to would be a part of the value settings.report; give all of settings.report as JSON.",
        ),
        (("features.a=1", "features.a=2"), "features.a is given twice; give it once."),
        (("features.a=False",), "features.a=False is Python; give false, or '\"False\"' for the text."),
        (("settings.a={to: x}",), "settings.a begins as JSON and is none (Expecting property name"),
        (("settings.a=NaN",), "settings of acme_corp cannot be {'a': nan}: JSON cannot hold it"),
        (
            ("limits.max_items=many",),
            "limits of acme_corp cannot be {'max_items': 'many'}: max_items must be a whole number",
        ),
        (("limits.max_open_workflows=0",), "limits of acme_corp cannot be {'max_open_workflows': 0}: max_open_wor"),
    ],
)
def test_what_cannot_be_configured_changes_nothing(words, message):
    with pytest.raises(CommandError) as error:
        mstenant("configure", A, *words)
    assert str(error.value).startswith(message)
    assert not TenantConfiguration.objects.exists()
    assert not AuditRecord.objects.exists()


@pytest.mark.parametrize("action", ["configure", "show"])
def test_a_tenant_that_is_not_there(action):
    words = ["limits.seats=1"] if action == "configure" else []
    with pytest.raises(CommandError, match="No tenant has the schema name 'acme_crop'"):
        mstenant(action, "acme_crop", *words)
    with pytest.raises(CommandError, match=f"Name the tenant: `mstenant {action} SCHEMA`"):
        mstenant(action)


def test_a_changed_limit_of_connections_that_cannot_be_applied_is_said():
    assert "role" not in mstenant("configure", A, "limits.max_connections=3")
    add_role(connection_limit=3)
    assert "role" not in mstenant("configure", A, "limits.seats=3", "limits.max_connections=3")
    said = mstenant("configure", A, "limits.max_connections=2").splitlines()[-1]
    assert said == (
        "Its max_connections is not the limit of its role; `mstenant configure acme_corp limits.max_connections=2` "
        "applies it. It needs TENANT_Q['admin_database']."
    )
    assert shown()["advice"] in said


# show


def test_a_tenant_without_a_role_is_shown():
    policies.change(A, actor="olga", act="limit", weight=2, max_running=3)
    mstenant("configure", A, "display_name=Acme", "settings.report={}", "limits.seats=3")
    lines = mstenant("show", A).splitlines()
    pairs = dict(line.split(maxsplit=1) for line in lines if line)
    assert pairs["tenant"] == A and pairs["weight"] == "2" and pairs["isolation"] == "path" and pairs["role"] == "none"
    assert pairs["display_name"] == "Acme" and pairs["settings.report"] == "{}" and pairs["limits.seats"] == "3"
    found = shown()
    assert found["policy"]["max_running"] == 3
    assert found["configuration"] == config(A).as_json()
    assert (found["is_known"], found["role"], found["operation"], found["advice"]) == (True, None, None, "")


def test_a_role_is_shown_with_its_last_probe():
    now = timezone.now()
    add_role(version=4, connection_limit=6, probed=now, crossings=2)
    mstenant("configure", A, "limits.max_connections=6")
    found = shown()
    assert found["role"] == {
        "role": "db_acme_corp", "version": 4, "state": "active", "connection_limit": 6, "problem": "",
        "probed": now.isoformat(), "crossings": 2,
    }  # fmt: skip
    text = mstenant("show", A)
    assert "db_acme_corp, version 4 of its password" in text and ", 2 crossings" in text
    assert found["advice"] == ""


@pytest.mark.parametrize(
    ("isolation", "state", "advice"),
    [
        ("path", None, ""),
        ("login", None, "Its tasks wait for its role, which `mstenant provision acme_corp --adopt` makes."),
        ("login", "active", ""),
        ("login", "repair", "Its tasks wait until the scheduler has repaired its role."),
    ],
)
def test_what_a_tenant_needs_is_said(isolation, state, advice, settings):
    settings.TENANT_Q = {"isolation": isolation, "role_key": "k" * 40}
    if state:
        add_role(state=state)
    assert shown()["advice"] == advice
    assert advice in mstenant("show", A)


def test_an_operation_that_has_not_ended_is_shown_even_without_the_tenant():
    secret = {"fields": {"token": "hunter2"}}
    TenantOperation.objects.create(schema_name="newcomer", kind="provision", step="schema", arguments=secret, actor="o")
    found = shown("newcomer")
    assert (found["is_known"], found["operation"]["step"]) == (False, "schema")
    assert found["advice"] == "`mstenant provision newcomer` has not ended; run it again, which continues it."
    TenantOperation.objects.update(kind="decommission")
    assert "`mstenant decommission newcomer --yes` has not ended" in shown("newcomer")["advice"]
    TenantOperation.objects.update(kind="provision")
    text = mstenant("show", "newcomer")
    assert "newcomer (no tenant)" in text and "provision, after step schema, since " in text
    assert "hunter2" not in text + json.dumps(found)
