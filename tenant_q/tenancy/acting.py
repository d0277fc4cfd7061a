"""The database role as which a thread of a worker acts: the tables' owner, or the tenant that it serves.

`TENANT_Q["isolation"]` decides how. Under "role" a worker's session switches between the owner and the tenant's role.
Under "login" the alias of the tenants' database has a connection that the tenant's role opened while its tasks run;
what tenant_q does itself goes over connections of the owner, which no alias names then. Under "path", and in all other
processes, everything acts as the owner, and nothing here has an effect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from django.conf import settings
from django.db import connections

from tenant_q.conf import conf
from tenant_q.exceptions import TenantNotAuthorized
from tenant_q.tenancy.owner_blocks import settle, switch_role
from tenant_q.tenancy.owner_settings import open_owner, owner_settings, settings_for, with_environment
from tenant_q.tenancy.worker_state import (
    forget_threads,
    is_of_cluster,
    note_threads,
    process,
    schema_of_thread,
    thread,
)

# The user of an alias in the settings under "login": no role has this name.
NOBODY = "tenant_q_nobody"
POSTGRESQL = "postgresql"


def logs_in() -> bool:
    """Return whether the served tenant's tasks have sessions that its own role opened."""
    return process.mode == "login" and thread.role is not None


def login_role() -> str | None:
    """Return the role that opens the sessions of this thread under "login"; None for the owner."""
    return thread.role if process.mode == "login" else None


def isolate(mode: str, switched: Sequence[str]) -> None:
    """Isolate tenants in this worker from now on. The main thread calls it before it serves a tenant.

    Each thread that is started from then on belongs to the tenant that is served at that moment. Under "login" the
    settings of the aliases lose the owner's name and password, so that no task finds them there.

    Args:
        mode: "role" or "login".
        switched: The aliases of the databases that are switched for every task.
    """
    process.mode, process.role = mode, None
    process.owner = {
        alias: with_environment(deepcopy(one)) for alias, one in connections.settings.items() if _is_postgresql(alias)
    }
    process.originals = {alias: connections.settings[alias] for alias in process.owner}
    note_threads()
    if mode != "login":
        return
    process.switched = tuple(switched)
    for alias in process.owner:
        if alias in switched:
            connections[alias].settings_dict = owner_settings(alias)
        else:
            _drop(alias)
        if alias not in conf().open_aliases:
            connections.settings[alias] = settings.DATABASES[alias] = settings_for(alias, NOBODY, "")


def admit_owner(aliases: Iterable[str]) -> None:
    """Give this thread connections of the owner to further databases of a task, to verify the schema there."""
    for alias in aliases:
        if process.mode == "login" and alias not in process.switched and alias in process.owner:
            connections[alias] = open_owner(alias)
            thread.admitted = (*thread.admitted, alias)


def _drop(alias: str) -> None:
    """Drop this thread's connection to a database, so that the next one is made with the settings of its alias."""
    connections[alias].close()
    del connections[alias]


def forget() -> None:
    """Act as the owner again in this process, which is no worker, or no longer one."""
    if process.mode == "login":
        for alias, one in process.originals.items():
            connections.settings[alias] = settings.DATABASES[alias] = one
    forget_threads()
    process.mode, process.owner, process.role, process.schema = "path", {}, None, None
    thread.owners = thread.role = None
    thread.has_role = thread.is_owner = False


def _is_postgresql(alias: str) -> bool:
    return bool(connections[alias].vendor == POSTGRESQL)


def serve_public(schema: str) -> None:
    """Have the threads that tasks of the public schema start act as the owner."""
    settle()
    process.schema, process.public = schema, (schema,)
    if process.mode == "login":
        _drop_further()
        process.values = {alias: owner_settings(alias) for alias in process.owner}


def _drop_further() -> None:
    """Drop the main thread's connections to databases that are not switched: whom they act as changes."""
    thread.admitted = ()
    for connection in connections.all(initialized_only=True):
        alias = connection.alias
        if alias in process.owner and alias not in process.switched and alias not in conf().open_aliases:
            _drop(alias)


def open_as_tenant(
    made: Mapping[str, Any],
    schema: str,
    role: str,
    *,
    park: Callable[[], None],
    prepare: Callable[[Any], None],
) -> None:
    """Give the aliases in this thread connections of a tenant's role, which the threads of its tasks get too.

    Args:
        made: The connections, by alias.
        schema: The schema of the tenant.
        role: The tenant's role.
        park: Called when the tenant is no longer served; keeps or closes the connections.
        prepare: Called for each further connection that is made for the tenant.
    """
    thread.owners = {alias: connections[alias] for alias in made}
    thread.role, thread.park = role, park
    for alias, connection in made.items():
        connections[alias] = connection
    if _is_main_thread():
        process.schema, process.role, process.prepare = schema, role, prepare
        process.values = {alias: connection.settings_dict for alias, connection in made.items()}


def note_role(alias: str) -> None:
    """Note that this thread's session of a database has taken a tenant's role."""
    thread.has_role = True
    if alias not in thread.aliases:
        thread.aliases = (*thread.aliases, alias)


def take_role(schema: str, role: str, aliases: Sequence[str]) -> None:
    """Have this thread's sessions act as a tenant's role, unless they do. Sessions opened later act as it too.

    In the main thread, so do the sessions of the threads that a task starts.
    """
    if not thread.has_role:
        for alias in aliases:
            switch_role(connections[alias], role)
    thread.role, thread.has_role, thread.aliases = role, True, tuple(aliases)
    if _is_main_thread():
        process.schema, process.role, process.aliases = schema, role, tuple(aliases)
    for alias in aliases:
        for values in _settings_in_use(alias):
            values.setdefault("OPTIONS", {})["assume_role"] = role


def leave_role() -> None:
    """Act as the owner again in this thread. Sessions that have a tenant's role lose it before their next statement."""
    if _is_main_thread():
        if process.mode == "login" and process.schema in process.public:
            _drop_further()
        process.schema = process.role = process.prepare = None
        process.values = {}
    if thread.role is None:
        _drop_admitted()  # the tenant could not be served there
        return
    thread.role = None
    if process.mode == "role":
        for alias in thread.aliases:
            for values in _settings_in_use(alias):
                _restore_assumed(values, process.owner[alias])
        return
    for alias, connection in (thread.owners or {}).items():
        connections[alias] = connection
    thread.owners = None
    _drop_admitted()
    park, thread.park = thread.park, None
    if park is not None:
        park()


def _drop_admitted() -> None:
    admitted, thread.admitted = thread.admitted, ()
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
    """Prepare a connection that was just made in any thread: those of a tenant's tasks get the tenant's settings.

    A thread that a task of another tenant has started gets none, so it cannot connect. The completer's thread has
    settings of its own, although it may be started while a tenant is served.
    """
    if (
        process.mode != "login"
        or thread.is_ours
        or connection.alias not in process.owner
        or connection.alias in conf().open_aliases
    ):
        return
    values = process.values.get(connection.alias) if _is_served() else None
    if values is not None:
        connection.settings_dict = values
        if process.prepare is not None:
            process.prepare(connection)
    elif not is_of_cluster():
        connection.connect = refuse_unserved


def _is_served() -> bool:
    """Return whether this thread works for the tenant that is served."""
    return process.schema is not None and schema_of_thread() == process.schema


def refuse_unserved() -> None:
    """Refuse a session to a thread that works for no tenant, or for another one than the one that is served.

    Raises:
        TenantNotAuthorized: It does.
    """
    if process.mode != "login" or is_of_cluster() or _is_served():
        return
    raise TenantNotAuthorized(
        "A thread asks for a session that works for no tenant, or for another one than the one that is served now; "
        "start threads in the task that needs them, and end them with it."
    )


def is_of_tenant(connection: Any) -> bool:
    """Return whether the role of a tenant opens the sessions of a connection."""
    own = process.owner.get(connection.alias)
    return process.mode == "login" and own is not None and connection.settings_dict.get("USER") != own.get("USER")


def owner_connections() -> list[Any]:
    """Return this thread's connections of the owner while their aliases have those of a tenant."""
    return list((thread.owners or {}).values())


def _restore_assumed(values: dict[str, Any], own: Mapping[str, Any]) -> None:
    options = values.setdefault("OPTIONS", {})
    if role := own.get("OPTIONS", {}).get("assume_role"):
        options["assume_role"] = role
    else:
        options.pop("assume_role", None)


def stay_owner() -> None:
    """Act as the owner in this further thread of the cluster until it ends."""
    thread.is_ours = True
