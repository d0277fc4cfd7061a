"""Save rows one by one through the ORM, in the tenants' schemas, so that the project's `post_save` receivers run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

from django_q.models import Task
from picklefield.fields import PickledObject

from tenant_q.lifecycle import failure_entries, task_rows
from tenant_q.lifecycle.outcome_rows import CANCELLED_MARK, Key, Owner, as_pickled, as_task, signed_values
from tenant_q.package.outcome import Outcome
from tenant_q.scrubbing import shared_caches
from tenant_q.support.forks import no_return
from tenant_q.tenancy import (
    acting_as,
    database_alias,
    detect_outages,
    in_patient_transaction,
    in_verified_schema,
    plain_tables_query,
    require_plain_tables,
)

# The mark of a cancelled task is within this many characters at the beginning of its result.
_CANCELLED_REACH = 40


class _Row(Enum):
    """The kind of a task's row."""

    SUCCESS = "success"
    CANCELLED = "cancelled"
    FAILURE = "failure"


def save(by_tenant: Mapping[Owner, Sequence[Outcome]]) -> set[Key]:
    """Save the rows of outcomes one by one, through the ORM.

    Args:
        by_tenant: The outcomes of each tenant.

    Returns:
        The keys of cancelled tasks, whose rows were left as they are.

    Raises:
        DatabaseAway: The database does not answer.
        TenantUnavailable: The tenant's schema cannot be entered.
    """
    cancelled: set[Key] = set()
    for (schema, tenant), outcomes in by_tenant.items():
        with detect_outages(), in_verified_schema(schema, tenant=tenant), acting_as(schema), _plain_tables(schema):
            shared_caches.clear_known_caches()
            for outcome in outcomes:
                task = as_task(outcome)
                task.args, task.kwargs = as_pickled(task.args), as_pickled(task.kwargs)
                task.hook = None  # Django-Q2's receiver would call it now; it is called once, after all is saved
                row = task_rows.rows().filter(id=task.id)
                with _row_before(row) as before:
                    if before is _Row.CANCELLED:
                        cancelled.add((schema, task.id))
                    elif before is not _Row.SUCCESS:
                        with no_return():
                            task.save(using=database_alias(), force_insert=before is None)
                            # Sign the values as the receivers left them, not the row's: others may have changed it.
                            signed = signed_values(outcome.package, task.args, task.kwargs, task.result)
                        texts = {name: PickledObject(signed[name]) for name in task_rows.PICKLED if signed[name]}
                        row.update(**signed | texts)
        failure_entries.add(outcomes)
    return cancelled


@contextmanager
def _row_before(row: Any) -> Iterator[_Row | None]:
    """Keep the one row that an earlier delivery left as it is in the block, if there is one. Yield its kind."""
    kind = _kind(row)
    if kind is not _Row.FAILURE:  # such a row never changes; if there is none, a second insert fails
        yield kind
        return
    with in_patient_transaction():
        yield _kind(row.select_for_update())


def _kind(row: Any) -> _Row | None:
    stored = task_rows.as_texts(row, ["result"]).values_list("success", "stored_result").first()
    if stored is None:
        return None
    success, result = stored
    if success:
        return _Row.SUCCESS
    return _Row.CANCELLED if CANCELLED_MARK in (result or "")[:_CANCELLED_REACH] else _Row.FAILURE


@contextmanager
def _plain_tables(schema: str) -> Iterator[None]:
    """Make sure that saving a row in the block runs no code of another role. Raises `ForeignCode`.

    This costs a transaction if another role owns the tenant's tables, and nothing otherwise.
    """
    if plain_tables_query([schema]) is None:
        yield
        return
    with in_patient_transaction():
        require_plain_tables([schema], Task._meta.db_table)
        yield
