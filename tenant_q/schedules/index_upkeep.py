"""Put schemas into a due index, take them out, and compare them with it.

Each function is for the index of schedules unless it gets another one. The triggers notice every change of a row. They
do not notice a schema that is new, restored, renamed or dropped: `stale_schemas()` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway
from tenant_q.schedules import index_rights
from tenant_q.schedules.catalogue import Function, Table, has_all
from tenant_q.schedules.index_statements import call, execute, fetch, in_public
from tenant_q.schedules.schema_indexes import FAILURES, SCHEDULES, SchemaIndex
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.due_index")

INSTALL_LOCK_MS = 250
"""The longest wait for a locked table, in milliseconds: meanwhile the other schemas wait too."""


# Schemas come and go


def install(schema: str, index: SchemaIndex = SCHEDULES) -> bool:
    """Put a schema's rows into the due index, and the triggers on its table.

    Returns:
        Whether it succeeded. It does not while another transaction locks the table, or without the rights.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    return _install(schema, index) is None


def _install(schema: str, index: SchemaIndex) -> str | None:
    """Put a schema into the due index as `install` does. Return why it failed, or None."""
    try:
        tenancy.retry_conflicts(lambda: _install_in_transaction(schema, index))
    except DatabaseAway:
        raise
    except tenancy.DATABASE_ERRORS as error:  # locked by a migration, for example; it stays stale until the next try
        return index_rights.why_not(schema, error, index)
    return None


def _install_in_transaction(schema: str, index: SchemaIndex) -> None:
    with tenancy.in_patient_transaction(INSTALL_LOCK_MS):
        install_now(schema, index)


def install_now(schema: str, index: SchemaIndex = SCHEDULES) -> None:
    """Put a schema into the due index in the caller's transaction. Raises `DatabaseError` if its table is locked."""
    execute(call("SELECT {}({})", index.install, schema))


def forget(schema: str, index: SchemaIndex = SCHEDULES) -> None:
    """Take a schema that is gone out of the due index. Raises `DatabaseAway`."""
    execute(call("SELECT {}({})", index.forget, schema))


def install_where_migrated(*, app_config: Any, using: str, **_: Any) -> None:
    """Receive `post_migrate`: put the migrated schema into the indexes of schedules and failures."""
    for index in (SCHEDULES, FAILURES):
        install_migrated(app_config.name, using, index)


def install_migrated(app: str, using: str, index: SchemaIndex) -> None:
    """Put the current schema into an index after a migration, if both have their tables.

    Args:
        app: The name of the app that was migrated: the signal comes once for each.
        using: The alias of the database that was migrated.
        index: The index.
    """
    if using != tenancy.database_alias() or app != index.app:
        return
    schema = tenancy.physical_schema(tenancy.current_schema())
    if not index.tenants_among([schema]):
        return
    if has_all(Table(index.known), Function(index.install), Table(index.table, schema)):
        _install_as_migrating_role(schema, using, index)


def _install_as_migrating_role(schema: str, using: str, index: SchemaIndex) -> None:
    """Put a schema into an index as far as this role may, and leave the rest to the cluster."""
    if _try_call(index.install, schema, using) is None:
        return
    if refusal := _try_call(index.install_triggers, schema, using):
        logger.warning(
            "Left the %s of %s to the cluster, which puts them into the index: %s",
            index.what,
            schema,
            index_rights.why_not(schema, refusal, index),
            event="due_index.schema_left_out",
            extra={"schema": schema},
        )


def _try_call(function: str, schema: str, using: str) -> BaseException | None:
    """Call a function of the due index for a schema. Return the error if this role lacks a right; raise others."""
    try:
        with transaction.atomic(using=using):
            execute(call("SELECT {}({})", function, schema))
    except tenancy.DATABASE_ERRORS as error:
        if not isinstance(error.__cause__ or error, index_rights.REFUSED):
            raise
        return error
    return None


# Index and schemas, compared


def stale_schemas(*, thorough: bool = False, index: SchemaIndex = SCHEDULES) -> list[tuple[str, bool]]:
    """Return the schemas that differ from the due index, each with whether it is to be forgotten.

    A schema is forgotten when it is gone, and when it is not a tenant's: another application may have a table of that
    name. It costs one statement while nothing is stale.

    Args:
        thorough: Whether to check all schemas in the index for being a tenant's, not only those that differ.
        index: The index.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    found: dict[str, bool] = dict(fetch(call("SELECT * FROM {}({})", index.stale)))
    unsure = {schema for schema, is_gone in found.items() if not is_gone}
    if not unsure and not thorough:
        return list(found.items())
    known = known_schemas(index)
    checked = unsure | known if thorough else unsure
    strangers = checked - index.tenants_among(checked)
    found |= dict.fromkeys(strangers & known, True)
    return [(schema, is_gone) for schema, is_gone in found.items() if schema not in strangers - known]


def bring_up_to_date(stale: Sequence[tuple[str, bool]], index: SchemaIndex = SCHEDULES) -> list[tuple[str, str]]:
    """Bring the due index up to date: put stale schemas into it, or take them out.

    Args:
        stale: The schemas, as from `stale_schemas`.
        index: The index.

    Returns:
        The schemas that could not be installed, each with the reason.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    left = []
    for schema, is_gone in stale:
        if is_gone:
            forget(schema, index)
        elif reason := _install(schema, index):
            left.append((schema, reason))
    return left


def indexed_schemas(index: SchemaIndex = SCHEDULES) -> list[str]:
    """Return every schema that the due index knows, or should know. Raises `DatabaseAway`."""
    return sorted(known_schemas(index) | {schema for schema, _ in stale_schemas(index=index)})


def known_schemas(index: SchemaIndex = SCHEDULES) -> set[str]:
    """Return the schemas that the due index knows. Raises `DatabaseAway`."""
    return {schema for (schema,) in fetch(sql.SQL("SELECT schema_name FROM {}").format(in_public(index.known)))}


def errors(schema: str, index: SchemaIndex = SCHEDULES) -> int:
    """Compare a schema with the due index, and return the number of its rows that are wrong there.

    Raises:
        DatabaseAway: The database cannot be reached.
        DatabaseError: The schema's table is locked or cannot be read.
    """
    return errors_of([schema], index)[schema]


def errors_of(schemas: Sequence[str], index: SchemaIndex = SCHEDULES) -> dict[str, int]:
    """Compare several schemas with the due index as `errors` does, in one round trip. Raises the same errors."""
    query = sql.SQL("SELECT name, {}(name) FROM pg_catalog.unnest({}::pg_catalog.text[]) AS asked (name)").format(
        in_public(index.errors), sql.Literal(list(schemas))
    )
    with tenancy.in_patient_transaction(INSTALL_LOCK_MS):
        return {schema: int(count) for schema, count in fetch(query)}
