"""The functions of the due index on sites of the version before, and where several database roles share the work."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection

from tenant_q import tenancy
from tenant_q.cluster import preflight
from tenant_q.exceptions import ConfigurationError
from tenant_q.schedules import index_rights, index_statements, index_upkeep
from tests import schemas
from tests.integration.conftest import sql
from tests.integration.planning import LATER, elsewhere, entries, insert, is_right, on_the_wire

CLUSTER, MIGRATOR = "tq_test_cluster", "tq_test_migrator"
BEFORE = Path(__file__).parent / "fixtures" / "due_index_before_0005.sql"
# What a cluster of the version before asks, word for word.
CALLS_OF_BEFORE = (
    'SELECT "public"."tenant_q_install_index"(\'spare\')',
    'SELECT * FROM "public"."tenant_q_stale_schemas"()',
    'SELECT name, "public"."tenant_q_index_errors"(name) FROM unnest(ARRAY[\'spare\']::text[]) AS asked (name)',
    'SELECT "public"."tenant_q_forget_schema"(\'spare\')',
)


@pytest.fixture
def roles(tenants) -> Iterator[None]:
    for role in (CLUSTER, MIGRATOR):
        sql(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}")
        sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    sql(f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {CLUSTER}")
    sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {CLUSTER}")
    yield
    connection.set_schema_to_public()
    connection.cursor().execute("RESET ROLE")
    for role in (CLUSTER, MIGRATOR):
        sql(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    tenancy.forget_tenants()
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())


@pytest.fixture
def migrated(roles) -> Iterator[str]:
    """A tenant whose schema and tables belong to MIGRATOR, without triggers; CLUSTER may read and write its rows."""
    schemas.clone_tenants(["spare"])
    sql("DELETE FROM tenant_q_indexedschema WHERE schema_name = 'spare'")
    for trigger in ("schedule", "truncate"):
        sql(f"DROP TRIGGER tenant_q_index_{trigger} ON spare.django_q_schedule")
    sql(f"ALTER SCHEMA spare OWNER TO {MIGRATOR}")
    for (table,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'spare'"):
        sql(f'ALTER TABLE spare."{table}" OWNER TO {MIGRATOR}')
    sql(f"GRANT USAGE ON SCHEMA spare TO {CLUSTER}")
    sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA spare TO {CLUSTER}")
    tenancy.forget_tenants()
    yield "spare"
    connection.set_schema_to_public()
    connection.cursor().execute("RESET ROLE")
    schemas.drop_tenant("spare")


@contextmanager
def acting_as(role: str) -> Iterator[None]:
    """Django's session has this role meanwhile."""
    tenancy.forget_tenants()
    connection.cursor().execute(f"SET ROLE {role}")
    try:
        yield
    finally:
        connection.cursor().execute("RESET ROLE")
        tenancy.forget_tenants()


def grant(message: str) -> None:
    """Run what a message says that is to be run."""
    for statement in message.partition("GRANT")[2].split("; "):
        sql("GRANT " + statement.removeprefix("GRANT ").rstrip(";'\n "))


def make_functions_again() -> None:
    """What an upgrade does: it grants the functions to those who may write to the indexes."""
    for file in ("due_index", "run_index", "failure_index"):
        sql(index_statements.functions_of(file).as_string())


def functions() -> list[tuple[Any, ...]]:
    return sql(
        "SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc "
        "WHERE proname LIKE 'tenant_q%' AND pronamespace = 'public'::regnamespace ORDER BY 1"
    )


# A site of the version before


@pytest.fixture
def before(spare) -> Iterator[str]:
    """The site as it was: the functions, everybody's, and a tenant whose triggers they made."""
    call_command("migrate_schemas", "--shared", "tenant_q", "0004", interactive=False, verbosity=0)
    for name, arguments in sql(
        "SELECT proname, pg_get_function_identity_arguments(oid) FROM pg_proc WHERE proname LIKE 'tenant_q%'"
    ):
        if name not in ("tenant_q_index_schedule",):
            sql(f"DROP FUNCTION {name}({arguments})")
    sql(BEFORE.read_text().replace("{public}", '"public"'))
    sql("GRANT EXECUTE ON FUNCTION tenant_q_index_schedule() TO PUBLIC")
    sql("DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule")
    sql("SELECT tenant_q_install_index('spare')")
    yield spare
    call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)


@pytest.mark.seam
def test_an_upgrade_reaches_the_triggers_that_are_there(before):
    insert(before, id=1)
    triggers = sql("SELECT oid, xmin FROM pg_trigger WHERE tgrelid = 'spare.django_q_schedule'::regclass ORDER BY 1")
    call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
    assert entries(before) == {1: ("", LATER, "")}
    sql("UPDATE spare.django_q_schedule SET next_run = %s", LATER + timedelta(days=1))
    insert(before, id=2)
    assert entries(before) == {1: ("", LATER + timedelta(days=1), ""), 2: ("", LATER, "")}
    assert is_right(before)
    assert triggers == sql(
        "SELECT oid, xmin FROM pg_trigger WHERE tgrelid = 'spare.django_q_schedule'::regclass ORDER BY 1"
    ), "no tenant's table was touched"
    sql("TRUNCATE spare.django_q_schedule")
    assert entries(before) == {}


def test_a_fresh_site_and_one_that_was_upgraded_have_the_same_functions(request, tenants):
    fresh = functions()
    request.getfixturevalue("before")
    assert functions() != fresh
    call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
    assert functions() == fresh


def test_a_site_of_the_version_before_gets_the_triggers_that_couple_no_tenants(tenants):
    fresh = functions()
    call_command("migrate_schemas", "--shared", "tenant_q", "0006", interactive=False, verbosity=0)
    arguments = "name text, tab oid, argument text, act text, old_row text, new_row text"
    sql(
        f"CREATE OR REPLACE FUNCTION tenant_q_index_change({arguments}) RETURNS void LANGUAGE plpgsql "
        "SET search_path = pg_catalog, pg_temp AS 'BEGIN END'"
    )
    assert functions() != fresh
    call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
    assert functions() == fresh


def test_it_takes_no_lock_on_a_tenants_table(before):
    with elsewhere() as writer:
        writer.execute("LOCK TABLE spare.django_q_schedule IN ACCESS EXCLUSIVE MODE")
        sql("SET lock_timeout = '2s'")
        try:
            call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
        finally:
            sql("RESET lock_timeout")


@pytest.mark.parametrize("call", CALLS_OF_BEFORE)
def test_a_cluster_of_the_version_before_works_on(before, call):
    """Also under a role of its own, which had EXECUTE as everybody had."""
    sql(f"CREATE ROLE {CLUSTER}; GRANT USAGE ON SCHEMA public, spare TO {CLUSTER}")
    sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON tenant_q_dueschedule, tenant_q_indexedschema TO {CLUSTER}")
    sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {CLUSTER}")
    sql(f"GRANT SELECT, UPDATE, TRIGGER ON spare.django_q_schedule TO {CLUSTER}")
    try:
        call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
        with acting_as(CLUSTER):
            sql(call)
    finally:
        sql(f"DROP OWNED BY {CLUSTER}; DROP ROLE {CLUSTER}")


def test_it_can_be_taken_back(tenants):
    try:
        call_command("migrate_schemas", "--shared", "tenant_q", "0002", interactive=False, verbosity=0)
        assert functions() == []
    finally:
        call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())
    assert is_right("acme_corp")


def test_a_column_that_changes_in_a_session_that_has_plans(spare):
    """In the transaction that changes it, too."""
    insert(spare, id=1)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
        for kind in ("bigint", "smallint", "integer"):
            raw.execute("UPDATE spare.django_q_schedule SET next_run = next_run + interval '1 day'")
            with raw.transaction():
                raw.execute(f"ALTER TABLE spare.django_q_schedule ALTER COLUMN repeats TYPE {kind}")
                raw.execute("UPDATE spare.django_q_schedule SET next_run = next_run + interval '1 day'")
    assert entries(spare) == {1: ("", LATER + timedelta(days=6), "")}


def test_a_column_that_changes_and_one_that_goes_in_a_session_that_has_plans(spare):
    insert(spare, id=1)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
        raw.execute("UPDATE spare.django_q_schedule SET next_run = next_run + interval '1 day'")
        raw.execute("ALTER TABLE spare.django_q_schedule DROP COLUMN cluster, ALTER COLUMN id TYPE bigint")
        raw.execute("UPDATE spare.django_q_schedule SET next_run = next_run + interval '1 day'")


# A cluster under a role that owns nothing


def test_a_cluster_without_the_right_to_the_functions_names_the_grant(roles):
    with (
        acting_as(CLUSTER),
        pytest.raises(ConfigurationError, match=r"GRANT EXECUTE ON FUNCTION .* TO tq_test_cluster") as e,
    ):
        index_rights.require_index()
    with acting_as(CLUSTER), pytest.raises(ConfigurationError, match="may not execute"):
        preflight.survey()
    grant(str(e.value))
    with acting_as(CLUSTER):
        index_rights.require_index()


def test_a_cluster_without_the_right_to_the_tables_names_the_grant(roles):
    tables = "public.tenant_q_brokerepoch, public.tenant_q_dueworkflow"
    sql(f"REVOKE INSERT, DELETE ON {tables} FROM {CLUSTER}")
    make_functions_again()
    with acting_as(CLUSTER), pytest.raises(ConfigurationError, match="may not read and write tables") as e:
        index_rights.require_index()
    assert f"ON TABLE {tables} TO {CLUSTER};" in str(e.value).replace('"', "")
    grant(str(e.value))
    with acting_as(CLUSTER):
        index_rights.require_index()


def test_an_upgrade_grants_it_to_who_may_write_to_the_index(roles):
    make_functions_again()
    with acting_as(CLUSTER):
        index_rights.require_index()
        assert index_upkeep.stale_schemas() == []


def test_a_cluster_without_the_right_to_a_tenants_table_names_the_grants(migrated, caplog, make_scheduler):
    make_functions_again()
    insert(migrated, id=1)
    with acting_as(CLUSTER), caplog.at_level(logging.WARNING, "tenant_q"):
        scheduler = make_scheduler()
        scheduler.tick()
    (record,) = [record for record in caplog.records if record.getMessage().startswith("Schedules of spare")]
    expected = (
        "run as the owner of the named objects: GRANT SELECT, UPDATE, TRIGGER ON TABLE spare.django_q_schedule "
        "TO tq_test_cluster; GRANT EXECUTE ON FUNCTION "
        "public.tenant_q_index_schedule(), public.tenant_q_install_triggers(text) TO tq_test_cluster;"
    )
    assert expected in record.getMessage().replace('"', "")
    out, wrong = StringIO(), "1 schedule is wrong in the index"
    with acting_as(CLUSTER), pytest.raises(CommandError):
        call_command("msschedules", "--check", "--schema", "spare", stdout=out)
    assert (
        f"spare: not in the index as it is now, or without its triggers; {wrong}; {expected}"
        in out.getvalue().replace('"', "")
    )
    grant(record.getMessage())
    with acting_as(CLUSTER):
        make_scheduler().tick()
        assert index_upkeep.stale_schemas() == []
        call_command("msschedules", "--check", "--schema", "spare", stdout=StringIO())
    assert list(entries(migrated)) == [1]


# A migration under a role that does not own the functions


def migrate_as(role: str) -> None:
    """What `migrate_schemas` sends when it has migrated the tenant."""
    with acting_as(role), tenancy.in_schema("spare"):
        index_upkeep.install_where_migrated(app_config=apps.get_app_config("django_q"), using="default")


@pytest.mark.seam
def test_a_migration_under_another_role_goes_on_and_the_cluster_installs(migrated, caplog, make_scheduler):
    with caplog.at_level(logging.WARNING, "tenant_q"):
        migrate_as(MIGRATOR)
    record, other = caplog.records
    assert "Left the failures of spare to the cluster" in other.getMessage()
    assert "Left the schedules of spare to the cluster, which puts them into the index" in record.getMessage()
    assert (
        "GRANT EXECUTE ON FUNCTION public.tenant_q_index_schedule(), public.tenant_q_install_triggers(text) "
        "TO tq_test_migrator;"
    ) in record.getMessage().replace('"', "")
    make_scheduler().tick()
    assert is_right(migrated)
    with acting_as(MIGRATOR):
        sql(
            "INSERT INTO spare.django_q_schedule (id, func, schedule_type, repeats, next_run) "
            "VALUES (1, 'f', 'D', 1, now())"
        )
    assert list(entries(migrated)) == [1]


def test_with_one_grant_for_each_index_a_migration_makes_the_triggers(migrated, caplog, make_scheduler):
    with caplog.at_level(logging.WARNING, "tenant_q"):
        migrate_as(MIGRATOR)
        for record in caplog.records:
            grant(record.getMessage())
        caplog.clear()
        migrate_as(MIGRATOR)
    assert caplog.records == []
    ((count,),) = sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'spare.django_q_schedule'::regclass")
    assert count == 2
    make_functions_again()
    sql(f"REVOKE TRIGGER ON spare.django_q_schedule FROM {CLUSTER}")
    with acting_as(CLUSTER):
        make_scheduler().tick()
        assert index_upkeep.stale_schemas() == [], "a cluster that could not make them finds them"
    insert(migrated, id=1)
    assert list(entries(migrated)) == [1]


# Tables of other applications


@pytest.fixture
def another(tenants) -> Iterator[str]:
    """A schema of another application's with a table of that name, owned by a role of its own."""
    sql(f"CREATE ROLE {MIGRATOR}; CREATE SCHEMA tq_test_app AUTHORIZATION {MIGRATOR}")
    sql("CREATE TABLE tq_test_app.django_q_schedule (LIKE acme_corp.django_q_schedule INCLUDING ALL)")
    sql(f"ALTER TABLE tq_test_app.django_q_schedule OWNER TO {MIGRATOR}")
    yield "tq_test_app"
    sql("DROP SCHEMA tq_test_app CASCADE")
    sql(f"DROP ROLE {MIGRATOR}")
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas(thorough=True))


@pytest.mark.seam
def test_a_table_of_another_applications_is_left_alone(another, make_scheduler, caplog):
    insert(another, id=1)
    assert index_upkeep.stale_schemas() == index_upkeep.stale_schemas(thorough=True) == []
    with caplog.at_level(logging.WARNING, "tenant_q"):
        make_scheduler().tick()
        call_command("msschedules", "--check", stdout=StringIO())
    assert caplog.records == []
    assert sql("SELECT * FROM pg_trigger WHERE tgrelid = 'tq_test_app.django_q_schedule'::regclass") == []
    assert another not in index_upkeep.indexed_schemas()


@pytest.mark.seam
def test_one_that_has_our_triggers_is_forgotten(another, make_scheduler):
    """The version before put them there."""
    sql(f"ALTER TABLE {another}.django_q_schedule OWNER TO postgres; ALTER SCHEMA {another} OWNER TO postgres")
    assert index_upkeep.install(another)
    insert(another, id=1)
    assert list(entries(another)) == [1]
    assert index_upkeep.stale_schemas() == [], "nothing is asked of tenants while nothing is stale"
    make_scheduler().tick()
    assert entries(another) == {}
    insert(another, id=2)
    assert entries(another) == {}
    call_command("msschedules", "--check", stdout=StringIO())
    assert another not in index_upkeep.indexed_schemas()


def test_it_is_repaired_by_the_command_as_well(another):
    sql(f"ALTER TABLE {another}.django_q_schedule OWNER TO postgres; ALTER SCHEMA {another} OWNER TO postgres")
    assert index_upkeep.install(another)
    with pytest.raises(CommandError, match="wrong about 1 schema"):
        call_command("msschedules", "--check", stdout=StringIO())
    call_command("msschedules", "--check", "--repair", stdout=StringIO())
    call_command("msschedules", "--check", stdout=StringIO())


@pytest.mark.seam
def test_a_schema_that_becomes_a_tenants_is_installed(another, make_scheduler):
    insert(another, id=1)
    make_scheduler().tick()
    model = tenancy.tenant_model()
    model.objects.bulk_create([model(schema_name=another, name=another, **schemas.domain_of(model, another))])
    sql(f"ALTER TABLE {another}.django_q_schedule OWNER TO postgres")
    try:
        make_scheduler().tick()
        assert list(entries(another)) == [1]
    finally:
        model.objects.filter(schema_name=another).delete()
        tenancy.forget_tenants()


def test_a_tenant_with_capitals_is_a_tenant(tenants):
    """`django-tenant-schemas` folds its schema's name, `django-tenants` does not."""
    schemas.clone_tenants(["Capital"])
    physical = tenancy.physical_schema("Capital")
    try:
        assert index_upkeep.stale_schemas(thorough=True) == []
        assert tenancy.scheduled_among([physical, "nobody"]) == {physical}
        assert physical in index_upkeep.indexed_schemas()
    finally:
        schemas.drop_tenant("Capital")
        tenancy.forget_tenants()


def test_one_statement_while_nothing_is_stale(tenants):
    with on_the_wire() as messages:
        index_upkeep.stale_schemas()
    assert len(messages) == 1
