"""The roles that a probe is about: those of tenants, and the group of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantRole
from tenant_q.provisioning.grants import shared_schemas
from tenant_q.provisioning.probe.report import Problem
from tenant_q.provisioning.shared_tables import shared_tables
from tenant_q.sql import statement
from tenant_q.tenancy.role_names import group_name


@dataclass(frozen=True, slots=True)
class Subject:
    """A role that a probe is about.

    Attributes:
        schema: The tenant, by schema name; the name of the group for the group of all tenants' roles.
        role: The name of the role.
        version: The version of its password.
        oid: The OID of the role.
        space: The OID of its schema; 0 for the group.
    """

    schema: str
    role: str
    version: int
    oid: int
    space: int


@dataclass(frozen=True, slots=True)
class Shared:
    """What all tenants share: the OIDs of schemas, of the tables that they may read, and of those they may write."""

    schemas: tuple[int, ...]
    readable: tuple[int, ...]
    writable: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subjects:
    """The roles that a probe is about, and what they share.

    Attributes:
        tenants: The roles of the tenants to probe.
        others: The roles of all tenants, sorted by schema; one without a role has an empty name and no OID.
        group_name: The name of the group of all tenants' roles.
        group: That group; None if there is none.
        shared: What all tenants share.
        problems: The tenants whose roles cannot be probed.
    """

    tenants: tuple[Subject, ...]
    others: tuple[Subject, ...]
    group_name: str
    group: Subject | None
    shared: Shared
    problems: tuple[Problem, ...]

    def victim_of(self, tenant: Subject) -> Subject | None:
        """Return the tenant that a probed one attacks: the next one. So each is attacked; None if there is no other."""
        places = [one.schema for one in self.others]
        if len(places) < 2 or tenant.schema not in places:
            return next((one for one in self.others if one.schema != tenant.schema), None)
        return self.others[(places.index(tenant.schema) + 1) % len(places)]


def find_subjects(schemas: Iterable[str] | None, owner: psycopg.Connection[Any]) -> Subjects:
    """Find the roles to probe.

    Args:
        schemas: The tenants, by schema name; None for all that have a role.
        owner: A session of the owner.

    Raises:
        ProvisioningError: A tenant to probe has no role.
        ConfigurationError: A shared table is not there.
        DatabaseAway: The database cannot be reached.
    """
    records, group = _records(), group_name(owner.info.dbname)
    wanted = _wanted(schemas, records)
    names = sorted({*tenancy.tenant_names(), *records})
    oids = _oids(owner, [*(one.role for one in records.values()), group], names)
    found, problems = [], []
    for name in names:
        record, space = records.get(name), oids["schema"][tenancy.physical_schema(name)]
        role = oids["role"][record.role] if record is not None else 0
        if space:
            found.append(
                Subject(name, record.role if record and role else "", record.version if record else 0, role, space)
            )
        if name in wanted and record is not None and not (role and space):
            missing = tenancy.physical_schema(name) if role else record.role
            problems.append(
                Problem(
                    name,
                    f"The server has no {missing!r}, which the record of the tenant {name!r} names; "
                    f"run `python manage.py mstenant provision {name} --adopt`.",
                )
            )
    made = Subject(group, group, 0, oids["role"][group], 0) if oids["role"][group] else None
    tenants = tuple(one for one in found if one.schema in wanted and one.oid)
    return Subjects(tenants, tuple(found), group, made, _shared(owner), tuple(problems))


def _records() -> dict[str, TenantRole]:
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return {one.schema_name: one for one in TenantRole.objects.using(tenancy.database_alias())}


def _wanted(schemas: Iterable[str] | None, records: Mapping[str, TenantRole]) -> set[str]:
    """Return the schema names of the tenants to probe. Raises `ProvisioningError` if one, or every one, has no role."""
    wanted = set(records if schemas is None else schemas)
    if missing := sorted(wanted - set(records)):
        raise ProvisioningError(
            f"The tenant {missing[0]!r} has no database role, so there is nothing to probe; "
            f"run `python manage.py mstenant provision {missing[0]} --adopt`."
        )
    if not wanted:
        raise ProvisioningError(
            "No tenant has a database role, so there is nothing to probe; "
            "run `python manage.py mstenant provision SCHEMA --adopt` for each tenant."
        )
    return wanted


def _oids(owner: psycopg.Connection[Any], roles: list[str], schemas: list[str]) -> dict[str, dict[str, int]]:
    """Return for a probe the OIDs of roles and of tenants' schemas by their names; 0 for those that are not there."""
    spaces = [tenancy.physical_schema(name) for name in schemas]
    query = sql.SQL(statement("probe_oids")).format(roles=sql.Literal(roles), spaces=sql.Literal(spaces))
    found: dict[str, dict[str, int]] = {"role": dict.fromkeys(roles, 0), "schema": dict.fromkeys(spaces, 0)}
    for kind, name, oid in owner.execute(query).fetchall():
        found[kind][name] = int(oid)
    return found


def _shared(owner: psycopg.Connection[Any]) -> Shared:
    tables, schemas = shared_tables(), shared_schemas()
    query = sql.SQL(statement("probe_shared")).format(
        schemas=sql.Literal(schemas),
        readable=sql.Literal(list(tables.readable)),
        writable=sql.Literal(list(tables.writable)),
    )
    row = owner.execute(query).fetchone()
    assert row is not None
    return Shared(*(tuple(int(oid) for oid in oids) for oids in row))
