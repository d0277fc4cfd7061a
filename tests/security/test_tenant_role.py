"""The attacker is a database role of a tenant: one that owns the tenant's schema and tables, and one without any grant.

The role has SQL and its own tables, and no Python in the cluster. The prize is a table that only the cluster's role may
write to: a row in it means that code of the attacker ran with the rights of the cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from tenant_q import due_index, results, session, tenancy
from tenant_q.brokers import get_broker
from tenant_q.exceptions import TenantUnavailable
from tenant_q.management.tenants import show_all_tenants
from tenant_q.scheduler import Scheduler
from tenant_q.slot import Slot
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.worker import Worker
from tests import schemas
from tests.integration.conftest import sql
from tests.integration.planning import LATER, PAST, entries, insert

OWNER, STRANGER = "tq_test_owner", "tq_test_stranger"
# What the attacker's functions do; whoever has no right to do it has won nothing.
TAKE = """
CREATE FUNCTION {schema}.take() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.tq_test_prize VALUES (current_user);
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN true;
END
$$
"""


@contextmanager
def as_role(role: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of the role's own."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
        raw.execute(f"SET SESSION AUTHORIZATION {role}")
        yield raw


def own(schema: str, role: str = OWNER) -> None:
    """Give a schema and all its tables to a role."""
    sql(f"ALTER SCHEMA {schema} OWNER TO {role}")
    for (table,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = %s", schema):
        sql(f'ALTER TABLE {schema}."{table}" OWNER TO {role}')
    tenancy.forget_tenants()


def prize() -> list[Any]:
    return sql("SELECT * FROM public.tq_test_prize")


@pytest.fixture
def roles(tenants) -> Iterator[None]:
    for role in (OWNER, STRANGER):
        sql(f"CREATE ROLE {role} LOGIN")
    sql("CREATE TABLE public.tq_test_prize (winner text)")
    yield
    connection.set_schema_to_public()
    sql("DROP TABLE public.tq_test_prize")
    for role in (OWNER, STRANGER):
        sql(f"DROP OWNED BY {role} CASCADE")
        sql(f"DROP ROLE {role}")
    tenancy.forget_tenants()
    due_index.bring_up_to_date(due_index.stale_schemas())


@pytest.fixture
def spare(roles) -> Iterator[str]:
    """A tenant whose schema and tables belong to the role OWNER."""
    schemas.clone_tenants(["spare"])
    own("spare")
    yield "spare"
    connection.set_schema_to_public()
    sql("DROP SCHEMA IF EXISTS spare CASCADE")
    schemas.drop_tenant("spare")


@pytest.fixture
def act(spare) -> Iterator[Callable[[], list[Any]]]:
    """Have the cluster, an operator and the attacker's own statements do all there is to do for the tenant."""
    scheduler = Scheduler(Slot())
    worker = Worker("w1", get_broker(), Slot(), once=True)

    def everything() -> list[Any]:
        tenancy.forget_tenants()
        with in_schema("acme_corp"):
            QUtilities.add_async_task("tests.tasks.nothing")
        with in_schema(spare):
            QUtilities.add_async_task("tests.tasks.nothing")
        with as_role(OWNER) as raw:
            for statement in (
                "INSERT INTO spare.django_q_schedule (func, schedule_type, repeats, next_run) "
                "VALUES ('tests.tasks.nothing', 'D', 2, now())",
                "UPDATE spare.django_q_schedule SET next_run = next_run - interval '1 day'",
            ):
                _try(lambda text=statement: raw.execute(text))
        for schema in ("acme_corp", spare):
            due_index.install(schema)
        _try(lambda: due_index.errors(spare))
        _try(lambda: due_index.upcoming(10, spare))
        for _ in range(3):
            scheduler.tick()
        for _ in range(3):
            worker.tick()
        _try(lambda: results.prune(spare))
        _try(_read_back)
        _try(show_all_tenants)
        _try(lambda: call_command("qinfo"))
        _try(lambda: call_command("msschedules", "--check", "--repair"))
        connection.set_schema_to_public()
        assert schemas.count_tasks("acme_corp") == 1, "another tenant is served"
        return prize()

    yield everything
    worker.stopping.restore()
    scheduler.stopping.restore()
    connections.close_all()


def _read_back() -> None:
    with tenancy.in_verified_schema("spare"):
        results.successes(["x" * 32])


def _try(act: Callable[[], Any]) -> None:
    """A refusal is as good as an answer here; the prize is what counts."""
    try:
        act()
    except (*tenancy.DATABASE_ERRORS, CommandError, TenantUnavailable):
        if connection.connection is not None and not connection.connection.closed:
            connection.connection.rollback()


TRIGGER = """
CREATE FUNCTION spare.fire() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM spare.take(); RETURN COALESCE(NEW, OLD); END$$;
CREATE TRIGGER evil {when} ON spare.{table} FOR EACH {each} EXECUTE FUNCTION spare.fire()
"""
CAST = """
CREATE TYPE spare.mood AS ENUM ('1');
CREATE FUNCTION spare.give(spare.mood) RETURNS {type} LANGUAGE plpgsql {volatile} AS
    $$BEGIN PERFORM spare.take(); RETURN {value}; END$$;
CREATE CAST (spare.mood AS {type}) WITH FUNCTION spare.give(spare.mood) AS IMPLICIT;
"""
OPERATOR = """
CREATE FUNCTION spare.compare({left}, {right}) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN PERFORM spare.take(); RETURN true; END$$;
CREATE OPERATOR spare.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = spare.compare)
"""
SHADOW = "CREATE FUNCTION spare.{} LANGUAGE plpgsql {} AS $$BEGIN PERFORM spare.take(); RETURN {}; END$$"

ATTACKS = {
    "a column of an enum with a cast to json": CAST.format(type="json", value="'1'", volatile="")
    + "ALTER TABLE spare.django_q_schedule ADD COLUMN mood spare.mood DEFAULT '1'",
    "a next run of an enum with a cast to a moment": CAST.format(
        type="timestamptz", value="now()", volatile="IMMUTABLE"
    )
    + "ALTER TABLE spare.django_q_schedule ALTER COLUMN next_run TYPE spare.mood USING '1'",
    "an id of an enum with a cast to a number": CAST.format(type="bigint", value="1", volatile="IMMUTABLE")
    + "ALTER TABLE spare.django_q_schedule ALTER COLUMN repeats TYPE spare.mood USING '1'",
    "a cast of the rows to json": "CREATE FUNCTION spare.give(spare.django_q_schedule) RETURNS json LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM spare.take(); RETURN '1'; END$$;"
    "CREATE CAST (spare.django_q_schedule AS json) WITH FUNCTION spare.give(spare.django_q_schedule) AS IMPLICIT",
    "a cast of the rows to text": "CREATE FUNCTION spare.give(spare.django_q_schedule) RETURNS text LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM spare.take(); RETURN '1'; END$$;"
    "CREATE CAST (spare.django_q_schedule AS text) WITH FUNCTION spare.give(spare.django_q_schedule) AS IMPLICIT",
    "a domain with a constraint": "CREATE DOMAIN spare.word AS varchar(100) CHECK (spare.take());"
    "ALTER TABLE spare.django_q_task ALTER COLUMN name TYPE spare.word;"
    "ALTER TABLE spare.django_q_schedule ALTER COLUMN task TYPE spare.word",
    "a domain inside an array": "CREATE DOMAIN spare.word AS varchar(100) CHECK (spare.take());"
    "ALTER TABLE spare.django_q_task ADD COLUMN words spare.word[]",
    "a function in the place of json_populate_recordset": SHADOW.format(
        "json_populate_recordset(spare.django_q_task, text) RETURNS SETOF spare.django_q_task", "", ""
    ).replace("RETURN ;", "RETURN;")
    + ";"
    + SHADOW.format(
        "json_populate_recordset(spare.django_q_task, json) RETURNS SETOF spare.django_q_task", "", ""
    ).replace("RETURN ;", "RETURN;"),
    "functions in the place of now, set_config and others": ";".join(
        [
            SHADOW.format("now() RETURNS timestamptz", "", "pg_catalog.now()"),
            SHADOW.format("current_schema() RETURNS name", "", "'spare'"),
            SHADOW.format("to_regclass(varchar) RETURNS regclass", "", "'spare.django_q_task'"),
            SHADOW.format("set_config(varchar, varchar, boolean) RETURNS text", "", "''"),
            SHADOW.format("pg_try_advisory_xact_lock(int) RETURNS boolean", "", "true"),
            SHADOW.format("count(varchar) RETURNS bigint", "", "1"),
        ]
    ),
    "an operator in the place of =": OPERATOR.format(name="=", left="varchar", right="varchar"),
    "an operator in the place of = for texts": OPERATOR.format(name="=", left="varchar", right="text"),
    "an operator in the place of =, with the index's columns": OPERATOR.format(
        name="=", left="integer", right="varchar"
    ),
    "an operator in the place of <>": OPERATOR.format(name="<>", left="integer", right="varchar"),
    "an operator in the place of >=": OPERATOR.format(name=">=", left="timestamptz", right="text"),
    "a trigger before a result": TRIGGER.format(when="BEFORE INSERT", table="django_q_task", each="ROW"),
    "a trigger behind a result": TRIGGER.format(when="AFTER INSERT OR UPDATE", table="django_q_task", each="ROW"),
    "a trigger behind a pruned result": TRIGGER.format(when="AFTER DELETE", table="django_q_task", each="STATEMENT"),
    "a trigger on a schedule that moves on": TRIGGER.format(
        when="BEFORE UPDATE", table="django_q_schedule", each="ROW"
    ),
    "a trigger with our trigger's name": "DROP TRIGGER tenant_q_index_schedule ON spare.django_q_schedule;"
    + TRIGGER.format(when="AFTER UPDATE", table="django_q_schedule", each="ROW").replace(
        "evil", "tenant_q_index_schedule"
    ),
    "a view in the place of the tasks": "ALTER TABLE spare.django_q_task RENAME TO kept;"
    "CREATE VIEW spare.django_q_task AS SELECT * FROM spare.kept WHERE spare.take()",
    "a view in the place of the schedules": "ALTER TABLE spare.django_q_schedule RENAME TO kept;"
    "CREATE VIEW spare.django_q_schedule AS SELECT * FROM spare.kept WHERE spare.take()",
    "a rule": "CREATE RULE evil AS ON INSERT TO spare.django_q_task DO ALSO SELECT spare.take()",
    "a rule on schedules": "CREATE RULE evil AS ON UPDATE TO spare.django_q_schedule DO ALSO SELECT spare.take()",
    "row security": "CREATE POLICY evil ON spare.django_q_task USING (spare.take());"
    "ALTER TABLE spare.django_q_task ENABLE ROW LEVEL SECURITY",
    "a default": "ALTER TABLE spare.django_q_task ADD COLUMN more boolean DEFAULT spare.take()",
    "a default that runs a query by a function of PostgreSQL's": "ALTER TABLE spare.django_q_task ADD COLUMN more text "
    "DEFAULT pg_catalog.query_to_xml('SELECT spare.take()', true, true, '')::text",
    "a check constraint": "ALTER TABLE spare.django_q_task ADD CHECK (spare.take())",
    "a check constraint on schedules": "ALTER TABLE spare.django_q_schedule ADD CHECK (spare.take()) NOT VALID",
    "a generated column": "CREATE FUNCTION spare.made(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
    "$$BEGIN PERFORM spare.take(); RETURN $1; END$$;"
    "ALTER TABLE spare.django_q_task ADD COLUMN more text GENERATED ALWAYS AS (spare.made(func)) STORED",
    "an index over an expression": "CREATE FUNCTION spare.made(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
    "$$BEGIN PERFORM spare.take(); RETURN $1; END$$;"
    "CREATE INDEX ON spare.django_q_task (spare.made(func)); CREATE INDEX ON spare.django_q_schedule (spare.made('x'))",
    "an index with a condition": "CREATE FUNCTION spare.made(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS "
    "$$BEGIN PERFORM spare.take(); RETURN true; END$$; CREATE INDEX ON spare.django_q_task (id) WHERE spare.made(func)",
    "a table that inherits": "CREATE TABLE spare.child () INHERITS (spare.django_q_schedule);"
    "INSERT INTO spare.child (id, func, schedule_type, repeats, next_run) VALUES (99, 'f', 'D', 1, now());"
    + TRIGGER.format(when="BEFORE UPDATE", table="child", each="ROW"),
    "a table that references": "ALTER TABLE spare.django_q_task ADD UNIQUE (id);"
    "CREATE TABLE spare.child (task varchar(32) REFERENCES spare.django_q_task (id) ON DELETE CASCADE);"
    + TRIGGER.format(when="AFTER DELETE", table="child", each="ROW"),
    "a partitioned table": "ALTER TABLE spare.django_q_schedule RENAME TO kept;"
    "CREATE TABLE spare.django_q_schedule (LIKE spare.kept) PARTITION BY RANGE (next_run);"
    "CREATE TABLE spare.part PARTITION OF spare.django_q_schedule DEFAULT;"
    + TRIGGER.format(when="BEFORE UPDATE", table="part", each="ROW"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_code_of_the_role_runs_with_the_rights_of_the_cluster(act, name):
    with as_role(OWNER) as raw:
        raw.execute(TAKE.format(schema="spare"))
        raw.execute(ATTACKS[name])
    assert act() == []
