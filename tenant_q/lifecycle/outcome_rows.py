"""Build the row of an outcome.

Values that a column or a pickle cannot hold are shortened or replaced by their text, so that one row does not delay the
other rows of its tenant.
"""

from __future__ import annotations

import pickle
from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from django_q.models import Task

from tenant_q.brokers.protocol import CANCELLED
from tenant_q.conf import conf
from tenant_q.exceptions import TaskCancelled
from tenant_q.lifecycle.row_signing import RowSigner, tenant_of
from tenant_q.package.options import LONGEST
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package

COLUMNS = (
    "id", "name", "func", "hook", "args", "kwargs", "result", "group",
    "cluster", "started", "stopped", "success", "attempt_count",
)  # fmt: skip

# The beginning of a cancelled task's result, as base64 of its pickle. The text starts at byte 7, 13 or 16, depending on
# its length, so its first two bytes share a group of base64 with other bytes.
CANCELLED_MARK = b64encode(f"{CANCELLED}:"[2:].encode()).decode()

# A schema, and the key of the tenant that has it; None where no key is known.
Owner = tuple[str, str | None]
# Identifies a package among those of all tenants: its schema and id.
Key = tuple[str, str]


def owner_of(outcome: Outcome) -> Owner:
    """Return the tenant in whose table an outcome is saved."""
    return outcome.package.schema, outcome.package.tenant or None


def wants_row(outcome: Outcome) -> bool:
    """Return whether an outcome leaves a row: a failure always, a success unless it is cached or not to be saved."""
    if outcome.is_saved:
        return False
    if not outcome.success or outcome.package.is_transactional:
        return True
    if outcome.package.is_iter_part or outcome.package.cached:
        return False
    return bool(outcome.package.option("save", conf().save_limit >= 0))


def as_task(outcome: Outcome) -> Task:
    """Return an unsaved instance of Django-Q2's model for an outcome, which hooks and `post_save` receivers get."""
    package = outcome.package
    return Task(
        id=package.id,
        name=package.name,
        func=package.stored_func,
        hook=package.option("hook"),
        args=package.args,
        kwargs=package.kwargs,
        result=outcome.result,
        group=package.group,
        cluster=package.option("cluster") or conf().cluster,
        started=outcome.started,
        stopped=outcome.stopped,
        success=outcome.success,
        attempt_count=outcome.attempt,
    )


def unique(outcomes: Iterable[Outcome]) -> Iterable[Outcome]:
    """Return one outcome for each id: its first success or cancel, or else its last failure."""
    unique: dict[str, Outcome] = {}
    for outcome in outcomes:
        before = unique.get(outcome.package.id)
        if before is None or not (before.success or before.death == TaskCancelled.__name__):
            unique[outcome.package.id] = outcome
    return unique.values()


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return the values that are written for an outcome, by column."""
    package = outcome.package
    return {
        "id": package.id,
        "name": _storable("name", package.name),
        "group": _storable("group", package.group),
        "started": outcome.started.isoformat(),
        "stopped": outcome.stopped.isoformat(),
        "success": outcome.success,
        "attempt_count": outcome.attempt,
        **signed_values(package, package.args, package.kwargs, outcome.result),
    }


def signed_values(package: Package, args: Any, kwargs: Any, result: Any) -> dict[str, str | None]:
    """Return the pickled columns with their signatures, and the columns that the signatures cover.

    Args:
        package: The package of the row.
        args: The positional arguments to store.
        kwargs: The keyword arguments to store.
        result: The result to store.

    Returns:
        The values by column.
    """
    func, hook = _storable("func", package.stored_func), _storable("hook", package.stored_hook)
    cluster = _storable("cluster", package.option("cluster") or conf().cluster)
    signer = RowSigner(tenant_of(package), package.id, func, hook, cluster, package.origin)
    return {
        "func": func,
        "hook": hook,
        "cluster": cluster,
        "args": signer.sign("args", _pickled(args)),
        "kwargs": signer.sign("kwargs", _pickled(kwargs)),
        "result": None if result is None else signer.sign("result", _pickled(result)),
    }


def _storable(column: str, text: str | None) -> str | None:
    """Return a text that the column can hold: not too long, without zero bytes and halves of characters.

    Django-Q2's own `async_task` checks nothing, and a refused row delays the other rows of its tenant.
    """
    if text is None:
        return None
    return str(text)[: LONGEST[column]].replace("\0", "?").encode("utf-8", "replace").decode()


def pickled(value: Any) -> bytes:
    """Return the pickle that a column of a task row stores. Raises the errors of `pickle`."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _pickled(value: Any) -> bytes:
    """Return the pickle of a value, or of its `repr` if the task has made it unpicklable since."""
    try:
        return pickled(value)
    except Exception:
        return pickled(repr(value))


def as_pickled(value: Any) -> Any:
    """Return the value, or its `repr` if the task has made it unpicklable since."""
    try:
        pickled(value)
    except Exception:
        return repr(value)
    return value
