"""Read task rows without unpickling a value that is not known to be ours.

The pickled columns are deferred and read as text. A column whose signature fits is loaded fully, any other one only as
far as plain types go, or not at all where `TENANT_Q["signed_results"]` is set.
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
    """Return the tasks of the current schema, on the tenants' connection, whatever the project's routers say."""
    return Task.objects.using(tenancy.database_alias())


@dataclass(frozen=True, slots=True)
class Stored:
    """What a pickled column holds, or why that cannot be read.

    `is_signed` says that the signature fits; then `origin` is who enqueued the task, or None when that is not known.
    """

    value: Any
    error: str = ""
    is_signed: bool = False
    origin: str | None = None


def as_texts(rows: Any, names: Iterable[str] = PICKLED) -> Any:
    """Return a queryset of tasks whose pickled columns are not loaded.

    Parameters: `names`, the columns of which each task has the text, as `stored_<name>`.
    """
    return rows.defer(*PICKLED).annotate(**{f"stored_{name}": Cast(F(name), TextField()) for name in names})


def read(task: Any, name: str) -> Stored:
    """Return what a pickled column of a row of `as_texts` holds. Never raises for what it holds.

    The row is one of the current schema. NULL is None; only a result may be NULL in a row that is signed.
    """
    text = getattr(task, f"stored_{name}")
    if text is None:
        return Stored(None, is_signed=name == "result")
    signed = row_signing.verified(text, name, task, tenancy.current_schema())
    try:
        if signed is None:
            return Stored(load_plain(b64decode(text)))
        return Stored(pickle.loads(signed.pickled), is_signed=True, origin=signed.origin)
    except Exception as error:  # whatever unpickling a class raises
        return Stored(None, f"{type(error).__name__}: {error}", signed is not None, signed.origin if signed else None)


def load(rows: Any, *, limit: int | None = None) -> list[Task]:
    """Return a queryset's tasks with their values, at most `limit` of them.

    Where `TENANT_Q["signed_results"]` is set, a value that is not signed is not loaded: it raises `UnsignedResult`.
    """
    if not conf().signed_results:
        return list(rows[:limit])
    return [_loaded(task) for task in as_texts(rows)[:limit]]


def load_success(rows: Any) -> list[Task]:
    """Return a queryset's successes with their values, for deliveries that find their task done.

    Where `TENANT_Q["signed_results"]` is set, and where another role may write the rows, a value that is not signed is
    None: the task counts as done all the same, so that nothing runs twice.
    """
    if not conf().signed_results and not tenancy.is_foreign(tenancy.current_schema()):
        return list(rows)
    return [_loaded(task, or_none=True) for task in as_texts(rows)]


def load_result(rows: Any) -> Any:
    """Return the result of a queryset's first task, as `load_success` has it; None when there is no task."""
    return next((task.result for task in load_success(rows)), None)


def without_values(rows: Any) -> Any:
    """Return a queryset of tasks whose pickled columns are not loaded."""
    return rows.defer(*PICKLED)


def _loaded(task: Any, *, or_none: bool = False) -> Any:
    schema = tenancy.current_schema()
    for name in PICKLED:
        text = getattr(task, f"stored_{name}")
        signed = row_signing.verified(text, name, task, schema)
        if signed is None and text is not None and not or_none:
            raise UnsignedResult(
                f"Task {task.pk} of {schema} has a value that is not signed, and TENANT_Q['signed_results'] is set; "
                "enqueue it anew, or delete its row."
            )
        setattr(task, name, None if signed is None else _unpickled(signed.pickled, text))
        delattr(task, f"stored_{name}")
    return task


def _unpickled(pickled: bytes, text: str) -> Any:
    """Return the value, or the text of one whose class is gone, as Django-Q2 does."""
    try:
        return pickle.loads(pickled)
    except Exception:
        return text
