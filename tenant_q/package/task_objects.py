"""Tasks whose paths lead to an object of another API instead of a function: the tasks of `django.tasks`.

What such an API needs beside a task travels in its package, under one key: its record. It is kept in the row of the
finished task too, where other readers do not see it: as a second pickle behind that of the keyword arguments, under the
same signature. The module that implements the API registers itself when it is imported, so that projects without it
never import it.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package

RECORD = "django_task"
"""The key of the record in a package."""
_IMPLEMENTATION = "tenant_q.django_tasks.execution"


class Kind(Protocol):
    """The implementation of such an API."""

    def runner(self, found: object) -> Callable[..., Any] | None:
        """Return what runs the object that a path leads to; None if it is not a task of the API."""

    def recorded(self, outcome: Outcome) -> Outcome:
        """Return the outcome with this start in the record of its package. Other outcomes stay as they are."""

    def finish(self, outcome: Outcome) -> None:
        """Announce the end of a task of the API, whose outcome is saved."""


_kinds: list[Kind] = []


def register(kind: Kind) -> None:
    """Register the implementation of task objects."""
    _kinds[:] = [kind]


def runner_of(found: object) -> Callable[..., Any] | None:
    """Return what runs the object that a task's path leads to; None if it is no task object."""
    return next((runner for kind in _kinds if (runner := kind.runner(found)) is not None), None)


def runner_at(path: str) -> Callable[..., Any] | None:
    """Return what runs the task object at a path, whose module must be loaded; None if there is none."""
    if not _kinds:
        return None
    module, _, name = path.rpartition(".")
    return runner_of(getattr(sys.modules.get(module), name, None))


def has_record(package: Package) -> bool:
    """Return whether a package is one of a task object."""
    return RECORD in package.task


def recorded(outcome: Outcome) -> Outcome:
    """Return an outcome with its start in the record of the package if it is one of a task object."""
    if not _kinds and has_record(outcome.package):
        importlib.import_module(_IMPLEMENTATION)  # the task's own module was not imported, which failed it
    for kind in _kinds:
        outcome = kind.recorded(outcome)
    return outcome


def finish(outcome: Outcome) -> None:
    """Announce the end of the task if it is a task object. Its outcome must be saved, and its tenant be current."""
    if has_record(outcome.package):
        if not _kinds:
            importlib.import_module(_IMPLEMENTATION)
        for kind in _kinds:
            kind.finish(outcome)


def with_record_of(package: Package, source: Package) -> Package:
    """Return a package with the record of a task object that `source` has, if it has one."""
    return Package(package.task | {RECORD: source.task[RECORD]}) if has_record(source) else package


def pickled_record(package: Package) -> bytes:
    """Return the record of a task object as a row stores it behind another pickle; empty for other packages."""
    record = package.task.get(RECORD)
    if record is None:
        return b""
    starts = record["starts"]
    if starts and starts[-1].get("traceback"):  # the row's result has it
        record = record | {"starts": [*starts[:-1], starts[-1] | {"traceback": ""}]}
    return pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL)


def record_behind(pickled: bytes) -> Mapping[str, Any] | None:
    """Return the record of a task object from a pickle that a row stores; None if it has none.

    Args:
        pickled: The content of a column whose signature fits.
    """
    stream = io.BytesIO(pickled)
    try:
        pickle.load(stream)
        record = pickle.load(stream)
    except Exception:  # no second pickle, or a class in the first one is gone
        return None
    return record if isinstance(record, dict) else None
