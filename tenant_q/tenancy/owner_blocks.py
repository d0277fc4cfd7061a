"""Run tenant_q's own statements as the owner of the tables while a worker serves a tenant as its role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connections
from psycopg import sql
from psycopg.pq import TransactionStatus

from tenant_q.sql import statement
from tenant_q.tenancy.owner_settings import base_role, open_owner
from tenant_q.tenancy.worker_state import is_isolated, is_of_cluster, process, thread


def note_scrubbed() -> None:
    """Note that this thread's session lost a tenant's role when it was scrubbed."""
    thread.has_role = False


def settle() -> None:
    """Give this thread's session the owner's role, if it still has that of a tenant and this thread acts as the owner.

    It costs a round trip. A worker that goes on to another tenant needs none: `verify_schema.sql` changes the role.
    """
    if thread.has_role and thread.role is None:
        thread.has_role = False
        for alias in thread.aliases:
            switch_role(connections[alias], base_role(alias))


@contextmanager
def as_owner(*, needs_rights: bool = True) -> Iterator[None]:
    """Run a block of tenant_q's own statements as the owner of the tables.

    In a thread that a task started, a connection is opened for the block under "login".

    Args:
        needs_rights: Whether the block needs rights that the tenant's role lacks. Otherwise a session stays in the
            role that it has under "role", which saves two round trips.
    """
    if not needs_rights and process.mode == "role":
        yield
        return
    if not is_as_tenant():
        settle()
        yield
        return
    thread.is_owner = True
    try:
        with _owners_role() if process.mode == "role" else _owners_connections():
            yield
    finally:
        thread.is_owner = False


def is_as_tenant() -> bool:
    """Return whether this thread acts as a tenant's role: one of the cluster, or one that a task started."""
    return is_isolated() and not thread.is_owner and _acts_as_tenant()


def _acts_as_tenant() -> bool:
    if thread.role is not None:
        return True
    return not is_of_cluster() and process.role is not None


@contextmanager
def _owners_role() -> Iterator[None]:
    role, aliases = thread.role or process.role or "none", thread.aliases or process.aliases
    for alias in aliases:
        switch_role(connections[alias], base_role(alias))
    try:
        yield
    finally:
        for alias in aliases:
            switch_role(connections[alias], role)


def switch_role(connection: Any, role: str) -> None:
    """Switch an open session to a role. In a failed transaction it is left: the rollback restores the role."""
    raw = connection.connection
    if raw is None or raw.closed or raw.info.transaction_status == TransactionStatus.INERROR:
        return
    with connection.wrap_database_errors, psycopg.ClientCursor(raw) as cursor:
        cursor.execute(sql.SQL(statement("switch_role")).format(role=sql.Literal(role)))


@contextmanager
def _owners_connections() -> Iterator[None]:
    owners, is_temporary = thread.owners, thread.owners is None
    if owners is None:
        owners = {alias: open_owner(alias) for alias in connections if alias in process.owner}
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
