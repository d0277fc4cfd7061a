"""The one transaction of a transactional task, in which its work is done and its row is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django_q.models import Task

from tenant_q.exceptions import DatabaseAway, RolledBack, TenantBusy
from tenant_q.lifecycle import step_engine, task_rows
from tenant_q.package.package import Package
from tenant_q.support.lock_keys import lock_key
from tenant_q.support.log_labels import get_logger
from tenant_q.tenancy import DATABASE_ERRORS, detect_outages, tenant_connection

logger = get_logger("tenant_q.transactional")


@contextmanager
def one_transaction(package: Package) -> Iterator[Task | None]:
    """Run a transactional task in the block, in one transaction that excludes all its other deliveries.

    The block does the work of the task and writes its row. Both are committed, or neither.

    Args:
        package: The task.

    Yields:
        The row of an earlier delivery that has succeeded, or None.

    Raises:
        TenantBusy: Another delivery of the task is running.
        DatabaseAway: The database was lost before the commit was confirmed.
        RolledBack: The block rolled back its own transaction.
    """
    connection = tenant_connection()
    connection.ensure_connection()
    session = connection.connection
    committed: list[bool] = []
    is_outermost = not connection.in_atomic_block
    try:
        with detect_outages(), transaction.atomic(using=connection.alias):
            if is_outermost:
                transaction.on_commit(lambda: committed.append(True), using=connection.alias)
            _lock_out_others(package)
            yield _earlier_success(package)
    except Exception as error:
        if not committed:
            # Django may have connected anew meanwhile.
            if isinstance(error, DATABASE_ERRORS) and session.closed and is_outermost:
                raise DatabaseAway(f"The session of {package.id} was lost: {' '.join(str(error).split())}") from error
            raise
        logger.exception(
            "%s succeeded, but a function that it registered with on_commit() failed",
            package.name,
            event="task.on_commit_failed",
            extra=package.log_labels,
        )
    if is_outermost and not committed:
        raise RolledBack("the task rolled back its own transaction, so its result is not kept either")


def _earlier_success(package: Package) -> Task | None:
    """Return the row of an earlier delivery of a transactional task that has succeeded. A step has its own row."""
    if step_engine.engine_for(package) is not None:
        return None
    return next(iter(task_rows.load_success(task_rows.rows().filter(id=package.id, success=True))), None)


def _lock_out_others(package: Package) -> None:
    key = lock_key(f"{package.schema};{package.id}")
    with tenant_connection().cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_try_advisory_xact_lock(%s)", [key])
        if not cursor.fetchone()[0]:
            raise TenantBusy(f"Another delivery of {package.id} is being run right now.")
