"""Detect settings of the database role that a task changes: `ALTER ROLE ... SET` and `ALTER DATABASE ... SET`.

Such settings outlive the task and apply to every session that is opened later, for any tenant. A cluster notes at its
start which settings exist. If one of its processes opens a session and finds other settings, it logs them with the
statement that removes them, and gives that session the noted values. The role itself is never altered here. This takes
one query per session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db.backends.signals import connection_created
from psycopg import sql

from tenant_q.sql import statement
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.tenancy import acting
from tenant_q.tenancy.tenancy_package import switched_connections

logger = get_logger("tenant_q.tenancy")

# The attribute of a driver's connection with the settings that are overridden in it, once these are known.
_OVERRIDDEN = "_tenant_q_overridden"
# Settings whose value is a list of names, each quoted if necessary.
_LISTS = {"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"}
# Settings with which a role or a database reads or runs what is another's. An operator seldom makes them.
_SUSPICIOUS = {
    "search_path", "role", "session_replication_role", "session_preload_libraries", "local_preload_libraries",
}  # fmt: skip
# Django sets these in each session, and scrubbing sets them again after each task.
_DJANGOS = {"timezone"}
# Sent before a statement, in the same round trip. The role's own limit applies until this has run, and a limit of a
# millisecond may pass before that. Then both are sent again.
_NO_LIMIT = "SET LOCAL statement_timeout TO 0; "
_ATTEMPTS = 5


@dataclass(frozen=True, order=True, slots=True)
class _Place:
    """The place of a setting: of this role, of this database, of both or of all roles."""

    of_role: bool
    of_database: bool
    name: str


@dataclass(frozen=True, slots=True)
class _Noted:
    """The role's settings at the start of the cluster, and the values of all settings in a new session then."""

    settings: Mapping[_Place, str]
    values: Mapping[str, str]


_noted: dict[str, _Noted] = {}
_logged: set[str] = set()


def note_role_settings() -> list[str]:
    """Note the present settings of the database role. The process that starts the cluster calls it before it forks.

    Returns:
        A sentence about each setting that a task of an earlier cluster may have left. An operator may have made it too,
        so it stays.
    """
    warnings = []
    for connection in switched_connections():
        connection.ensure_connection()
        with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
            settings, role, database = _read(cursor)
            rows = cursor.execute("SELECT name, reset_val FROM pg_catalog.pg_settings").fetchall()
        _noted[connection.alias] = _Noted(settings, {name.lower(): value or "" for name, value in rows})
        warnings += [
            f"{place.name} is set to {value!r} for each session of the cluster's role. If no operator did this, a task "
            f"of an earlier cluster has: run {_restoring_statement(place, None, role, database)} and restart."
            for place, value in sorted(settings.items())
            if place.name in _SUSPICIOUS
        ]
    return list(dict.fromkeys(warnings))


def forget() -> None:
    """Forget the noted settings of the database role."""
    _noted.clear()
    _logged.clear()


def watch_role_settings() -> None:
    """Check the role's settings in each session that this process opens from now on."""
    connection_created.connect(_check_session, dispatch_uid="tenant_q.role_settings")


def unwatch_role_settings() -> None:
    """Stop checking the role's settings in new sessions."""
    connection_created.disconnect(_check_session, dispatch_uid="tenant_q.role_settings")


def _check_session(*, connection: Any, **_: Any) -> None:
    """Override the role's changed settings in a new session.

    It is a receiver of `connection_created`, which is also sent after a session was scrubbed.
    """
    noted, raw = _noted.get(connection.alias), connection.connection
    if noted is None or connection.vendor != "postgresql":
        return
    if not hasattr(raw, _OVERRIDDEN):
        setattr(raw, _OVERRIDDEN, _overrides(connection, noted))
    if overrides := getattr(raw, _OVERRIDDEN):
        with psycopg.ClientCursor(raw) as cursor:
            _override_settings(cursor, overrides)


def _overrides(connection: Any, noted: _Noted) -> dict[str, str]:
    """Return the changed settings of the role that a new session must override, each with its noted value.

    A tenant's role gets the settings that the owner's role has. If it has settings of its own, `tenant_sessions` closes
    the session.
    """
    if acting.is_of_tenant(connection):
        names = {place.name for place in noted.settings if place.of_role} - _DJANGOS - {"role"}
        return {name: _noted_value(name, noted) for name in sorted(names)}
    with psycopg.ClientCursor(connection.connection) as cursor:
        found, role, database = _read(cursor)
    changed = {place for place in found.keys() | noted.settings.keys() if found.get(place) != noted.settings.get(place)}
    own = set(_DJANGOS)
    if connection.settings_dict.get("OPTIONS", {}).get("assume_role"):
        own.add("role")
    for place in sorted(changed):
        _log(place, found.get(place), noted.settings.get(place), role, database)
    return {name: _noted_value(name, noted) for name in sorted({place.name for place in changed} - own)}


def _noted_value(name: str, noted: _Noted) -> str:
    """Return the noted value of a role's setting. If PostgreSQL does not list it, return what was set."""
    if name in noted.values:
        return noted.values[name]
    set_then = [value for place, value in sorted(noted.settings.items()) if place.name == name]
    return set_then[-1] if set_then else "none" if name == "role" else ""


def _read(cursor: Any) -> tuple[dict[_Place, str], str, str]:
    """Return the present settings of the role, and the names of the role and the database."""
    _execute(cursor, statement("role_settings"))
    found, role, database = {}, "", ""
    for of_role, of_database, entry, role, database in cursor.fetchall():  # noqa: B007
        name, _, value = entry.partition("=")
        found[_Place(of_role, of_database, name.lower())] = value
    return found, role, database


def _log(place: _Place, found: str | None, noted: str | None, role: str, database: str) -> None:
    way_out = _restoring_statement(place, noted, role, database)
    if way_out in _logged:
        return
    _logged.add(way_out)
    logger.error(
        "%s was %s since the cluster started, usually by a task, and is not in force in the cluster's sessions; run "
        "%s to undo that, or restart the cluster to accept it",
        place.name,
        f"set to {found!r} for later sessions" if found is not None else "reset for later sessions",
        way_out,
        event="role_settings.changed",
    )


def _restoring_statement(place: _Place, noted: str | None, role: str, database: str) -> str:
    """Return the `ALTER ROLE` or `ALTER DATABASE` statement that restores the noted setting."""
    owner, base = sql.Identifier(role).as_string(), sql.Identifier(database).as_string()
    whose = {
        (True, False): f"ROLE {owner}",
        (True, True): f"ROLE {owner} IN DATABASE {base}",
        (False, True): f"DATABASE {base}",
        (False, False): "ROLE ALL",
    }[place.of_role, place.of_database]
    name = ".".join(sql.Identifier(part).as_string() for part in place.name.split("."))
    if noted is None:
        return f"ALTER {whose} RESET {name};"
    value = noted if place.name in _LISTS else sql.Literal(noted).as_string()
    return f"ALTER {whose} SET {name} TO {value};"


def _override_settings(cursor: Any, overrides: Mapping[str, str]) -> None:
    """Override settings of the role in one statement. If that fails, set each by itself."""
    # The role first: another role may lack the permission for the rest.
    ordered = sorted(overrides.items(), key=lambda item: item[0] != "role")
    try:
        _set(cursor, ordered)
    except psycopg.Error:
        for item in ordered:
            try:
                _set(cursor, [item])
            except psycopg.Error as error:
                if cursor.connection.closed:
                    raise
                logger.error(
                    "%s cannot be restored in an open session: %s",
                    item[0],
                    one_line(error),
                    event="role_settings.restore_failed",
                )


def _set(cursor: Any, settings: Iterable[tuple[str, str]]) -> None:
    call = sql.SQL("pg_catalog.set_config({}, {}, false)")
    calls = [call.format(sql.Literal(name), sql.Literal(value)) for name, value in settings]
    _execute(cursor, sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_string())


def _execute(cursor: Any, query: str) -> None:
    """Execute a statement although a setting of the role may make `statement_timeout` too short for any."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            cursor.execute(_NO_LIMIT + query)
        except psycopg.errors.QueryCanceled:
            if attempt == _ATTEMPTS:
                raise
        else:
            cursor.nextset()
            return
