"""What a worker that isolates tenants keeps: as whom the process and each of its threads act.

A thread belongs to the tenant that is served when it is started, or to that of the thread that starts it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Process:
    """How a worker isolates tenants, the owner's settings of all databases, and whom it serves."""

    mode: str = "path"
    owner: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The settings themselves, as they were before.
    originals: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The role of the tenant that the main thread serves, and the aliases that have it.
    role: str | None = None
    aliases: tuple[str, ...] = ()
    # The aliases of the databases that are switched for every task.
    switched: tuple[str, ...] = ()
    # The public schema, whose tasks are not restricted.
    public: tuple[str, ...] = ()
    # The schema that is served, and with which settings the threads of its tasks connect, by alias.
    schema: str | None = None
    values: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    # How a connection that such a thread makes is prepared.
    prepare: Callable[[Any], None] | None = None


class Thread(threading.local):
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


# The attribute of a thread with the schema for which it was started.
_SCHEMA = "_tenant_q_schema"
_Class: Any = threading.Thread
_start_thread = threading.Thread.start

process = Process()
thread = Thread()


def mode() -> str:
    """Return how this process isolates tenants. It is "path" in all processes but workers."""
    return process.mode


def is_isolated() -> bool:
    """Return whether this process serves tenants as their own roles."""
    return process.mode != "path"


def note_threads() -> None:
    """Note with each thread that is started from now on for which tenant it works."""
    _Class.start = _start


def forget_threads() -> None:
    """Start threads without a note again."""
    _Class.start = _start_thread


def is_of_cluster() -> bool:
    """Return whether this thread is one of the cluster's own, and not one that a task has started."""
    return thread.is_ours or threading.current_thread() is threading.main_thread()


def _start(started: threading.Thread) -> None:
    """Start a thread, which belongs to the tenant for which the present thread works."""
    vars(started)[_SCHEMA] = schema_of_thread()
    _start_thread(started)


def schema_of_thread() -> str | None:
    """Return the schema for which this thread works: that which is served, or was when the thread was started."""
    if threading.current_thread() is threading.main_thread():
        return process.schema
    found: str | None = vars(threading.current_thread()).get(_SCHEMA)
    return found


def restriction_of_thread() -> str | None:
    """Return the schema to which a thread is restricted that a tenant's task has started under "login"; else None."""
    if process.mode != "login" or threading.current_thread() is threading.main_thread():
        return None
    schema = schema_of_thread()
    return None if schema is None or schema in process.public else schema
