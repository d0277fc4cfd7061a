"""Each grant of a tenant's role is needed, and so is each right that everybody lost. Without it a check here fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tenant_q.provisioning.grants import Grant, grants_of
from tenant_q.tenancy.role_names import role_name
from tests.isolated.server import ADMIN, OWNER
from tests.isolated.site import Site

SCHEMA, ROLE, PASSWORD = "acme_corp", "tq_test_grantee", "of-this-test"
INSERT_REPORT = (
    "INSERT INTO acme_corp.shop_report (title, made_in, orders, revenue, created) VALUES ('r', '', 0, 0, now())"
)
# A table that a later migration makes, by the role that makes the others.
LATER = "CREATE TABLE acme_corp.later (id bigserial PRIMARY KEY)"

# What a grant allows, by the beginning of its description, and the statements of the tenant that need it.
CHECKS: dict[str, list[str]] = {
    'USAGE on SCHEMA "acme_corp"': ["SELECT count(*) FROM acme_corp.shop_order"],
    'USAGE on SCHEMA "public"': ["SELECT 'A'::public.citext OPERATOR(public.=) 'a'::public.citext"],
    "SELECT, INSERT, UPDATE, DELETE on TABLE acme_corp.": [
        "SELECT count(*) FROM acme_corp.shop_order",
        "INSERT INTO acme_corp.django_session VALUES ('k', '', now())",
        "UPDATE acme_corp.django_session SET session_data = 'x'",
        "DELETE FROM acme_corp.django_session",
    ],
    "USAGE, SELECT on SEQUENCE acme_corp.": [INSERT_REPORT, "SELECT last_value FROM acme_corp.shop_report_id_seq"],
    "SELECT, INSERT, UPDATE, DELETE on TABLES that": [
        "SELECT count(*) FROM acme_corp.later",
        "INSERT INTO acme_corp.later VALUES (1)",
        "UPDATE acme_corp.later SET id = 2",
        "DELETE FROM acme_corp.later",
    ],
    "USAGE, SELECT on SEQUENCES that": [
        "SELECT nextval('acme_corp.later_id_seq')",
        "SELECT last_value FROM acme_corp.later_id_seq",
    ],
    'SELECT on TABLE "public"."rates"': ["SELECT * FROM public.rates"],
    'SELECT, INSERT, UPDATE, DELETE on TABLE "public"."votes"': [
        "SELECT * FROM public.votes",
        "INSERT INTO public.votes (id, choice) VALUES (1, 'x')",
        "UPDATE public.votes SET choice = 'y'",
        "DELETE FROM public.votes",
    ],
    "USAGE, SELECT on SEQUENCE public.votes_id_seq": ["INSERT INTO public.votes (choice) VALUES ('x')"],
    "EXECUTE on FUNCTION": ["SELECT 'A'::public.citext OPERATOR(public.=) 'a'::public.citext"],
    "CONNECT on DATABASE": ["SELECT 1"],
}


def matching(grant: Grant) -> list[str]:
    return [key for key in CHECKS if grant.what.startswith(key)]


@pytest.fixture(scope="module")
def locked(make_site: Callable[..., Site]) -> Iterator[Site]:
    """A site whose database gives everybody nothing, so that each right of a role is its own."""
    site = make_site("login")
    site.tenant_q |= {"shared_read": ["rates"], "shared_write": ["votes"]}
    site.sql("CREATE EXTENSION citext")
    site.sql(f"ALTER FUNCTION public.citext_eq(citext, citext) OWNER TO {OWNER}")
    site.sql("REVOKE EXECUTE ON FUNCTION public.citext_eq(citext, citext) FROM PUBLIC")
    site.sql("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    site.sql(f'REVOKE ALL ON DATABASE "{site.database}" FROM PUBLIC')
    site.sql(f'GRANT CONNECT ON DATABASE "{site.database}" TO {ADMIN}')
    with site.session(OWNER) as raw:
        raw.execute("CREATE TABLE public.rates (name text); CREATE TABLE public.votes (id bigserial, choice text)")
    with site.here():
        yield site


@pytest.fixture
def grantee(locked: Site) -> Iterator[Callable[[str | None], None]]:
    """Make the role, give it all grants but one, and migrate."""

    def make(left_out: str | None) -> None:
        locked.sql(f"CREATE ROLE {ROLE} LOGIN NOINHERIT PASSWORD '{PASSWORD}'")
        with locked.session(OWNER) as raw:
            for grant in grants_of(SCHEMA, ROLE):
                if left_out not in matching(grant):
                    raw.execute(grant.sql_grant)
            raw.execute(LATER)

    yield make
    with locked.session(OWNER) as raw:
        raw.execute("DROP TABLE IF EXISTS acme_corp.later")
    locked.sql(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def refused(site: Site) -> set[str]:
    """Return the keys of the checks that fail for the role."""
    found = set()
    for key, statements in CHECKS.items():
        for statement in statements:
            try:
                with site.session(ROLE, PASSWORD) as raw, raw.transaction(force_rollback=True):
                    raw.execute(statement)
            except (psycopg.errors.InsufficientPrivilege, psycopg.OperationalError):
                found.add(key)
    return found


def test_there_is_a_check_for_each_grant(locked):
    found = [matching(grant) for grant in grants_of(SCHEMA, ROLE)]
    assert sorted(found) == sorted([key] for key in CHECKS)


def test_with_all_grants_everything_works(locked, grantee):
    grantee(None)
    assert refused(locked) == set()


@pytest.mark.parametrize("key", CHECKS)
def test_without_one_grant_its_check_fails(locked, grantee, key):
    grantee(key)
    assert key in refused(locked)


# What everybody lost, and what memberships do not give


def test_each_of_our_functions_is_closed_to_everybody(locked):
    """With EXECUTE for everybody, as PostgreSQL gives it to new functions, the checks of the hostile set would fail."""
    open_to_all = locked.sql(
        "SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(COALESCE(proacl, acldefault('f', proowner))) a "
        "WHERE starts_with(proname, 'tenant_q_') AND a.grantee = 0"
    )
    assert open_to_all == []


OURS = """
SELECT p.oid::regprocedure::text, prorettype = 'trigger'::regtype,
       'SELECT ' || p.oid::regproc::text || '(' || concat_ws(', ', VARIADIC ARRAY(
           SELECT 'NULL::' || format_type(t, NULL) FROM unnest(proargtypes::oid[]) WITH ORDINALITY u (t, n) ORDER BY n
       )) || ')'
FROM pg_proc p WHERE starts_with(proname, 'tenant_q_')
"""


def test_a_function_that_is_open_to_everybody_is_reached(locked, grantee):
    """So the refusals of the hostile set are those of the rights, and not of a mistake in a statement."""
    grantee(None)
    reached, closed = set(), set()
    for name, is_trigger, call in locked.sql(OURS):
        statement = call
        if is_trigger:
            statement = f"CREATE TRIGGER t AFTER INSERT ON pg_temp.t FOR EACH ROW EXECUTE FUNCTION {name}"
        for is_open in (False, True):
            with locked.session(OWNER) as raw:
                word = (
                    "GRANT EXECUTE ON FUNCTION {} TO PUBLIC" if is_open else "REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC"
                )
                raw.execute(word.format(name))
                raw.execute(f'GRANT TEMPORARY ON DATABASE "{locked.database}" TO {ROLE}')
            if is_refused(locked, statement, name):
                closed.add((name, is_open))
            else:
                reached.add((name, is_open))
        locked.sql(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
    names = {name for name, *_ in locked.sql(OURS)}
    assert reached == {(name, True) for name in names}
    assert closed == {(name, False) for name in names}


def is_refused(site: Site, statement: str, name: str) -> bool:
    """Whether the right to execute the function itself is missing."""
    with site.session(ROLE, PASSWORD) as raw:
        raw.execute("CREATE TEMP TABLE t (id int)")
        try:
            raw.execute(statement)
        except psycopg.Error as error:
            return f"permission denied for function {name.partition('(')[0].removeprefix('public.')}" in str(error)
    return False


MEMBERSHIPS = {
    "INHERIT": ("WITH INHERIT TRUE, SET FALSE", "SELECT * FROM public.vault"),
    "SET": ("WITH INHERIT FALSE, SET TRUE", "SET ROLE {group}; SELECT * FROM public.vault"),
}


@pytest.mark.parametrize("kind", MEMBERSHIPS)
def test_the_group_gives_its_members_nothing(locked, kind):
    """Whatever is granted to the group by mistake; with another kind of membership it would reach the tenants."""
    role, group = role_name(locked.database, SCHEMA), f"tq_{locked.database}"
    options, statement = MEMBERSHIPS[kind]
    credentials = locked.provision(SCHEMA)[SCHEMA]
    with locked.session(OWNER) as raw:
        raw.execute(f"CREATE TABLE IF NOT EXISTS public.vault (); GRANT SELECT ON public.vault TO {group}")
        raw.execute(f"GRANT USAGE ON SCHEMA public TO {group}")
    seen: list[Any] = []
    for with_option in (None, options):
        with locked.session(ADMIN) as raw:
            if with_option:
                raw.execute(f"GRANT {group} TO {role} {with_option}")
        try:
            with psycopg.connect(credentials.url, autocommit=True) as raw:
                raw.execute(statement.format(group=group))
            seen.append("reached")
        except psycopg.errors.InsufficientPrivilege:
            seen.append("refused")
    with locked.session(ADMIN) as raw:
        raw.execute(f"GRANT {group} TO {role} WITH INHERIT FALSE, SET FALSE")
    assert seen == ["refused", "reached"]
