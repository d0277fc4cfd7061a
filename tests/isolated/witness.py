"""What a tenant's task must not change: all of the database and of the server that is not the tenant's own.

It is read by the superuser, so it contains what no tenant may see.
"""

from __future__ import annotations

from typing import Any

import psycopg

from tests.isolated.site import Site

# Every value that a tenant must not read contains it.
MARK = "classified-"

_TABLES = """
SELECT n.nspname, c.relname, EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'schema_name' AND NOT a.attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relname <> 'tenant_q_brokerepoch'
    AND n.nspname !~ '^(pg_|information_schema$)' AND n.nspname <> %s
"""
# One statement for each kind of thing; `%(role)s` is the attacker's, whose settings and password are its own.
_CATALOGUES = {
    "relations": "SELECT oid, relname, relowner, relacl::text, relrowsecurity, relkind, reltriggers, relhasrules "
    "FROM (SELECT *, relhastriggers AS reltriggers FROM pg_class) c WHERE relnamespace NOT IN "
    "(SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(temp|toast)')",
    "columns": "SELECT attrelid, attname, atttypid, attacl::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
    "WHERE relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(temp|toast)')",
    "schemas": "SELECT nspname, nspowner, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)'",
    "functions": "SELECT oid, proname, prosrc, proacl::text FROM pg_proc WHERE pronamespace NOT IN "
    "(SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_temp')",
    "types": "SELECT oid, typname, typacl::text FROM pg_type WHERE typnamespace NOT IN "
    "(SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(temp|toast)')",
    "triggers": "SELECT tgrelid, tgname, tgfoid, tgenabled FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid "
    "WHERE relpersistence <> 't'",
    "rules": "SELECT ev_class, rulename, ev_action FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class "
    "WHERE relpersistence <> 't'",
    "policies": "SELECT * FROM pg_policies",
    "comments": "SELECT objoid, classoid, objsubid, description FROM pg_description",
    "large objects": "SELECT m.oid, m.lomowner, m.lomacl::text, lo_get(m.oid) FROM pg_largeobject_metadata m "
    "WHERE m.lomowner <> (SELECT oid FROM pg_roles WHERE rolname = %(role)s)",
    "roles": "SELECT rolname, rolsuper, rolcanlogin, rolcreaterole, rolconnlimit, "
    "COALESCE(rolvaliduntil, 'infinity')::text, "
    "CASE WHEN rolname <> %(role)s THEN rolpassword END FROM pg_authid",
    "members": "SELECT roleid, member, grantor, admin_option, inherit_option, set_option FROM pg_auth_members",
    "settings": "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting "
    "WHERE setrole <> COALESCE((SELECT oid FROM pg_roles WHERE rolname = %(role)s), 0)",
    "parameters": "SELECT name, setting FROM pg_settings WHERE context IN ('sighup', 'postmaster')",
    "default rights": "SELECT defaclrole, defaclnamespace, defaclobjtype, defaclacl::text FROM pg_default_acl "
    "WHERE strpos(defaclacl::text, %(role)s) = 0",  # a role can give up what it was granted by default
    "databases": "SELECT datname, datdba, datacl::text, datconnlimit FROM pg_database",
    "extensions": "SELECT extname, extowner FROM pg_extension",
    "event triggers": "SELECT evtname FROM pg_event_trigger",
    "publications": "SELECT pubname FROM pg_publication",
    "replication": "SELECT slot_name FROM pg_replication_slots",
    "servers": "SELECT srvname FROM pg_foreign_server",
    "casts": "SELECT oid, castsource, casttarget FROM pg_cast",
}


def look(site: Site, attacker: str, role: str) -> dict[str, Any]:
    """Return the rows of all tables but the attacker's, and all catalogues, by what they are.

    Rows of the public schema that belong to the attacker are its own: its entries in the due index, its audit records.
    """
    found: dict[str, Any] = {}
    with site.server.connect(site.database) as raw:
        for schema, table, has_schema_name in raw.execute(_TABLES, [attacker]).fetchall():
            statement = f'SELECT t::text FROM "{schema}"."{table}" t'
            if has_schema_name:
                statement += " WHERE schema_name <> %(attacker)s"
            found[f"{schema}.{table}"] = _rows(raw, statement, {"attacker": attacker})
        for schema, name in raw.execute(
            "SELECT schemaname, sequencename FROM pg_sequences WHERE schemaname <> %s "
            "AND NOT starts_with(sequencename, 'tenant_q_')",  # our triggers count on for the attacker's own rows
            [attacker],
        ).fetchall():
            found[f"{schema}.{name}"] = _rows(raw, f'SELECT last_value, is_called FROM "{schema}"."{name}"', {})
        for name, statement in _CATALOGUES.items():
            found[name] = _rows(raw, statement, {"role": role})
    return found


def _rows(raw: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> list[str]:
    return sorted(map(repr, raw.execute(statement, values).fetchall()))


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what is no longer as it was, with the rows that differ."""
    return {
        name: sorted(set(before.get(name, ())) ^ set(after.get(name, ())))
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
