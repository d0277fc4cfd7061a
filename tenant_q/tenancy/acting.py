"""The database role as which a thread of a worker acts: the tables' owner, or the tenant that it serves.

`TENANT_Q["isolation"]` decides how. Under "role" a worker's session switches between the owner and the tenant's role.
Under "login" the alias of the tenants' database has a connection that the tenant's role opened while its tasks run;
what tenant_q does itself goes over connections of the owner, which no alias names then. Under "path", and in all other
processes, everything acts as the owner, and nothing here has an effect.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.conf import settings
from django.db import connections
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q.conf import conf
from tenant_q.sql import statement
from tenant_q.tenancy.services import without_service

# The user of an alias while no tenant is served: no role has this name.
NOBODY = "tenant_q_nobody"
POSTGRESQL = "postgresql"
# Options that name the owner, hold its password, or switch to its role.
_OWNERS_OPTIONS = {"user", "password", "passfile", "service", "assume_role"}


@dataclass(slots=True)
class _Process:
    """What a worker keeps: how tenants are isolated, the owner's settings of all databases, and the open aliases."""

    mode: str = "path"
    owner: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The role of the tenant that the main thread serves, and the aliases that have it.
    role: str | None = None
    aliases: tuple[str, ...] = ()
    # The aliases of the databases that are switched for every task.
    switched: tuple[str, ...] = ()
    # How a connection that another thread makes for the served tenant is prepared.
    prepare: Callable[[Any], None] | None = None
    # Whether the aliases have the owner's settings, for tasks of the public schema.
    has_open_aliases: bool = False


class _Thread(threading.local):
    """How this thread acts.

    `owners` are its connections of the owner, by alias, while the aliases have those of a tenant. `role` is the role of
    the tenant as which it acts; None for the owner. `has_role` is whether its sessions to the databases of `aliases`
    may still have a tenant's role.
    """

    owners: Mapping[str, Any] | None = None
    park: Callable[[], None] | None = None
    aliases: tuple[str, ...] = ()
    # The aliases of further databases, to which this thread has connections of the owner for one task.
    admitted: tuple[str, ...] = ()
    role: str | None = None
    has_role = False
    is_owner = False
    is_ours = False


_process = _Process()
_thread = _Thread()


def mode() -> str:
    """Return how this process isolates tenants. It is "path" in all processes but workers."""
    return _process.mode


def is_isolated() -> bool:
    """Return whether this process serves tenants as their own roles."""
    return _process.mode != "path"


def logs_in() -> bool:
    """Return whether the served tenant's tasks have sessions that its own role opened."""
    return _process.mode == "login" and _thread.role is not None


def isolate(mode: str, switched: Sequence[str]) -> None:
    """Isolate tenants in this worker from now on. The main thread calls it before it serves a tenant.

    Under "login" the settings of the aliases lose the owner's name and password, so that no task finds them there.

    Args:
        mode: "role" or "login".
        switched: The aliases of the databases that are switched for every task.
    """
    _process.mode, _process.role = mode, None
    _process.owner = {alias: deepcopy(one) for alias, one in connections.settings.items() if _is_postgresql(alias)}
    if mode != "login":
        return
    _process.switched = tuple(switched)
    for alias in _process.owner:
        if alias in switched:
            connections[alias].settings_dict = owner_settings(alias)
        else:
            _drop(alias)
    close_aliases()


def admit_owner(aliases: Iterable[str]) -> None:
    """Give this thread connections of the owner to further databases of a task, to verify the schema there."""
    for alias in aliases:
        if _process.mode == "login" and alias not in _process.switched and alias in _process.owner:
            connections[alias] = open_owner(alias)
            _thread.admitted = (*_thread.admitted, alias)


def _drop(alias: str) -> None:
    """Drop this thread's connection to a database, so that the next one is made with the settings of its alias."""
    connections[alias].close()
    del connections[alias]


def forget() -> None:
    """Act as the owner again in this process, which is no worker, or no longer one."""
    if _process.mode == "login":
        for alias, one in _process.owner.items():
            _set_alias(alias, one)
    _process.mode, _process.owner, _process.role = "path", {}, None
    _thread.owners = _thread.role = None
    _thread.has_role = _thread.is_owner = False


def _is_postgresql(alias: str) -> bool:
    return bool(connections[alias].vendor == POSTGRESQL)


def owner_settings(alias: str) -> dict[str, Any]:
    """Return a copy of the owner's settings of a database, with which a connection of the owner is opened."""
    found = deepcopy(_process.owner.get(alias) or connections.settings[alias])
    if "SCHEMA" in connections.settings[alias]:
        found["SCHEMA"] = connections.settings[alias]["SCHEMA"]
    return found


def all_owner_settings() -> dict[str, dict[str, Any]]:
    """Return copies of the owner's settings of all databases."""
    return {alias: owner_settings(alias) for alias in connections.settings}


def owners_passwords() -> list[str]:
    """Return the owner's passwords in the settings of all databases."""
    return [str(one["PASSWORD"]) for one in _process.owner.values() if one.get("PASSWORD")]


def close_aliases() -> None:
    """Leave the aliases of PostgreSQL servers without a user that exists, unless they are open to tasks."""
    _process.has_open_aliases = False
    for alias in _process.owner:
        if alias not in conf().open_aliases:
            _set_alias(alias, settings_for(alias, NOBODY, ""))


def open_aliases_to_owner() -> None:
    """Give the aliases the owner's settings, as long as tasks of the public schema run."""
    settle()
    if _process.mode == "login":
        _process.has_open_aliases = True
        _thread.admitted = ()
        for alias in _process.owner:
            _set_alias(alias, owner_settings(alias))
        _drop_further()


def _drop_further() -> None:
    """Drop the main thread's connections to databases that are not switched, which have the settings of before."""
    for connection in connections.all(initialized_only=True):
        alias = connection.alias
        if alias in _process.owner and alias not in _process.switched and alias not in conf().open_aliases:
            _drop(alias)


def settings_for(alias: str, role: str, password: str) -> dict[str, Any]:
    """Return the settings of a database for a role, without what belongs to its owner."""
    found = without_service(owner_settings(alias)) | {"USER": role, "PASSWORD": password}
    options = {name: one for name, one in found.get("OPTIONS", {}).items() if name not in _OWNERS_OPTIONS}
    # With the login, so that Django needs no statement for it, and the role's own setting has no effect.
    zone = (found.get("TIME_ZONE") or "UTC") if settings.USE_TZ else settings.TIME_ZONE
    options["options"] = " ".join([str(options.get("options", "")), f"-c TimeZone={zone}"]).strip()
    return found | {"OPTIONS": options}


def _set_alias(alias: str, values: dict[str, Any]) -> None:
    """Set with which settings the connections of an alias are made from now on; existing ones keep theirs."""
    connections.settings[alias] = values
    settings.DATABASES[alias] = values


def open_as_tenant(
    made: Mapping[str, Any],
    role: str,
    *,
    park: Callable[[], None],
    prepare: Callable[[Any], None],
) -> None:
    """Give the aliases in this thread connections of a tenant's role, and in the main thread also their settings.

    Args:
        made: The connections, by alias.
        role: The tenant's role.
        park: Called when the tenant is no longer served; keeps or closes the connections.
        prepare: Called for each further connection that is made for the tenant.
    """
    _thread.owners = {alias: connections[alias] for alias in made}
    _thread.role, _thread.park = role, park
    for alias, connection in made.items():
        connections[alias] = connection
    if _is_main_thread():
        _process.role, _process.prepare = role, prepare
        for alias, connection in made.items():
            _set_alias(alias, connection.settings_dict)


def note_role(alias: str) -> None:
    """Note that this thread's session of a database has taken a tenant's role."""
    _thread.has_role = True
    if alias not in _thread.aliases:
        _thread.aliases = (*_thread.aliases, alias)


def take_role(role: str, aliases: Sequence[str]) -> None:
    """Have this thread's sessions act as a tenant's role, unless they do. Sessions opened later act as it too.

    In the main thread, so do the sessions of the threads that a task starts.
    """
    if not _thread.has_role:
        for alias in aliases:
            _switch_role(connections[alias], role)
    _thread.role, _thread.has_role, _thread.aliases = role, True, tuple(aliases)
    if _is_main_thread():
        _process.role, _process.aliases = role, tuple(aliases)
    for alias in aliases:
        for values in _settings_in_use(alias):
            values.setdefault("OPTIONS", {})["assume_role"] = role


def leave_role() -> None:
    """Act as the owner again in this thread. Sessions that have a tenant's role lose it before their next statement."""
    is_main = _is_main_thread()
    if _thread.role is None:
        _drop_admitted()  # the tenant could not be served there
        if is_main and _process.mode == "login" and _process.has_open_aliases:
            close_aliases()
            _drop_further()
        return
    _thread.role = None
    if is_main:
        _process.role = None
    if _process.mode == "role":
        for alias in _thread.aliases:
            for values in _settings_in_use(alias):
                _restore_assumed(values, _process.owner[alias])
        return
    for alias, connection in (_thread.owners or {}).items():
        connections[alias] = connection
    _thread.owners = None
    _drop_admitted()
    park, _thread.park = _thread.park, None
    if park is not None:
        park()
    if is_main:
        _process.prepare = None
        close_aliases()


def _drop_admitted() -> None:
    admitted, _thread.admitted = _thread.admitted, ()
    for alias in admitted:
        _drop(alias)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _settings_in_use(alias: str) -> list[dict[str, Any]]:
    """Return the settings that this thread's session of a database is opened with; in the main thread, any thread's.

    The completer's thread serves another tenant than the task that runs, and has settings of its own.
    """
    own = connections[alias].settings_dict
    return [connections.settings[alias], own] if _is_main_thread() else [own]


def prepare(connection: Any) -> None:
    """Prepare a connection that has the settings of its alias for the tenant that is served."""
    if _process.prepare is not None and connection.settings_dict.get("USER") == _process.role:
        _process.prepare(connection)
        connection.tenant_q_opened = True  # by a task: its role may have other settings than when it was verified


def follow(connection: Any) -> None:
    """Have a connection of a thread that a task started log in as the tenant that is served at that time.

    A thread of a pool lives longer than the task, and keeps its connection.
    """
    connection.connect = functools.partial(_connect_as_served, connection)


def _connect_as_served(connection: Any) -> None:
    now = connections.settings.get(connection.alias, {})
    if _process.mode == "login" and connection.settings_dict.get("USER") != now.get("USER"):
        connection.settings_dict = now
        vars(connection).pop("get_new_connection", None)
        prepare(connection)
        follow(connection)
    type(connection).connect(connection)


def is_of_tenant(connection: Any) -> bool:
    """Return whether the role of a tenant opens the sessions of a connection."""
    own = _process.owner.get(connection.alias)
    return _process.mode == "login" and own is not None and connection.settings_dict.get("USER") != own.get("USER")


def owner_connections() -> list[Any]:
    """Return this thread's connections of the owner while their aliases have those of a tenant."""
    return list((_thread.owners or {}).values())


def _restore_assumed(values: dict[str, Any], own: Mapping[str, Any]) -> None:
    options = values.setdefault("OPTIONS", {})
    if role := own.get("OPTIONS", {}).get("assume_role"):
        options["assume_role"] = role
    else:
        options.pop("assume_role", None)


def stay_owner() -> None:
    """Act as the owner in this further thread of the cluster until it ends."""
    _thread.is_ours = True


def base_role(alias: str) -> str:
    """Return the role that the owner's sessions of a database have: the project's `assume_role`, or "none"."""
    return str(_process.owner.get(alias, {}).get("OPTIONS", {}).get("assume_role") or "none")


def note_scrubbed() -> None:
    """Note that this thread's session lost a tenant's role when it was scrubbed."""
    _thread.has_role = False


def settle() -> None:
    """Give this thread's session the owner's role, if it still has that of a tenant and this thread acts as the owner.

    It costs a round trip. A worker that goes on to another tenant needs none: `verify_schema.sql` changes the role.
    """
    if _thread.has_role and _thread.role is None:
        _thread.has_role = False
        for alias in _thread.aliases:
            _switch_role(connections[alias], base_role(alias))


@contextmanager
def as_owner(*, needs_rights: bool = True) -> Iterator[None]:
    """Run a block of tenant_q's own statements as the owner of the tables.

    In a thread that a task started, a connection is opened for the block under "login".

    Args:
        needs_rights: Whether the block needs rights that the tenant's role lacks. Otherwise a session stays in the
            role that it has under "role", which saves two round trips.
    """
    if not needs_rights and _process.mode == "role":
        yield
        return
    if not is_as_tenant():
        settle()
        yield
        return
    _thread.is_owner = True
    try:
        with _owners_role() if _process.mode == "role" else _owners_connections():
            yield
    finally:
        _thread.is_owner = False


def is_as_tenant() -> bool:
    """Return whether this thread acts as a tenant's role: one of the cluster, or one that a task started."""
    return is_isolated() and not _thread.is_owner and _acts_as_tenant()


def _acts_as_tenant() -> bool:
    if _thread.role is not None:
        return True
    is_cluster = _thread.is_ours or threading.current_thread() is threading.main_thread()
    return not is_cluster and _process.role is not None


@contextmanager
def _owners_role() -> Iterator[None]:
    role, aliases = _thread.role or _process.role or "none", _thread.aliases or _process.aliases
    for alias in aliases:
        _switch_role(connections[alias], base_role(alias))
    try:
        yield
    finally:
        for alias in aliases:
            _switch_role(connections[alias], role)


def _switch_role(connection: Any, role: str) -> None:
    """Switch an open session to a role. In a failed transaction it is left: the rollback restores the role."""
    raw = connection.connection
    if raw is None or raw.closed or raw.info.transaction_status == TransactionStatus.INERROR:
        return
    with connection.wrap_database_errors, psycopg.ClientCursor(raw) as cursor:
        cursor.execute(sql.SQL(statement("switch_role")).format(role=sql.Literal(role)))


@contextmanager
def _owners_connections() -> Iterator[None]:
    owners, is_temporary = _thread.owners, _thread.owners is None
    if owners is None:
        owners = {alias: open_owner(alias) for alias in connections if alias in _process.owner}
    replaced = {alias: connections[alias] for alias in owners}
    try:
        for alias, connection in owners.items():
            connections[alias] = connection
        yield
    finally:
        for alias, connection in replaced.items():
            connections[alias] = connection
        if is_temporary:
            for connection in owners.values():
                connection.close()


def open_owner(alias: str) -> Any:
    """Return a new connection of the owner to a database. It opens its session with its first statement."""
    connection = connections.create_connection(alias)
    for name in ("connect", "get_new_connection"):
        vars(connection).pop(name, None)
    connection.settings_dict = owner_settings(alias)
    return connection
