"""Name the tenant in what sentry-sdk reports, if the project has set it up. Nothing here needs it to be installed.

Sentry groups an event with an exception by its class and its traceback. The record of a failure without an exception,
such as that of a worker that died, has the same text for every cause, so it is grouped by function and cause.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from tenant_q.support.visible import visible

# The tags of an event by the labels of a record. Sentry drops longer values.
_TAGS = {"schema": "tenant", "func": "func", "task_id": "task_id"}
_LONGEST_TAG = 200
# The label by which the record of a failure names its cause.
CAUSE = "cause"
_FLUSH_SECONDS = 2.0
_NOTHING: AbstractContextManager[None] = nullcontext()


def task_scope(labels: Mapping[str, str]) -> AbstractContextManager[None]:
    """Return a block for the run of a task: what Sentry gets from inside has the tags of the task.

    Breadcrumbs, tags and users that the task sets end with the block, and those of earlier tasks are not in it: they
    may be another tenant's.

    Args:
        labels: The labels of the task's log records.
    """
    sdk = _sdk()
    return _NOTHING if sdk is None else _isolated(sdk, labels)


def record_scope(labels: Mapping[str, Any], *, has_error: bool) -> AbstractContextManager[None]:
    """Return a block for writing a log record: the event that Sentry makes of the record has the tags of its labels.

    Args:
        labels: The labels of the record.
        has_error: Whether the record has an exception, by which Sentry groups it.
    """
    sdk = _sdk()
    return _NOTHING if sdk is None else _tagged(sdk, labels, has_error)


def flush() -> None:
    """Send the events that Sentry has not sent yet. Call it before a process ends: nothing runs at its exit."""
    sdk = _sdk()
    if sdk is not None:
        sdk.flush(timeout=_FLUSH_SECONDS)


@contextmanager
def _isolated(sdk: Any, labels: Mapping[str, str]) -> Iterator[None]:
    with sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        scope.set_transaction_name(visible(labels["func"]), source="task")
        _tag(scope, labels)
        yield


@contextmanager
def _tagged(sdk: Any, labels: Mapping[str, Any], has_error: bool) -> Iterator[None]:
    with sdk.new_scope() as scope:
        _tag(scope, labels)
        if CAUSE in labels and not has_error:
            scope.fingerprint = ["tenant_q", labels["func"], labels[CAUSE]]
        yield


def _tag(scope: Any, labels: Mapping[str, Any]) -> None:
    for label, tag in _TAGS.items():
        value = labels.get(label, "")
        if value not in ("", "-"):
            scope.set_tag(tag, visible(value)[:_LONGEST_TAG])


def _sdk() -> Any:
    """Return sentry-sdk, or None if the project has not set it up. A project that did has imported it."""
    sdk = sys.modules.get("sentry_sdk")
    # Version 1 has no scopes of this kind.
    return sdk if sdk is not None and hasattr(sdk, "isolation_scope") and sdk.is_initialized() else None
