"""Check by PostgreSQL's catalogue every right of tenants' roles, and find what opens those that they must not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.apps import apps
from psycopg import sql

from tenant_q.provisioning.grants import SEQUENCE_RIGHTS, TABLE_RIGHTS
from tenant_q.provisioning.probe.report import Finding
from tenant_q.provisioning.probe.subjects import Shared, Subject
from tenant_q.sql import statement
from tenant_q.support.plurals import counted

# Rights of tables since PostgreSQL 17.
_MAINTAIN_SINCE = 170000
# How many roles one statement checks. A statement holds no lock that others wait for, but shows no progress.
BATCH = 10


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of objects.

    Attributes:
        name: Its name in findings, and in `probe_rights.sql`.
        objects: The file of the query that lists the objects.
        rights: The rights that the server knows for them.
        own: Those that a role has on the objects of its own schema.
        since: The version of the server from which on the last right exists.
    """

    name: str
    objects: str
    rights: tuple[str, ...]
    own: tuple[str, ...] = ()
    since: int = 0

    def rights_of(self, version: int) -> list[str]:
        return list(self.rights if version >= self.since else self.rights[:-1])


_TABLE = tuple(TABLE_RIGHTS.split(", "))
_SEQUENCE = tuple(SEQUENCE_RIGHTS.split(", "))
_KINDS = (
    _Kind("schema", "probe_schemas", ("USAGE", "CREATE"), ("USAGE",)),
    _Kind("table", "probe_tables", (*_TABLE, "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"), _TABLE, _MAINTAIN_SINCE),
    _Kind("column", "probe_columns", ("SELECT", "INSERT", "UPDATE", "REFERENCES"), ("SELECT", "INSERT", "UPDATE")),
    _Kind("sequence", "probe_sequences", (*_SEQUENCE, "UPDATE"), _SEQUENCE),
    _Kind("function", "probe_functions", ("EXECUTE",), ("EXECUTE",)),
    _Kind("type", "probe_types", ("USAGE",), ("USAGE",)),
    _Kind("large object", "probe_large_objects", ("SELECT", "UPDATE")),
    _Kind("foreign server", "probe_servers", ("USAGE",)),
    _Kind("foreign-data wrapper", "probe_wrappers", ("USAGE",)),
    _Kind("language", "probe_languages", ("USAGE",)),
    _Kind("tablespace", "probe_tablespaces", ("CREATE",)),
    _Kind("parameter", "probe_parameters", ("SET", "ALTER SYSTEM")),
    _Kind("database", "probe_databases", ("CREATE", "CONNECT", "TEMPORARY")),
)
# Other ways out than rights on objects.
_WAYS = (
    "probe_memberships",
    "probe_attributes",
    "probe_settings",
    "probe_default_privileges",
    "probe_ownership",
    "probe_doors",
)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the catalogue says: the number of rights checked, the ways out of schemas, and what deserves a warning."""

    rights: int
    crossings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Inherited:
    """The rights that a role holds without a grant to it or to PUBLIC: their number, and one of them."""

    role: int
    rights: int
    example: str


def batches(tenants: Sequence[Subject]) -> Iterator[Sequence[Subject]]:
    """Divide tenants' roles into groups that are checked together."""
    for start in range(0, len(tenants), BATCH):
        yield tenants[start : start + BATCH]


def check(owner: psycopg.Connection[Any], subjects: Sequence[Subject], group: str, shared: Shared) -> Checked:
    """Check every right of roles on every object of the database, of the server, and on every other role.

    Args:
        owner: A session of the owner.
        subjects: The roles.
        group: The name of the group of all tenants' roles.
        shared: What all tenants share.
    """
    with owner.transaction():
        owner.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        values = _values(subjects, group, shared)
        names = {one.oid: one.schema for one in subjects}
        group_oid = next((one.oid for one in subjects if not one.space), None)
        rights, found, inherited = 0, [], []
        for query in [*(_rights_query(kind, owner, values) for kind in _KINDS), _composed("probe_role_rights", values)]:
            checked, opened, rest = owner.execute(query).fetchone() or (0, None, None)
            rights += int(checked)
            found += [(_finding(one, names, group_oid), one["is_warning"]) for one in opened or ()]
            inherited += [_Inherited(int(one["role"]), one["rights"], one["example"]) for one in rest or ()]
        for name in _WAYS:
            cursor = owner.execute(_composed(name, values))
            columns = [column.name for column in cursor.description or ()]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
            found += [(_finding(one, names, group_oid), one["is_warning"]) for one in rows]
        found += [(one, False) for one in _unexplained(inherited, found, names)]
        found += [(one, True) for one in _unlisted(owner, values, names)]
    crossings = tuple(one for one, is_warning in found if not is_warning)
    return Checked(rights, crossings, tuple(one for one, is_warning in found if is_warning))


def _rights_query(kind: _Kind, owner: psycopg.Connection[Any], values: dict[str, sql.Composable]) -> sql.Composed:
    return sql.SQL(statement("probe_rights")).format(
        kind=sql.Literal(kind.name),
        rights=sql.Literal(kind.rights_of(owner.info.server_version)),
        own=sql.Literal(list(kind.own)),
        objects=_composed(kind.objects, values),
        roles=values["roles"],
        spaces=values["spaces"],
    )


def _values(subjects: Sequence[Subject], group: str, shared: Shared) -> dict[str, sql.Composable]:
    return {
        "roles": sql.Literal([one.oid for one in subjects]),
        "spaces": sql.Literal([one.space for one in subjects]),
        "group": sql.Literal(group),
        "shared": sql.Literal(list(shared.schemas)),
        "readable": sql.Literal(list(shared.readable)),
        "writable": sql.Literal(list(shared.writable)),
    }


def _composed(name: str, values: dict[str, sql.Composable]) -> sql.Composed:
    return sql.SQL(statement(name)).format(**values)


def _finding(row: dict[str, Any], names: dict[int, str], group: int | None) -> Finding:
    is_for_all = row["holder"] == "PUBLIC"  # then it is no use to name the group too
    tenants = tuple(sorted(names[int(oid)] for oid in row["roles"] if not (is_for_all and int(oid) == group)))
    return Finding(
        row["kind"], tenants, row["right"], row["object"], row["holder"], row["opens"] or "", row["closes"] or ""
    )


def _unexplained(
    inherited: Iterable[_Inherited], found: Iterable[tuple[Finding, bool]], names: dict[int, str]
) -> Iterator[Finding]:
    """Return a finding for each role with rights of which neither a grant nor a membership is the reason."""
    explained = {
        tenant for one, _ in found if one.kind in ("membership", "attribute", "ownership") for tenant in one.tenants
    }
    for one in inherited:
        if names[one.role] not in explained:
            yield Finding(
                "right", (names[one.role],), counted(one.rights, "right"), one.example, "an unknown way", "", ""
            )


def _unlisted(
    owner: psycopg.Connection[Any], values: dict[str, sql.Composable], names: dict[int, str]
) -> list[Finding]:
    """Return a warning for each shared table to which tenants' tables refer and which their roles may not read."""
    found = []
    for space, table, roles in owner.execute(_composed("probe_unlisted_models", values)).fetchall():
        label = _label(table)
        tenants = tuple(sorted(names[oid] for oid in roles))
        advice = f"add {label!r} to TENANT_Q['shared_read'], then run `python manage.py mstenant provision` for them"
        target = sql.Identifier(space, table).as_string()
        found.append(Finding("shared model", tenants, "no SELECT", f"TABLE {target}", label, "", advice))
    return found


def _label(table: str) -> str:
    """Return how a setting names a shared table: by the label of its model, or by its name if it has none."""
    models = apps.get_models(include_auto_created=True)
    return next((model._meta.label for model in models if model._meta.db_table == table), table)
