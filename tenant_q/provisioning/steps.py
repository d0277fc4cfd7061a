"""Carry out an operation on a tenant as a sequence of steps that the same command continues after a kill anywhere.

A row in the public schema names the operation and the last step that was carried out. A step may be carried out again,
because its process may die before the row is written: each one looks before it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connections, transaction
from psycopg import errors

from tenant_q import tenancy
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantOperation
from tenant_q.provisioning import admin_connection
from tenant_q.support.lock_keys import lock_key
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.provisioning")

# A command that was killed keeps its lock until the server notices, which takes a moment.
_LOCK_TIMEOUT = "5s"


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an operation on a tenant.

    Attributes:
        name: Its name in the row of the operation.
        act: Looks what is there, and does what is missing.
    """

    name: str
    act: Callable[[], None]


@contextmanager
def operation_lock(schema: str) -> Iterator[None]:
    """Keep other operations on a tenant out while a block runs, by an advisory lock.

    It belongs to a session of its own, because the tenancy packages close the tenants' connection after migrations.

    Raises:
        ProvisioningError: Another command works on the tenant.
        DatabaseAway: The database cannot be reached.
    """
    tenancy.require_authorized(schema)
    key = lock_key(f"tenant_q.operation:{tenancy.physical_schema(schema)}")
    with _session_for_lock() as session:
        try:
            session.execute("SELECT pg_catalog.pg_advisory_lock(%s)", [key])
        except errors.LockNotAvailable as error:
            raise ProvisioningError(
                f"Another command works on the tenant {schema!r}; wait until it has ended, then try again."
            ) from error
        try:
            yield
        finally:
            if not session.closed:
                session.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", [key])


@contextmanager
def _session_for_lock() -> Iterator[psycopg.Connection[Any]]:
    if admin_connection.is_configured():
        with admin_connection.admin_session() as session:
            yield session
        return
    with tenancy.detect_outages():
        connection = connections.create_connection(tenancy.database_alias())
        connection.ensure_connection()
    try:
        connection.connection.execute(f"SET lock_timeout TO '{_LOCK_TIMEOUT}'")
        yield connection.connection
    finally:
        connection.close()


def open_operation(schema: str) -> TenantOperation | None:
    """Return the operation on a tenant that has not ended, or None. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found: TenantOperation | None = _rows().filter(schema_name=schema).first()
    return found


def begin(
    schema: str,
    kind: str,
    found: TenantOperation | None,
    *,
    actor: str,
    arguments: Mapping[str, Any] | None = None,
) -> TenantOperation:
    """Record that an operation on a tenant begins, or return the record of the same one that has not ended.

    Args:
        schema: The schema name of the tenant.
        kind: The operation, which is also the name of its command.
        found: The operation that has not ended, from `open_operation`; None if there is none.
        actor: Who asked for it.
        arguments: What an operator should know of its arguments, in types of JSON. Nothing secret.

    Raises:
        ProvisioningError: Another operation on the tenant has not ended.
        DatabaseAway: The database cannot be reached.
    """
    values = {"kind": kind, "actor": actor[:150], "arguments": dict(arguments or {})}
    if found is None:
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            made: TenantOperation = _rows().create(schema_name=schema, **values)
        return made
    if found.kind != kind:
        raise ProvisioningError(
            f"A {found.kind} of the tenant {schema!r} has not ended, so no {kind} can begin; "
            f"run `python manage.py mstenant {found.kind} {schema}` again, which continues it."
        )
    logger.info(
        "The %s of %s that %s began is continued after the step %r",
        kind,
        schema,
        found.actor,
        found.step,
        event="provisioning.continued",
        extra={"schema": schema},
    )
    if found.arguments != values["arguments"]:  # all steps, because those that are done may have to do more now
        found.arguments, found.step = dict(arguments or {}), ""
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            found.save(using=tenancy.database_alias(), update_fields=["arguments", "step"])
    return found


def run_steps(
    operation: TenantOperation, steps: Sequence[Step], *, last: Step, progress: Callable[[str], None] | None = None
) -> None:
    """Carry out the steps of an operation in order, from the first that is not recorded.

    Args:
        operation: The row of the operation, from `begin`.
        steps: All steps but the last one. Each looks before it acts, so it may be carried out again.
        last: The last step. It is one transaction with the end of the operation, so it happens once.
        progress: Is called with the name of each step before it is carried out.

    Raises:
        DatabaseAway: The database cannot be reached.
        Exception: What a step raises. The same command continues with that step.
    """
    show = progress or (lambda name: None)
    for step in _remaining(operation, steps):
        show(step.name)
        step.act()
        if step is not steps[-1]:  # the last of them is as cheap to look at as to record
            with tenancy.detect_outages(), tenancy.as_owner_in_public():
                _rows().filter(pk=operation.pk).update(step=step.name)
                operation.step = step.name
    show(last.name)
    alias = tenancy.database_alias()
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        last.act()
        _rows().filter(pk=operation.pk).delete()


def _remaining(operation: TenantOperation, steps: Sequence[Step]) -> Sequence[Step]:
    names = [step.name for step in steps]
    # An unknown step is one of another release. All steps look before they act, so they may all be carried out again.
    return steps[names.index(operation.step) + 1 :] if operation.step in names else steps


def _rows() -> Any:
    return TenantOperation.objects.using(tenancy.database_alias())
