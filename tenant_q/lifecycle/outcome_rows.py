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
from tenant_q.lifecycle.row_signing import RowSigner, signed_tenant
from tenant_q.package import task_objects
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
    """Return the tenant in whose table an outcome has its row."""
    return outcome.package.schema, outcome.package.tenant or None


def wants_row(outcome: Outcome) -> bool:
    """Return whether an outcome wants a row: a failure always, a success unless it is cached or not to be saved."""
    if outcome.is_saved:
        return False
    if not outcome.success or outcome.package.is_transactional:
        return True
    if outcome.package.is_iter_part or outcome.package.cached:
        return False
    return bool(outcome.package.option("save", conf().save_limit >= 0))


def as_task(outcome: Outcome) -> Task:
    """Return an outcome's row as an unsaved instance of Django-Q2's model, as hooks and receivers get it."""
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
    """Return the outcomes that get rows, one for each id: its first success or cancel, or else its last failure."""
    unique: dict[str, Outcome] = {}
    for outcome in outcomes:
        before = unique.get(outcome.package.id)
        if before is None or not (before.success or before.death == TaskCancelled.__name__):
            unique[outcome.package.id] = outcome
    return unique.values()


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return the row of an outcome: the values that are written, by column."""
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
    """Return the pickled columns of an outcome's row with their signatures, and the columns that these cover.

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
    signer = RowSigner(signed_tenant(package), package.id, func, hook, cluster, package.origin)
    return {
        "func": func,
        "hook": hook,
        "cluster": cluster,
        "args": signer.sign("args", _pickled(args)),
        "kwargs": signer.sign("kwargs", _pickled(kwargs) + task_objects.pickled_record(package)),
        "result": None if result is None else signer.sign("result", _pickled(result)),
    }


def _storable(column: str, text: str | None) -> str | None:
    """Return a text that a column of a row can hold: not too long, without zero bytes and halves of characters.

    Django-Q2's own `async_task` checks nothing, and a refused row delays the other rows of its tenant.
    """
    if text is None:
        return None
    return str(text)[: LONGEST[column]].replace("\0", "?").encode("utf-8", "replace").decode()


def pickled(value: Any) -> bytes:
    """Return the pickle that a row stores for a value of an outcome. Raises the errors of `pickle`."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _pickled(value: Any) -> bytes:
    """Return the pickle of an outcome's value, or of its `repr` if the task has made it unpicklable since."""
    try:
        return pickled(value)
    except Exception:
        return pickled(repr(value))


def as_pickled(value: Any) -> Any:
    """Return a value that an outcome's row can store: itself, or its `repr` if it cannot be pickled any more."""
    try:
        pickled(value)
    except Exception:
        return repr(value)
    return value
