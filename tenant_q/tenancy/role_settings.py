"""Settings of the database role that a task leaves behind: `ALTER ROLE ... SET` and `ALTER DATABASE ... SET`.

They outlive the task and come into force in every session that is opened later, of every tenant. A cluster notes when
it starts which there are. A process of it that opens a session and finds others logs them with the statement that
removes them, and gives that session the values of then. The role itself is never altered here. One query a session.
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
from tenant_q.tenancy.seam import switched_connections

logger = get_logger("tenant_q.tenancy")

# The attribute of a driver's connection that holds what is overridden in it, once that was looked at.
_OVERRIDDEN = "_tenant_q_overridden"
# These hold names, quoted where that is needed, rather than one value.
_LISTS = {"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"}
# Django sets it in each session, and again after each task.
_DJANGOS = {"timezone"}
# Sent before a statement, in one round trip with it. The limit of the role counts until this has run, and a limit of
# a millisecond may be over before: then it is sent again.
_NO_LIMIT = "SET LOCAL statement_timeout TO 0; "
_ATTEMPTS = 5


@dataclass(frozen=True, order=True, slots=True)
class _Place:
    """A setting of this role, of this database, of both or of all, as `of_role` and `of_database` say."""

    of_role: bool
    of_database: bool
    name: str


@dataclass(frozen=True, slots=True)
class _Noted:
    """What was set when the cluster started, and the value that each setting had in a new session, by its name."""

    settings: Mapping[_Place, str]
    values: Mapping[str, str]


_noted: dict[str, _Noted] = {}
_logged: set[str] = set()


def note() -> None:
    """Note what is set now, in the process that starts the cluster; those that it forks know it too."""
    for connection in switched_connections():
        connection.ensure_connection()
        with connection.wrap_database_errors, psycopg.ClientCursor(connection.connection) as cursor:
            settings, _, _ = _read(cursor)
            rows = cursor.execute("SELECT name, reset_val FROM pg_catalog.pg_settings").fetchall()
        _noted[connection.alias] = _Noted(settings, {name.lower(): value or "" for name, value in rows})


def forget() -> None:
    """Forget what was noted."""
    _noted.clear()
    _logged.clear()


def watch() -> None:
    """Look from now on at each session that this process opens."""
    connection_created.connect(_look, dispatch_uid="tenant_q.role_settings")


def unwatch() -> None:
    """Look at no more sessions."""
    connection_created.disconnect(_look, dispatch_uid="tenant_q.role_settings")


def _look(*, connection: Any, **_: Any) -> None:
    """Receiver of `connection_created`, which is also sent when a session was scrubbed after a task."""
    noted, raw = _noted.get(connection.alias), connection.connection
    if noted is None or connection.vendor != "postgresql":
        return
    if not hasattr(raw, _OVERRIDDEN):
        setattr(raw, _OVERRIDDEN, _overrides(connection, noted))
    if overrides := getattr(raw, _OVERRIDDEN):
        with psycopg.ClientCursor(raw) as cursor:
            _override(cursor, overrides)


def _overrides(connection: Any, noted: _Noted) -> dict[str, str]:
    """The settings that a new session has to have another value of, and that value."""
    with psycopg.ClientCursor(connection.connection) as cursor:
        found, role, database = _read(cursor)
    changed = {place for place in found.keys() | noted.settings.keys() if found.get(place) != noted.settings.get(place)}
    own = set(_DJANGOS)
    if connection.settings_dict.get("OPTIONS", {}).get("assume_role"):
        own.add("role")
    for place in sorted(changed):
        _log(place, found.get(place), noted.settings.get(place), role, database)
    return {name: _value(name, noted) for name in sorted({place.name for place in changed} - own)}


def _value(name: str, noted: _Noted) -> str:
    """The value that a setting had in a new session; of one that PostgreSQL does not list, what was set for it."""
    if name in noted.values:
        return noted.values[name]
    set_then = [value for place, value in sorted(noted.settings.items()) if place.name == name]
    return set_then[-1] if set_then else "none" if name == "role" else ""


def _read(cursor: Any) -> tuple[dict[_Place, str], str, str]:
    """What is set, and the names of role and database."""
    _execute(cursor, statement("role_settings"))
    found, role, database = {}, "", ""
    for of_role, of_database, entry, role, database in cursor.fetchall():  # noqa: B007
        name, _, value = entry.partition("=")
        found[_Place(of_role, of_database, name.lower())] = value
    return found, role, database


def _log(place: _Place, found: str | None, noted: str | None, role: str, database: str) -> None:
    way_out = _way_out(place, noted, role, database)
    if way_out in _logged:
        return
    _logged.add(way_out)
    logger.error(
        "%s was %s since the cluster started, by a task as a rule, and is not in force in the cluster's sessions; run "
        "%s to take that back, or start the cluster anew to accept it",
        place.name,
        f"set to {found!r} for later sessions" if found is not None else "reset for later sessions",
        way_out,
    )


def _way_out(place: _Place, noted: str | None, role: str, database: str) -> str:
    """The statement that brings back what was noted."""
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


def _override(cursor: Any, overrides: Mapping[str, str]) -> None:
    """Set all of them in one statement, and where one of them cannot be, each by itself."""
    # The role first: another one may lack the right to the rest.
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
                logger.error("%s cannot be set back in an open session: %s", item[0], one_line(error))


def _set(cursor: Any, settings: Iterable[tuple[str, str]]) -> None:
    call = sql.SQL("pg_catalog.set_config({}, {}, false)")
    calls = [call.format(sql.Literal(name), sql.Literal(value)) for name, value in settings]
    _execute(cursor, sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_string())


def _execute(cursor: Any, query: str) -> None:
    """Execute a statement in a session whose role may have a `statement_timeout` that is too short for any."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            cursor.execute(_NO_LIMIT + query)
        except psycopg.errors.QueryCanceled:
            if attempt == _ATTEMPTS:
                raise
        else:
            cursor.nextset()
            return
