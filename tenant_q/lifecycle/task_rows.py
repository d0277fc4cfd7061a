"""Read the rows of tasks without unpickling a value that may have been written by someone else.

The pickled columns are deferred and read as text. A column with a valid signature is unpickled fully, any other column
only if it contains plain types, or not at all if `TENANT_Q["signed_results"]` is set.
"""

from __future__ import annotations

import pickle
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, TextField
from django.db.models.functions import Cast
from django_q.models import Task

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import UnsignedResult
from tenant_q.lifecycle import row_signing
from tenant_q.package.plain_pickles import load_plain

PICKLED = ("args", "kwargs", "result")


def rows() -> Any:
    """Return a queryset of the task rows of the current schema, whatever the project's routers say."""
    return Task.objects.using(tenancy.database_alias())


@dataclass(frozen=True, slots=True)
class Stored:
    """The value of a pickled column, or why it cannot be read.

    `is_signed` says that the signature fits. Then `origin` is who enqueued the task, or None if that is not known.
    """

    value: Any
    error: str = ""
    is_signed: bool = False
    origin: str | None = None


def as_texts(rows: Any, names: Iterable[str] = PICKLED) -> Any:
    """Return a queryset of task rows with the texts of pickled columns instead of their values.

    Args:
        rows: A queryset of tasks.
        names: The columns whose texts each task has, as `stored_<name>`.
    """
    return rows.defer(*PICKLED).annotate(**{f"stored_{name}": Cast(F(name), TextField()) for name in names})


def read(
    task: Any, name: str, *, schema: str | None = None, tenant: str | None = None, must_be_signed: bool = False
) -> Stored:
    """Return the value of a pickled column of a task's row. Never raises an error because of the value.

    Args:
        task: A row of `as_texts`.
        name: The column. NULL is None; in a signed row, only a result may be NULL.
        schema: The schema of the row; None for the current one.
        tenant: The key of its tenant; None for the one that has the schema now.
        must_be_signed: Whether the value of an unsigned column is None. Then it is not unpickled at all: to do so may
            take for ever, even if it contains plain types only.
    """
    text = getattr(task, f"stored_{name}")
    if text is None:
        return Stored(None, is_signed=name == "result")
    signed = row_signing.verified_column(text, name, task, schema or tenancy.current_schema(), tenant=tenant)
    if signed is None and must_be_signed:
        return Stored(None)
    try:
        if signed is None:
            return Stored(load_plain(b64decode(text)))
        return Stored(pickle.loads(signed.pickled), is_signed=True, origin=signed.origin)
    except Exception as error:  # whatever unpickling a class raises
        return Stored(None, f"{type(error).__name__}: {error}", signed is not None, signed.origin if signed else None)


def load(rows: Any, *, limit: int | None = None) -> list[Task]:
    """Return the tasks of a queryset of task rows, with the values of the pickled columns.

    Args:
        rows: A queryset of tasks of the current schema.
        limit: The largest number of tasks; None for all.

    Raises:
        UnsignedResult: A value is not signed, and `TENANT_Q["signed_results"]` is set.
    """
    if not conf().signed_results:
        return list(rows[:limit])
    return [_loaded(task) for task in as_texts(rows)[:limit]]


def load_success(rows: Any) -> list[Task]:
    """Return the tasks of a queryset of successful task rows, for deliveries whose task is already done.

    If `TENANT_Q["signed_results"]` is set, or if another role may write the rows, an unsigned value is None. The task
    still counts as done, so that nothing runs twice.
    """
    if not conf().signed_results and not tenancy.is_foreign(tenancy.current_schema()):
        return list(rows)
    return [_loaded(task, or_none=True) for task in as_texts(rows)]


def load_result(rows: Any) -> Any:
    """Return the result of the first of some task rows, as `load_success` loads it; None if there is no row."""
    return next((task.result for task in load_success(rows)), None)


def without_values(rows: Any) -> Any:
    """Return a queryset of task rows whose pickled columns are not loaded."""
    return rows.defer(*PICKLED)


def _loaded(task: Any, *, or_none: bool = False) -> Any:
    schema = tenancy.current_schema()
    for name in PICKLED:
        text = getattr(task, f"stored_{name}")
        signed = row_signing.verified_column(text, name, task, schema)
        if signed is None and text is not None and not or_none:
            raise UnsignedResult(
                f"Task {task.pk} of {schema} has a value that is not signed, and TENANT_Q['signed_results'] is set; "
                "enqueue it anew, or delete its row."
            )
        setattr(task, name, None if signed is None else _unpickled(signed.pickled, text))
        delattr(task, f"stored_{name}")
    return task


def _unpickled(pickled: bytes, text: str) -> Any:
    """Return the value of a signed column, or its text if its class no longer exists, as Django-Q2 does."""
    try:
        return pickle.loads(pickled)
    except Exception:
        return text
