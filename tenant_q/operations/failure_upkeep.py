"""Complete the index of failures: find failures from before a schema was in it, and the causes of pending entries.

A worker's own failures need none of this. The scheduler does it, a portion at a time.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import UnknownTenant
from tenant_q.lifecycle import failure_entries, row_signing
from tenant_q.lifecycle.failure_entries import Known, storable
from tenant_q.lifecycle.failure_text import read_failure
from tenant_q.lifecycle.task_statements import table_of
from tenant_q.models import Failure, IndexedFailures
from tenant_q.models.failures import LONGEST_CAUSE, LONGEST_SCHEDULE
from tenant_q.package.package import SCHEDULE
from tenant_q.package.plain_pickles import begins_list, text_of
from tenant_q.schedules.index_statements import call, fetch
from tenant_q.schedules.index_upkeep import INSTALL_LOCK_MS
from tenant_q.sql import statement

SWEPT_AT_ONCE = 5000
"""The rows of a task table that are compared with the index at once."""
FILLED_AT_ONCE = 200
"""The pending entries whose rows are read at once."""
MOST_BYTES = 4 * 1024 * 1024
"""The largest result that is read for its cause, and about the most of all that are read at once."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A failed row, as far as its cause and schedule depend on it."""

    id: str
    func: str | None
    hook: str | None
    cluster: str | None
    group: str | None
    result: str | None
    is_left: bool


def unfinished() -> list[str]:
    """Return the schemas that have pending entries, or rows that were not compared yet, with one statement.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    indexed = IndexedFailures.objects.using(tenancy.database_alias())
    unswept = indexed.filter(swept__isnull=False).values_list("schema_name")
    pending = Failure.rows().filter(is_pending=True).values_list("schema_name")
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return sorted(name for (name,) in unswept.union(pending))


def work_on(schema: str) -> bool:
    """Complete a portion of a schema's failures in the index: compare some rows with it, or else find some causes.

    Args:
        schema: The schema as PostgreSQL names it.

    Returns:
        Whether there may be more to do. Entries that a transaction has locked are left for another time.

    Raises:
        DatabaseError: The schema's table is locked or cannot be read.
        ForeignCode: The schema's table would run code of another role.
        DatabaseAway: The database cannot be reached.
    """
    return tenancy.retry_conflicts(lambda: _sweep(schema) or _fill(schema))


def _sweep(schema: str) -> bool:
    """Add failures of a schema to the index that are not in it, among its next rows. Return whether rows are left."""
    with tenancy.in_patient_transaction(INSTALL_LOCK_MS):
        ((has_more,),) = fetch(call("SELECT {}({})", "tenant_q_sweep_failures", schema, SWEPT_AT_ONCE))
        return bool(has_more)


def _fill(schema: str) -> bool:
    """Add the causes of a schema's next pending entries, or remove those whose failed rows are gone.

    Returns:
        Whether there may be more of them.
    """
    with tenancy.as_owner_in_public(), tenancy.in_patient_transaction(INSTALL_LOCK_MS):
        # Workers lock a foreign table, too, before they wait for an entry.
        tenancy.require_plain_tables([schema], tenancy.TASK_TABLE)
        entries = Failure.rows().filter(schema_name=schema, is_pending=True).select_for_update(skip_locked=True)
        pending = dict(entries.order_by("task_id").values_list("task_id", "stopped")[:FILLED_AT_ONCE])
        if not pending:
            return False
        rows = _read(schema, list(pending))
        failure_entries.add_known([_known(schema, row, pending[row.id]) for row in rows if not row.is_left])
        gone = pending.keys() - {row.id for row in rows}
        Failure.rows().filter(schema_name=schema, task_id__in=gone, is_pending=True).delete()
        return len(pending) == FILLED_AT_ONCE or any(row.is_left for row in rows)


def _read(schema: str, ids: Sequence[str]) -> list[_Row]:
    query = sql.SQL(statement("failed_rows")).format(table=table_of(schema))
    with tenancy.raw_cursor() as cursor:
        return [_Row(*row) for row in cursor.execute(query, {"ids": ids, "most": MOST_BYTES}).fetchall()]


def _known(schema: str, row: _Row, stopped: datetime) -> Known:
    return Known(
        schema_name=schema,
        task_id=row.id,
        stopped=stopped.isoformat(),
        cause=storable(_cause(row.result), LONGEST_CAUSE),
        schedule=storable(_schedule(schema, row), LONGEST_SCHEDULE),
    )


def _cause(result: str | None) -> str:
    """Return the cause in a stored result, which is not unpickled; empty if it shows none."""
    try:
        pickled = b64decode(result or "")
        return "IterPartFailed" if begins_list(pickled) else read_failure(text_of(pickled) or "").cause
    except ValueError:
        return ""


def _schedule(schema: str, row: _Row) -> str:
    """Return the schedule that fired a failed task, whose group it is; empty if its signature says otherwise."""
    try:
        signed = row_signing.verified_column(row.result, "result", row, tenancy.logical_schema(schema))
    except UnknownTenant:
        return ""
    return row.group or "" if signed is not None and signed.origin == SCHEDULE else ""
