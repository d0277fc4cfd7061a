"""`mstenant decommission` leaves nothing of a tenant, wherever it is killed, and takes nothing from others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.exceptions import ProvisioningError, UnknownTenant
from tenant_q.models import AuditRecord, CodeSchedule, SyncedTenant, TenantOperation, TenantPolicy, TenantRole
from tenant_q.operations import deleted_tenants
from tenant_q.provisioning import admin_connection, decommission_tenant, grants
from tenant_q.provisioning import decommission as decommissioning
from tenant_q.tenancy import in_schema
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import role_name
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import delete_keys
from tests.isolated.kills import killed_after_each
from tests.isolated.role_rows import give_roles, row
from tests.isolated.server import OWNER
from tests.isolated.site import Site
from tests.runs import make_run

pytestmark = pytest.mark.seam
NAME, OTHER = "spare", "globex_inc"
# What outlives a tenant: the audit trail; for a month, that it was there; and what is no tenant's.
KEPT = {"tenant_q_auditrecord", "tenant_q_tenantrecord"}


def make(site: Site, *, role: bool = True) -> str:
    """A tenant, with its role. Returns its key."""
    schemas.clone_tenants([NAME])
    deleted_tenants.find_and_clear()  # records a tenant that was made past `save()`
    tenancy.forget_tenants()
    if role:
        give_roles(site, NAME)
        with admin_connection.admin_session() as admin:
            grants.apply_grants(NAME, row(NAME).role, admin)
    return tenancy.keys_of([NAME])[NAME]


def fill(key: str) -> None:
    """Give the tenant something wherever a tenant may have something."""
    broker = get_broker()
    with in_schema(NAME):
        for options in ({}, {"delay": 60}, {"priority": 5}, {"rate": "1/h"}, {"unique": "k"}):
            QUtilities.add_async_task("tests.tasks.add", 1, q_options=options)
        QUtilities.add_async_task("tests.tasks.add", 1, q_options={"unique": "k", "on_commit": True})
        QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1, 2])
        Schedule.objects.create(func="tests.tasks.add", args="1", schedule_type="H", name="hourly")
    make_run(NAME)
    schemas.make_dead(NAME)
    broker.add_parts(NAME, "group", {"0": "part"}, seconds=None)
    broker.note_cached(NAME, "cached", seconds=None)
    policies.change(NAME, actor="test", act="limit", weight=2)
    policies.configure(NAME, actor="test", settings={"colour": "red"})
    with tenancy.in_public():
        CodeSchedule.objects.create(site="site", tenant=key, name="from code", schedule_id=1)
        SyncedTenant.objects.create(site="site", tenant=key, fingerprint="f")


def left(site: Site, key: str, *, keep_schema: bool = False) -> dict[str, Any]:
    """What is left of the tenant, by where it is."""
    role = role_of(site)
    found: dict[str, Any] = {
        "schema": site.sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", NAME) if not keep_schema else [],
        "role": site.sql("SELECT 1 FROM pg_roles WHERE rolname = %s", role),
        "grants": site.sql(
            "SELECT nspname FROM pg_namespace WHERE nspacl::text ~ %s UNION ALL SELECT relname FROM pg_class "
            "WHERE relacl::text ~ %s UNION ALL SELECT datname FROM pg_database WHERE datacl::text ~ %s UNION ALL "
            "SELECT defaclacl::text FROM pg_default_acl WHERE defaclacl::text ~ %s",
            *[rf"\y{role}\y"] * 4,
        ),
        "sessions": site.sql("SELECT pid FROM pg_stat_activity WHERE usename = %s", role),
        "keys": keys_of(key),
    }
    tables = site.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in {table for (table,) in tables} - KEPT:
        named = site.sql(f"SELECT row_to_json(one)::text FROM {table} AS one")
        found[table] = [text for (text,) in named if is_of(json.loads(text), key)]
    return {place: what for place, what in found.items() if what}


def is_of(values: dict[str, Any], key: str) -> bool:
    named = {values.get(name) for name in ("schema_name", "tenant", "tenant_id", "role")}
    return bool(named & {NAME, key, int(key) if key.isdecimal() else key})


def keys_of(key: str) -> list[str]:
    """The keys in Redis that name the tenant, or hold its name or key. For a minute it is kept that it was deleted."""
    client, found = tasks.client(), []
    for name in client.scan_iter(f"*{get_broker().cluster}*"):
        kind = client.type(name).decode()
        read: Callable[[Any], Any] = {
            "string": client.get,
            "hash": client.hgetall,
            "list": lambda name: client.lrange(name, 0, -1),
            "zset": lambda name: client.zrange(name, 0, -1),
            "set": client.smembers,
        }.get(kind, lambda name: None)  # it may be gone meanwhile
        text = f"{name!r}: {read(name)!r}"
        if NAME in text or (f"b'{key}'" in text and name.endswith((b":queues", b":leaving"))):
            found.append(text)
    return found


def decommission(*arguments: str) -> str:
    out = StringIO()
    call_command("mstenant", "decommission", NAME, "--yes", *arguments, stdout=out)
    return out.getvalue()


def others(site: Site) -> list[Any]:
    """What another tenant has."""
    role = role_of(site, OTHER)
    return [
        site.sql("SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname = %s", OTHER),
        site.sql("SELECT relname, relacl::text FROM pg_class WHERE relnamespace = %s::regnamespace ORDER BY 1", OTHER),
        site.sql("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = %s", role),
        get_broker().queue_size(OTHER),
    ]


@pytest.fixture(scope="module")
def login_site(make_site: Callable[..., Site]) -> Site:
    return make_site("login")


@pytest.fixture
def site(login_site: Site, request: Any) -> Iterator[Site]:
    """A site of "login", or of the isolation with which the test is parametrised."""
    with login_site.here(isolation=getattr(request, "param", "login")):
        tenancy.tenant_connection().set_schema_to_public()
        try:
            yield login_site
        finally:
            clean(login_site)


def clean(site: Site) -> None:
    """Leave the site as it was made, whatever the test has done."""
    connection.set_schema_to_public()
    schemas.drop_tenant(NAME)
    site.sql(f'DROP SCHEMA IF EXISTS elsewhere; ALTER DATABASE "{site.database}" OWNER TO {OWNER}')
    delete_keys(site.cluster)
    for schema in (NAME, OTHER):
        site.sql(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"') if exists(site, name := role_of(site, schema)) else None
    for model in (AuditRecord, TenantOperation, TenantPolicy, TenantRole):
        model.objects.all().delete()


def role_of(site: Site, schema: str = NAME) -> str:
    return role_name(site.database, schema)


def exists(site: Site, role: str) -> bool:
    return bool(site.sql("SELECT 1 FROM pg_roles WHERE rolname = %s", role))


def test_nothing_is_left_but_the_audit_trail(site):
    give_roles(site, OTHER)
    with admin_connection.admin_session() as admin:
        grants.apply_grants(OTHER, row(OTHER).role, admin)
    key = make(site)
    fill(key)
    role = row(NAME).role
    with in_schema(OTHER):
        QUtilities.add_async_task("tests.tasks.add", 1)
    before = others(site)
    assert {"schema", "role", "grants", "keys", "tenant_q_tenantrole", "tenant_q_dueschedule"} <= left(site, key).keys()
    with site.session(role, password_of(site.database, role, 1)) as raw:
        raw.execute("SELECT lo_create(0); CREATE TEMPORARY TABLE mine (id int)")
        text = decommission()
        with pytest.raises(psycopg.OperationalError, match=r"terminating|closed"):
            raw.execute("SELECT 1")
    assert text == f"Decommissioned {NAME}: removed its row, its schema, its role {role} and 7 tasks that waited.\n"
    assert left(site, key) == {}
    assert site.sql("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    inherited = "SELECT count(*) FROM pg_auth_members WHERE inherit_option AND member = %s::regrole"
    assert site.sql(inherited, OWNER) == [(0,)]
    assert others(site) == before
    with tenancy.in_public():
        acts = list(AuditRecord.objects.filter(schema_name=NAME).order_by("id").values_list("act", flat=True))
        done = AuditRecord.objects.get(act="decommission")
    assert acts == ["limit", "configure", "decommission"]
    assert (done.target, done.before, done.after) == (key, {"role": role}, {"kept_schema": False})
    with pytest.raises(UnknownTenant), in_schema(NAME):
        pass


@pytest.mark.parametrize("site", ["path"], indirect=True)
def test_a_tenant_without_a_role_is_decommissioned_too(site):
    key = make(site, role=False)
    fill(key)
    assert decommission() == f"Decommissioned {NAME}: removed its row, its schema and 7 tasks that waited.\n"
    assert left(site, key) == {}


def test_a_role_whose_row_is_lost_is_found_by_its_name(site):
    key = make(site)
    with tenancy.in_public():
        TenantRole.objects.all().delete()
    decommission()
    assert left(site, key) == {}


def test_the_role_of_a_tenant_that_had_the_name_before_is_left_alone(site):
    key = make(site)
    role = row(NAME).role
    with tenancy.in_public():
        TenantRole.objects.update(schema_name=OTHER)  # as if it had been renamed
    assert "its role" not in decommission()
    assert left(site, key).keys() == {"role"} | ({"grants"} & left(site, key).keys())
    assert row(OTHER).role == role


def test_a_tenant_whose_row_was_deleted_before_is_decommissioned(site):
    key = make(site)
    fill(key)
    with tenancy.in_public():
        tenancy.tenant_model().objects.get(schema_name=NAME).delete()
    assert left(site, key).keys() >= {"schema", "role", "grants"}
    decommission()
    assert left(site, key) == {}


def test_a_schema_may_be_kept_with_its_data(site):
    key = make(site)
    fill(key)
    role = row(NAME).role
    site.sql(f"CREATE TABLE {NAME}.made_by_hand AS SELECT 1 AS one; ALTER TABLE {NAME}.made_by_hand OWNER TO {role}")
    with in_schema(NAME):
        Task.objects.create(id="t", name="t", func="f", started="2026-01-01T00:00Z", stopped="2026-01-01T00:00Z")
    text = decommission("--keep-schema")
    removed = f"removed its row, its role {role} and 7 tasks that waited; its schema is kept."
    assert text == f"Decommissioned {NAME}: {removed}\n"
    assert left(site, key, keep_schema=True) == {}
    assert site.sql(f"SELECT id FROM {NAME}.django_q_task") == [("t",)]
    assert site.sql(f"SELECT one FROM {NAME}.made_by_hand") == [(1,)]
    owner = f"SELECT relowner::regrole::text FROM pg_class WHERE oid = '{NAME}.made_by_hand'::regclass"
    assert site.sql(owner) == [(OWNER,)]


def test_the_answer_may_be_json(site):
    make(site)
    role = row(NAME).role
    assert json.loads(decommission("--json")) == {"schema": NAME, "role": role, "kept_schema": False, "cancelled": 0}


# Again


@pytest.mark.parametrize("keep_schema", [False, True])
def test_killed_anywhere_and_run_again_it_leaves_nothing(site, keep_schema):
    places = []
    key = make(site)
    fill(key)

    def act() -> None:
        decommission_tenant(NAME, actor="test", keep_schema=keep_schema)

    # Every place with ALL_KILLS, which takes minutes; with the other package, and with a schema that stays, fewer.
    is_some = keep_schema or apps.is_installed("django_tenants")
    for place in killed_after_each(act, every=1 if os.environ.get("ALL_KILLS") else 11 if is_some else 5):
        places.append(place)
        act()
        assert left(site, key, keep_schema=keep_schema) == {}, place
        site.sql(f"DROP SCHEMA IF EXISTS {NAME} CASCADE")
        key = make(site)
        fill(key)
    assert len(places) > (10 if is_some else 25)
    with tenancy.in_public():
        assert AuditRecord.objects.filter(act="decommission").count() == len(places) + 1
        assert not TenantOperation.objects.exists()


def test_a_second_call_says_that_it_is_done(site):
    make(site)
    decommission()
    assert decommission() == f"{NAME} was decommissioned before; nothing of it is left.\n"


def test_an_unknown_tenant_is_refused(site):
    with pytest.raises(CommandError, match="No tenant has the schema name 'spare'"):
        decommission()


def test_the_schema_cannot_be_kept_after_all(site, monkeypatch):
    make(site)
    with monkeypatch.context() as broken:
        broken.setattr(decommissioning.tenant_removal, "clear_broker", fail)
        with pytest.raises(KeyboardInterrupt):
            decommission()
    with pytest.raises(CommandError, match="The schema of 'spare' was dropped, so leave out --keep-schema"):
        decommission("--keep-schema")
    decommission()


def test_another_tenant_that_has_got_the_name_is_left_alone(site, monkeypatch):
    key = make(site)
    with monkeypatch.context() as broken:
        broken.setattr(decommissioning.tenant_removal, "clear_broker", fail)
        with pytest.raises(KeyboardInterrupt):
            decommission()
    schemas.clone_tenants([NAME])
    with pytest.raises(CommandError, match="Another tenant got the schema name 'spare' before the former one"):
        decommission()
    assert site.sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", NAME)
    assert tenancy.keys_now([NAME])[NAME] != key
    schemas.drop_tenant(NAME)
    decommission()


def fail(*args: Any, **options: Any) -> None:
    raise KeyboardInterrupt


# Refused


def test_nothing_is_done_without_yes(site):
    make(site)
    with pytest.raises(CommandError, match=f"This removes tenant {NAME} with its schema and all data in it; add --yes"):
        call_command("mstenant", "decommission", NAME)
    with pytest.raises(CommandError, match="its schema is kept; add --yes"):
        call_command("mstenant", "decommission", NAME, "--keep-schema")
    assert tenancy.get_tenant(NAME)


def test_the_public_schema_is_no_tenant(site):
    with pytest.raises(ProvisioningError, match="that all tenants share"):
        decommission_tenant("public", actor="test")


def test_a_transaction_is_refused(site):
    make(site)
    with pytest.raises(ProvisioningError, match="inside a transaction"), transaction.atomic():
        decommission_tenant(NAME, actor="test")


@pytest.mark.parametrize("text", ["-1", "soon", "nan", "inf"])
def test_a_time_that_is_none_is_refused(site, text):
    with pytest.raises(CommandError, match="is not a number of seconds"):
        decommission(f"--drain={text}")


def test_a_role_without_the_admins_database_is_named(site):
    make(site)
    with site.here(admin_database=None, isolation="path"), pytest.raises(CommandError, match="admin_database"):
        decommission()
    assert tenancy.get_tenant(NAME)


def test_objects_in_other_databases_are_named_with_the_command(site):
    key = make(site)
    role = row(NAME).role
    with site.server.connect("postgres", role, password_of(site.database, role, 1)) as raw:
        raw.execute("SELECT lo_create(4711)")
    with pytest.raises(CommandError, match=f"in the database 'postgres'.*DROP OWNED BY \"{role}\""):
        decommission()
    with in_schema(NAME):
        QUtilities.add_async_task("tests.tasks.add", 1)  # nothing was done yet
    with site.server.connect("postgres") as raw:
        raw.execute(f'DROP OWNED BY "{role}"')
    decommission()
    assert left(site, key) == {}


def test_what_the_owner_cannot_take_back_is_named(site):
    key = make(site)
    role = row(NAME).role
    site.sql(f"CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO {role}")
    with pytest.raises(CommandError, match=f"may use schema elsewhere; run in the database '{site.database}'"):
        decommission()
    site.sql(f"REVOKE USAGE ON SCHEMA elsewhere FROM {role}")
    decommission()
    assert left(site, key) == {}


def test_a_database_of_another_owner_is_no_obstacle(site):
    site.sql(
        f'ALTER DATABASE "{site.database}" OWNER TO site_admin; GRANT CREATE ON DATABASE "{site.database}" TO {OWNER}'
    )
    key = make(site)
    decommission()
    assert left(site, key) == {}


def test_locked_tables_are_waited_for_only_so_long(site, monkeypatch):
    key = make(site)
    monkeypatch.setattr(decommissioning.tenant_removal, "LOCK_MS", 100)
    with site.session(OWNER) as raw, raw.transaction():
        raw.execute(f"SELECT FROM {NAME}.django_q_task")
        with pytest.raises(CommandError, match=r"stayed locked for 0\.1 s"):
            decommission()
        assert tenancy.get_tenant(NAME)
    decommission()
    assert left(site, key) == {}


def test_a_rename_is_refused_meanwhile(site, monkeypatch):
    make(site)
    with monkeypatch.context() as broken:
        broken.setattr(decommissioning.draining, "drain", fail)
        with pytest.raises(KeyboardInterrupt):
            decommission()
    with pytest.raises(CommandError, match="A decommission of spare has not ended"):
        call_command("mstenant", "rename", NAME, "moved")
    decommission()
