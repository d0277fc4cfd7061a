"""A tenant's database role that attacks: its sessions, and the code that it puts where the cluster may run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tenant_q import tenancy
from tests.integration.conftest import sql

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
MADE = """
CREATE FUNCTION spare.made(text) RETURNS {type} LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN PERFORM spare.take(); RETURN {value}; END$$;
"""


def arm(text: str, role: str = OWNER) -> None:
    with as_role(role) as raw:
        raw.execute(TAKE.format(schema="spare"))
        raw.execute(text)
