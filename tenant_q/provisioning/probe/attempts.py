"""Attempt as a tenant's role what it must not be able to do, in transactions that are rolled back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

import psycopg
from django.apps import apps
from psycopg import sql

from tenant_q import tenancy
from tenant_q.models import TenantRole
from tenant_q.provisioning.probe.report import Finding, Problem
from tenant_q.provisioning.probe.sessions import logs_in, tenant_session
from tenant_q.provisioning.probe.subjects import Subject
from tenant_q.sql import statement, titled_statements
from tenant_q.support.visible import one_line
from tenant_q.tenancy.credentials import password_of

# The server's error code for a right that is missing.
_REFUSED = "42501"
# How often an attempt is made that others keep from a lock, and the seconds in between.
_TIMES = 5
_PAUSE = 0.1
_WORDS = re.compile(r" \[(\w+)\]")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt: its title, its statements with parameters, and what else counts as a refusal."""

    title: str
    text: str
    words: frozenset[str]

    @property
    def parameters(self) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(self.text) if name}


@dataclass(frozen=True, slots=True)
class _Schema:
    """What attempts are made on in a schema."""

    name: str
    table: str | None
    column: str | None
    sequence: str | None
    schedules: str | None


@dataclass(frozen=True, slots=True)
class Targets:
    """What the attempts of a probe are made on.

    Attributes:
        schemas: The schemas of tenants, by their OIDs.
        unlisted: The public schema, with a table that is never shared.
        server: Parameters of the attempts that are the same for all tenants.
        calls: The functions to call, by the OID of the role that calls them.
    """

    schemas: Mapping[int, _Schema]
    unlisted: _Schema
    server: Mapping[str, Any]
    calls: Mapping[int, Sequence[_Attempt]]


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of the attempts as one tenant's role: their titles, what was not refused, and what proves nothing."""

    titles: tuple[str, ...]
    crossings: tuple[Finding, ...] = ()
    problems: tuple[Problem, ...] = ()


def find_targets(owner: psycopg.Connection[Any], tenants: Sequence[Subject], group: str) -> Targets:
    """Find what the attempts as tenants' roles are made on.

    Args:
        owner: A session of the owner.
        tenants: The roles of all tenants that may be attacked.
        group: The name of the group of all tenants' roles.
    """
    public = tenancy.public_schema()
    query = sql.SQL(statement("probe_targets")).format(
        spaces=sql.Literal([one.space for one in tenants]),
        public=sql.Literal(public),
        preferred=sql.Literal(tenancy.TASK_TABLE),
        schedules=sql.Literal(apps.get_model("django_q", "Schedule")._meta.db_table),
        unlisted=sql.Literal(TenantRole._meta.db_table),
    )
    schemas = {oid: _Schema(*rest) for oid, *rest in owner.execute(query).fetchall()}
    query = sql.SQL(statement("probe_server")).format(roles=sql.Literal([one.oid for one in tenants]))
    row = owner.execute(query).fetchone()
    assert row is not None
    role, backend, superuser, database, large_object = row
    server = {
        "owner": sql.Identifier(role),
        "backend": sql.Literal(backend),
        "superuser": sql.Identifier(superuser),
        "database": sql.Identifier(database),
        "large_object": None if large_object is None else sql.Literal(large_object),
        "group": sql.Identifier(group),
        "public": sql.Identifier(public),
    }
    unlisted = next(one for one in schemas.values() if one.name == public)
    return Targets(schemas, unlisted, server, _calls(owner, tenants))


def attempt(subject: Subject, victim: Subject | None, targets: Targets, mode: str) -> Attempted:
    """Make every attempt as one tenant's role.

    Args:
        subject: The role of the tenant.
        victim: The role of the tenant that is attacked; None if there is no other.
        targets: What the attempts are made on.
        mode: "login" or "role".

    Raises:
        ProvisioningError: The role cannot log in, or the owner cannot switch to it.
        ConfigurationError: Its password cannot be computed.
    """
    values = _values(subject, victim, targets)
    titles, crossings, problems = [], [], []
    with tenant_session(subject, mode) as raw:
        for one in [*_attempts(mode, values), *targets.calls.get(subject.oid, ())]:
            titles.append(one.title)
            query = sql.SQL(one.text).format(**values)
            outcome = _try(raw, query, one.words)
            if outcome is None:
                text = one_line(query.as_string(raw))
                crossings.append(_crossing(subject, one.title, text))
            elif outcome:
                problem = f"{subject.schema!r} attempted to {one.title}, which failed for another reason: {outcome}"
                problems.append(Problem(subject.schema, f"{problem}; correct that, and probe again."))
    if mode == "login":
        for title, text, is_open in _logins(subject, victim, values):
            titles.append(title)
            if is_open:
                crossings.append(_crossing(subject, title, text))
    return Attempted(tuple(titles), tuple(crossings), tuple(problems))


def _attempts(mode: str, values: Mapping[str, Any]) -> Iterator[_Attempt]:
    """Return the attempts of a probe for which all parameters are there."""
    for head, text in titled_statements("probe_attempts").items():
        one = _Attempt(_WORDS.sub("", head), text, frozenset(_WORDS.findall(head)))
        if (mode == "login" or "login" not in one.words) and all(values[name] is not None for name in one.parameters):
            yield one


def _calls(owner: psycopg.Connection[Any], tenants: Sequence[Subject]) -> dict[int, list[_Attempt]]:
    """Return by role an attempt for each function with its owner's rights that the role must not execute."""
    found: dict[int, list[_Attempt]] = {}
    query = sql.SQL(statement("probe_calls")).format(roles=sql.Literal([one.oid for one in tenants]))
    for role, name, text in owner.execute(query).fetchall():
        one = _Attempt(f"call {name}", text.replace("{", "{{").replace("}", "}}"), frozenset())
        found.setdefault(role, []).append(one)
    return found


def _try(raw: psycopg.Connection[Any], query: sql.Composed, words: frozenset[str]) -> str | None:
    """Make one attempt, and again if others hold a lock. Return "" if it was refused, None if not, else the reason.

    The server checks rights before it checks values, and before it tries a lock for which it does not wait.
    """
    for rest in reversed(range(_TIMES)):
        outcome = _try_once(raw, query, words)
        if not isinstance(outcome, psycopg.errors.LockNotAvailable):
            break
        if "nowait" in words:
            return None
        if rest:
            time.sleep(_PAUSE)
    return outcome if outcome is None or outcome == "" else one_line(outcome)


def _try_once(raw: psycopg.Connection[Any], query: sql.Composed, words: frozenset[str]) -> psycopg.Error | str | None:
    """Make one attempt, and roll it back. Return "" if it was refused, None if it was not, else the error."""
    try:
        # The first statement ends the attempt before; a message of its own for it would take half of the time.
        cursor = raw.execute(sql.SQL("ROLLBACK; BEGIN; {}").format(query))
        while cursor.nextset():
            pass
        return "" if "empty" in words and cursor.rowcount == 0 else None
    except psycopg.errors.IntegrityError:
        return None
    except psycopg.Error as error:
        if raw.closed:
            raise
        return "" if error.sqlstate == _REFUSED or error.sqlstate in words else error


def _logins(subject: Subject, victim: Subject | None, values: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Log in as others: what was attempted, as whom, and whether the server opened a session."""
    database = str(tenancy.tenant_connection().settings_dict["NAME"])
    password = password_of(database, subject.role, subject.version)
    yield "log in without a password", subject.role, logs_in(subject.role, None)
    yield "log in as the owner with its own password", "the owner", logs_in(None, password)
    if victim is not None and victim.role:
        yield "log in as another tenant with its own password", victim.role, logs_in(victim.role, password)


def _crossing(subject: Subject, title: str, text: str) -> Finding:
    return Finding("attempt", (subject.schema,), title, text, subject.role, text, "")


def _values(subject: Subject, victim: Subject | None, targets: Targets) -> dict[str, sql.Composable | None]:
    """Return the parameters of a tenant's attempts; None for what is not there."""
    own = targets.schemas[subject.space]
    other = targets.schemas[victim.space] if victim is not None else _Schema("", None, None, None, None)
    table, sequence = _path(other, other.table), _path(other, other.sequence)
    return {
        **targets.server,
        "role": sql.Identifier(subject.role),
        "own": sql.Identifier(own.name),
        "own_table": _path(own, own.table),
        "own_schedules": _path(own, own.schedules),
        "other": sql.Identifier(other.name) if victim else None,
        "other_table": table,
        "other_sequence": sequence,
        "bare_table": sql.Identifier(other.table) if other.table else None,
        "table_name": sql.Literal(other.table) if other.table else None,
        "column": sql.Identifier(other.column) if other.column else None,
        "other_role": sql.Identifier(victim.role) if victim and victim.role else None,
        "role_text": sql.Literal(victim.role) if victim and victim.role else None,
        "text": sql.Literal(table.as_string()) if table else None,
        "sequence_text": sql.Literal(sequence.as_string()) if sequence else None,
        "name": sql.Literal(other.name) if victim else None,
        "unlisted": _path(targets.unlisted, targets.unlisted.table),
        "unlisted_column": sql.Identifier(targets.unlisted.column) if targets.unlisted.column else None,
    }


def _path(schema: _Schema, name: str | None) -> sql.Identifier | None:
    return sql.Identifier(schema.name, name) if name else None
