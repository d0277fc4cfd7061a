"""The grants of a tenant's role, as data: what provisioning grants, a probe expects, and a decommissioning takes back.

A tenant's role may use its own schema, what the settings share of the public one, and nothing else. Default privileges
give it the tables of later migrations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from django.conf import settings
from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.provisioning import roles
from tenant_q.provisioning.admin_connection import owner_role
from tenant_q.provisioning.shared_tables import SharedTables, shared_tables
from tenant_q.sql import statement
from tenant_q.support.lock_keys import lock_key
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.provisioning")

TABLE_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
SEQUENCE_RIGHTS = "USAGE, SELECT"
# Grants of all tenants change the same rows of the catalogue. PostgreSQL would refuse the later one.
LOCK = lock_key("tenant_q.grants")


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant for a tenant's role.

    Attributes:
        what: What it allows, for people.
        sql_grant: The statement that grants it.
        sql_revoke: The statement that takes it back.
        by_admin: Whether the admin role has to grant it, because the database does not belong to the owner.
    """

    what: str
    sql_grant: str
    sql_revoke: str
    by_admin: bool = False


@dataclass(frozen=True, slots=True)
class _Objects:
    """What the grants of a tenant's role depend on, as `grant_objects.sql` returns it: by kind, name and fitness."""

    rows: tuple[tuple[str, str, bool], ...]

    def named(self, kind: str) -> list[str]:
        return [name for found, name, _ in self.rows if found == kind]

    def unfit(self, kind: str) -> list[str]:
        return [name for found, name, fits in self.rows if found == kind and not fits]


def shared_schemas() -> list[str]:
    """Return the schemas that every tenant's search path has beside its own: the public one and the project's."""
    return list(dict.fromkeys([tenancy.public_schema(), *getattr(settings, "PG_EXTRA_SEARCH_PATHS", ())]))


def grants_of(schema: str, role: str) -> list[Grant]:
    """Return all grants of a tenant's role, by one statement.

    Args:
        schema: The schema name of the tenant, whose schema exists.
        role: The name of its role, which need not exist.

    Raises:
        ProvisioningError: The owner may not make one of these grants, or everybody may create objects in a schema.
        ConfigurationError: A shared table is not there.
        DatabaseAway: The database cannot be reached.
    """
    physical, shared = tenancy.physical_schema(schema), shared_tables()
    objects = _look_up(physical, shared)
    _require_fit(objects, physical)
    grantee = _quoted(role)
    made = [_on(f"SCHEMA {_quoted(name)}", "USAGE", grantee) for name in (physical, *shared_schemas())]
    # By their names: for ALL TABLES IN SCHEMA, PostgreSQL reads the tables of all tenants, several times.
    if tables := objects.named("own table"):
        made.append(_on(f"TABLE {', '.join(tables)}", TABLE_RIGHTS, grantee))
    if sequences := objects.named("own sequence"):
        made.append(_on(f"SEQUENCE {', '.join(sequences)}", SEQUENCE_RIGHTS, grantee))
    for creator in objects.named("creator"):
        made += [
            _by_default("TABLES", TABLE_RIGHTS, creator, physical, grantee),
            _by_default("SEQUENCES", SEQUENCE_RIGHTS, creator, physical, grantee),
        ]
    read_by_all = objects.named("read by all")
    made += [_on(f"TABLE {path}", "SELECT", grantee) for path in shared.readable if path not in read_by_all]
    made += [_on(f"TABLE {path}", TABLE_RIGHTS, grantee) for path in shared.writable]
    made += [_on(f"SEQUENCE {path}", SEQUENCE_RIGHTS, grantee) for path in objects.named("sequence")]
    closed = objects.unfit("function")
    made += [_on(f"FUNCTION {name}", "EXECUTE", grantee) for name in objects.named("function") if name not in closed]
    (database,) = objects.named("database")
    return [*made, _on(f"DATABASE {_quoted(database)}", "CONNECT", grantee, by_admin=bool(objects.unfit("database")))]


def apply_grants(schema: str, role: str, admin: psycopg.Connection[Any]) -> None:
    """Make all grants of a tenant's role, in one transaction, and check that the role has them.

    Args:
        schema: The schema name of the tenant.
        role: The name of its role, which exists.
        admin: A session of the admin role, for a database that does not belong to the owner.

    Raises:
        ProvisioningError: A right is missing afterwards; nothing is granted. Also as `grants_of`.
        ConfigurationError: A shared table is not there.
        DatabaseAway: The database cannot be reached.
    """
    roles.again_on_conflict(lambda: _apply(schema, role, admin))


def _apply(schema: str, role: str, admin: psycopg.Connection[Any]) -> None:
    with tenancy.as_owner_in_public(), tenancy.in_patient_transaction(), tenancy.raw_cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [LOCK])
        grants = grants_of(schema, role)
        for grant in (one for one in grants if one.by_admin):
            _execute(admin, grant.sql_grant, [grant])
        own = [one for one in grants if not one.by_admin]
        _execute(cursor, "; ".join(one.sql_grant for one in own), own)
        if missing := _missing(cursor, schema, role):
            right, name = missing[0]
            raise ProvisioningError(
                f"The role {role!r} lacks {right} on {name}, which this project's roles may not grant; run as the "
                f"object's owner: GRANT {right} ON {name} TO {_quoted(role)};"
            )


def missing_grants(schema: str, role: str) -> list[tuple[str, str]]:
    """Return the rights that a tenant's role lacks, as pairs of a right and an object, by one statement."""
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        return _missing(cursor, schema, role)


def _look_up(physical: str, shared: SharedTables) -> _Objects:
    query = sql.SQL(statement("grant_objects")).format(
        schema=sql.Literal(physical),
        spaces=sql.Literal(shared_schemas()),
        tables=sql.Literal(list(shared.named())),
        writable=sql.Literal(list(shared.writable)),
    )
    with tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        return _Objects(tuple(cursor.execute(query).fetchall()))


def _require_fit(objects: _Objects, physical: str) -> None:
    if foreign := objects.unfit("creator"):
        me, other = _quoted(owner_role()), _quoted(foreign[0])
        raise ProvisioningError(
            f"Objects in the schema {physical!r} belong to the role {foreign[0]!r}, for which this project's role may "
            f"not grant; let DATABASES name that role, or run as a superuser: GRANT {other} TO {me};"
        )
    if missing := [*objects.unfit("schema"), *objects.unfit("table")]:
        raise ProvisioningError(
            f"The database has no {missing[0]}, which PG_EXTRA_SEARCH_PATHS, TENANT_Q['shared_read'] or "
            "TENANT_Q['shared_write'] names; create it, or correct the setting."
        )
    if unlocked := objects.unfit("closed"):
        raise ProvisioningError(
            f"Every role may create objects in the schema {unlocked[0]!r}, so each tenant could put code there that "
            f"others run; run as its owner: REVOKE CREATE ON SCHEMA {_quoted(unlocked[0])} FROM PUBLIC;"
        )
    if closed := objects.unfit("function"):
        logger.warning(
            "Tenants' roles may not execute %s of extensions; as their owner run GRANT EXECUTE ON FUNCTION %s TO "
            "PUBLIC; if tasks need them",
            counted(len(closed), "function"),
            ", ".join(closed[:5]) + (", ..." if len(closed) > 5 else ""),
            event="provisioning.closed_functions",
        )


def _missing(cursor: Any, schema: str, role: str) -> list[tuple[str, str]]:
    physical, shared = tenancy.physical_schema(schema), shared_tables()
    query = sql.SQL(statement("missing_grants")).format(
        role=sql.Literal(role),
        schema=sql.Literal(physical),
        spaces=sql.Literal([physical, *shared_schemas()]),
        readable=sql.Literal(list(shared.readable)),
        writable=sql.Literal(list(shared.writable)),
    )
    return list(cursor.execute(query).fetchall())


def _execute(session: Any, statements: str, grants: Iterable[Grant]) -> None:
    """Execute grants as one message. If one is refused, name those that an owner of the object has to make."""
    try:
        session.execute(statements)
    except errors.ProgramLimitExceeded as error:
        raise ProvisioningError(
            "A table that all tenants share has as many grants as PostgreSQL can keep, for about 2,300 roles: "
            f"{error.diag.message_primary}; if it is in TENANT_Q['shared_read'], grant SELECT on it to PUBLIC and "
            "revoke it from the tenants' roles; if it is in ['shared_write'], move its rows into the tenants' schemas."
        ) from error
    except errors.InsufficientPrivilege as error:
        listed = "; ".join(one.sql_grant for one in grants)
        raise ProvisioningError(
            f"A grant was refused: {error.diag.message_primary}. Run as the owner of that object those of these that "
            f"name it: {listed};"
        ) from error


def _on(target: str, rights: str, grantee: str, *, by_admin: bool = False) -> Grant:
    return Grant(
        f"{rights} on {target}",
        f"GRANT {rights} ON {target} TO {grantee}",
        f"REVOKE {rights} ON {target} FROM {grantee}",
        by_admin,
    )


def _by_default(kind: str, rights: str, creator: str, physical: str, grantee: str) -> Grant:
    head = f"ALTER DEFAULT PRIVILEGES FOR ROLE {_quoted(creator)} IN SCHEMA {_quoted(physical)}"
    return Grant(
        f"{rights} on {kind} that {creator} creates in {physical}",
        f"{head} GRANT {rights} ON {kind} TO {grantee}",
        f"{head} REVOKE {rights} ON {kind} FROM {grantee}",
    )


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
