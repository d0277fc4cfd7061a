"""A provisioning that is killed at any statement, and run again, ends as one that was not killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from difflib import unified_diff
from itertools import count

from django.db import connection, connections, transaction

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError, ProvisioningError
from tenant_q.provisioning import provision_tenant
from tests.isolated.kills import count_statements, is_killed
from tests.schemas import clone_tenants, domain_of
from tests.tasks import client

# Kill at each statement of the migrations too, which takes half an hour.
ALL = bool(os.environ.get("ALL_KILLS"))
POLICY = {"weight": 2.0, "max_queued": 7}
CONFIG = {"display_name": "New", "limits": {"max_connections": 3}}
_numbers = count(1)


def make_by_clone(schema, fields, domain):
    """Make a tenant in a few statements instead of its migrations. It may be called again after a kill."""
    found = tenancy.tenant_model().objects.filter(schema_name=schema).first()
    if found is None:
        clone(schema)
        found = tenancy.tenant_model().objects.get(schema_name=schema)
    return found


def clone(schema):
    """Make a tenant with the tables of another one, in one transaction."""
    with transaction.atomic():
        clone_tenants([schema])
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {schema}.django_migrations SELECT * FROM acme_corp.django_migrations")


def make_row(schema, fields, domain):
    """Make the row only. The schema and its migrations are left to the tenancy package."""
    model = tenancy.tenant_model()
    found = model.objects.filter(schema_name=schema).first()
    if found is None:
        found = model(schema_name=schema, name=schema, **domain_of(model, schema))
        found.auto_create_schema = False
        found.save(verbosity=0)
    return found


def new_name():
    return f"killed_{next(_numbers):04}"


def provision(schema, **values):
    return provision_tenant(schema, policy=POLICY, config=CONFIG, actor="test", probe=False, **values)


def state_of(site, schema):
    """Return all that is there of a tenant, on the servers and in the public schema, without numbers and times."""
    role = f"{site.database}_{schema}"
    key = tenancy.keys_of([schema])[schema]
    found = {
        "role": site.sql(
            "SELECT rolcanlogin, rolinherit, rolconnlimit, rolcreaterole, rolconfig, "
            "ARRAY(SELECT concat(g.rolname, m.inherit_option, m.set_option) FROM pg_auth_members m "
            "JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY 1), "
            "ARRAY(SELECT concat(g.rolname, m.inherit_option, m.set_option) FROM pg_auth_members m "
            "JOIN pg_roles g ON g.oid = m.member WHERE m.roleid = r.oid ORDER BY 1) "
            "FROM pg_roles r WHERE rolname = %s",
            role,
        ),
        "rights": site.sql(
            "SELECT place, name, acl.privilege_type, acl.is_grantable FROM ("
            "SELECT 'class' AS place, relname AS name, relacl AS list FROM pg_class "
            "UNION ALL SELECT 'schema', nspname, nspacl FROM pg_namespace "
            "UNION ALL SELECT 'database', datname, datacl FROM pg_database "
            "UNION ALL SELECT 'function', proname, proacl FROM pg_proc "
            "UNION ALL SELECT concat('default', defaclobjtype), defaclnamespace::regnamespace::text, defaclacl "
            "FROM pg_default_acl) AS one, aclexplode(one.list) AS acl "
            "WHERE acl.grantee = (SELECT oid FROM pg_roles WHERE rolname = %s) ORDER BY 1, 2, 3",
            role,
        ),
        "tables": site.sql(
            "SELECT relname, relkind FROM pg_class WHERE relnamespace = %s::regnamespace ORDER BY 1", schema
        ),
        "triggers": site.sql(
            "SELECT tgrelid::regclass::text, tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid "
            "WHERE relnamespace = %s::regnamespace AND NOT tgisinternal ORDER BY 1, 2",
            schema,
        ),
        "rows": {
            table: site.sql(
                f'SELECT to_jsonb(t) FROM public."{table}" t WHERE to_jsonb(t)->>%s = %s '
                "ORDER BY (to_jsonb(t) - 'id' - 'at')::text",
                column,
                value,
            )
            for column, value in (("schema_name", schema), ("key", key), ("schema", schema))
            for (table,) in site.sql(
                "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = %s",
                column,
            )
        },
        "migrations": site.sql(
            f"SELECT count(*), count(DISTINCT (app, name)) FROM {schema}.django_migrations"
            if site.sql("SELECT to_regclass(%s)", f"{schema}.django_migrations")[0][0]
            else "SELECT 0"
        ),
        "locks": site.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "keys": sorted(one.decode() for one in client().scan_iter(f"*{site.cluster}*", count=1000)),
    }
    rows = without_times(found["rows"])
    # A kill after the last commit has the next run do, and record, all of it again.
    found["rows"] = {table: [one for at, one in enumerate(own) if one not in own[:at]] for table, own in rows.items()}
    text = json.dumps(without_times(found), default=str, indent=1, sort_keys=True)
    return text.replace(schema, "SCHEMA").replace(site.database, "DATABASE").splitlines()


def without_times(found):
    """Leave out what differs between two tenants: keys, versions of rows, and times."""
    if isinstance(found, dict):
        volatile = {"id", "key", "at", "since", "created", "changed", "started", "synced", "tenant_id", "table_oid"}
        return {name: without_times(value) for name, value in found.items() if name not in volatile}
    if isinstance(found, list | tuple):
        return [without_times(one) for one in found]
    return found


def check_kills(site, places: Iterable[int], begin, act, again=None):
    """Kill `act` at each place, run it again, and compare the state with that of one that was not killed."""
    expected, places = None, list(places)
    for place in [None, *places]:
        schema = new_name()
        begin(schema)
        connections.close_all()
        if place is not None:
            assert is_killed(lambda: act(schema), place), place  # noqa: B023
        try:
            (act if place is None else again or act)(schema)
        except ProvisioningError as error:  # Django records some migrations after their commit
            assert place is not None, error
            assert "DROP SCHEMA" in str(error)
            site.sql(f'DROP SCHEMA "{schema}" CASCADE')
            act(schema)
        state = state_of(site, schema)
        if expected is None:
            expected = state
        assert not (difference := list(unified_diff(expected, state))), f"killed at {place}: {difference}"
    assert set(site.sessions().values()) <= {"site_owner"}


def after(statements: Iterable[int]):
    """Return the places after these statements, which are counted from 1; 0 is before the first one."""
    return [2 * number + 1 if number else 2 for number in statements]


def provision_again(schema):
    """Run the command of a new tenant again. After its last commit, there is nothing that it could continue."""
    try:
        provision(schema)
    except ConfigurationError as error:
        assert "exists" in str(error)


def nothing(schema):
    """A new tenant needs no preparation."""


def test_killed_at_any_statement_beside_migrations(isolated_site):
    with isolated_site.here(make_tenant="tests.isolated.test_provision_killed.make_by_clone"):
        provision(new_name())  # the first one of a process also finds out which tables there are
        marks = count_statements(lambda mark: provision(new_name(), progress=mark))
        first = count_statements(lambda mark: clone(new_name()))["end"]
        begun, ended = marks["tenant"], marks["settings"]
        assert ended - begun > first - 5
        # The steps after it are those of an adoption.
        some = [*range(begun + 4), *range(ended - 3, ended + 2), *range(ended + 2, marks["end"] + 1, 1 if ALL else 9)]
        check_kills(isolated_site, after(some), nothing, provision, provision_again)


def test_killed_during_migrations(isolated_site):
    with isolated_site.here(make_tenant="tests.isolated.test_provision_killed.make_row"):
        provision(new_name())  # the first one of a process also finds out which tables there are
        marks = count_statements(lambda mark: provision(new_name(), progress=mark))
        inside = range(marks["tenant"] + 1, marks["settings"] + 1)
        some = [*inside[:10:3], *inside[10:-10:100], *inside[-10::3]]
        check_kills(isolated_site, after(inside if ALL else some), nothing, provision)


def test_an_adoption_killed_at_any_statement(isolated_site):
    adopt = lambda schema, **values: provision(schema, adopt=True, **values)  # noqa: E731
    for schema in (new_name(), new_name()):
        clone(schema)
        marks = count_statements(lambda mark: adopt(schema, progress=mark))  # noqa: B023
    check_kills(isolated_site, after(range(marks["end"] + 1)), clone, adopt)
